from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import CLUSTER_KEY, FORMING_KEY, Cluster, ClusterRecord, NodeRecord, node_key
from ssastore.core.groups import ACTIVE, GroupRecord, PlaneOwner, group_key
from ssastore.core.layout import layout_of
from ssastore.core.moving import begin_move, finish_move
from ssastore.core.numbers import (
    group_of_slice,
    number_of_slice,
    part_of_slice,
    plane_of_slice,
    slice_number,
)
from ssastore.core.orders import REPLACE_PREFIX, MoveOrder, replace_name
from ssastore.core.planner import initial_layout, owned_slices
from ssastore.core.plans import RECOVER
from ssastore.core.recut import halves_of, ready_for_merge
from ssastore.env import Compare, Item, Write
from ssastore.errors import ConfigError, TryLater, Unavailable
from ssastore.keyspace import GROUPS, slice_of
from ssastore.rebalance import (
    Move,
    MoveState,
    abort_merge,
    abort_moves,
    form_cluster,
    merge_as_planned,
    move_states,
    moves_of,
    order_lost,
    order_merge,
    order_move,
    order_moves,
    order_plan,
    order_split,
    ordered_moves,
    ownership_of,
    plan_by_hand,
    plan_change,
    plan_lost,
    read_cluster,
    remove_node,
)

SERVICE = IPv6Network("2001:db8:5a:1::/64")
NODES = [NodeRecord(f"n{number}", f"fd00::{number}") for number in (3, 1, 2)]


