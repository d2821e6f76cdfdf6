"""What a slice holds in all, as two environments compare it at the end of a handover. Pure.

    row: part u32 | records u64 | sum u128 | floor u128 | cfg u64

The sum is the exclusive or of the XXH3-128 of every stored key with its value; of a blob only
the key counts, which is its digest.  Promises count, and references, and marks of shut buckets.

A slice is counted while it is written, so that its size is not what makes its handover long: once from its
first key to its last, in steps, and every change of a key that was counted changes the total too.  How far
that is is a record of the store, put in the transaction of the step or the change: a store runs changes
again, and takes them back, and the total must go with them.

    record: records u64 | sum u128 | first stored key that is not counted
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from xxhash import xxh3_128_intdigest

from ssastore.core.numbers import WHOLE_SLICES, is_part_number, plane_of_slice
from ssastore.core.pages import KIND_AT
from ssastore.core.records import in_plane, slice_range, total_key
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import BadFrame, CorruptObject
from ssastore.messages import BALLOT_BYTES, Kind
from ssastore.wire import Body

_ROW = struct.Struct(f">IQ16s{BALLOT_BYTES}sQ")
_RECORD = struct.Struct(">Q16s")
_BLOB = int(Kind.BLOB)
_STEP_RECORDS = 500
_STEP_BYTES = 1 << 20


class SliceTotal(NamedTuple):
    """Of one slice."""

    records: int
    sum: int
    floor: bytes
    cfg: int


class Counted(NamedTuple):
    """How far a slice is counted."""

    records: int
    sum: int
    first: bytes
    "The first stored key that is not counted yet."


class RunningTotal:
    """What one slice holds, counted while it is written.

    From ``clear`` on every change of the slice has to come by way of ``after``, in the order of transactions.

    Args:
        plane: the sum is of the keys that the records have in it; None for that of the slice.
    """

    def __init__(self, number: int, plane: int | None = None) -> None:
        self.number = number
        self.is_ended = False
        "Another one may be kept in the same place: this one knows nothing any more, and writes nothing."
        self._plane = plane_of_slice(number) if plane is None else plane
        self._first, self._end = slice_range(number)
        self._stored_at = total_key(number)

    def clear(self, txn: WriteTxn) -> None:
        """Nothing is counted, and nothing is left behind."""
        txn.delete(self._stored_at)

    def step(self, txn: WriteTxn) -> bool:
        """Count some more; whether there is more. Raises CorruptObject."""
        known = self._known(txn)
        first, end = known.first, self._end
        if self.is_ended or first == end:
            return False
        records, total, size = known.records, known.sum, 0
        stop = records + _STEP_RECORDS
        for key, value in txn.scan(first, end):
            total ^= self._digest(key, (value,))
            records += 1
            size += len(value)
            if records == stop or size >= _STEP_BYTES:
                first = key + b"\0"
                break
        else:
            first = end
        self.write(txn, Counted(records, total, first))
        return first != end

    def after(self, txn: ReadTxn, key: bytes, parts: tuple[bytes | memoryview, ...] | None) -> Counted | None:
        """What is to be written when a key of the slice gets another value, or none; None: nothing.

        To be asked before the change, and written after it: a change that is refused must have left nothing.
        """
        known = self._known(txn)
        if key >= known.first:
            return None  # Its turn is yet to come.
        try:
            before = txn.get(key)
        except CorruptObject:
            # What was counted of it is not known any more.
            return Counted(0, 0, self._first)
        records, total = known.records, known.sum
        if before is not None:
            records, total = records - 1, total ^ self._digest(key, (before,))
        if parts is not None:
            records, total = records + 1, total ^ self._digest(key, parts)
        return Counted(records, total, known.first)

    def write(self, txn: WriteTxn, counted: Counted) -> None:
        """Let this be what is known."""
        head = _RECORD.pack(counted.records, counted.sum.to_bytes(16, "big"))
        txn.put(self._stored_at, head, counted.first, use_reserve=True)

    def of(self, txn: ReadTxn) -> tuple[int, int] | None:
        """Records and sum of the slice; None while it is not counted to its end."""
        known = self._known(txn)
        return (known.records, known.sum) if known.first == self._end and not self.is_ended else None

    def _known(self, txn: ReadTxn) -> Counted:
        try:
            stored = txn.get(self._stored_at)
        except CorruptObject:
            stored = None
        if stored is None:
            return Counted(0, 0, self._first)
        records, total = _RECORD.unpack_from(stored)
        return Counted(records, int.from_bytes(total, "big"), bytes(stored[_RECORD.size :]))

    def _digest(self, key: bytes, parts: tuple[bytes | memoryview, ...]) -> int:
        named = key if key[0] >> 4 == self._plane else in_plane(key, self._plane)
        content = () if key[KIND_AT] == _BLOB else parts
        return xxh3_128_intdigest(b"".join((len(named).to_bytes(2, "big"), named, *content)))


class KeptTotals:
    """The totals that a store keeps, by slice. Never changed: a thread may look while others come and go."""

    def __init__(self, by_slice: Mapping[int, RunningTotal]) -> None:
        self.by_slice = by_slice
        self._whole = {slice_range(n)[0]: total for n, total in by_slice.items() if n < WHOLE_SLICES}
        self._parts = [(*slice_range(n), total) for n, total in by_slice.items() if n >= WHOLE_SLICES]

    def of_key(self, key: bytes) -> RunningTotal | None:
        """That of the slice of a stored key."""
        found = self._whole.get(key[:2])
        if found is None:
            for first, end, total in self._parts:
                if first <= key < end:
                    return total
        return found


def pack_totals(totals: Iterable[tuple[int, SliceTotal]]) -> bytes:
    """Totals by part."""
    return b"".join(
        _ROW.pack(part, total.records, total.sum.to_bytes(16, "big"), total.floor, total.cfg)
        for part, total in totals
    )


def unpack_totals(packed: Body) -> dict[int, SliceTotal]:
    """Inverse of ``pack_totals``. Raises BadFrame."""
    if len(packed) % _ROW.size:
        raise BadFrame("totals of slices are cut short")
    found: dict[int, SliceTotal] = {}
    for part, records, total, floor, cfg in _ROW.iter_unpack(packed):
        if not is_part_number(part):
            raise BadFrame("no such part of a group")
        found[part] = SliceTotal(records, int.from_bytes(total, "big"), floor, cfg)
    return found
