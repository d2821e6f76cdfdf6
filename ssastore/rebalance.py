"""Who owns what, as the cluster decides it: the front door to forming a cluster, reading its layout,
planning a change of it, and ordering recoveries and moves.

What is decided is in ``core.planner`` (the first layout), ``core.replan`` (every later one), ``core.plans``
(the steps between) and ``core.cluster`` (records, checks); it is read and ordered by ``core.clusterreading``,
``core.ordering`` and ``core.recutting``.

A layout has more keys than a transaction may write, so forming is done in steps that
anybody can repeat or finish:

    1  claim     cluster absent: write ``cluster``, and ``forming`` with the list of nodes
    2  fill      ``forming`` unchanged: write the nodes and groups, in portions
    3  finish    ``forming`` unchanged: delete it

Only one claim wins.  The layout follows from the list of nodes alone, so all who fill
write the same.  Every step compares ``forming``, so one who was held up half way
cannot write into a cluster that others have finished and changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv6Network
from typing import NamedTuple

from ssastore.core.cluster import (
    CLUSTER_ID_BYTES,
    CLUSTER_KEY,
    FORMING_KEY,
    Cluster,
    ClusterRecord,
    FormingRecord,
    NodeRecord,
    check_nodes,
    node_key,
)
from ssastore.core.clusterreading import decode_group, decode_node, read_cluster, read_nodes, read_record
from ssastore.core.groups import GROUP_PREFIX, RECOVERING, GroupRecord, PlaneOwner, group_key
from ssastore.core.layout import Layout, layout_of, merge_parts, move_part, with_parts_of
from ssastore.core.numbers import group_of_slice, number_of_part, part_of_slice, part_piece, slice_number
from ssastore.core.ordering import (
    Move,
    MoveState,
    abort_moves,
    forget_lost,
    move_states,
    order_move,
    order_moves,
    order_recovery,
    ordered_moves,
)
from ssastore.core.orders import RecoverOrder, move_name, replace_name, widen_name
from ssastore.core.planner import initial_layout, owned_slices
from ssastore.core.plans import FILL, RECOVER, Plan, make_plan
from ssastore.core.recutting import abort_merge, order_merge, order_split
from ssastore.core.replan import replan
from ssastore.env import Compare, ControlStore, Write
from ssastore.errors import ConfigError, TryLater
from ssastore.keyspace import Slice
from ssastore.limits import CONTROL_OPS_MAX

__all__ = [
    "Cluster",
    "Move",
    "MoveState",
    "Ordered",
    "Plan",
    "RecoverOrder",
    "abort_merge",
    "abort_moves",
    "add_node",
    "form_cluster",
    "merge_as_planned",
    "move_states",
    "moves_of",
    "order_lost",
    "order_merge",
    "order_move",
    "order_moves",
    "order_plan",
    "order_recovery",
    "order_split",
    "ordered_moves",
    "ownership_of",
    "plan_by_hand",
    "plan_change",
    "plan_lost",
    "read_cluster",
    "remove_node",
]


async def form_cluster(
    control: ControlStore,
    service: IPv6Network,
    replicas: int,
    nodes: Sequence[NodeRecord],
    *,
    now_ms: int,
    random_bytes: Callable[[int], bytes],
) -> ClusterRecord:
    """Make the cluster, or finish making it, or find that it is already made.

    Any number of processes may call this at once with the same arguments, and again after a crash;
    all get the same record.

    Args:
        service: the service /64.
        nodes: all nodes, in any order.
        now_ms: goes into a new record.
        random_bytes: draws the id of a new cluster; ``Randomness.bytes``.

    Raises:
        ConfigError: the arguments make no cluster, or another one than there is.
        Unavailable: the control store does not answer; call again.
    """
    nodes = sorted(nodes, key=lambda node: node.name)
    record = ClusterRecord(random_bytes(CLUSTER_ID_BYTES).hex(), str(service), replicas, now_ms)
    check_nodes([service], nodes)
    groups = initial_layout(nodes, replicas)
    await control.transact(
        [Compare(CLUSTER_KEY, 0)],
        [Write(CLUSTER_KEY, record.encode()), Write(FORMING_KEY, FormingRecord(tuple(nodes)).encode())],
    )
    formed = await read_record(control)
    forming = await control.get(FORMING_KEY)
    present = FormingRecord.decode(forming.value).nodes if forming else await read_nodes(control)
    _require_same(formed, record, present, nodes)
    if forming:
        await _fill(control, Compare(FORMING_KEY, forming.revision), nodes, groups)
    return formed


async def ownership_of(control: ControlStore, node: str) -> list[Slice]:
    """The /80 slices that a node owns, in address order; raises what ``read_cluster`` does.

    Raises:
        ConfigError: the cluster has no such node.
    """
    cluster = await read_cluster(control)
    if node not in [record.name for record in cluster.nodes]:
        raise ConfigError(f"the cluster has no node {node}: add it, or correct the name in its configuration")
    return owned_slices(cluster.groups, node)


def plan_change(
    cluster: Cluster,
    nodes: Sequence[NodeRecord],
    *,
    replicas: int | None = None,
    sizes: Mapping[int, int] | None = None,
) -> Plan:
    """What must happen so that ``nodes`` own everything, each its share, with as little movement as can be.

    Args:
        nodes: who may own something after; an owner that is not listed drains.
        replicas: planes after, where there shall be more of them.
        sizes: bytes of one plane of a group, by group; None where nobody knows.

    Raises:
        ConfigError: too few nodes.
    """
    check_nodes(cluster.record.networks, nodes)
    before = layout_of(cluster.groups)
    after = replan(before, nodes, replicas or cluster.record.replicas)
    return make_plan(before, after, nodes, sizes=sizes)


def plan_lost(
    cluster: Cluster,
    lost: Collection[str],
    *,
    absent: Collection[str] = (),
    sizes: Mapping[int, int] | None = None,
    accept_data_loss: bool = False,
) -> Plan:
    """What must happen so that the slices of nodes that are lost for good are rebuilt at the others.

    Nothing else gets another owner, and planes that groups do not have yet get none.  A slice of which too
    few other planes are left stays where it is: who owned it may come back, and nobody else could rebuild it.

    Args:
        absent: nodes that are not there now and may come back. They keep what they have, and no slice is
            rebuilt that would have to wait for them: with its owner, should that be back first, it votes.
        sizes: bytes of one plane of a group, by group; None where nobody knows.
        accept_data_loss: nothing stays: of what nobody can rebuild the targets take what is left, once they
            are ordered to do that as well (``RecoverOrder``).

    Raises:
        ConfigError: an unknown node, too few that are left, or too few planes of all that is lost.
    """
    names = [node.name for node in cluster.nodes]
    if unknown := sorted(set(lost).difference(names)):
        raise ConfigError(f"the cluster has no node {unknown[0]}; it has {', '.join(names)}")
    left = [node for node in cluster.nodes if node.name not in lost]
    before = layout_of(cluster.groups)
    after = replan(before, left, before.replicas, only_ownerless=True)
    stuck = set() if accept_data_loss else _not_rebuildable(cluster, lost, absent)
    plan = make_plan(before, with_parts_of(after, before, stuck), left, lost=lost, sizes=sizes)
    if stuck and not plan.changes:
        raise ConfigError(
            f"of {len(stuck)} groups, as {min(stuck)}, fewer than {_majority(before.replicas)} planes are "
            "left and there, as are needed to rebuild another: bring a node back, or accept the loss of data"
        )
    return plan


def _not_rebuildable(cluster: Cluster, lost: Collection[str], absent: Collection[str]) -> set[Slice]:
    """The parts of which a plane is lost, and less than a majority are at nodes that are there, with data."""
    gone = {*lost, *absent}
    return {
        part_piece(found.part)
        for record in cluster.groups
        for found in record.parts
        if any(plane.owner in lost for plane in found.planes)
        and sum(plane.owner not in gone and plane.state != RECOVERING for plane in found.planes)
        < _majority(len(found.planes))
    }


def _majority(replicas: int) -> int:
    """Planes that are needed to rebuild another one."""
    return replicas // 2 + 1


def plan_by_hand(
    cluster: Cluster,
    *,
    moves: Sequence[tuple[Slice, str]] = (),
    merges: Sequence[Slice] = (),
    sizes: Mapping[int, int] | None = None,
) -> Plan:
    """The steps to what somebody wants: slices, or parts cut out of them, at these nodes; then parts merged.

    Raises:
        ConfigError: no such slice or node, one that has another plane of it, or parts that cannot be merged.
    """
    names = {node.name for node in cluster.nodes}
    before = after = layout_of(cluster.groups)
    for piece, target in moves:
        if target not in names:
            raise ConfigError(f"the cluster has no node {target}")
        after = move_part(after, piece, target)
    for whole in merges:
        after = merge_parts(after, whole)
    return make_plan(before, after, cluster.nodes, sizes=sizes)


def moves_of(plan: Plan, layout: Layout) -> list[Move]:
    """The moves of a plan, slice by slice. ConfigError: it has steps that this version cannot take.

    ``layout``: the ownership that the plan was made for, whatever was done of it.
    """
    moves = []
    for change, piece in plan.parts_of_changes(layout):
        if change.kind == FILL:
            raise ConfigError(
                f"the plan has to make {change.piece}, one more replica: `ssastore replicas set` does that, "
                "and a plan that is made afterwards balances it"
            )
        lost = change.source if change.kind == RECOVER else ""
        moves.append(Move(slice_number(change.piece.plane, number_of_part(piece)), change.target, lost))
    return moves


async def order_plan(control: ControlStore, plan: Plan) -> list[Move]:
    """Carry a plan out, or go on with it: split what it splits, and order its moves, which are returned.

    What it merges is merged by ``merge_as_planned``, when all moves are done.

    Raises:
        ConfigError: it was made for another ownership (what it has itself changed so far is none), or has
            steps that this version cannot take.
        TryLater: groups that it splits are busy; all else is ordered. Call again.
        Unavailable: the control store does not answer.
    """
    before = plan.undone(layout_of((await read_cluster(control)).groups))
    plan.require(before)
    moves = moves_of(plan, before)
    ordered = await _order_steps(control, plan, moves)
    if ordered.left:
        raise TryLater(f"{ordered.left}; all else is ordered: apply the plan again")
    return moves


class Ordered(NamedTuple):
    """What a call has ordered."""

    moves: list[Move]
    left: str
    "What it could not order now, and why; empty when that is nothing."


async def order_lost(control: ControlStore, lost: Collection[str], absent: Collection[str] = ()) -> Ordered:
    """Have all slices of nodes that are lost for good rebuilt at the others, as far as they can be now.

    To be called again and again: what is ordered to a node that is not lost goes on, and what could not be
    rebuilt the last time may be possible now.

    Args:
        absent: see ``plan_lost``.

    Raises:
        ConfigError: an unknown node, too few that are left, or too few planes of all that is lost.
        Unavailable: the control store does not answer.
    """
    await forget_lost(control, lost)
    cluster = await read_cluster(control)
    names = {node.name for node in cluster.nodes}
    targets = {
        move.number: move.target
        for move, _, _ in await ordered_moves(control)
        if move.lost and move.target in names
    }
    cluster = replace(cluster, groups=tuple(_as_ordered(record, targets) for record in cluster.groups))
    if not any(
        owner in lost for record in cluster.groups for view in record.views() for owner in view.owners
    ):
        return Ordered([], "")
    plan = plan_lost(cluster, lost, absent=absent)
    ordered = await _order_steps(control, plan, moves_of(plan, layout_of(cluster.groups)))
    if stuck := _not_rebuildable(cluster, lost, absent):
        waiting = f"{len(stuck)} groups, as {min(stuck)}, wait for a node that has another plane of them"
        return Ordered(ordered.moves, "; ".join(filter(None, (waiting, ordered.left))))
    return ordered


async def add_node(control: ControlStore, node: NodeRecord) -> None:
    """Let a node into the cluster. It owns nothing until a plan gives it something. Again: no change.

    Raises:
        ConfigError: there is another node of that name, or with that address and port, or no cluster.
        TryLater: the cluster is being formed, or the control store does not answer.
    """
    while True:
        before = await control.get(CLUSTER_KEY)
        cluster = await read_cluster(control)
        if node in cluster.nodes:
            return
        if node.name in [known.name for known in cluster.nodes]:
            raise ConfigError(f"the cluster has a node {node.name} already, and it is not this one")
        check_nodes(cluster.record.networks, [*cluster.nodes, node])
        if before is None:
            continue  # It was formed at this moment.
        # The cluster's own record is written as it is: whoever lets another node in, or gives the cluster
        # another prefix, has looked at nodes before this one came, and looks again.
        compares = [Compare(node_key(node.name), 0), Compare(CLUSTER_KEY, before.revision)]
        writes = [Write(node_key(node.name), node.encode()), Write(CLUSTER_KEY, before.value)]
        if await control.transact(compares, writes) is not None:
            return


async def remove_node(control: ControlStore, name: str) -> None:
    """Take a node out of the cluster that owns nothing, and is to get nothing. It may join again.

    Planes that it was to make, and has not begun, are ordered elsewhere when replicas are set again.

    Raises:
        ConfigError: there is no such node, it owns something, or it is ordered to take something over.
        Unavailable: the control store does not answer.
    """
    item = await control.get(node_key(name))
    if item is None:
        raise ConfigError(f"the cluster has no node {name}")
    await _check_idle_node(control, name)
    workers = range(decode_node(item).workers)
    orders = [order(name, w) for order in (move_name, replace_name) for w in workers]
    unchanged = [Compare(item.key, item.revision), *[Compare(key, 0) for key in orders]]
    gone = [item.key, *[widen_name(name, w) for w in workers]]
    if await control.transact(unchanged, [Write(key, None) for key in gone]) is None:
        raise ConfigError(f"{name} is ordered to take slices over: wait for it, or abort it")
    try:
        await _check_idle_node(control, name)
    except ConfigError:
        # It began something that had been ordered at the last moment: then it stays.
        await control.transact([Compare(item.key, 0)], [Write(item.key, item.value)])
        raise


async def _check_idle_node(control: ControlStore, name: str) -> None:
    items, _ = await control.list(GROUP_PREFIX)
    planes = [plane for item in items for found in decode_group(item).parts for plane in found.planes]
    owned = sum(name in (plane.owner, plane.target) for plane in planes)
    if owned:
        raise ConfigError(
            f"{name} owns {owned} slices, or is about to: move them away with plan --drain {name}, or have "
            f"them rebuilt with plan --lost {name}"
        )


def _as_ordered(record: GroupRecord, ordered: Mapping[int, str]) -> GroupRecord:
    """A group's record as it will be when the slices that lost nodes had are begun as it is ordered."""
    for view in record.views():
        for plane, found in enumerate(view.planes):
            target = ordered.get(slice_number(plane, view.part), found.owner)
            if target != found.owner and target not in view.owners:
                begun = PlaneOwner(target, found.epoch, RECOVERING, 1)
                record = (record.at(view.part) or view).replaced(plane, begun, view.cfg)
    return record