def counting() -> Callable[[int], bytes]:
    """Random bytes for tests: every draw is another."""
    drawn = 0

    def draw(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return drawn.to_bytes(count, "big")

    return draw


draw = counting()


async def form(
    control: MemoryControlStore,
    *,
    service: IPv6Network = SERVICE,
    replicas: int = 3,
    nodes: Sequence[NodeRecord] = tuple(NODES),
) -> ClusterRecord:
    return await form_cluster(control, service, replicas, nodes, now_ms=123, random_bytes=draw)


class DyingStore(MemoryControlStore):
    """The store is gone after a number of transactions; the last one may still have been applied."""

    def __init__(self, shared: MemoryControlStore, lives: int) -> None:
        super().__init__()
        self._shared = shared
        self._engine = shared.another_client()._engine
        self.lives = lives

    async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
        revision = await super().transact(compares, writes)
        self.lives -= 1
        if not self.lives:
            raise Unavailable("gone")
        return revision


async def test_new_cluster_is_what_was_asked_for() -> None:
    control = MemoryControlStore()
    record = await form(control)
    assert (record.service, record.replicas, record.created_at_ms) == (str(SERVICE), 3, 123)
    cluster = await read_cluster(control)
    assert cluster == Cluster(
        record, tuple(sorted(NODES, key=lambda node: node.name)), tuple(initial_layout(NODES, 3))
    )
    assert await control.get(FORMING_KEY) is None


async def test_forming_again_changes_nothing() -> None:
    control = MemoryControlStore()
    record = await form(control)
    before = await control.list("")
    assert await form(control, nodes=NODES[::-1]) == record
    assert await control.list("") == before


async def test_many_form_one_cluster() -> None:
    control = MemoryControlStore()
    records = await asyncio.gather(*(form(control.another_client()) for _ in range(5)))
    assert len({record.cluster_id for record in records}) == 1
    (await read_cluster(control)).check()


@pytest.mark.parametrize("lives", [1, 2, 3, 17, 33, 34])
async def test_whoever_comes_next_finishes_what_a_dead_one_began(lives: int) -> None:
    control = MemoryControlStore()
    with pytest.raises(Unavailable):
        await form(DyingStore(control, lives))
    begun = await control.get(CLUSTER_KEY)
    assert begun
    if await control.get(FORMING_KEY):
        with pytest.raises(TryLater):
            await read_cluster(control)
    assert await form(control) == ClusterRecord.decode(begun.value)
    cluster = await read_cluster(control)
    assert cluster.groups == tuple(initial_layout(NODES, 3))
    assert (await control.get(CLUSTER_KEY)) == begun


async def test_begun_cluster_is_not_finished_as_another_one() -> None:
    control = MemoryControlStore()
    with pytest.raises(Unavailable):
        await form(DyingStore(control, 2))
    with pytest.raises(ConfigError, match="n1"):
        await form(control, nodes=[replace(node, weight=2) for node in NODES])
    with pytest.raises(ConfigError, match="replica count is 3, not 1"):
        await form(control, replicas=1)


async def test_late_one_cannot_write_into_a_cluster_that_has_moved_on() -> None:
    """One who forms is held up before a portion; others finish, and then a node is removed again."""
    control = MemoryControlStore()

    class HeldUp(DyingStore):
        async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
            if self.lives == 999:
                await form(control)
                await control.transact([], [Write(node_key("n2"), None), Write(group_key(5), None)])
            return await super().transact(compares, writes)

    await form(HeldUp(control, 1000))
    assert await control.get(node_key("n2")) is None
    assert await control.get(group_key(5)) is None


async def test_transactions_are_as_small_as_every_store_takes_them() -> None:
    """Groups and nodes go in portions. A store refuses larger ones, so it is enough that forming works."""
    control = MemoryControlStore()
    nodes = [NodeRecord(f"n{at:03}", f"fd00::{at + 1:x}") for at in range(200)]
    await form(control, nodes=nodes)
    assert len((await read_cluster(control)).nodes) == 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"service": IPv6Network("2001:db8:5a:2::/64")},
            "service prefix is 2001:db8:5a:1::/64, not 2001:db8:5a:2::/64",
        ),
        ({"replicas": 1}, "replica count is 3, not 1"),
        ({"nodes": [*NODES, NodeRecord("n4", "fd00::4")]}, "it has no node n4"),
        ({"nodes": [*NODES[:2], NodeRecord("n4", "fd00::4")]}, "it has a node n2, which was not asked for"),
        ({"nodes": [*NODES[:2], replace(NODES[2], weight=9)]}, "its node n2 is .*weight=1.* not .*weight=9"),
    ],
)
async def test_other_cluster_is_refused_and_the_difference_said(change: dict[str, object], said: str) -> None:
    control = MemoryControlStore()
    await form(control)
    before = await control.list("")
    with pytest.raises(ConfigError, match=said):
        await form(control, **change)  # type: ignore[arg-type]
    assert await control.list("") == before


@pytest.mark.parametrize(
    "change",
    [
        {"service": IPv6Network("ff05::/64")},
        {"service": IPv6Network("2001:db8::/48")},
        {"replicas": 2},
        {"replicas": 5},
        {"nodes": NODES[:2]},
        {"nodes": [*NODES, NODES[0]]},
        {"nodes": [*NODES[:2], NodeRecord("n2", "2001:db8:5a:1::1")]},
    ],
)
async def test_impossible_cluster_is_refused_before_anything_is_written(change: dict[str, object]) -> None:
    control = MemoryControlStore()
    with pytest.raises(ConfigError):
        await form(control, **change)  # type: ignore[arg-type]
    assert await control.list("") == ([], 0)


async def test_ownership_is_that_of_the_layout() -> None:
    control = MemoryControlStore()
    await form(control)
    owned = [await ownership_of(control, node.name) for node in NODES]
    assert owned[0] == owned_slices(initial_layout(NODES, 3), "n3")
    assert sorted(piece for pieces in owned for piece in pieces) == [
        slice_of(plane, group) for plane in range(3) for group in range(GROUPS)
    ]
    with pytest.raises(ConfigError, match="no node n9"):
        await ownership_of(control, "n9")


async def test_empty_store_holds_no_cluster() -> None:
    with pytest.raises(ConfigError, match="form one"):
        await read_cluster(MemoryControlStore())


