"""Zombie: a node is replaced while it lives on, and a few keys are written all the time.

A second host comes up under a node's name with an empty disk; the first is cut off from the
control store, and half of all hosts go on sending to it.  Both may be in a majority with
the same mates: this is where a recovery that leaves out a step shows.
"""

from __future__ import annotations

import asyncio

from ssastore.sim.clock import NS_PER_MS
from ssastore.sim.scenarios.recovery import replace_node, until_whole
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm, draw_swarm
from ssastore.sim.workload import Shape


async def play(stage: Stage) -> None:
    await stage.open()
    draw = stage.world.stream("zombie")
    stage.faults.start()
    work = stage.start_work()
    await stage.pause(draw.uniform(0.05, 0.5))
    node = draw.choice(stage.cluster.nodes)
    undo = replace_node(stage, node, draw)
    await asyncio.gather(*work)
    work = stage.start_work()
    await stage.pause(draw.uniform(0.5, 3.0))
    for back in undo:
        back()
    await until_whole(stage, node.name)
    await asyncio.gather(*work)
    stage.calm()


def swarm(seed: int) -> Swarm:
    """A network that loses and delays, and nobody else who fails."""
    drawn = draw_swarm(seed, ("reset", "pause"))
    draw = Stream(seed, "zombie swarm")
    drawn.lag_ns_max = 0
    drawn.weather.refused_share = 0.0
    drawn.weather.bytes_per_s = 0
    drawn.lasting_ns = draw.choice((20, 100, 500)) * NS_PER_MS
    drawn.lost_percent = draw.choice((0, 10, 30))
    drawn.commit_ms = draw.choice((0, 1, 5))
    return drawn


def shape(seed: int) -> Shape:
    """Everybody at two to four keys, with pauses: the calls last as long as the recovery does."""
    draw = Stream(seed, "zombie shape")
    return Shape(
        keys=draw.randint(2, 4),
        clients=5,
        operations=45,
        weights=draw.choice(((4, 5, 1), (3, 5, 2), (1, 1, 0))),
        conditional_percent=draw.choice((0, 30, 70)),
        pause_percent=draw.choice((50, 80)),
    )


SCENARIO = Scenario("zombie", "a node is replaced while it lives on", play, swarm, shape, nodes=4)
