"""Safety: whatever fails, nobody is told anything that one register could not have said.

Every kind of fault, in a drawn mixture, from before the first call to after the last.
What could not be done is no failure here; what was told must be true.
"""

from __future__ import annotations

from ssastore.sim.clock import NS_PER_MS
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm, draw_swarm
from ssastore.sim.workload import Shape


async def play(stage: Stage) -> None:
    await stage.open()
    stage.faults.start()
    await stage.work()
    stage.calm()


def swarm(seed: int) -> Swarm:
    """All faults, so close together that a short run has some."""
    drawn = draw_swarm(seed)
    drawn.lag_ns_max = 0  # Routes do not change here.
    draw = Stream(seed, "closeness")
    drawn.every_ns = draw.choice((10, 30, 100, 300)) * NS_PER_MS
    drawn.lasting_ns = draw.choice((20, 200, 1000, 4000)) * NS_PER_MS
    return drawn


def shape(seed: int) -> Shape:
    """60 to 80 calls of 3 to 5 clients on 10 to 20 keys, or on two to four that all fight for."""
    draw = Stream(seed, "shape")
    drawn = Shape(
        keys=draw.randint(10, 20),
        clients=draw.randint(3, 5),
        operations=draw.randint(60, 80),
        hot_percent=draw.choice((20, 60, 80)),
        weights=draw.choice(((5, 4, 1), (3, 6, 1), (6, 3, 2))),
        conditional_percent=draw.choice((30, 60, 90)),
        pause_percent=draw.choice((0, 30, 60)),
    )
    if draw.chance(0.25):
        drawn.keys = draw.randint(2, 4)
    return drawn


SCENARIO = Scenario("safety", "all faults at once; what was told must be linearizable", play, swarm, shape)