def written(group: int, *owners: str) -> bytes:
    return GroupRecord(group, tuple(map(PlaneOwner, owners))).encode()


async def test_a_group_may_have_fewer_planes_than_there_are_to_be() -> None:
    """While a cluster is given more replicas, its groups get theirs one after the other."""
    control = MemoryControlStore()
    await form(control)
    await control.transact([], [Write(group_key(7), written(7, "n1"))])
    assert len((await read_cluster(control)).groups[7].planes) == 1


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (group_key(7), None, "nobody is listed for group 007"),
        (group_key(7), written(8, "n1", "n2", "n3"), "group/008 under group/007"),
        (group_key(7), written(7, "n1", "n2", "n1"), "two planes of group 007"),
        (group_key(7), written(7, "n1", "n2", "n9"), "unknown node"),
        (group_key(7), written(7, "n1", "n2", "n3", "n4"), "4 planes"),
        (group_key(7), b"{}", "format"),
        ("group/xyz", written(7, "n1", "n2", "n3"), "group/007 under group/xyz"),
        (node_key("n1"), None, "n1, an unknown node"),
        (node_key("n1"), NODES[0].encode(), "node/n3 under node/n1"),
    ],
)
async def test_broken_layout_is_found(key: str, value: bytes | None, said: str) -> None:
    control = MemoryControlStore()
    await form(control)
    await control.transact([], [Write(key, value)])
    with pytest.raises(ConfigError, match=said):
        await read_cluster(control)


async def test_layout_that_changes_while_it_is_read_is_read_again() -> None:
    """Between groups and nodes the last slices of a node move away and the node goes."""
    control = MemoryControlStore()
    spare = NodeRecord("n4", "fd00::4")
    await form(control)
    await control.transact(
        [], [Write(node_key("n4"), spare.encode()), Write(group_key(7), written(7, "n1", "n2", "n4"))]
    )
    reads: list[str] = []

    class Changing(DyingStore):
        async def list(self, prefix: str) -> tuple[Sequence[Item], int]:
            found = await super().list(prefix)
            reads.append(prefix)
            if len(reads) == 1:
                final = [Write(node_key("n4"), None), Write(group_key(7), written(7, "n1", "n2", "n3"))]
                await control.transact([], final)
            return found

    cluster = await read_cluster(Changing(control, 1000))
    assert [node.name for node in cluster.nodes] == ["n1", "n2", "n3"]
    assert reads == ["group/", "node/"] * 2


async def test_a_change_is_planned_for_the_cluster_as_it_is() -> None:
    control = MemoryControlStore()
    await form(control)
    cluster = await read_cluster(control)
    more = [*cluster.nodes, NodeRecord("n4", "fd00::4")]
    plan = plan_change(cluster, more)
    assert plan.figures.moved_groups == pytest.approx(3 * GROUPS / 4, rel=0.05)
    before = layout_of(cluster.groups)
    assert {owner for part in plan.apply(before).parts for owner in part.owners} == {n.name for n in more}
    assert plan_change(cluster, cluster.nodes).changes == ()
    inside = NodeRecord("n4", "2001:db8:5a:1::4")
    with pytest.raises(ConfigError, match="lies inside the service"):
        plan_change(cluster, [*cluster.nodes, inside])
    with pytest.raises(ConfigError, match="need as many nodes"):
        plan_change(cluster, cluster.nodes[:2])


