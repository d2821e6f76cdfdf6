"""Deletes are forgotten and blobs swept under faults that last longer than a delete is remembered.

Nothing deleted may come back, no call may be applied twice because what it had done was
forgotten, no blob may go that an object needs; and the space must come back in the end.
"""

from __future__ import annotations

from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.upkeep import DEADLINE_MS, RULES, UpkeepRegister, settle_down, shape, swarm, work_in_bursts


async def play(stage: Stage) -> None:
    await stage.open()
    stage.faults.start()
    await work_in_bursts(stage)
    stage.calm()
    await settle_down(stage)


SCENARIO = Scenario(
    "gc",
    "deletes are forgotten and blobs swept while nodes are away",
    play,
    swarm,
    shape,
    nodes=4,
    deadline_ms=DEADLINE_MS,
    rules=RULES,
    register=UpkeepRegister,
)
