"""Bits rot and blobs vanish on one plane at a time, beside all that ``gc`` has.

No wrong byte may be served; once nothing else fails, what is rotten is repaired within thirty virtual
seconds, or swept when nothing names it any more (``upkeep.HEALED_S``); in the end the planes are equal.
"""

from __future__ import annotations

from ssastore.env import spawn
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.upkeep import (
    DEADLINE_MS,
    RULES,
    Damage,
    UpkeepRegister,
    settle_down,
    shape,
    swarm,
    work_in_bursts,
)


async def play(stage: Stage) -> None:
    await stage.open()
    stage.faults.start()
    damage = spawn("damage", Damage(stage).run())
    await work_in_bursts(stage)
    damage.cancel()
    stage.calm()
    await settle_down(stage)


SCENARIO = Scenario(
    "scrub",
    "bits rot and blobs vanish while nodes are away",
    play,
    swarm,
    shape,
    nodes=4,
    deadline_ms=DEADLINE_MS,
    rules=RULES,
    register=UpkeepRegister,
)