async def test_a_plan_that_splits_and_merges_is_carried_out_and_gone_on_with() -> None:
    """By the control store alone: what workers would do is done to the records here."""
    control = MemoryControlStore()
    await form(control)
    await control.transact([], [Write(node_key("n4"), NodeRecord("n4", "fd00::4").encode())])
    cluster = await read_cluster(control)
    half = slice_of(0, 7).split()[1]
    plan = plan_by_hand(cluster, moves=[(half, "n4")])
    assert [recut.whole for recut in plan.splits] == [slice_of(0, 7)]
    moves = await order_plan(control, plan)
    assert moves == [Move(number_of_slice(half), "n4")]
    assert len((await read_cluster(control)).groups[7].parts) == 2
    assert await order_plan(control, plan) == moves, "again: it goes on"
    await finish(control, moves[0])
    assert await order_plan(control, plan) == moves
    assert set((await move_states(control, moves)).values()) == {MoveState.DONE}
    assert await merge_as_planned(control, plan), "it merges nothing"

    back = plan_by_hand(await read_cluster(control), merges=[slice_of(0, 7)])
    with pytest.raises(ConfigError, match="made for ownership"):
        await order_plan(control, plan_by_hand(cluster, moves=[(slice_of(0, 8), "n4")]))
    moves = await order_plan(control, back)
    with pytest.raises(ConfigError, match="different owners"):
        await merge_as_planned(control, back)
    await finish(control, moves[0])
    assert not await merge_as_planned(control, back)
    assert await order_plan(control, back) == moves
    record = (await read_cluster(control)).groups[7]
    for plane in range(3):
        record = ready_for_merge(record, plane, plane + 1)
    await control.transact([], [Write(group_key(7), record.encode())])
    assert await merge_as_planned(control, back) and record.split is None
    assert await order_plan(control, back) == moves, "all of it is done: nothing is left to do"
    assert set((await move_states(control, moves)).values()) == {MoveState.DONE}


async def finish(control: MemoryControlStore, move: Move) -> None:
    """What source and target of a move do to the record."""
    plane, group = plane_of_slice(move.number), group_of_slice(move.number)
    view = (await read_cluster(control)).groups[group].at(part_of_slice(move.number))
    assert view is not None
    zones = {node.name: "" for node in (await read_cluster(control)).nodes}
    moved = finish_move(begin_move(view, plane, move.target, 9, zones), plane)
    await control.transact([], [Write(group_key(group), moved.encode())])


async def test_splits_and_merges_by_hand() -> None:
    control = MemoryControlStore()
    await form(control)
    low, high = halves_of(7, 17)
    await order_split(control, 7, [low, high])
    await order_split(control, 7, [low, high])
    with pytest.raises(ConfigError, match="no part"):
        await order_split(control, 7, halves_of(7, 18))
    with pytest.raises(ConfigError, match="no slice now"):
        await order_move(control, 7, "n3")
    assert not await order_merge(control, 7)
    assert not await order_merge(control, 7), "it is begun once"
    with pytest.raises(ConfigError, match="one thing at a time"):
        await order_split(control, low, halves_of(low, 18))
    assert await abort_merge(control, 7) and not await abort_merge(control, 7)


# -- nodes that are lost ----------------------------------------------------------------------------

FIVE = [NodeRecord(f"n{number}", f"fd00::{number}") for number in range(1, 6)]


async def five(replicas: int = 3) -> tuple[MemoryControlStore, Cluster]:
    control = MemoryControlStore()
    await form(control, nodes=FIVE, replicas=replicas)
    return control, await read_cluster(control)


def owned_by(cluster: Cluster, name: str) -> int:
    return sum(view.owners.count(name) for record in cluster.groups for view in record.views())


async def begin(control: MemoryControlStore, moves: Sequence[Move], *, is_done: bool = True) -> None:
    """What the targets do to the records."""
    groups = {record.group: record for record in (await read_cluster(control)).groups}
    for move in moves:
        plane, group = plane_of_slice(move.number), group_of_slice(move.number)
        record = groups[group].begin_recovery(plane, 9, move.target)
        groups[group] = record.finish_recovery(plane) if is_done else record
        await control.transact([], [Write(group_key(group), groups[group].encode())])