async def _order_steps(control: ControlStore, plan: Plan, moves: Sequence[Move]) -> Ordered:
    """Split what a plan splits, and order its moves; a group that cannot be split now waits alone."""
    lost = {move.lost for move in moves if move.lost}
    if lost:
        await forget_lost(control, lost)
    busy: dict[int, str] = {}
    for recut in plan.splits:
        pieces = [number_of_part(piece) for piece in recut.pieces]
        try:
            await order_split(control, number_of_part(recut.whole), pieces)
        except ConfigError as error:
            busy[recut.whole.group] = str(error)
    groups = {record.group: record for record in (await read_cluster(control)).groups}
    # What is not there is merged already: all moves were done then.
    wanted = [
        move
        for move in moves
        if (group := group_of_slice(move.number)) not in busy
        and groups[group].at(part_of_slice(move.number)) is not None
    ]
    await order_moves(control, wanted)
    left = f"{len(busy)} groups could not be split: {next(iter(busy.values()))}" if busy else ""
    return Ordered(wanted, left)


async def merge_as_planned(control: ControlStore, plan: Plan) -> bool:
    """Merge what a plan merges, as far as its parts are where it puts them; whether all of it is.

    Raises:
        ConfigError: parts that are to be merged have different owners, or their groups are busy.
        Unavailable: the control store does not answer.
    """
    done = [await order_merge(control, number_of_part(recut.whole)) for recut in plan.merges]
    return all(done)


