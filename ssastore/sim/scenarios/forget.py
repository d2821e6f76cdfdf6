"""Forget: deletes, long pauses in which all planes drop what was deleted together, and then the next calls.

Tombstones are kept for some twenty seconds instead of an hour, which is still longer than
any call and the skew of clocks together.
"""

from __future__ import annotations

from ssastore.core.tools import UpkeepRules
from ssastore.limits import REACH_SKEW_MS
from ssastore.sim.clock import NS_PER_MS
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm, draw_swarm
from ssastore.sim.workload import Shape

TOMBSTONE_KEPT_MS = 20_000
DEADLINE_MS = 5_000

assert TOMBSTONE_KEPT_MS > DEADLINE_MS + REACH_SKEW_MS

_ROUNDS = 3
_KINDS = ("reset", "one_way", "cut", "isolate", "pause", "kill", "power_off", "disk_stall")


async def play(stage: Stage) -> None:
    await stage.open()
    draw = stage.world.stream("forget")
    for _ in range(_ROUNDS):
        stage.faults.start()
        await stage.work()
        if draw.chance(0.7):
            stage.faults.stop()  # Planes drop a record only when all of them can be reached.
        await stage.pause(TOMBSTONE_KEPT_MS / 1000 * draw.uniform(1.0, 1.6))
    stage.calm()
    await stage.work()


def swarm(seed: int) -> Swarm:
    """Faults of network and processes, not all the time."""
    drawn = draw_swarm(seed, _KINDS)
    draw = Stream(seed, "forget swarm")
    drawn.lag_ns_max = 0
    drawn.every_ns = draw.choice((50, 300, 2000)) * NS_PER_MS
    drawn.lasting_ns = draw.choice((50, 500, 5000)) * NS_PER_MS
    drawn.drift_ppm = min(drawn.drift_ppm, 100)  # A minute of ten percent is all the skew there may be.
    drawn.lost_percent = draw.choice((0, 0, 10))
    return drawn


def shape(seed: int) -> Shape:
    """A third are deletes."""
    draw = Stream(seed, "forget shape")
    return Shape(
        keys=draw.randint(2, 5),
        clients=draw.randint(3, 5),
        operations=draw.randint(16, 24),
        weights=(3, 4, 4),
        conditional_percent=draw.choice((30, 60)),
        pause_percent=20,
    )


SCENARIO = Scenario(
    "forget",
    "deletes that all planes forget together, between rounds of calls",
    play,
    swarm,
    shape,
    deadline_ms=DEADLINE_MS,
    rules=UpkeepRules(tombstone_kept_ms=TOMBSTONE_KEPT_MS, scrub_first_s=float("inf")),
)