async def test_only_what_a_lost_node_had_gets_another_owner() -> None:
    _, cluster = await five()
    plan = plan_lost(cluster, ["n2"])
    assert {change.kind for change in plan.changes} == {RECOVER} and plan == plan_lost(cluster, ["n2"])
    assert {change.source for change in plan.changes} == {"n2"}
    assert plan.figures.moved_groups == owned_by(cluster, "n2")
    assert plan.figures.fullest[1] < 1.05
    after = plan.apply(layout_of(cluster.groups))
    assert "n2" not in {owner for part in after.parts for owner in part.owners}
    with pytest.raises(ConfigError, match="no node n9"):
        plan_lost(cluster, ["n9"])
    with pytest.raises(ConfigError, match="need as many nodes"):
        plan_lost(cluster, ["n1", "n2", "n3"])


async def test_what_too_few_planes_are_left_of_stays_where_it_is() -> None:
    """Its owners may come back, and nobody else could rebuild it; the rest is rebuilt nevertheless."""
    control, cluster = await five()
    lost = {"n1", "n2"}
    stuck = [record for record in cluster.groups if lost <= set(record.owners)]
    assert stuck
    plan = plan_lost(cluster, lost)
    assert plan.figures.moved_groups == owned_by(cluster, "n1") + owned_by(cluster, "n2") - 2 * len(stuck)
    moves = await order_plan(control, plan)
    await begin(control, moves)
    after = await read_cluster(control)
    assert [record for record in after.groups if lost & set(record.owners)] == stuck
    with pytest.raises(ConfigError, match=f"of {len(stuck)} groups"):
        plan_lost(after, lost)
    _, single = await five(1)
    with pytest.raises(ConfigError, match="fewer than 1 planes are left"):
        plan_lost(single, ["n1"])
    accepted = plan_lost(single, ["n1"], accept_data_loss=True)
    assert accepted.figures.moved_groups == owned_by(single, "n1")


async def test_a_plane_that_is_being_rebuilt_is_none_that_is_left() -> None:
    control, cluster = await five()
    record = cluster.groups[0]
    lost, other = record.owners[0], record.owners[1]
    await begin(control, [Move(0, next(n.name for n in FIVE if n.name not in record.owners))], is_done=False)
    plan = plan_lost(await read_cluster(control), [other])
    assert slice_of(1, 0) not in [piece for change in plan.changes for piece in (change.piece,)]
    assert not any(change.piece.covers(slice_of(1, 0)) for change in plan.changes) and lost


async def test_recoveries_are_ordered_shown_and_gone_on_with() -> None:
    control, cluster = await five()
    plan = plan_lost(cluster, ["n2"])
    moves = await order_plan(control, plan)
    assert len(moves) == owned_by(cluster, "n2") and {move.lost for move in moves} == {"n2"}
    shown = await ordered_moves(control)
    assert [(move, source) for move, source, _ in shown] == [(move, "n2") for move in sorted(moves)]
    keys = [item.key for item in (await control.list("replace/"))[0]]
    assert keys == [f"replace/n{n}/0" for n in (1, 3, 4, 5)] and not (await control.list("move/"))[0]
    first, rest = moves[0], moves[1:]
    await begin(control, [first], is_done=False)
    assert (await move_states(control, moves))[first] is MoveState.RECOVERING
    assert await order_plan(control, plan) == moves, "again: it goes on"
    await begin(control, [first])
    assert (await move_states(control, moves))[first] is MoveState.DONE
    await abort_moves(control, rest)
    assert await ordered_moves(control) == []


