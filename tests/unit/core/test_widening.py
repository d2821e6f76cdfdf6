"""Records of groups that get more planes, and orders for that: what is allowed, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.boot import Environment
from ssastore.core.cluster import CLUSTER_KEY, ClusterRecord, NodeRecord, node_key
from ssastore.core.clusterreading import read_cluster
from ssastore.core.groups import ACTIVE, MOVING, RECOVERING, GroupRecord, PlaneOwner, group_key
from ssastore.core.layout import layout_of
from ssastore.core.membership import AbsentRecord, absent_key
from ssastore.core.moving import cancel_move, finish_move
from ssastore.core.numbers import part_of_slice, slice_number
from ssastore.core.ordering import forget_lost
from ssastore.core.orders import MoveOrder, widen_name
from ssastore.core.recut import halves_of, split_part
from ssastore.core.replicating import order_replicas, replica_state
from ssastore.core.standing import Standing, State, judge
from ssastore.core.widening import begin_fill, begin_plane, finish_fill
from ssastore.env import Write
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS
from ssastore.rebalance import form_cluster, moves_of, order_lost, plan_lost, remove_node

ZONES = dict.fromkeys("abcdef", "")
ALONE = GroupRecord(5, (PlaneOwner("a"),))


def wide(planes: int) -> GroupRecord:
    """A group that got its planes one after the other."""
    record = ALONE
    for number, name in enumerate("bcdef"[: planes - 1], 1):
        if number == 1:
            record = finish_fill(begin_fill(record, name, 2, ZONES))
        else:
            record = begin_plane(record, name, number + 1, ZONES).finish_recovery(number)
    return record


def test_a_second_plane_is_filled_from_the_first_which_stays() -> None:
    filling = begin_fill(ALONE, "b", 7, ZONES)
    assert (filling.planes[0].state, filling.planes[0].target, filling.cfg) == (MOVING, "b", 1)
    assert len(filling.planes) == 1 and GroupRecord.decode(filling.encode()) == filling
    done = finish_fill(filling)
    assert done.owners == ("a", "b") and [plane.state for plane in done.planes] == [ACTIVE, ACTIVE]
    assert done.cfg == 2, "a majority of one plane and one of two are never under one configuration"
    assert done.planes[1].env == 7 and done.planes[1].epoch == done.planes[0].epoch == 3
    assert done.planes[0].complete_epoch == 1, "the first plane has all that it had"
    assert GroupRecord.decode(done.encode()) == done


def test_a_fill_is_called_off_like_a_move_and_does_not_become_one() -> None:
    filling = begin_fill(ALONE, "b", 7, ZONES)
    with pytest.raises(ConfigError, match="copied, not moved"):
        finish_move(filling, 0)
    called_off = cancel_move(filling, 0)
    assert called_off.owners == ("a",) and called_off.planes[0].target_plane == 0
    with pytest.raises(ConfigError, match="not being given a plane"):
        finish_fill(called_off)
    assert begin_fill(called_off, "c", 8, ZONES).planes[0].epoch == 4


def test_later_planes_are_recovered() -> None:
    two = wide(2)
    begun = begin_plane(two, "c", 9, ZONES)
    assert begun.cfg == two.cfg + 1
    assert begun.planes[2] == PlaneOwner("c", begun.cfg, RECOVERING, 9)
    assert begun.finish_recovery(2).planes[2].state == ACTIVE
    five = wide(5)
    assert five.owners == ("a", "b", "c", "d", "e") and five.cfg == 5
    assert GroupRecord.decode(five.encode()) == five


def test_what_a_disk_has_of_a_plane_that_was_forgotten_does_not_count() -> None:
    """The control store was made anew from a record before that plane: it is fenced and copied again."""
    disk = Environment(9, 4, 9)
    before = begin_plane(wide(2), "c", 9, ZONES).finish_recovery(2)
    known = Standing(before.planes[2].epoch, before.cfg)
    assert judge(before, 2, disk, known) is State.ACTIVE
    rebuilt = replace(wide(2), cfg=known.cfg + 1)
    again = begin_plane(rebuilt, "c", 9, ZONES)
    for standing in (known, Standing(2, known.cfg), Standing(), Standing(0, 1, 3)):
        assert judge(again, 2, disk, standing) is State.RECOVERING
    assert judge(again, 2, disk, Standing(again.planes[2].epoch + 1, again.cfg)) is State.FILLED


@pytest.mark.parametrize(
    ("record", "owner", "why"),
    [
        (ALONE, "c", "one plane"),
        (begin_plane(wide(2), "c", 9, ZONES), "d", "one slice at a time"),
        (wide(2), "b", "has a plane at b already"),
        (wide(2), "x", "unknown node"),
        (wide(5), "f", "there are no more"),
    ],
)
def test_no_plane_where_none_may_be(record: GroupRecord, owner: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        begin_plane(record, owner, 3, ZONES)


def test_a_group_that_is_split_gets_none_before_it_is_merged() -> None:
    record = split_part(ALONE, 5, halves_of(5, 17))
    with pytest.raises(ConfigError, match="merged before"):
        begin_fill(record, "b", 7, ZONES)


def test_planes_are_in_zones_of_their_own_where_there_are_enough() -> None:
    zones = {"a": "x", "b": "x", "c": "y"}
    with pytest.raises(ConfigError, match="zone x already"):
        begin_fill(ALONE, "b", 7, zones)
    assert begin_fill(ALONE, "c", 7, zones)
    assert begin_plane(finish_fill(begin_fill(ALONE, "c", 7, zones)), "b", 8, zones), "two zones for three"


# -- orders -----------------------------------------------------------------------------------------


async def formed(nodes: int, replicas: int = 1) -> MemoryControlStore:
    members = [NodeRecord(f"n{at}", f"2001:db8::{at + 1:x}") for at in range(nodes)]
    control = MemoryControlStore()
    service = IPv6Network("2001:db8:5a:1::/64")
    await form_cluster(control, service, replicas, members, now_ms=5, random_bytes=bytes)
    return control


async def ordered(control: MemoryControlStore, nodes: int) -> dict[int, str]:
    items = [await control.get(widen_name(f"n{at}", 0)) for at in range(nodes)]
    return {
        number: item.key.split("/")[1]
        for item in items
        if item is not None
        for number in MoveOrder.decode(item.value).slices
    }


async def test_every_group_is_ordered_two_more_planes_on_nodes_of_their_own() -> None:
    control = await formed(4)
    assert await order_replicas(control, 3) == 2 * GROUPS
    cluster, made = await read_cluster(control), await ordered(control, 4)
    assert cluster.record.replicas == 3 and len(made) == 2 * GROUPS
    for record in cluster.groups:
        owners = {record.owners[0], *(made[slice_number(plane, record.group)] for plane in (1, 2))}
        assert len(owners) == 3
    state = await replica_state(control)
    assert (state.wanted, state.groups, state.left, state.ordered) == (3, {1: GROUPS}, 2 * GROUPS, 2 * GROUPS)


async def test_to_order_again_orders_what_is_missing_and_nothing_twice() -> None:
    control = await formed(4)
    await order_replicas(control, 3)
    before = await ordered(control, 4)
    assert await order_replicas(control, 3) == 0
    item = await control.get(widen_name("n1", 0))
    assert item is not None
    slices = dict(MoveOrder.decode(item.value).slices)
    lost = [slices.popitem()[0] for _ in range(3)]
    await control.transact([], [Write(item.key, MoveOrder(slices).encode())])
    assert await order_replicas(control, 3) == 3
    after = await ordered(control, 4)
    assert after.keys() == before.keys()
    assert all(after[number] == before[number] for number in before if number not in lost)


@pytest.mark.parametrize(
    ("nodes", "replicas", "wanted", "why"),
    [(2, 1, 3, "nodes"), (3, 3, 1, "planes are only added"), (3, 1, 2, "one of"), (4, 3, 5, "nodes")],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    nodes: int, replicas: int, wanted: int, why: str
) -> None:
    control = await formed(nodes, replicas)
    before = await control.list("")
    with pytest.raises(ConfigError, match=why):
        await order_replicas(control, wanted)
    assert await control.list("") == before


async def test_split_groups_are_named() -> None:
    control = await formed(3)
    cluster = await read_cluster(control)
    split = split_part(cluster.groups[5], 5, halves_of(5, 17))
    await control.transact([], [Write(group_key(5), split.encode())])
    with pytest.raises(ConfigError, match="ssastore merge 005"):
        await order_replicas(control, 3)


async def test_planes_that_are_being_rebuilt_do_not_count() -> None:
    control = await formed(3)
    cluster = ClusterRecord("ab" * 16, "2001:db8:5a:1::/64", 3, 5)
    two = GroupRecord(5, (PlaneOwner("n0"), PlaneOwner("n1")), 2)
    begun = begin_plane(two, "n2", 9, dict.fromkeys(("n0", "n1", "n2"), ""))
    await control.transact([], [Write(CLUSTER_KEY, cluster.encode()), Write(group_key(5), begun.encode())])
    state = await replica_state(control)
    assert state.groups == {1: GROUPS - 1, 2: 1} and state.left == 2 * GROUPS - 1


# -- nodes that are lost meanwhile ------------------------------------------------------------------


async def half_way(nodes: int) -> MemoryControlStore:
    """Every other group has got its second and third plane, as they are ordered; the rest has one."""
    control = await formed(nodes)
    await order_replicas(control, 3)
    made, zones = await ordered(control, nodes), {f"n{at}": "" for at in range(nodes)}
    for record in (await read_cluster(control)).groups[::2]:
        second, third = (made[slice_number(plane, record.group)] for plane in (1, 2))
        two = finish_fill(begin_fill(record, second, 7, zones))
        wanted = begin_plane(two, third, 8, zones).finish_recovery(2)
        await control.transact([], [Write(group_key(record.group), wanted.encode())])
    return control


async def test_groups_that_have_all_planes_are_recovered_while_others_wait_for_theirs() -> None:
    """Nobody owns the planes that are not there yet; they are no loss, and no recovery makes them."""
    control = await half_way(5)
    groups = (await read_cluster(control)).groups
    moves, left = await order_lost(control, ["n4"])
    whole = {record.group for record in groups if "n4" in record.owners and len(record.planes) == 3}
    alone = [record for record in groups if record.owners == ("n4",)]
    assert {part_of_slice(move.number) for move in moves} == whole and len(moves) == len(whole)
    assert alone and left.startswith(f"{len(alone)} groups, as "), "nobody else has what one plane holds"
    assert {move.target for move in moves} == {"n0", "n1", "n2", "n3"}
    cluster = await read_cluster(control)
    plan = plan_lost(cluster, ["n4"], accept_data_loss=True)
    lost = sum(record.owners.count("n4") for record in groups)
    assert not plan.splits and len(moves_of(plan, layout_of(groups))) == lost


async def test_what_a_lost_node_was_to_make_is_ordered_elsewhere_by_the_same_command() -> None:
    control = await formed(5)
    await order_replicas(control, 3)
    before = await ordered(control, 5)
    was = {number for number, target in before.items() if target == "n4"}
    await forget_lost(control, ["n4"])
    assert was and await control.get(widen_name("n4", 0)) is None
    kept = await ordered(control, 5)
    assert kept == {number: target for number, target in before.items() if number not in was}
    assert await order_replicas(control, 3) == len(was)
    assert (await ordered(control, 5)).keys() == before.keys()


async def test_a_node_that_is_removed_leaves_no_order_behind() -> None:
    """A node that owns nothing yet is told what to make, and is gone for good before it begins."""
    control = await formed(4)
    joined = NodeRecord("n4", "2001:db8::5")
    await control.transact([], [Write(node_key("n4"), joined.encode())])
    await order_replicas(control, 3)
    before = await ordered(control, 5)
    assert "n4" in before.values()
    await remove_node(control, "n4")
    assert await control.get(widen_name("n4", 0)) is None
    assert await order_replicas(control, 3) == list(before.values()).count("n4")
    after = await ordered(control, 5)
    assert after.keys() == before.keys() and "n4" not in after.values()


async def test_a_slice_is_ordered_elsewhere_whose_maker_has_got_another_plane_of_its_group() -> None:
    """By a recovery, or a move, that was ordered meanwhile."""
    control = await formed(5)
    await order_replicas(control, 3)
    number = slice_number(2, 6)
    target = (await ordered(control, 5))[number]
    taken = GroupRecord(6, (PlaneOwner(target, 3, ACTIVE, 9),), 2)
    await control.transact([], [Write(group_key(6), taken.encode())])
    assert await order_replicas(control, 3) == 1
    after = await ordered(control, 5)
    owners = {target, after[slice_number(1, 6)], after[number]}
    assert len(owners) == 3 and len(after) == 2 * GROUPS
    assert await order_replicas(control, 3) == 0


async def test_nobody_is_to_make_a_slice_who_is_not_there_while_enough_others_are() -> None:
    control = await formed(5)
    await order_replicas(control, 3)
    number = list((await ordered(control, 5)).values()).count("n4")
    gone = Write(absent_key("n4"), AbsentRecord(5, "").encode())
    await control.transact([], [gone])
    assert await order_replicas(control, 3) == number
    after = await ordered(control, 5)
    assert len(after) == 2 * GROUPS and "n4" not in after.values()
    await control.transact(
        [], [Write(absent_key(name), AbsentRecord(5, "").encode()) for name in ("n2", "n3")]
    )
    assert await order_replicas(control, 3) == 0, "too few are left: who is to make it may come back"
