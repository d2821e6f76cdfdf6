"""A node that is lost for good is replaced slice by slice: by whom it is ordered, and by nobody twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ssastore.core import replacer
from ssastore.core.boot import Environment
from ssastore.core.groups import ACTIVE, MOVING, RECOVERING, GroupRecord, PlaneOwner, group_key
from ssastore.core.moving import begin_move, cancel_move
from ssastore.core.numbers import slice_number
from ssastore.core.orders import MoveOrder, RecoverOrder, order_name, replace_name
from ssastore.core.recut import halves_of
from ssastore.core.recutting import order_merge, order_split
from ssastore.core.register import make_ballot
from ssastore.core.settings import change_move_settings
from ssastore.core.standing import State
from ssastore.env import Compare, Write
from ssastore.errors import ConfigError, NotMine, OutOfStep, Unavailable
from ssastore.keyspace import GROUP_BITS
from tests.environments import GROUPS_USED, Node, World

GROUP, OTHER, *_ = GROUPS_USED
A = 0
"Plane of the node that is lost."
ZONES = dict.fromkeys("abcde", "")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().form()
    yield made
    made.close()


async def spare(world: World, name: str, env_id: int) -> Node:
    return await world.run(Node(world, name, env_id, plane=A))


async def order(world: World, node: Node, *, source: str = "a", groups: list[int] = GROUPS_USED) -> None:
    slices = {A << GROUP_BITS | group: source for group in groups}
    await world.control.transact([], [Write(replace_name(node.name, 0), MoveOrder(slices).encode())])


async def test_a_merge_of_its_group_holds_up_no_replacement(world: World) -> None:
    """The plane of a node that is gone is never ready for it."""
    low, high = halves_of(GROUP, 17)
    await order_split(world.control, GROUP, [low, high])
    world.nodes["a"].stop()
    d = await spare(world, "d", 70)
    await order_merge(world.control, GROUP)
    order = MoveOrder({slice_number(A, low): "a"})
    await world.control.transact([], [Write(replace_name("d", 0), order.encode())])
    await d.replacer.round()
    record = await world.record(GROUP)
    assert record.merging is None
    found = record.at(low)
    assert found is not None and found.planes[A].owner == "d" and found.planes[A].state == RECOVERING


async def is_ordered(world: World, node: Node) -> bool:
    return await world.control.get(replace_name(node.name, 0)) is not None


async def write(world: World, record: GroupRecord) -> None:
    item = await world.control.get(group_key(record.group))
    assert item is not None
    await world.control.transact([Compare(item.key, item.revision)], [Write(item.key, record.encode())])


def states(node: Node) -> set[State]:
    return {node.state(group) for group in GROUPS_USED}


async def test_what_a_lost_node_had_is_rebuilt_at_another(world: World) -> None:
    """And the order is gone when all of it votes there, not before."""
    a, b, c = (world.nodes[name] for name in "abc")
    await world.accept(a, GROUP, 5, b"chosen with the lost one")
    await world.accept(b, GROUP, 5, b"chosen with the lost one")
    await world.prepare(c, OTHER, 9)
    a.stop()
    d = await spare(world, "d", 70)
    await order(world, d)
    assert await d.replacer.round()
    record = await world.record(GROUP)
    assert record.planes[A] == PlaneOwner("d", 2, RECOVERING, 70) and record.cfg == 2
    assert states(d) == {State.RECOVERING}
    with pytest.raises(Unavailable, match="SILENT"):
        await world.prepare(d, GROUP, 8, cfg=2)
    assert await d.replacer.round() and await is_ordered(world, d)

    await d.recovery.round()
    assert states(d) == {State.ACTIVE}
    assert not await d.replacer.round() and not await is_ordered(world, d)
    assert (await world.prepare(d, GROUP, 8, cfg=2))[1] == make_ballot(5, 9, 1)
    with pytest.raises(Exception, match="OUTRUN"):
        await world.prepare(d, OTHER, 9, cfg=2)
    for group in GROUPS_USED:
        record = await world.record(group)
        assert record.planes[A] == PlaneOwner("d", 3, ACTIVE, 70) and record.cfg == 2
    assert d.replacer.describe() == {"begun": 4, "waiting": ""}


async def test_who_comes_back_votes_for_nothing(world: World) -> None:
    """With its old disk: not when it hears of it, and not when it starts again."""
    zombie = world.nodes["a"]
    d = await spare(world, "d", 70)
    await order(world, d)
    await d.replacer.round()
    await d.recovery.round()
    for cfg in (1, 2):
        with pytest.raises(NotMine):
            await world.prepare(zombie, GROUP, 7, cfg=cfg)
    assert not zombie.recovery.work() and not zombie.custody.taken
    again = await world.replace("a", 1, zombie.store)
    assert not again.custody.owned and not again.recovery.work()
    with pytest.raises(NotMine):
        await world.prepare(again, GROUP, 7, cfg=2)
    for name in "bc":
        with pytest.raises(OutOfStep, match="STALE"):
            await world.accept(world.nodes[name], GROUP, 7, b"zombie", cfg=1)


async def test_what_comes_back_is_dropped(world: World) -> None:
    """What was never touched has no standing on its disk, so what is stored has to be looked at."""
    zombie = world.nodes["a"]
    await world.accept(zombie, GROUP, 5, b"old")
    d = await spare(world, "d", 70)
    await order(world, d)
    await d.replacer.round()
    await asyncio.sleep(0.01)
    number = A << GROUP_BITS | GROUP
    zombie.custody.find_strays()
    assert zombie.custody.strays() == [number]
    again = Node(world, "a", 1, zombie.store, plane=A)
    again.environment = again.custody.environment = Environment(1, 2, 1)
    await world.run(again)
    again.custody.find_strays()
    assert again.custody.strays() == [number]


async def test_a_target_that_dies_is_replaced_itself(world: World) -> None:
    """The record is pointed to the next one, under a cfg of its own; what the first one does is in vain."""
    world.nodes["a"].stop()
    d = await spare(world, "d", 70)
    await order(world, d)
    await d.replacer.round()
    e = await spare(world, "e", 80)
    await order(world, e, source="d", groups=[GROUP])
    await e.replacer.round()
    record = await world.record(GROUP)
    assert record.planes[A] == PlaneOwner("e", 3, RECOVERING, 80) and record.cfg == 3
    await e.recovery.round()
    await d.recovery.round()
    assert e.state(GROUP) is State.ACTIVE and (await world.record(GROUP)).owners[A] == "e"
    assert d.state(OTHER) is State.ACTIVE and (A << GROUP_BITS | GROUP) not in d.custody.owned
    assert not await e.replacer.round() and not await d.replacer.round()
    assert not await is_ordered(world, d)


async def test_one_of_two_that_are_told_the_same_begins(world: World) -> None:
    world.nodes["a"].stop()
    d, e = await spare(world, "d", 70), await spare(world, "e", 80)
    for node in (d, e):
        await order(world, node)
    await asyncio.gather(d.replacer.round(), e.replacer.round())
    owners = {(await world.record(group)).owners[A] for group in GROUPS_USED}
    assert owners <= {"d", "e"} and (await world.record(GROUP)).cfg == 2
    for node in (d, e):
        await node.recovery.round()
        assert not await node.replacer.round()
    assert {(await world.record(group)).planes[A].state for group in GROUPS_USED} == {ACTIVE}


async def test_a_handover_ends_with_the_loss_of_either_end(world: World) -> None:
    d, e = await spare(world, "d", 70), await spare(world, "e", 80)
    await write(world, begin_move((await world.record(GROUP)), A, "d", 70, ZONES))
    await write(world, begin_move((await world.record(OTHER)), A, "e", 80, ZONES))
    world.nodes["a"].stop()
    await asyncio.sleep(0.01)
    assert d.custody.incoming and e.custody.incoming
    await order(world, d)
    await d.replacer.round()
    await d.recovery.round()
    assert states(d) == {State.ACTIVE}
    assert not d.custody.incoming and not e.custody.incoming
    assert (await world.record(OTHER)).planes[A] == PlaneOwner("d", 4, ACTIVE, 70)


async def test_a_busy_group_waits_and_the_others_go_on(world: World) -> None:
    record = begin_move((await world.record(GROUP)), 1, "e", 80, ZONES)
    await write(world, record)
    world.nodes["a"].stop()
    d = await spare(world, "d", 70)
    await order(world, d)
    await d.replacer.round()
    assert (await world.record(GROUP)).planes[1].state == MOVING
    assert "one slice at a time" in d.replacer.describe()["waiting"]
    await d.recovery.round()
    assert d.state(OTHER) is State.ACTIVE and await d.replacer.round()


async def test_nothing_is_begun_while_moves_are_paused(world: World) -> None:
    d = await spare(world, "d", 70)
    await order(world, d, groups=[GROUP])
    await d.replacer.round()
    await order(world, d)
    await change_move_settings(world.control, lambda known: replace(known, is_paused=True))
    assert await d.replacer.round()
    assert [d.state(group) for group in GROUPS_USED] == [State.RECOVERING, *[State.ACTIVE] * 3]
    assert [(await world.record(group)).owners[A] for group in GROUPS_USED] == ["d", "a", "a", "a"]
    assert "paused" in d.replacer.describe()["waiting"]
    await d.recovery.round()
    assert d.custody.is_voting(A << GROUP_BITS | GROUP), "what was begun is finished"
    await change_move_settings(world.control, lambda known: replace(known, is_paused=False))
    assert await d.replacer.round()
    assert states(d) == {State.ACTIVE, State.RECOVERING}


async def test_a_loss_is_accepted_of_what_was_lost_when_it_was_said(world: World) -> None:
    """And of what the node was told to replace by then. What is lost later is another matter."""
    for node in world.nodes.values():
        node.is_down = True
    d = await spare(world, "d", 70)
    first, second, later, _ = GROUPS_USED
    await order(world, d, groups=[first])
    await d.replacer.round()
    await order(world, d, groups=[first, second])
    name = order_name("d", 0)
    await world.control.transact([], [Write(name, RecoverOrder(accept_data_loss=True).encode())])
    item = await world.control.get(name)
    assert item is not None
    await d.recovery._obey(item)
    await order(world, d, groups=[first, second, later])
    await d.replacer.round()
    await d.recovery._obey(item)
    await d.recovery.round()
    assert [d.state(g) for g in (first, second, later)] == [State.ACTIVE, State.ACTIVE, State.RECOVERING]
    assert await world.control.get(name) is not None, "all of it is to be seen done"
    await order(world, d, groups=[later])
    await d.recovery._obey(item)
    assert await world.control.get(name) is None and not d.recovery.accepted
    await d.recovery.round()
    assert d.state(later) is State.RECOVERING


async def test_an_order_that_is_taken_back_begins_nothing_more(world: World) -> None:
    d = await spare(world, "d", 70)
    await order(world, d, groups=[GROUP])
    await d.replacer.round()
    await world.control.transact([], [Write(replace_name("d", 0), None)])
    assert not await d.replacer.round()
    await d.recovery.round()
    assert d.state(GROUP) is State.ACTIVE, "what was begun is finished"


async def test_a_node_that_has_a_plane_cannot_get_another(world: World) -> None:
    record = await world.record(GROUP)
    with pytest.raises(ConfigError, match="two planes"):
        record.begin_recovery(A, 2, "b")
    b = world.nodes["b"]
    await order(world, b)
    await b.replacer.round()
    assert (await world.record(GROUP)).owners == ("a", "b", "c")
    assert "two planes" in b.replacer.describe()["waiting"]


async def test_parts_of_a_group_come_one_after_the_other(world: World) -> None:
    """It has one slot; each part gets a cfg of its own, and none is drawn twice."""
    await order_split(world.control, GROUP, halves_of(GROUP, 17))
    halves = [slice_number(A, part) for part in halves_of(GROUP, 17)]
    world.nodes["a"].stop()
    d = await spare(world, "d", 70)
    slices = dict.fromkeys([*halves, A << GROUP_BITS | OTHER], "a")
    await world.control.transact([], [Write(replace_name("d", 0), MoveOrder(slices).encode())])
    assert await d.replacer.round()
    assert [number in d.custody.owned for number in halves] == [True, False]
    async with asyncio.timeout(5):
        while await d.replacer.round():
            await d.recovery.round()
            await asyncio.sleep(0.01)
    record = await world.record(GROUP)
    assert [view.owners[A] for view in record.views()] == ["d", "d"]
    assert [view.cfg for view in record.views()] == [2, 3] and record.next_cfg == 4
    assert all(d.custody.is_voting(number) for number in slices)


async def test_who_owns_a_slice_by_now_is_left_alone(world: World) -> None:
    """An order that names the owner of before does nothing to the one of now."""
    d = await spare(world, "d", 70)
    await order(world, d, groups=[GROUP])
    await d.replacer.round()
    await d.recovery.round()
    e = await spare(world, "e", 80)
    await order(world, e, groups=[GROUP])
    assert not await e.replacer.round() and not await is_ordered(world, e)
    assert (await world.record(GROUP)).planes[A] == PlaneOwner("d", 3, ACTIVE, 70)


async def test_so_many_are_begun_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each changes its group's cfg. Who has to wait for its group keeps no other waiting."""
    monkeypatch.setattr(replacer, "RECOVERIES_AT_ONCE", 1)
    world.nodes["a"].stop()
    d = await spare(world, "d", 70)
    busy = await world.record(GROUP)
    await write(world, begin_move(busy, 1, "e", 99, ZONES))
    await order(world, d)
    silent = []
    for _ in range(12):
        assert await d.replacer.round()
        silent.append(list(d.custody.states.values()).count(State.RECOVERING))
        await d.recovery.round()
    assert max(silent) == 1 and d.replacer.describe()["begun"] == 3
    await write(world, cancel_move(await world.record(GROUP), 1))
    for _ in range(4):
        await d.replacer.round()
        await d.recovery.round()
    assert states(d) == {State.ACTIVE} and not await d.replacer.round() and not await is_ordered(world, d)


@pytest.mark.parametrize(("patience_ms", "begun"), [(10_000, 1), (0, 4)])
async def test_slices_that_wait_for_a_mate_hold_up_no_others_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch, patience_ms: int, begun: int
) -> None:
    monkeypatch.setattr(replacer, "RECOVERIES_AT_ONCE", 1)
    monkeypatch.setattr(replacer, "RECOVERY_PATIENCE_MS", patience_ms)
    world.nodes["a"].stop()
    world.nodes["b"].is_down = True
    d = await spare(world, "d", 70)
    await order(world, d)
    for _ in range(6):
        assert await d.replacer.round()
        await d.recovery.round()
    assert d.replacer.describe()["begun"] == begun