async def test_all_of_a_lost_node_is_ordered_by_one_call_again_and_again() -> None:
    control, cluster = await five()
    moves, left = await order_lost(control, ["n2"])
    assert len(moves) == owned_by(cluster, "n2") and not left
    assert await order_lost(control, ["n2"]) == ([], "")
    assert len(await ordered_moves(control)) == len(moves)
    # One of the targets is lost as well, in the middle of it.
    begun = [move for move in moves if move.target == "n3"][:5]
    await begin(control, begun, is_done=False)
    before = await read_cluster(control)
    more = (await order_lost(control, ["n2", "n3"])).moves
    assert not (await control.list("replace/n3/"))[0]
    again = {move.number: move for move in more}
    for move in begun:
        assert again[move.number].lost == "n3" and again[move.number].target not in ("n2", "n3")
    kept = {move.number: move.target for move in moves if move.target != "n3"}
    assert not kept.keys() & again.keys()
    targets = {move.number: move.target for move in more} | kept
    for record in before.groups:
        owners = [targets.get(slice_number(p, record.group), name) for p, name in enumerate(record.owners)]
        assert len(set(owners)) == 3
        assert not {"n2", "n3"} & set(owners) or len({"n2", "n3"} & set(record.owners)) == 2
    with pytest.raises(ConfigError, match="fewer than 2 planes"):
        await order_lost(control, ["n2", "n3"])


async def test_no_recovery_is_begun_that_would_wait_for_a_node_that_is_not_there() -> None:
    """Of three planes one is lost, and one at a node that may be back soon, as the lost one may. With either
    the slice votes, unless it is being rebuilt elsewhere."""
    control, cluster = await five()
    waiting = {record.group for record in cluster.groups if {"n2", "n3"} <= set(record.owners)}
    with_n2 = {record.group for record in cluster.groups if "n2" in record.owners}
    moves, left = await order_lost(control, ["n2"], ["n3"])
    assert {group_of_slice(move.number) for move in moves} == with_n2 - waiting and waiting
    assert left.startswith(f"{len(waiting)} groups, as ") and "wait for a node" in left
    plan = plan_lost(cluster, ["n2"], absent=["n3"])
    assert plan.figures.moved_groups == len(with_n2 - waiting)
    more, left = await order_lost(control, ["n2"])
    assert {group_of_slice(move.number) for move in more} == waiting and not left
    with pytest.raises(ConfigError, match="fewer than 2 planes are left and there"):
        plan_lost(cluster, ["n2"], absent=["n1", "n3", "n4", "n5"])


async def test_orders_to_a_node_that_is_no_member_count_for_nothing() -> None:
    """They are ordered to others, and can be taken back."""
    control, cluster = await five()
    numbers = [s for record in cluster.groups for s in record.slices() if record.owners[s >> 12] == "n2"]
    stale = MoveOrder(dict.fromkeys(numbers, "n2")).encode()
    await control.transact([], [Write(replace_name("gone", 0), stale)])
    moves, left = await order_lost(control, ["n2"])
    assert [move.number for move in moves] == sorted(numbers) and not left
    await abort_moves(control, [move for move, _, _ in await ordered_moves(control)])
    assert await ordered_moves(control) == [] and not (await control.list(REPLACE_PREFIX))[0]


async def test_a_group_that_is_busy_holds_up_no_other_one_of_a_plan() -> None:
    control = MemoryControlStore()
    await form(control)
    await control.transact([], [Write(node_key("n4"), NodeRecord("n4", "fd00::4").encode())])
    cluster = await read_cluster(control)
    busy = slice_of(0, 7).split()[1], slice_of(0, 9).split()[0]
    plan = plan_by_hand(cluster, moves=[(half, "n4") for half in busy])
    record = cluster.groups[7].begin_recovery(1, 9)
    await control.transact([], [Write(group_key(7), record.encode())])
    with pytest.raises(TryLater, match="1 groups could not be split: group 007 is recovered"):
        await order_plan(control, plan)
    assert [move for move, _, _ in await ordered_moves(control)] == [Move(number_of_slice(busy[1]), "n4")]
    await control.transact([], [Write(group_key(7), record.finish_recovery(1).encode())])
    assert len(await order_plan(control, plan)) == 2 == len(await ordered_moves(control))


