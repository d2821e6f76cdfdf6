"""Ordering that slices get other owners, seeing how far that is, and taking it back. Coroutines.

Orders are written to the control store for the workers that get the slices, which carry them
out: moves in ``core.mover``, recoveries of what a lost node had in ``core.replacer``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ssastore.core.cluster import NodeRecord, node_key
from ssastore.core.clusterreading import decode_group, decode_node, read_cluster
from ssastore.core.groups import GROUP_PREFIX, MOVING, RECOVERING, GroupRecord, group_key
from ssastore.core.mates import require_mates
from ssastore.core.moving import cancel_move, require_target
from ssastore.core.numbers import (
    group_of_slice,
    lane_of_slice,
    overlaps,
    part_of_slice,
    plane_of_slice,
    slice_name,
    slice_number,
)
from ssastore.core.orders import (
    MOVE_PREFIX,
    REPLACE_PREFIX,
    WIDEN_PREFIX,
    MoveOrder,
    RecoverOrder,
    move_name,
    order_name,
    replace_name,
)
from ssastore.env import Compare, ControlStore, Item, Write
from ssastore.errors import ConfigError


@dataclass(frozen=True, slots=True, order=True)
class Move:
    """One slice that another node is to own."""

    number: int
    target: str
    lost: str = ""
    "Its owner, if that is lost for good: then the target recovers it from the other planes."


class MoveState(Enum):
    """How far a move is, as the control store shows it."""

    PLANNED = "PLANNED"
    COPYING = "COPYING"
    "On its way to the target; SEALED at the end of that is known to source and target alone."
    RECOVERING = "RECOVERING"
    "The target's already, which copies it from the other planes and does not vote yet."
    DONE = "DONE"


async def order_move(control: ControlStore, slice16: int, target: str) -> list[str]:
    """``order_moves`` of one slice."""
    return await order_moves(control, [Move(slice16, target)])


async def order_moves(control: ControlStore, moves: Sequence[Move]) -> list[str]:
    """Tell the workers of the targets to take slices over; the keys of the orders, each gone when it is done.

    Moves that are ordered already go on, but for those of other planes of a group to a node that is to
    rebuild one.  Left out is what is its target's already, and what a lost node owns no more.

    Raises:
        ConfigError: an unknown node or slice, or a move that would put two planes of a group on one node (or
            in one zone, where zones are apart) once all that is ordered is done: nothing was ordered then.
        Unavailable: the control store does not answer.
    """
    cluster = await read_cluster(control)
    nodes = {node.name: node for node in cluster.nodes}
    zones = {node.name: node.zone for node in cluster.nodes}
    groups = {record.group: record for record in cluster.groups}
    orders: dict[str, dict[int, str]] = {}
    numbers = {move.number for move in moves}
    pending = [found for found in await ordered_moves(control) if found[0].number not in numbers]
    owners = _owners_ordered(pending, groups)
    coming = {(part_of_slice(other.number), other.target): other for other, _, _ in pending}
    in_the_way: list[Move] = []
    for move in sorted(moves):
        plane, part = plane_of_slice(move.number), part_of_slice(move.number)
        record = groups[group_of_slice(move.number)].at(part)
        if record is None:
            raise ConfigError(f"slice {slice_name(move.number)} is no slice now: its group is cut otherwise")
        if plane >= len(record.planes):
            raise ConfigError(f"slice {slice_name(move.number)} is of no plane that holds data")
        found = record.planes[plane]
        if move.target == found.owner or (move.lost and move.lost != found.owner):
            continue
        if move.lost:
            # Zones do not count: a slice without data is worse than two planes in one zone.
            _check_target(record, plane, move.target, nodes)
            if (other := coming.get((part, move.target))) is not None:
                if other.lost:
                    raise ConfigError(
                        f"slice {slice_name(move.number)} cannot go to {move.target}, which rebuilds another "
                        "plane of it: wait for that, and plan again"
                    )
                in_the_way.append(other)
        else:
            # As if all before were done: of one group the moves are made one after the other.
            if record.merging is not None:
                raise ConfigError(f"slice {slice_name(move.number)} is being merged: wait, or abort that")
            placed = owners.setdefault(part, list(record.owners))
            if move.target != found.target:
                require_target(record, placed, plane, move.target, zones)
            placed[plane] = move.target
        orders.setdefault(_order_of(move, nodes), {})[move.number] = found.owner
    # Who is to rebuild a slice gets no other plane of it: whichever is first, the other could never begin.
    await abort_moves(control, in_the_way)
    await _supersede(control, orders)
    for key, slices in orders.items():
        await change_order(control, key, added=slices)
    return sorted(orders)


def _owners_ordered(
    pending: Sequence[tuple[Move, str, MoveState]], groups: Mapping[int, GroupRecord]
) -> dict[int, list[str]]:
    """By part that has orders, its owners when all of them are done.

    Of two plans for one ownership each can put a plane of a group on the same node.  One of these moves could
    never be begun then, and who waits for it would wait for ever.
    """
    owners: dict[int, list[str]] = {}
    for move, source, _ in pending:
        plane, part = plane_of_slice(move.number), part_of_slice(move.number)
        view = groups[group_of_slice(move.number)].at(part)
        if view is None:
            continue
        placed = owners.setdefault(part, list(view.owners))
        if plane < len(placed) and placed[plane] == source and move.target not in placed:
            placed[plane] = move.target
    return owners


async def _supersede(control: ControlStore, orders: Mapping[str, Mapping[int, str]]) -> None:
    """Take slices out of older orders to other workers.

    One that was carried out stays until the rest of it is: its target would fetch the slice back.
    """
    items, _ = await control.list(MOVE_PREFIX)
    for item in items:
        elsewhere = {number for key, slices in orders.items() if key != item.key for number in slices}
        await take_back(control, item, elsewhere)


def _check_target(record: GroupRecord, plane: int, target: str, nodes: Mapping[str, NodeRecord]) -> None:
    where = slice_name(slice_number(plane, record.part))
    if target not in nodes:
        raise ConfigError(f"slice {where} cannot go to {target}, an unknown node")
    if target in record.owners:
        raise ConfigError(f"slice {where} cannot go to {target}, which has another plane of it")


async def abort_moves(control: ControlStore, moves: Sequence[Move]) -> None:
    """Take orders back: what is not finished is called off by its target; a recovery, if it is not begun.

    Also orders to nodes that are no members any more.  What is not ordered is left alone.

    Raises:
        ConfigError: a record is not understood. Unavailable: the control store does not answer.
    """
    taken: dict[tuple[str, bool], set[int]] = {}
    for move in moves:
        taken.setdefault((move.target, bool(move.lost)), set()).add(move.number)
    for item, is_lost in await _orders(control):
        await take_back(control, item, taken.get((target_of(item.key), is_lost), set()))


def _order_of(move: Move, nodes: Mapping[str, NodeRecord]) -> str:
    """Key of the order that a move belongs to."""
    name = replace_name if move.lost else move_name
    return name(move.target, lane_of_slice(move.number) % nodes[move.target].workers)


def target_of(key: str) -> str:
    """The node that an order is for."""
    return key.split("/")[1]


async def take_back(control: ControlStore, item: Item, slices: Collection[int]) -> None:
    """Take slices out of an order as it was listed, if it has any of them."""
    if not MoveOrder.decode(item.value).slices.keys().isdisjoint(slices):
        await change_order(control, item.key, removed=slices)


async def change_order(
    control: ControlStore, key: str, *, added: Mapping[int, str] | None = None, removed: Iterable[int] = ()
) -> None:
    """Add slices to an order, or take some back. Raises ConfigError: its node has been removed."""
    while True:
        item = await control.get(key)
        known = MoveOrder.decode(item.value).slices if item is not None else {}
        slices = {s: source for s, source in {**known, **(added or {})}.items() if s not in removed}
        unchanged = [Compare(key, item.revision if item is not None else 0)]
        if added:
            # A node can be removed while somebody plans for it, and must not be while it has an order.
            node = await control.get(node_key(target_of(key)))
            if node is None:
                raise ConfigError(f"{target_of(key)} has been removed from the cluster meanwhile: plan again")
            unchanged.append(Compare(node.key, node.revision))
        value = MoveOrder(slices).encode() if slices else None
        if (value is None and item is None) or await control.transact(unchanged, [Write(key, value)]):
            return


async def move_states(control: ControlStore, moves: Sequence[Move]) -> dict[Move, MoveState]:
    """How far moves are. Raises ConfigError, Unavailable."""
    items, _ = await control.list(GROUP_PREFIX)
    groups = {record.group: record for record in map(decode_group, items)}
    return {move: _state_of(move, groups[group_of_slice(move.number)]) for move in moves}


def _state_of(move: Move, group: GroupRecord) -> MoveState:
    plane = plane_of_slice(move.number)
    # Its part may have been cut or merged since.
    inside = [p for p in group.parts if overlaps(slice_number(plane, p.part), move.number)]
    found = inside[0].planes[plane]
    if found.owner == move.target:
        return MoveState.RECOVERING if found.state == RECOVERING else MoveState.DONE
    return MoveState.COPYING if found.target == move.target else MoveState.PLANNED


async def ordered_moves(control: ControlStore) -> list[tuple[Move, str, MoveState]]:
    """All moves that are ordered and not done, with the node that each slice is taken from."""
    sources = {
        Move(number, target_of(item.key), source if is_lost else ""): source
        for item, is_lost in await _orders(control)
        for number, source in MoveOrder.decode(item.value).slices.items()
    }
    states = await move_states(control, list(sources))
    return [(move, sources[move], states[move]) for move in sorted(sources) if states[move] != MoveState.DONE]


async def _orders(control: ControlStore) -> list[tuple[Item, bool]]:
    """All orders, and whether they are about slices of lost nodes."""
    moves, _ = await control.list(MOVE_PREFIX)
    replacements, _ = await control.list(REPLACE_PREFIX)
    return [*((item, False) for item in moves), *((item, True) for item in replacements)]


async def forget_lost(control: ControlStore, lost: Collection[str]) -> None:
    """Take back what lost nodes were ordered to do, and moves away from them: none can come to an end.

    Planes that they were to make are ordered elsewhere when replicas are set again.  A handover to one of
    them is called off, for its source and for the group that waits for it.
    """
    for item, is_lost in await _orders(control):
        slices = MoveOrder.decode(item.value).slices
        if target_of(item.key) in lost:
            await change_order(control, item.key, removed=slices)
        elif not is_lost and any(source in lost for source in slices.values()):
            stuck = {number for number, source in slices.items() if source in lost}
            await change_order(control, item.key, removed=stuck)
    items, _ = await control.list(WIDEN_PREFIX)
    for item in items:
        if target_of(item.key) in lost:
            await change_order(control, item.key, removed=MoveOrder.decode(item.value).slices)
    items, _ = await control.list(GROUP_PREFIX)
    for item in items:
        await _call_off(control, item, lost)


async def _call_off(control: ControlStore, item: Item, lost: Collection[str]) -> None:
    """End the handovers of a group whose targets are lost. Who changes the record meanwhile has done it."""
    for view in decode_group(item).views():
        for plane, found in enumerate(view.planes):
            if found.state == MOVING and found.target in lost:
                unchanged = Compare(group_key(view.group), item.revision)
                cancelled = cancel_move(view, plane)
                await control.transact([unchanged], [Write(unchanged.key, cancelled.encode())])


async def order_recovery(control: ControlStore, node: str, order: RecoverOrder) -> list[str]:
    """Tell all workers of a node to recover; the keys of the orders, each gone when it is carried out.

    Raises:
        ConfigError: the cluster has no such node, or what it has and shall rebuild could not be rebuilt now.
        Unavailable: the control store does not answer.
    """
    item = await control.get(node_key(node))
    if item is None:
        raise ConfigError(f"the cluster has no node {node}")
    if order.rebuild and not order.accept_data_loss:
        await require_mates(control, await read_cluster(control), node)
    names = [order_name(node, worker) for worker in range(decode_node(item).workers)]
    await control.transact([], [Write(name, order.encode()) for name in names])
    return names
