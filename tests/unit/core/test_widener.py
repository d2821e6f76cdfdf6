"""Planes that groups get, as a worker is ordered to make them: how many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ssastore.core import widener
from ssastore.core.cluster import NodeRecord, node_key
from ssastore.core.groups import ACTIVE, MOVING, RECOVERING, GroupRecord, group_key
from ssastore.core.held import Held
from ssastore.core.numbers import slice_number
from ssastore.core.orders import MoveOrder, widen_name
from ssastore.core.pace import Stint
from ssastore.core.settings import MOVE_SETTINGS_KEY, MoveSettings
from ssastore.core.standing import State
from ssastore.core.widener import Widener
from ssastore.env import Write
from ssastore.errors import Unavailable
from tests.environments import GROUPS_USED, Node, World

FOURTH = 3


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().form()
    yield made
    made.close()


async def ordered(world: World, planes: int, taker: Any = None) -> tuple[Node, Widener]:
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
    made = Widener(custody=node.custody, control=node.control, workers={}, worker=0, taker=taker or unused)
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


class Pausing:
    """Fills nothing; an operator pauses moves while it is at the first batch."""

    def __init__(self, world: World, *, ends: bool) -> None:
        self.sealed: set[int] = set()
        self.batches = 0
        self._world, self._ends = world, ends

    async def fill(self, plane: int, held: dict[int, Held], stint: Stint, into: int) -> None:
        self.batches += 1
        value = MoveSettings(is_paused=True).encode()
        await self._world.control.transact([], [Write(MOVE_SETTINGS_KEY, value)])
        if not self._ends:
            while all([(await self._world.record(part)).planes[0].state == MOVING for part in held]):
                await asyncio.sleep(0)
        raise Unavailable("it does not come to an end")


@pytest.mark.parametrize("ends", [True, False])
async def test_a_pause_waits_for_no_second_plane(
    world: World, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """A round that fills thousands of groups takes hours: the rest does not go on, nor what is copied."""
    monkeypatch.setattr(widener, "MOVE_BATCH", 1)
    monkeypatch.setattr(widener, "ORDER_EVERY_MS", 1)
    taker = Pausing(world, ends=ends)
    _, made = await ordered(world, 1, taker)
    assert await asyncio.wait_for(made.round(), 10)
    assert taker.batches == 1 and made.describe()["waiting"] == "moves are paused"
    records = [await world.record(group) for group in GROUPS_USED]
    assert {record.planes[0].state for record in records} == {ACTIVE}


async def test_an_order_that_is_taken_back_ends_the_round(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widener, "MOVE_BATCH", 1)

    class TakenBack(Pausing):
        async def fill(self, plane: int, held: dict[int, Held], stint: Stint, into: int) -> None:
            self.batches += 1
            await world.control.transact([], [Write(widen_name("d", 0), None)])
            raise Unavailable("it does not come to an end")

    taker = TakenBack(world, ends=True)
    _, made = await ordered(world, 1, taker)
    assert await made.round() and not await made.round()
    assert taker.batches == 1
    records = [await world.record(group) for group in GROUPS_USED]
    assert {record.planes[0].state for record in records} == {ACTIVE}