async def test_a_plan_that_is_under_way_can_be_applied_again() -> None:
    """It moves two slices of some groups, one after the other: a group of which one is on its way is busy."""
    control, cluster = await five()
    for name in ("n6", "n7"):
        await control.transact([], [Write(node_key(name), NodeRecord(name, f"fd00::{name[1]}").encode())])
    cluster = await read_cluster(control)
    plan = plan_change(cluster, [node for node in cluster.nodes if node.name != "n1"])
    moves = await order_plan(control, plan)
    groups = Counter(group_of_slice(move.number) for move in moves)
    group = next(group for group, count in groups.items() if count == 2)
    first = next(move for move in moves if group_of_slice(move.number) == group)
    zones = {node.name: "" for node in cluster.nodes}
    moving = begin_move(cluster.groups[group], plane_of_slice(first.number), first.target, 9, zones)
    await control.transact([], [Write(group_key(group), moving.encode())])
    assert await order_plan(control, plan) == moves
    busy = next(other for other, count in groups.items() if other != group)
    recovering = cluster.groups[busy].begin_recovery(2, 9)
    await control.transact([], [Write(group_key(busy), recovering.encode())])
    assert await order_plan(control, plan) == moves, "what is busy for another reason waits by itself"


async def test_what_can_never_be_begun_beside_what_is_ordered_is_refused() -> None:
    """Two plans for one ownership, each right by itself: together they give a node two planes of a group."""
    control, cluster = await five()
    group = cluster.groups[7]
    free = [node.name for node in FIVE if node.name not in group.owners]
    one = plan_by_hand(cluster, moves=[(slice_of(0, 7), free[0])])
    other = plan_by_hand(cluster, moves=[(slice_of(1, 7), free[0])])
    beside = plan_by_hand(cluster, moves=[(slice_of(1, 7), free[1])])
    await order_plan(control, one)
    with pytest.raises(ConfigError, match=f"group 007 has a plane at {free[0]} already"):
        await order_plan(control, other)
    moves = await order_plan(control, beside)
    assert len(await ordered_moves(control)) == 2
    await abort_moves(control, [Move(slice_number(0, 7), free[0]), *moves])
    assert len(await order_plan(control, other)) == 1 == len(await ordered_moves(control))


async def test_who_rebuilds_a_slice_gets_no_other_plane_of_it() -> None:
    """A move that was ordered before would be begun first, and nobody could rebuild the slice there."""
    control, cluster = await five()
    group = cluster.groups[7]
    lost = group.owners[0]
    target, other = [node.name for node in FIVE if node.name not in group.owners]
    moved = Move(slice_number(1, 7), target)
    beside = Move(slice_number(2, 7), other)
    await order_moves(control, [moved, beside])
    await order_moves(control, [Move(slice_number(0, 7), target, lost)])
    assert {move for move, _, _ in await ordered_moves(control)} == {
        Move(slice_number(0, 7), target, lost),
        beside,
    }
    with pytest.raises(ConfigError, match="rebuilds another plane of it: wait"):
        await order_moves(control, [Move(slice_number(1, 7), target, group.owners[1])])
    assert len(await ordered_moves(control)) == 2


async def test_a_plan_with_more_planes_says_who_makes_them() -> None:
    control, cluster = await five()
    plan = plan_change(cluster, cluster.nodes, replicas=5)
    with pytest.raises(ConfigError, match="ssastore replicas set"):
        await order_plan(control, plan)


async def test_a_plane_that_a_group_has_not_yet_cannot_be_moved() -> None:
    control = MemoryControlStore()
    await form(control, nodes=FIVE)
    record = (await read_cluster(control)).groups[7]
    short = replace(record, planes=record.planes[:2])
    await control.transact([], [Write(group_key(7), short.encode())])
    with pytest.raises(ConfigError, match="2007 is of no plane that holds data"):
        await order_move(control, slice_number(2, 7), "n1")


