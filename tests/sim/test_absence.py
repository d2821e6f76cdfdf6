"""A node is gone for good and nobody is there to say so: the elected coordinator has its slices recovered.

One who takes part is killed at one of the steps on the way: the coordinator, a node that gets a slice, or one
that has another plane of it.  All slices end ACTIVE, none at the node that is gone; every call was
answered rightly, and nothing that was acknowledged is lost.  ``SSASTORE_SOAK_MATRIX=3`` plays all cases,
three times.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ssastore.core.groups import ACTIVE, GROUP_PREFIX, GroupRecord, PlaneOwner
from ssastore.core.membership import ABSENT_PREFIX
from ssastore.core.orders import REPLACE_PREFIX
from ssastore.core.settings import RECOVERY_SETTINGS_KEY, RecoverySettings
from ssastore.env import Write
from ssastore.keyspace import GROUPS
from ssastore.sim.cluster import Parts
from ssastore.sim.fabric import Fabric
from ssastore.sim.runner import tell
from ssastore.sim.scenarios import scenarios
from ssastore.sim.stage import Stage, play_seed
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import Shape
from tests.sim.test_kill_matrix import Coordinators

TIMES = int(os.environ.get("SSASTORE_SOAK_MATRIX", "0"))
SHAPE = Shape(keys=5, clients=3, operations=40, conditional_percent=30, pause_percent=90)
AFTER_S = 10
BOUND_S = 300
LOOK_EVERY_S = 0.02
WHO = ("coordinator", "another")
SHORT = [("coordinator", "ordered", 0)]
"One of the cases takes six seconds of CPU: thousands of slices are recovered."


async def planes(stage: Stage) -> list[tuple[int, int, PlaneOwner]]:
    """Group, plane, and who has it, of all."""
    items, _ = await stage.cluster.control.list(GROUP_PREFIX)
    records = [GroupRecord.decode(item.value) for item in items]
    return [(r.group, plane, found) for r in records for plane, found in enumerate(r.planes)]


async def is_missed(stage: Stage) -> bool:
    return bool((await stage.cluster.control.list(ABSENT_PREFIX))[0])


async def is_ordered(stage: Stage) -> bool:
    return bool((await stage.cluster.control.list(REPLACE_PREFIX))[0])


async def is_begun(stage: Stage) -> bool:
    return any(found.state != ACTIVE for _, _, found in await planes(stage))


async def is_partly_done(stage: Stage) -> bool:
    return any(found.state == ACTIVE and found.epoch > 1 for _, _, found in await planes(stage))


STEPS: dict[str, Callable[[Stage], Awaitable[bool]]] = {
    "missed": is_missed,
    "ordered": is_ordered,
    "begun": is_begun,
    "partly done": is_partly_done,
}


CASES = [(who, step, seed) for who in WHO for step in STEPS for seed in range(TIMES)] or SHORT


@pytest.mark.parametrize(("who", "step", "seed"), CASES)
def test_what_a_dead_node_had_is_recovered_whoever_is_killed_meanwhile(
    who: str, step: str, seed: int
) -> None:
    async def die_and_kill(stage: Stage) -> None:
        await stage.open()
        Fabric(stage.cluster)
        settings = RecoverySettings(AFTER_S).encode()
        await stage.cluster.control.transact([], [Write(RECOVERY_SETTINGS_KEY, settings)])
        coordinators = Coordinators(stage)
        for host in coordinators.hosts:
            host.start()
        elected = await coordinators.elected()
        await stage.work()
        work = stage.start_work()
        draw = stage.world.stream("lost")
        lost, other = draw.sample(stage.cluster.nodes, 2)
        lost.host.power_off()
        while not await STEPS[step](stage):
            await stage.pause(LOOK_EVERY_S)
        victim = elected if who == "coordinator" else other.host
        victim.kill()
        await stage.pause(draw.uniform(0.1, 3.0))
        if who != "coordinator":
            victim.start()
        deadline_s = stage.now_s + BOUND_S
        while stage.now_s < deadline_s:
            found = [plane for _, _, plane in await planes(stage)]
            if all(plane.owner != lost.name and plane.state == ACTIVE for plane in found):
                break
            await stage.pause(0.5)
        else:
            stage.stuck.append(f"{who} killed when {step}: not recovered within {BOUND_S} virtual s")
        await asyncio.gather(*work)
        await stage.work()
        owners = Counter(plane.owner for _, _, plane in await planes(stage))
        if sum(owners.values()) != 3 * GROUPS or lost.name in owners:
            stage.broken.append(f"owned in the end: {owners}")

    scenario = replace(scenarios()["move"], replicas=3, nodes=5, play=die_and_kill)
    played = play_seed(scenario, seed, parts=Parts(gives_signs=True), swarm=Swarm(commit_ms=1), shape=SHAPE)
    assert played.is_good, tell(played)