async def _fill(
    control: ControlStore, unchanged: Compare, nodes: Sequence[NodeRecord], groups: Sequence[GroupRecord]
) -> None:
    """Write all nodes and groups and finish, unless somebody else has finished."""
    writes = [Write(node_key(node.name), node.encode()) for node in nodes]
    writes.extend(Write(group_key(record.group), record.encode()) for record in groups)
    for portion in _portions(writes):
        await control.transact([unchanged], portion)
    await control.transact([unchanged], [Write(FORMING_KEY, None)])


def _portions(writes: Sequence[Write]) -> Iterator[Sequence[Write]]:
    for first in range(0, len(writes), CONTROL_OPS_MAX):
        yield writes[first : first + CONTROL_OPS_MAX]


def _require_same(
    formed: ClusterRecord, wanted: ClusterRecord, present: Sequence[NodeRecord], nodes: Sequence[NodeRecord]
) -> None:
    """ConfigError when a cluster that exists is not the one that was asked for."""
    differences = [
        f"its {what} is {has}, not {asked}"
        for what, has, asked in (
            ("service prefix", formed.service, wanted.service),
            ("replica count", formed.replicas, wanted.replicas),
        )
        if has != asked
    ]
    differences.extend(_node_differences({n.name: n for n in present}, {n.name: n for n in nodes}))
    if differences:
        raise ConfigError(
            f"this control store already holds cluster {formed.cluster_id}, and {'; '.join(differences)}. "
            "Ask for what it is, change it with plan and apply, or use an empty control store"
        )


def _node_differences(present: dict[str, NodeRecord], nodes: dict[str, NodeRecord]) -> Iterator[str]:
    for name in sorted(present.keys() | nodes.keys()):
        if name not in present:
            yield f"it has no node {name}"
        elif name not in nodes:
            yield f"it has a node {name}, which was not asked for"
        elif present[name] != nodes[name]:
            yield f"its node {name} is {present[name]}, not {nodes[name]}"
