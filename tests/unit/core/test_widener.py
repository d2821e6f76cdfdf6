"""Planes that groups get, as a worker is ordered to make them: how many at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ssastore.core import widener
from ssastore.core.cluster import NodeRecord, node_key
from ssastore.core.groups import ACTIVE, RECOVERING, GroupRecord, group_key
from ssastore.core.numbers import slice_number
from ssastore.core.orders import MoveOrder, widen_name
from ssastore.core.standing import State
from ssastore.core.widener import Widener
from ssastore.env import Write
from tests.environments import GROUPS_USED, Node, World

FOURTH = 3


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().form()
    yield made
    made.close()


async def ordered(world: World, planes: int) -> tuple[Node, Widener]:
    """A node that is ordered one more plane of every group, all of which have so many."""
    for group in GROUPS_USED:
        record = await world.record(group)
        cut = GroupRecord(group, record.planes[:planes], 2)
        await world.control.transact([], [Write(group_key(group), cut.encode())])
    names = [NodeRecord(name, f"fd00::{at}") for at, name in enumerate("abcd", 1)]
    order = MoveOrder({slice_number(planes, group): "a" for group in GROUPS_USED})
    writes = [Write(node_key(record.name), record.encode()) for record in names]
    await world.control.transact([], [*writes, Write(widen_name("d", 0), order.encode())])
    node = await world.run(Node(world, "d", 70, plane=planes))
    unused: Any = None
    made = Widener(custody=node.custody, control=node.control, workers={}, worker=0, taker=unused)
    return node, made


def begun(node: Node) -> int:
    return [node.custody.states.get(slice_number(node.plane, group)) for group in GROUPS_USED].count(
        State.RECOVERING
    )


async def test_what_takes_a_groups_tolerance_is_begun_for_few_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a fourth plane votes its group needs all of the three: most groups can do without one."""
    monkeypatch.setattr(widener, "RECOVERIES_AT_ONCE", 3)
    node, made = await ordered(world, FOURTH)
    world.nodes["c"].is_down = True
    for _ in range(3):
        assert await made.round()
        assert begun(node) == 3, "however long they wait for the third one"
        await node.recovery.round()
    world.nodes["c"].is_down = False
    for left in (1, 0):
        await node.recovery.round()
        assert begun(node) == 0
        assert await made.round() is bool(left) and begun(node) == left
    records = [await world.record(group) for group in GROUPS_USED]
    assert {len(record.planes) for record in records} == {4}
    assert {plane.state for record in records for plane in record.planes} == {ACTIVE}


async def test_what_takes_none_is_begun_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two planes both are needed, and of three of which one is being rebuilt."""
    monkeypatch.setattr(widener, "RECOVERIES_AT_ONCE", 1)
    node, made = await ordered(world, 2)
    assert await made.round()
    assert begun(node) == len(GROUPS_USED)
    assert [(await world.record(group)).planes[2].state for group in GROUPS_USED] == [RECOVERING] * 4
