"""Liveness: once the faults have stopped and a majority of every group is whole, everything gets done.

In every other seed one node never comes back: it stays dead, cut off or standing still.  The
others are a majority of the planes of every group, and that must be enough.
"""

from __future__ import annotations

import asyncio

from ssastore.judge.history import Kind
from ssastore.sim.host import Host
from ssastore.sim.scenarios.safety import shape
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import FAULTS, Swarm, draw_swarm

BOUND_S = 60
"Of virtual time, from the end of the faults."

_NEW_CALLS = 4
"Of each client, on a key of its own."


async def play(stage: Stage) -> None:
    await stage.open()
    stage.faults.start()
    work = stage.start_work()
    draw = stage.world.stream("liveness")
    await asyncio.sleep(draw.uniform(0.5, 4.0))
    stage.calm()
    if draw.chance(0.5):
        _lose(stage, draw.choice(stage.hosts), draw)
    await stage.within(BOUND_S, "pending calls", work)
    new = [
        stage.on(client, f"new calls of client{client}", _new_calls(stage, client))
        for client in range(len(stage.clients))
    ]
    await stage.within(BOUND_S, "new calls", new)


def _lose(stage: Stage, host: Host, draw: Stream) -> None:
    """Let one node be of no use any more, in one of the ways there are."""
    way = draw.choice(("power", "pause", "cut"))
    stage.world.loop.note(f"{host.name} is lost for good: {way}")
    others = [other for other in stage.world.network.hosts.values() if other is not host]
    if way == "cut":
        stage.world.network.cut([host], others)
        stage.world.network.cut(others, [host])
    elif way == "pause":
        host.pause()
    elif host.is_running:
        host.power_off()


async def _new_calls(stage: Stage, client: int) -> None:
    """Calls that must succeed: tried again until they do."""
    register = stage.registers[client]
    for number in range(_NEW_CALLS):
        kind = Kind.PUT if number % 2 == 0 else Kind.GET
        while True:
            done = await register.call(f"new{client}", kind)
            if done is not None and done.is_answered:
                break


def swarm(seed: int) -> Swarm:
    """All faults but rot, which is for good: a rotten plane and a lost node can be a majority."""
    drawn = draw_swarm(seed, tuple(kind for kind in FAULTS if kind != "rot"))
    drawn.lag_ns_max = 0
    drawn.weather.refused_share = 0.0
    return drawn


SCENARIO = Scenario(
    "liveness", f"the faults stop; everything must be done {BOUND_S} virtual s later", play, swarm, shape
)