async def test_handovers_of_lost_nodes_are_called_off() -> None:
    control, cluster = await five()
    zones = {node.name: "" for node in FIVE}
    wanted = [r for r in cluster.groups if "n2" not in r.owners][:2]
    away = next(r for r in cluster.groups if r.owners[1] == "n2")
    await order_moves(control, [Move(slice_number(0, record.group), "n2") for record in wanted])
    free = next(n.name for n in FIVE if n.name not in away.owners)
    await order_moves(control, [Move(slice_number(1, away.group), free)])
    moving = begin_move(wanted[0], 0, "n2", 9, zones)
    await control.transact([], [Write(group_key(moving.group), moving.encode())])
    await order_lost(control, ["n2"])
    assert not (await control.list("move/"))[0]
    found = (await read_cluster(control)).groups[moving.group].planes[0]
    assert (found.state, found.owner, found.epoch) == (ACTIVE, moving.owners[0], moving.planes[0].epoch + 1)


async def test_a_slice_that_is_ordered_elsewhere_is_in_no_older_order() -> None:
    """An order stays until all of it is done: who had taken one slice of it would fetch that back."""
    control, cluster = await five()
    group = next(g for g in range(100) if cluster.groups[g].owners == cluster.groups[g + 1].owners)
    first, second, source = (
        slice_number(0, group),
        slice_number(0, group + 1),
        cluster.groups[group].owners[0],
    )
    target = next(node.name for node in FIVE if node.name not in cluster.groups[group].owners)
    (key,) = await order_moves(control, [Move(first, target), Move(second, target)])
    record = cluster.groups[group]
    taken = replace(record, planes=(PlaneOwner(target, 3), *record.planes[1:]))
    await control.transact([], [Write(group_key(group), taken.encode())])
    (back,) = await order_moves(control, [Move(first, source)])
    orders = {name: await control.get(name) for name in (key, back)}
    assert {name: MoveOrder.decode(item.value).slices for name, item in orders.items() if item} == {
        key: {second: source},
        back: {first: target},
    }


async def test_a_node_that_owns_nothing_is_removed() -> None:
    control, _ = await five()
    with pytest.raises(ConfigError, match="n2 owns"):
        await remove_node(control, "n2")
    with pytest.raises(ConfigError, match="no node n9"):
        await remove_node(control, "n9")
    await begin(control, (await order_lost(control, ["n2"])).moves)
    await remove_node(control, "n2")
    after = await read_cluster(control)
    assert [node.name for node in after.nodes] == ["n1", "n3", "n4", "n5"]
    spare = NodeRecord("n6", "fd00::6")
    await control.transact([], [Write(node_key("n6"), spare.encode())])
    group = after.groups[0]
    await order_move(control, slice_number(0, 0), "n6")
    with pytest.raises(ConfigError, match="ordered to take"):
        await remove_node(control, "n6")
    await abort_moves(control, [Move(slice_number(0, 0), "n6")])
    zones = {node.name: "" for node in (*after.nodes, spare)}
    moving = begin_move(group, 0, "n6", 9, zones)

    class Late(DyingStore):
        """It begins a move at the last moment."""

        async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
            await control.transact([], [Write(group_key(0), moving.encode())])
            return await super().transact(compares, writes)

    with pytest.raises(ConfigError, match="n6 owns 1"):
        await remove_node(Late(control, 100), "n6")
    assert spare in (await read_cluster(control)).nodes


async def test_nothing_is_ordered_of_a_node_that_is_removed_while_somebody_plans_for_it() -> None:
    control, cluster = await five()

    class Removing(MemoryControlStore):
        """n3 is gone when the first order is written."""

        async def transact(self, compares: Any, writes: Any) -> Any:
            if writes[0].key.startswith("replace/n3/") and writes[0].value is not None:
                await control.transact([], [Write(node_key("n3"), None)])
            return await control.transact(compares, writes)

        def __init__(self) -> None:
            super().__init__()
            self.get, self.list = control.get, control.list  # type: ignore[method-assign]

    moves = moves_of(plan_lost(cluster, ["n2"]), layout_of(cluster.groups))
    with pytest.raises(ConfigError, match="n3 has been removed"):
        await order_moves(Removing(), [move for move in moves if move.target == "n3"])
    assert not (await control.list("replace/n3/"))[0]
