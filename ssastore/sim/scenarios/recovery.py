"""Nodes lose their state, one after the other, while clients work: nothing is lost, nothing forks.

Each round takes one node and does one of these to it:

    wipe      its disk is empty when it starts again
    image     a copy of its disk from before its last start is put back
    lying     its disk forgets what it has acknowledged since a moment before the last mark that it told
    zombie    a second host comes up under its name, with an empty disk; the old one lives on, cut off
              from the control store, and half of all hosts go on sending to it
    alone     wiped, and one of its mates is down for a while: it must wait
    outage    wiped, and the control store is away when it starts

The next round begins when every slice votes again, so after a few of them what is left was
copied more than once.  A round that does not end is a failure of liveness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ssastore.core.marks import mark_name
from ssastore.sim.cluster import StoreHost
from ssastore.sim.scenarios.safety import large_shape
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm, draw_swarm
from ssastore.sim.workload import Shape
from ssastore.store.memory import Records

WAYS = ("wipe", "image", "lying", "zombie", "alone", "outage")

BOUND_S = 120
"Virtual time in which a node must be whole again, once what held it up is over."

_ROUNDS_MAX = 3
_MARKED_S = 15
_FAULTS = ("reset", "cut", "one_way", "clog", "pause", "disk_stall")
"What happens besides. Nothing that takes a second node's state away."


async def play(stage: Stage, ways: tuple[str, ...] = WAYS) -> None:
    await stage.open()
    await stage.pause(1)
    draw = stage.world.stream("recovery")
    stage.faults.start()
    images = {node.name: node.disk.image() for node in stage.cluster.nodes}
    for number in range(draw.randint(1, _ROUNDS_MAX)):
        work = stage.start_work()
        await stage.pause(draw.uniform(0.01, 0.8))
        node, way = draw.choice(stage.cluster.nodes), draw.choice(ways)
        stage.world.loop.note(f"round {number}: {node.name}, {way}")
        undo = await _lose(stage, node, way, draw, images)
        await stage.pause(draw.uniform(0.01, 1.0))
        for back in undo:
            back()
        await until_whole(stage, f"round {number} ({node.name}, {way})")
        await asyncio.gather(*work)
    await stage.work()
    stage.calm()


async def _lose(
    stage: Stage, node: StoreHost, way: str, draw: Stream, images: dict[str, Records]
) -> list[Callable[[], None]]:
    """Take a node's state away and start it again; what ends the rest of it."""
    if way == "zombie":
        return replace_node(stage, node, draw)
    undo: list[Callable[[], None]] = []
    node.host.resume()
    image = None
    if way == "image":
        image = images[node.name]
        if node.host.is_running:
            node.host.power_off()
        node.host.start()
        while node.engine is None:  # A start that was told is what gives the copy away.
            await stage.pause(0.05)
    if way == "lying":
        image = node.disk.image()
        await _until_marked(stage, node)
    if node.host.is_running:
        node.host.power_off()
    node.disk.restore(image)
    if way == "outage":
        stage.cluster.control_network.is_down = True
        undo.append(lambda: setattr(stage.cluster.control_network, "is_down", False))
    if way == "alone":
        mate = draw.choice([other for other in stage.cluster.nodes if other is not node])
        mate.host.resume()
        if mate.host.is_running:
            mate.host.power_off()
            undo.append(mate.host.start)
    node.host.start()
    return undo


def replace_node(stage: Stage, node: StoreHost, draw: Stream) -> list[Callable[[], None]]:
    """A second host takes a node's name, and the first does not know."""
    routing = stage.world.network.routing
    twin = stage.cluster.add_twin(node)
    routing.follow(twin.host.name, node.host.name)  # Other nodes may have twins from the rounds before.
    hosts = list(stage.world.network.hosts.values())
    led = [
        routing.mislead(host.name, node.name, twin.host.name)
        for host in hosts
        if host is twin.host or draw.chance(0.5)
    ]
    node.line.is_down = True
    twin.host.start()

    def settle() -> None:
        for back in led:
            back()
        for host in hosts:
            routing.mislead(host.name, node.name, twin.host.name)
        node.host.resume()
        if node.host.is_running:
            node.host.power_off()
        stage.cluster.nodes[stage.cluster.nodes.index(node)] = twin

    return [settle]


async def _until_marked(stage: Stage, node: StoreHost) -> None:
    """Wait until the node has told a mark that its disk does not show yet; not for ever: it may be idle."""
    assert node.engine is not None
    name = mark_name(node.engine.environment.env_id)
    before = await stage.cluster.control.get(name)
    deadline_s = stage.now_s + _MARKED_S
    work = stage.start_work()
    while stage.now_s < deadline_s and await stage.cluster.control.get(name) == before:
        await stage.pause(0.1)
    await asyncio.gather(*work)


async def until_whole(stage: Stage, what: str, nodes: Sequence[StoreHost] = ()) -> None:
    """Wait until every slice of every node votes, or of some of them."""
    deadline_s = stage.now_s + BOUND_S
    nodes = nodes or stage.cluster.nodes
    while stage.now_s < deadline_s:
        engines = [node.engine for node in nodes]
        if all(engine is not None and not engine.custody.states for engine in engines):
            return
        await stage.pause(0.05)
    silent = {
        node.name: node.engine.custody.describe()["silent"] if node.engine is not None else "does not run"
        for node in nodes
    }
    stage.stuck.append(f"{what}: not whole within {BOUND_S} virtual s: {silent}")


def swarm(seed: int) -> Swarm:
    """Faults of the network and pauses, from a drawn mixture."""
    drawn = draw_swarm(seed, _FAULTS)
    drawn.lag_ns_max = 0
    drawn.weather.refused_share = 0.0
    return drawn


def shape(seed: int) -> Shape:
    """A few calls a round: the checker wants no more than a hundred on a key."""
    drawn = large_shape(seed)
    drawn.operations, drawn.keys, drawn.hot_percent = 30, max(drawn.keys, 6), min(drawn.hot_percent, 40)
    return drawn


SCENARIO = Scenario(
    "recovery", "nodes lose their state and come back, one after the other", play, swarm, shape, nodes=4
)
