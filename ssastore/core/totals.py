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
from collections.abc import Iterable
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


class _Counted(NamedTuple):
    records: int
    sum: int
    first: bytes
    "The first stored key that is not counted yet."


class RunningTotals:
    """What some slices hold, counted while they are written.

    Every change of them from ``clear`` on, in the order of the transactions, has to be told to ``change``.

    Args:
        plane: the sums are of the keys that the records have in it; None for that of the slices.
    """

    def __init__(self, slices: Iterable[int], plane: int | None = None) -> None:
        self.slices = frozenset(slices)
        self._plane = plane_of_slice(min(self.slices)) if plane is None else plane
        self._whole = {slice_range(number)[0]: number for number in self.slices if number < WHOLE_SLICES}
        self._parts = [(*slice_range(number), number) for number in self.slices if number >= WHOLE_SLICES]

    def clear(self, txn: WriteTxn) -> None:
        """Nothing is counted, and nothing is left behind."""
        for number in self.slices:
            txn.delete(total_key(number))

    def step(self, txn: WriteTxn, number: int) -> bool:
        """Count some more of a slice; whether there is more. Raises CorruptObject."""
        known = self._known(txn, number)
        first, end = known.first, slice_range(number)[1]
        if first == end:
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
        _write(txn, number, _Counted(records, total, first))
        return first != end

    def change(self, txn: WriteTxn, key: bytes, parts: tuple[bytes | memoryview, ...] | None) -> None:
        """A key is about to have another value, or none."""
        number = self._number_of(key)
        if number is None:
            return
        known = self._known(txn, number)
        if key >= known.first:
            return  # Its turn is yet to come.
        try:
            before = txn.get(key)
        except CorruptObject:
            # What was counted of it is not known any more.
            txn.delete(total_key(number))
            return
        records, total = known.records, known.sum
        if before is not None:
            records, total = records - 1, total ^ self._digest(key, (before,))
        if parts is not None:
            records, total = records + 1, total ^ self._digest(key, parts)
        _write(txn, number, _Counted(records, total, known.first))

    def of(self, txn: ReadTxn, number: int) -> tuple[int, int] | None:
        """Records and sum of a slice; None while it is not counted to its end."""
        known = self._known(txn, number)
        return (known.records, known.sum) if known.first == slice_range(number)[1] else None

    def _known(self, txn: ReadTxn, number: int) -> _Counted:
        try:
            stored = txn.get(total_key(number))
        except CorruptObject:
            stored = None
        if stored is None:
            return _Counted(0, 0, slice_range(number)[0])
        records, total = _RECORD.unpack_from(stored)
        return _Counted(records, int.from_bytes(total, "big"), bytes(stored[_RECORD.size :]))

    def _number_of(self, key: bytes) -> int | None:
        number = self._whole.get(key[:2])
        if number is None:
            for first, end, part in self._parts:
                if first <= key < end:
                    return part
        return number

    def _digest(self, key: bytes, parts: tuple[bytes | memoryview, ...]) -> int:
        named = key if key[0] >> 4 == self._plane else in_plane(key, self._plane)
        content = () if key[KIND_AT] == _BLOB else parts
        return xxh3_128_intdigest(b"".join((len(named).to_bytes(2, "big"), named, *content)))


def _write(txn: WriteTxn, number: int, counted: _Counted) -> None:
    head = _RECORD.pack(counted.records, counted.sum.to_bytes(16, "big"))
    txn.put(total_key(number), head, counted.first, use_reserve=True)


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
