"""Groups of three planes get five while clients use them: the same steps as from one to three."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ssastore.core.groups import ACTIVE, GroupRecord, group_key
from ssastore.core.numbers import slice_number
from ssastore.core.ordering import change_order
from ssastore.core.orders import widen_name
from ssastore.sim.fabric import Fabric
from ssastore.sim.runner import quiet
from ssastore.sim.scenarios import scenarios
from ssastore.sim.scenarios.recovery import until_whole
from ssastore.sim.stage import Stage, play_seed

PLANES = 5


async def _record(stage: Stage, group: int) -> GroupRecord:
    item = await stage.cluster.control.get(group_key(group))
    assert item is not None
    return GroupRecord.decode(item.value)


async def widen(stage: Stage) -> None:
    await stage.open()
    fabric = Fabric(stage.cluster)
    await stage.work()
    stage.faults.start()
    keys = [key for node in stage.cluster.nodes for key in node.disk.contents.keys]
    groups = sorted({int.from_bytes(key[:2], "big") & 0xFFF for key in keys if key[0] >> 4 < 3})
    work = stage.start_work()
    for group in groups:
        owners = (await _record(stage, group)).owners
        others = [node.name for node in stage.cluster.nodes if node.name not in owners]
        for plane, target in enumerate(others[:2], 3):
            order = {slice_number(plane, group): owners[0]}
            await change_order(stage.cluster.control, widen_name(target, 0), added=order)
    await stage.pause(5)
    stage.calm()
    deadline_s = stage.now_s + 180
    while stage.now_s < deadline_s:
        records = [await _record(stage, group) for group in groups]
        if all(len(r.planes) == PLANES and all(p.state == ACTIVE for p in r.planes) for r in records):
            break
        await stage.pause(0.1)
    else:
        stage.stuck.append("not every group has five planes")
    await until_whole(stage, "the end")
    await asyncio.gather(*work)
    await stage.work()
    stage.figures["planes"] = fabric.added


@pytest.mark.parametrize("seed", range(4))
def test_three_replicas_become_five(seed: int) -> None:
    scenario = replace(scenarios()["replicas"], replicas=3, nodes=6, play=widen)
    with quiet():
        played = play_seed(scenario, seed)
    assert played.is_good, (
        played.violations,
        played.undecided,
        played.stuck,
        played.crash,
        played.story[-2000:],
    )
    assert played.figures["planes"] >= 4
