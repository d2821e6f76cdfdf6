"""What an operator does to a running cluster: the one home of it for the command line and the console.

Moves are paused, resumed, held to a rate and called off by what the control store says (``core.settings``,
``core.ordering``); a node is drained by a plan (``rebalance``).  Here besides: how large slices are, and how
long a plan or what is left of it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ssastore.core.cluster import Cluster, NodeRecord
from ssastore.core.clusterreading import decode_group
from ssastore.core.estimate import Estimate, estimate
from ssastore.core.groups import GROUP_PREFIX, MOVING, GroupRecord
from ssastore.core.layout import layout_of
from ssastore.core.numbers import number_of_part, numbered_slice, slice_number
from ssastore.core.plans import MOVE, Plan
from ssastore.core.settings import MoveSettings, change_move_settings, read_move_settings
from ssastore.env import ControlStore
from ssastore.errors import ConfigError
from ssastore.keyspace import SLICE_BITS
from ssastore.limits import MOVE_BYTES_PER_S_MAX, MOVE_BYTES_PER_S_MIN, RECOVERY_BYTES_PER_S
from ssastore.rebalance import Move, MoveState, abort_moves, ordered_moves

_POLL_S = 0.25
_GENTLE = "gentle"
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def rate_of(text: str) -> int:
    """Bytes a second: a number, or one with K, M or G for powers of 1024; 0 for "gentle".

    Raises:
        ConfigError: it is neither, or out of range.
    """
    if text == _GENTLE:
        return 0
    digits, unit = (text[:-1], text[-1:]) if text[-1:].upper() in _UNITS else (text, "")
    if not (digits.isascii() and digits.isdecimal()):
        raise ConfigError(f"{text!r} is no number of bytes a second, like 32M, and not gentle")
    rate = int(digits) * _UNITS.get(unit.upper(), 1)
    if not MOVE_BYTES_PER_S_MIN <= rate <= MOVE_BYTES_PER_S_MAX:
        raise ConfigError(f"{text!r} is not in the range 1M to 1024G")
    return rate


async def pause(control: ControlStore, wait_s: float) -> tuple[int, int]:
    """Begin no more moves, and wait for those under way: how many are left, and how many still go on.

    Raises:
        ConfigError, Unavailable: of the control store.
    """
    await change_move_settings(control, lambda known: replace(known, is_paused=True))
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        left = len(await ordered_moves(control))
        moving = await _moving(control)
        if not moving or asyncio.get_running_loop().time() >= deadline:
            return left, moving
        await asyncio.sleep(_POLL_S)


async def _moving(control: ControlStore) -> int:
    """Slices that are on their way to another node, or copied to be a second replica."""
    items, _ = await control.list(GROUP_PREFIX)
    planes = [plane for item in items for found in decode_group(item).parts for plane in found.planes]
    return sum(plane.state == MOVING for plane in planes)


async def resume(control: ControlStore) -> MoveSettings:
    """Let slices move again; the settings then. Raises ConfigError, Unavailable."""
    return await change_move_settings(control, lambda known: replace(known, is_paused=False))


async def set_rate(control: ControlStore, bytes_per_s: int | None) -> MoveSettings:
    """Change the rate, if one is given; the settings then. Raises ConfigError, Unavailable."""
    if bytes_per_s is None:
        return await read_move_settings(control)
    return await change_move_settings(control, lambda known: replace(known, bytes_per_s=bytes_per_s))


async def abort(control: ControlStore) -> tuple[int, int]:
    """Call off every move that is not done: how many there were, and how many slices go on nevertheless.

    Those are being rebuilt at their new owners, and have nobody to go back to.

    Raises:
        ConfigError, Unavailable: of the control store.
    """
    found = await ordered_moves(control)
    moves = [move for move, _, state in found if state is not MoveState.RECOVERING]
    await abort_moves(control, moves)
    return len(moves), len(found) - len(moves)


def aborted(count: int, going_on: int) -> str:
    """One line about what was called off."""
    rest = f"; {going_on} slices are being rebuilt at their new owners already, and go on" if going_on else ""
    return f"{count} moves called off{rest}"


def nodes_after(
    cluster: Cluster, leaving: Collection[str], weights: Mapping[str, int] | None = None
) -> list[NodeRecord]:
    """Who may own something when nodes have left or weigh something else.

    Raises:
        ConfigError: a name that the cluster does not know.
    """
    weights = weights or {}
    known = [node.name for node in cluster.nodes]
    if unknown := sorted((set(leaving) | weights.keys()).difference(known)):
        raise ConfigError(f"the cluster has no node {unknown[0]}; it has {', '.join(known)}")
    return [
        replace(node, weight=weights.get(node.name, node.weight))
        for node in cluster.nodes
        if node.name not in leaving
    ]


# -- what it costs ----------------------------------------------------------------------------------


def sizes_of(cluster: Cluster, report: Mapping[str, Any]) -> dict[int, int]:
    """Bytes of one plane of a group, about.

    The largest slices of each worker are known from its last scrub; the others share what its node has
    besides.  Of a group that is the mean of its owners'.

    Args:
        report: what nodes say of themselves (``admin.ClusterWatch.report``).
    """
    largest: dict[tuple[str, int], int] = {}
    per_slice = {}
    for node in report["nodes"]:
        workers = [worker for worker in node["workers"] if worker["ok"]]
        known = {number: size for worker in workers for number, size, _ in worker.get("largest", ())}
        largest.update(((node["name"], number), size) for number, size in known.items())
        used = sum(worker.get("used_bytes", 0) for worker in workers)
        others = node["slices"] - len(known)
        if used and others > 0:
            per_slice[node["name"]] = max(0, used - sum(known.values())) / others
    sizes = {}
    for record in cluster.groups:
        planes = []
        for plane in range(len(record.planes)):
            parts = [_size_of(view, plane, largest, per_slice) for view in record.views()]
            known_parts = [size for size in parts if size is not None]
            if len(known_parts) == len(parts):
                planes.append(sum(known_parts))
        if planes:
            sizes[record.group] = round(sum(planes) / len(planes))
    return sizes


def _size_of(
    view: GroupRecord, plane: int, largest: Mapping[tuple[str, int], int], per_slice: Mapping[str, float]
) -> float | None:
    """Bytes of a slice, about; None where its owner tells nothing."""
    owner, number = view.owners[plane], slice_number(plane, view.part)
    if (owner, number) in largest:
        return largest[owner, number]
    if (whole := largest.get((owner, slice_number(plane, view.group)))) is not None:
        # Its owner has read it before the group was split.
        return whole / (1 << (numbered_slice(number).depth - SLICE_BITS))
    return per_slice.get(owner)


def workers_of(cluster: Cluster) -> Mapping[str, int]:
    """Worker processes by node name."""
    return {node.name: node.workers for node in cluster.nodes}


def plan_estimate(plan: Plan, cluster: Cluster, sizes: Mapping[int, int], settings: MoveSettings) -> Estimate:
    """What is moved and what is rebuilt go on side by side, the latter never faster than recoveries."""
    moved: list[tuple[int, str]] = []
    rebuilt: list[tuple[int, str]] = []
    before = layout_of(cluster.groups).with_planes(plan.replicas[1])
    for change, piece in plan.parts_of_changes(before):
        found = slice_number(change.piece.plane, number_of_part(piece)), change.target
        (moved if change.kind == MOVE else rebuilt).append(found)
    workers = workers_of(cluster)
    parts = (
        estimate(moved, sizes, workers, settings.bound, settings.slice_s),
        estimate(rebuilt, sizes, workers, min(settings.bound, RECOVERY_BYTES_PER_S), settings.slice_s),
    )
    return Estimate(sum(part.bytes for part in parts), max(part.seconds for part in parts))


def left_estimate(
    cluster: Cluster,
    report: Mapping[str, Any],
    found: Sequence[tuple[Move, str, MoveState]],
    settings: MoveSettings,
) -> Estimate:
    """What is left to be copied of ordered moves."""
    slices = [(move.number, move.target) for move, _, _ in found]
    return estimate(slices, sizes_of(cluster, report), workers_of(cluster), settings.bound, settings.slice_s)


def told(found: Estimate | None, settings: MoveSettings) -> str:
    """One line about what is left."""
    rate = "a gentle pace" if settings.is_gentle else f"{settings.bytes_per_s / 2**20:.0f} MiB/s a worker"
    if found is None:
        return f"at {rate}"
    return f"about {found.bytes / 2**20:.1f} MiB to copy, about {found.seconds:.0f} s at {rate}"
