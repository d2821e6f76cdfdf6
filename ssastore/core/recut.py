"""Group records of parts that are cut and joined, in all planes alike. Pure.

    split     P                        ->  A, B, ...    same owners, epochs and cfg: no data moves
    begin     A, B, ... (same owners)  ->  the same, merging into P; one cfg for all, the group's next
    ready     environment of a plane has adopted that cfg for all of them, and noted so for P
    (last)    merging into P           ->  P            when all planes are ready
    cancel    merging into P           ->  A, B, ...    under the cfg that was begun with; also together
                                                        with the beginning of a recovery

Each is one compare-and-set of the group's key.  A split needs nobody's consent: every acceptor stays
where it is with all that it has promised, and only the prefixes that it answers for are shorter.

A merge fences.  The numbers of the parts differ, and that of P must be above all of them and new, or an
acceptor that one part has replaced would be counted for the other one.  All planes have it durably before P
is: an environment that did not know of it would hold standings that nobody speaks of any more.

Epochs: begin and cancel raise them and leave ``since``, as a move does; P has epochs above those of its
parts.  So what an environment noted for a merge that was called off is good for no other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ssastore.core.groups import (
    GROUP_NAMES,
    GroupRecord,
    Merging,
    PartRecord,
    PlaneOwner,
    Split,
    split_record,
)
from ssastore.core.numbers import group_of_part, number_of_part, part_piece
from ssastore.errors import ConfigError
from ssastore.keyspace import SLICE_DEPTH_MAX, Slice


def split_part(record: GroupRecord, part: int, pieces: Sequence[int]) -> GroupRecord:
    """The record in which a part is cut into others, which are all of it, in order.

    ConfigError: there is no such part, the pieces are not all of it or too many, or the group is not idle.
    """
    _check_idle(record)
    whole = record.at(part)
    if whole is None:
        raise ConfigError(f"the cluster has no part {part_piece(part)}: it is split or merged already")
    cut = tuple([PartRecord(piece, whole.planes, whole.cfg) for piece in pieces])
    at = record.parts.index(PartRecord(part, whole.planes, whole.cfg))
    parts = (*record.parts[:at], *cut, *record.parts[at + 1 :])
    return split_record(record.group, Split(parts, cut[0].part, record.next_cfg))


def halves_of(part: int, depth: int) -> list[int]:
    """The parts of ``depth`` that a part can be cut into. ConfigError: it cannot."""
    piece = part_piece(part)
    if not piece.depth < depth <= SLICE_DEPTH_MAX:
        raise ConfigError(f"{piece} can be split to /{64 + piece.depth + 1} ... /{64 + SLICE_DEPTH_MAX}")
    step = 1 << (64 - depth)
    return [number_of_part(Slice(first, depth)) for first in range(piece.first, piece.end, step)]


def begin_merge(record: GroupRecord, part: int) -> GroupRecord:
    """The record in which all parts inside ``part`` are being merged.

    ConfigError: there are not several, they have different owners, or the group is not idle.
    """
    _check_idle(record)
    inside = _inside(record, part)
    if len(inside) < 2:
        raise ConfigError(f"{part_piece(part)} holds no parts to merge")
    owners = [tuple(plane.owner for plane in found.planes) for found in inside]
    if len(set(owners)) > 1:
        raise ConfigError(
            f"the parts of {part_piece(part)} have different owners in a plane: move them to one node first"
        )
    raised = _raised(inside, record.next_cfg)
    merging = Merging(part, (0,) * len(record.planes))
    return _with(record, raised, Split((), record.part, record.next_cfg + 1, merging))


def ready_for_merge(record: GroupRecord, plane: int, env: int) -> GroupRecord:
    """The record in which an environment is ready for its plane of a merge; merged, if it is the last.

    ConfigError: nothing is being merged.
    """
    merging = _merging(record)
    ready = (*merging.ready[:plane], env, *merging.ready[plane + 1 :])
    if not all(ready):
        split = record.split
        assert split is not None
        return replace(record, split=replace(split, merging=merging._replace(ready=ready)))
    inside = _inside(record, merging.part)
    planes = tuple(
        PlaneOwner(found.owner, merged_epoch(record, at), env=ready[at])
        for at, found in enumerate(inside[0].planes)
    )
    merged = PartRecord(merging.part, planes, inside[0].cfg)
    parts = tuple(found for found in record.parts if found not in inside)
    parts = tuple(sorted((*parts, merged), key=lambda found: part_piece(found.part)))
    return split_record(record.group, Split(parts, merged.part, record.next_cfg))


def cancel_merge(record: GroupRecord) -> GroupRecord:
    """The record in which a merge is called off. ConfigError: nothing is being merged."""
    inside = _inside(record, _merging(record).part)
    return _with(record, _raised(inside, inside[0].cfg), Split((), record.part, record.next_cfg))


def to_be_recovered(record: GroupRecord) -> GroupRecord:
    """The record in which a slice can be recovered: without a merge that was begun.

    That waits for all planes to vote, so also for the one whose recovery would have to wait for its end.
    """
    return record if record.merging is None else cancel_merge(record)


def merged_epoch(record: GroupRecord, plane: int) -> int:
    """The epoch that a plane will have when the merge that was begun is done."""
    return _inside(record, _merging(record).part)[0].planes[plane].epoch + 1


def merging_parts(record: GroupRecord) -> tuple[int, ...]:
    """The parts that are being merged. ConfigError: none are."""
    return tuple(found.part for found in _inside(record, _merging(record).part))


def _raised(inside: Sequence[PartRecord], cfg: int) -> list[PartRecord]:
    """Parts under one cfg, with epochs above all that any of them had in the plane; data stays complete."""
    epochs = [
        max(plane.epoch for plane in planes) + 1 for planes in zip(*[p.planes for p in inside], strict=True)
    ]
    return [
        PartRecord(
            found.part,
            tuple(
                replace(plane, epoch=epoch, since=plane.complete_epoch)
                for plane, epoch in zip(found.planes, epochs, strict=True)
            ),
            cfg,
        )
        for found in inside
    ]


def _with(record: GroupRecord, changed: Sequence[PartRecord], split: Split) -> GroupRecord:
    """The record with other parts in the place of those with the same numbers."""
    by_number = {found.part: found for found in changed}
    parts = tuple(by_number.get(found.part, found) for found in record.parts)
    return split_record(record.group, replace(split, parts=parts))


def _inside(record: GroupRecord, part: int) -> list[PartRecord]:
    if group_of_part(part) != record.group:
        raise ConfigError(f"{part_piece(part)} is not in group {GROUP_NAMES[record.group]}")
    whole = part_piece(part)
    return [found for found in record.parts if whole.covers(part_piece(found.part))]


def _merging(record: GroupRecord) -> Merging:
    if record.merging is None:
        raise ConfigError(f"no parts of group {GROUP_NAMES[record.group]} are being merged")
    return record.merging


def _check_idle(record: GroupRecord) -> None:
    record.check_idle(
        -1, f"group {GROUP_NAMES[record.group]} is recovered, moved or merged: one thing at a time"
    )
