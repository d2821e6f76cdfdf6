"""Who owns what, as the cluster decides it: the front door to forming a cluster, reading its layout,
planning a change of it, and ordering recoveries and moves.

What is decided is in ``core.planner`` (the first layout), ``core.replan`` (every later one), ``core.plans``
(the steps between) and ``core.cluster`` (records, checks); here it is written to and read from the
control store.

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

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Network

from ssastore.core.cluster import (
    CLUSTER_ID_BYTES,
    CLUSTER_KEY,
    FORMING_KEY,
    NODE_PREFIX,
    Cluster,
    ClusterRecord,
    FormingRecord,
    NodeRecord,
    check_nodes,
    node_key,
)
from ssastore.core.groups import GROUP_PREFIX, GroupRecord, group_key
from ssastore.core.layout import Layout, layout_of, merge_parts, move_part
from ssastore.core.moving import begin_move, finish_move
from ssastore.core.numbers import (
    group_of_slice,
    lane_of_slice,
    number_of_part,
    overlaps,
    part_of_slice,
    plane_of_slice,
    slice_name,
    slice_number,
)
from ssastore.core.orders import MOVE_PREFIX, MoveOrder, RecoverOrder, move_name, order_name
from ssastore.core.planner import initial_layout, owned_slices
from ssastore.core.plans import MOVE, Plan, make_plan
from ssastore.core.recutting import abort_merge, order_merge, order_split
from ssastore.core.replan import replan
from ssastore.env import Compare, ControlStore, Item, Write
from ssastore.errors import ConfigError, TryLater
from ssastore.keyspace import Slice
from ssastore.limits import CONTROL_OPS_MAX

__all__ = [
    "Cluster",
    "Move",
    "MoveState",
    "Plan",
    "RecoverOrder",
    "abort_merge",
    "abort_moves",
    "form_cluster",
    "merge_as_planned",
    "move_states",
    "moves_of",
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
    "read_cluster",
]

_READS_MAX = 3
"Nodes and groups are read one after the other; a change in between may need a second look."


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
    check_nodes(service, nodes)
    groups = initial_layout(nodes, replicas)
    await control.transact(
        [Compare(CLUSTER_KEY, 0)],
        [Write(CLUSTER_KEY, record.encode()), Write(FORMING_KEY, FormingRecord(tuple(nodes)).encode())],
    )
    formed = await _read_record(control)
    forming = await control.get(FORMING_KEY)
    present = FormingRecord.decode(forming.value).nodes if forming else await _read_nodes(control)
    _require_same(formed, record, present, nodes)
    if forming:
        await _fill(control, Compare(FORMING_KEY, forming.revision), nodes, groups)
    return formed


async def read_cluster(control: ControlStore) -> Cluster:
    """The cluster with all its nodes and groups, checked.

    Raises:
        ConfigError: there is no cluster, or its layout breaks an invariant of ``core.cluster``.
        TryLater: it is being formed at this moment.
        Unavailable: the control store does not answer.
    """
    for attempt in range(_READS_MAX):
        cluster, is_one_moment = await _read_once(control)
        try:
            cluster.check()
        except ConfigError:
            if is_one_moment or attempt == _READS_MAX - 1:
                raise
        else:
            break
    return cluster


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
    lost: Collection[str] = (),
    sizes: Mapping[int, int] | None = None,
) -> Plan:
    """What must happen so that ``nodes`` own everything, each its share, with as little movement as can be.

    Args:
        nodes: who may own something after; an owner that is not listed drains, or is in ``lost``.
        replicas: planes after, where there shall be more of them.
        lost: who is gone for good: its slices are rebuilt from the other planes.
        sizes: bytes of one plane of a group, by group; None where nobody knows.

    Raises:
        ConfigError: too few nodes, or too few planes of a group are left.
    """
    check_nodes(cluster.record.network, nodes)
    before = layout_of(cluster.groups)
    after = replan(before, nodes, replicas or cluster.record.replicas)
    return make_plan(before, after, nodes, lost=lost, sizes=sizes)


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


async def order_recovery(control: ControlStore, node: str, order: RecoverOrder) -> list[str]:
    """Tell all workers of a node to recover; the keys of the orders, each gone when it is carried out.

    Raises:
        ConfigError: the cluster has no such node.
        Unavailable: the control store does not answer.
    """
    item = await control.get(node_key(node))
    if item is None:
        raise ConfigError(f"the cluster has no node {node}")
    names = [order_name(node, worker) for worker in range(_decode_node(item).workers)]
    await control.transact([], [Write(name, order.encode()) for name in names])
    return names


@dataclass(frozen=True, slots=True, order=True)
class Move:
    """One slice that another node is to own."""

    number: int
    target: str


class MoveState(Enum):
    """How far a move is, as the control store shows it."""

    PLANNED = "PLANNED"
    COPYING = "COPYING"
    "On its way to the target; SEALED at the end of that is known to source and target alone."
    DONE = "DONE"


async def order_move(control: ControlStore, slice16: int, target: str) -> list[str]:
    """``order_moves`` of one slice."""
    return await order_moves(control, [Move(slice16, target)])


async def order_moves(control: ControlStore, moves: Sequence[Move]) -> list[str]:
    """Tell the workers of the targets to take slices over; the keys of the orders, each gone when it is done.

    Moves that are ordered already go on.  What is its target's already is left out.

    Raises:
        ConfigError: an unknown node or slice, or a move that would put two planes of a group on one node (or
            in one zone, where zones are apart) as the groups are now: nothing was ordered then.
        Unavailable: the control store does not answer.
    """
    cluster = await read_cluster(control)
    nodes = {node.name: node for node in cluster.nodes}
    zones = {node.name: node.zone for node in cluster.nodes}
    groups = {record.group: record for record in cluster.groups}
    orders: dict[str, dict[int, str]] = {}
    for move in sorted(moves):
        plane, group = plane_of_slice(move.number), group_of_slice(move.number)
        if not 0 <= plane < cluster.record.replicas:
            raise ConfigError(f"slice {slice_name(move.number)} is of no plane that holds data")
        record = groups[group].at(part_of_slice(move.number))
        if record is None:
            raise ConfigError(f"slice {slice_name(move.number)} is no slice now: its group is cut otherwise")
        found = record.planes[plane]
        if move.target == found.owner:
            continue
        if move.target != found.target:
            # As if it were done: of one group the moves are made one after the other.
            groups[group] = finish_move(begin_move(record, plane, move.target, 1, zones), plane)
        orders.setdefault(_order_of(move, nodes), {})[move.number] = found.owner
    for key, slices in orders.items():
        await _change_order(control, key, added=slices)
    return sorted(orders)


async def abort_moves(control: ControlStore, moves: Sequence[Move]) -> None:
    """Take orders back: what is not finished is called off by its target.

    Raises:
        ConfigError: an unknown node. Unavailable: the control store does not answer.
    """
    nodes = {node.name: node for node in await _read_nodes(control)}
    taken: dict[str, set[int]] = {}
    for move in moves:
        if move.target not in nodes:
            raise ConfigError(f"the cluster has no node {move.target}")
        taken.setdefault(_order_of(move, nodes), set()).add(move.number)
    for key, slice16s in sorted(taken.items()):
        await _change_order(control, key, removed=slice16s)


def _order_of(move: Move, nodes: Mapping[str, NodeRecord]) -> str:
    """Key of the order that a move belongs to."""
    return move_name(move.target, lane_of_slice(move.number) % nodes[move.target].workers)


async def _change_order(
    control: ControlStore, key: str, *, added: Mapping[int, str] | None = None, removed: Iterable[int] = ()
) -> None:
    while True:
        item = await control.get(key)
        known = MoveOrder.decode(item.value).slices if item is not None else {}
        slices = {s: source for s, source in {**known, **(added or {})}.items() if s not in removed}
        compare = Compare(key, item.revision if item is not None else 0)
        value = MoveOrder(slices).encode() if slices else None
        if (value is None and item is None) or await control.transact([compare], [Write(key, value)]):
            return


async def move_states(control: ControlStore, moves: Sequence[Move]) -> dict[Move, MoveState]:
    """How far moves are. Raises ConfigError, Unavailable."""
    items, _ = await control.list(GROUP_PREFIX)
    groups = {record.group: record for record in map(_decode_group, items)}
    states: dict[Move, MoveState] = {}
    for move in moves:
        plane, group = plane_of_slice(move.number), groups[group_of_slice(move.number)]
        # Its part may have been cut or merged since.
        inside = [p for p in group.parts if overlaps(slice_number(plane, p.part), move.number)]
        found = inside[0].planes[plane]
        states[move] = (
            MoveState.DONE
            if found.owner == move.target
            else MoveState.COPYING
            if found.target == move.target
            else MoveState.PLANNED
        )
    return states


def moves_of(plan: Plan, layout: Layout) -> list[Move]:
    """The moves of a plan, slice by slice. ConfigError: it has steps that this version cannot take.

    ``layout``: the ownership that the plan was made for, whatever was done of it.
    """
    moves = []
    for change, piece in plan.parts_of_changes(layout):
        if change.kind != MOVE:
            raise ConfigError(
                f"the plan has to {change.kind} {change.piece}: this version cannot do that yet"
            )
        moves.append(Move(slice_number(change.piece.plane, number_of_part(piece)), change.target))
    return moves


async def order_plan(control: ControlStore, plan: Plan) -> list[Move]:
    """Carry a plan out, or go on with it: split what it splits, and order its moves, which are returned.

    What it merges is merged by ``merge_as_planned``, when all moves are done.

    Raises:
        ConfigError: it was made for another ownership (what it has itself changed so far is none), or has
            steps that this version cannot take.
        Unavailable: the control store does not answer.
    """
    before = plan.undone(layout_of((await read_cluster(control)).groups))
    plan.require(before)
    moves = moves_of(plan, before)
    for recut in plan.splits:
        await order_split(control, number_of_part(recut.whole), [number_of_part(p) for p in recut.pieces])
    groups = {record.group: record for record in (await read_cluster(control)).groups}
    # What is not there is merged already: all moves were done then.
    left = [m for m in moves if groups[group_of_slice(m.number)].at(part_of_slice(m.number)) is not None]
    await order_moves(control, left)
    return moves


async def merge_as_planned(control: ControlStore, plan: Plan) -> bool:
    """Merge what a plan merges, as far as its parts are where it puts them; whether all of it is.

    Raises:
        ConfigError: parts that are to be merged have different owners, or their groups are busy.
        Unavailable: the control store does not answer.
    """
    done = [await order_merge(control, number_of_part(recut.whole)) for recut in plan.merges]
    return all(done)


async def ordered_moves(control: ControlStore) -> list[tuple[Move, str, MoveState]]:
    """All moves that are ordered and not done, with the node that each slice is taken from."""
    items, _ = await control.list(MOVE_PREFIX)
    sources: dict[Move, str] = {}
    for item in items:
        target = item.key.split("/")[1]
        sources |= {Move(s, target): source for s, source in MoveOrder.decode(item.value).slices.items()}
    states = await move_states(control, list(sources))
    return [(move, sources[move], states[move]) for move in sorted(sources) if states[move] != MoveState.DONE]


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


async def _read_record(control: ControlStore) -> ClusterRecord:
    item = await control.get(CLUSTER_KEY)
    if item is None:
        raise ConfigError("the control store holds no cluster: form one first, or correct its address")
    return ClusterRecord.decode(item.value)


async def _read_nodes(control: ControlStore) -> list[NodeRecord]:
    items, _ = await control.list(NODE_PREFIX)
    return [_decode_node(item) for item in items]


async def _read_once(control: ControlStore) -> tuple[Cluster, bool]:
    """The cluster, unchecked, and whether nodes and groups are of one moment."""
    record = await _read_record(control)
    if await control.get(FORMING_KEY):
        raise TryLater("the cluster is being formed; if the command that forms it died, run it again")
    # Groups first: a node is listed before it owns anything.
    groups, groups_revision = await control.list(GROUP_PREFIX)
    nodes, nodes_revision = await control.list(NODE_PREFIX)
    cluster = Cluster(record, tuple(map(_decode_node, nodes)), tuple(map(_decode_group, groups)))
    return cluster, groups_revision == nodes_revision


def _decode_node(item: Item) -> NodeRecord:
    node = NodeRecord.decode(item.value)
    _require_key(item, node_key(node.name))
    return node


def _decode_group(item: Item) -> GroupRecord:
    record = GroupRecord.decode(item.value)
    _require_key(item, group_key(record.group))
    return record


def _require_key(item: Item, key: str) -> None:
    if item.key != key:
        raise ConfigError(f"the control store holds the record of {key} under {item.key}")


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
