"""Groups of three planes get five while clients use them: the same steps as from one to three."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest

from ssastore.core.content import Content
from ssastore.core.groups import ACTIVE, GroupRecord, group_key
from ssastore.core.numbers import slice_number
from ssastore.core.objects import Objects
from ssastore.core.ordering import change_order
from ssastore.core.orders import widen_name
from ssastore.core.place import expected_position
from ssastore.keyspace import GROUPS, slice16_of
from ssastore.sim.fabric import Fabric
from ssastore.sim.mutants import mutants, planted
from ssastore.sim.runner import quiet
from ssastore.sim.scenarios import scenarios
from ssastore.sim.scenarios.recovery import until_whole
from ssastore.sim.stage import Stage, play_seed
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import BUCKET, Shape

PLANES = 5
KEY = "cat.jpg"


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


async def widen_and_cut_off(stage: Stage, fault: str | None) -> None:
    """One client learns of the new planes and writes there; the other slept, and reaches the first alone."""
    await stage.open()
    Fabric(stage.cluster)
    writer, sleeper = 0, 1
    await stage.on(writer, "before", _put(stage.objects[writer], "before"))
    assert await stage.on(sleeper, "read", _get(stage.objects[sleeper])) == "before"
    bucket = stage.objects[writer].buckets.cached(BUCKET)
    assert bucket is not None
    position = expected_position(bucket.place.bucket, bucket.place.shards, KEY.encode())
    group = slice16_of(position) & (GROUPS - 1)
    (owner,) = (await _record(stage, group)).owners
    others = [node for node in stage.cluster.nodes if node.name != owner]
    for plane, target in enumerate(others[:2], 1):
        order = {slice_number(plane, group): owner}
        await change_order(stage.cluster.control, widen_name(target.name, 0), added=order)
    while not (
        len(planes := (await _record(stage, group)).planes) == 3
        and all(found.state == ACTIVE for found in planes)
    ):
        await stage.pause(0.1)
    await until_whole(stage, "all planes are there")
    assert await stage.on(writer, "learn", _get(stage.objects[writer])) == "before"
    first = next(node.host for node in stage.cluster.nodes if node.name == owner)
    apart = [*(node.host for node in others), stage.clients[writer].host]
    stage.world.network.cut([first], apart)
    stage.world.network.cut(apart, [first])
    await stage.on(writer, "after", _put(stage.objects[writer], "after"))
    with planted(mutants()[fault]) if fault else nullcontext():
        read = await stage.on(sleeper, "read again", _get(stage.objects[sleeper]))
    if read != "after":
        stage.broken.append(f"read {read!r} from one plane of three")


async def _put(objects: Objects, value: str) -> None:
    await objects.commit(BUCKET, KEY, Content(len(value), value.encode()), value)


async def _get(objects: Objects) -> str:
    data: bytes = await (await objects.open(BUCKET, KEY)).read()
    return data.decode()


@pytest.mark.parametrize("fault", [None, "count-not-checked"])
def test_a_client_that_knows_of_one_replica_only_is_told_of_the_others(fault: str | None) -> None:
    scenario = replace(
        scenarios()["replicas"],
        play=partial(widen_and_cut_off, fault=fault),
        swarm=lambda seed: Swarm(),
        shape=lambda seed: Shape(clients=2),
        deadline_ms=10_000,
    )
    with quiet():
        played = play_seed(scenario, 0)
    assert not played.crash and not played.stuck, (played.crash, played.stuck, played.story[-2000:])
    assert bool(played.violations) is bool(fault), played.violations
