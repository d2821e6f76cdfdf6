"""Putting merged rows in the place of what a lost slice held. Pure: one transaction.

Between two plain keys exactly the merged rows are left.  A blob that is already here is
kept as it is: its content was verified by its digest before (``core.recovery``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ssastore.core.floors import read_floor
from ssastore.core.numbers import group_of_part, slice_number
from ssastore.core.pages import END_KIND, KIND_AT, Rows, end_key, plain_key, stored_key_of
from ssastore.core.records import floor_key, slice_range, tombstone_key
from ssastore.core.register import LIVE, NO_BALLOT, Ballot, decode_slot, peek_slot
from ssastore.env import WriteTxn
from ssastore.errors import CorruptObject
from ssastore.keyspace import GROUP_BITS
from ssastore.limits import MOVE_PIECE_BYTES, MOVE_ROW_BYTES
from ssastore.messages import RECORD_KINDS, Kind
from ssastore.wire import Body

Bounds = tuple[bytes, bytes | None]
"Behind a plain key, up to another or the end."

Cover = Callable[[WriteTxn, Ballot], None]
"""``core.ceiling.Ceiling.cover`` at the time of the call."""

_Record = tuple[bytes, Body, int | None]
"Stored key and value, and when it was deleted if it was."

_NOT_PUT = frozenset((END_KIND, int(Kind.BLOB)))
_RECORD_KINDS = frozenset(map(int, RECORD_KINDS))


def fill_range(
    txn: WriteTxn,
    plane: int,
    parts: Sequence[int],
    bounds: Bounds,
    merged: Rows,
    cover: Cover,
) -> list[int]:
    """Replace what the parts' slices hold behind the first bound up to the second; None is no bound.

    Args:
        cover: raises the ceiling of the environment over what mates had promised.

    Returns:
        the parts that are complete with this.
    """
    # All that can raise comes before the first change.
    outdated = [key for key in _keys(txn, plane, parts, bounds) if plain_key(key) not in merged]
    records, highest = _records_of(plane, merged)
    ended = [part for part in parts if end_key(part) in merged]
    floors: dict[int, Ballot] = {}
    for part in ended:
        # One floor for all parts of a slice that are here: none of them may have it lowered.
        slice16 = plane << GROUP_BITS | group_of_part(part)
        known = floors[slice16] if slice16 in floors else _own_floor(txn, slice16)
        floors[slice16] = max(bytes(merged[end_key(part)]), known)
    if highest != NO_BALLOT:
        cover(txn, highest)
    for key in outdated:
        txn.delete(key)
    _put(txn, records)
    for slice16, floor in floors.items():
        if floor != NO_BALLOT:
            txn.put(floor_key(slice16), floor, use_reserve=True)
    return ended


def pieces_of(rows: Rows, bounds: Bounds) -> Iterator[tuple[Bounds, Rows, int]]:
    """Rows in key order between two bounds as several changes for the log of a store, with their sizes.

    A change of a whole page is a commit of its own, for which every other write of the environment waits.
    """
    after, last = bounds
    piece: Rows = {}
    size = 0
    for key, value in rows.items():
        length = max(len(key) + len(value), MOVE_ROW_BYTES)
        if piece and size + length > MOVE_PIECE_BYTES:
            end = next(reversed(piece))
            yield (after, end), piece, size
            after, piece, size = end, {}, 0
        piece[key] = value
        size += length
    yield (after, last), piece, size


def fill_keys(txn: WriteTxn, plane: int, entries: Mapping[bytes, Body | None], cover: Cover) -> None:
    """Put rows of a page of changes in the place of what is under their keys. Blobs are there already."""
    records, highest = _records_of(plane, entries)
    if highest != NO_BALLOT:
        cover(txn, highest)
    for key, found in entries.items():
        if found is None:
            txn.delete(stored_key_of(key, plane))
    _put(txn, records)


def _records_of(plane: int, rows: Mapping[bytes, Body | None]) -> tuple[list[_Record], Ballot]:
    """The records of rows that are to be put, and the highest ballot in them. Raises CorruptObject."""
    records: list[_Record] = []
    highest = NO_BALLOT
    for key, value in rows.items():
        kind = key[KIND_AT]
        if value is None or kind in _NOT_PUT:
            continue
        deleted_ms = None
        if kind in _RECORD_KINDS:
            _, state, modified_ms, _, _ = peek_slot(value)
            deleted_ms = None if state == LIVE else modified_ms
            highest = max(highest, decode_slot(value, NO_BALLOT).seen)
        records.append((stored_key_of(key, plane), value, deleted_ms))
    return records, highest


def _put(txn: WriteTxn, records: list[_Record]) -> None:
    for key, value, deleted_ms in records:
        txn.put(key, value)
        if deleted_ms is not None:
            txn.put(tombstone_key(deleted_ms, key), key, use_reserve=True)


def _own_floor(txn: WriteTxn, slice16: int) -> Ballot:
    try:
        return read_floor(txn, slice_range(slice16)[0])
    except CorruptObject:
        return NO_BALLOT  # The mates' floors are as high as any that this plane could need.


def _keys(txn: WriteTxn, plane: int, parts: Sequence[int], bounds: Bounds) -> Iterator[bytes]:
    """Stored keys of the parts' slices within the bounds, those of rotten records included."""
    after, last = bounds
    for part in parts:
        if end_key(part) <= after:
            continue
        first, end = slice_range(slice_number(plane, part))
        if after:
            first = max(first, stored_key_of(after, plane) + b"\0")
        if last is not None:
            end = min(end, stored_key_of(last, plane) + b"\0")
        while first < end:
            try:
                for key, _ in txn.scan(first, end):
                    yield key
                break
            except CorruptObject as error:
                if not error.key:
                    raise
                yield error.key
                first = error.key + b"\0"
