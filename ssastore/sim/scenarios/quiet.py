"""Quiet: nothing fails, so nothing may be unknown, unavailable or slow."""

from __future__ import annotations

from ssastore.sim.scenarios.safety import large_shape
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm

_CALM = frozenset(("done", "absent", "condition failed"))


async def play(stage: Stage) -> None:
    await stage.open()
    await stage.work()
    stage.stuck += [
        f"{count} calls ended {outcome!r} although nothing failed"
        for outcome, count in stage.told.outcomes.items()
        if outcome not in _CALM
    ]


SCENARIO = Scenario("quiet", "no faults; every call must succeed", play, lambda seed: Swarm(), large_shape)
