"""What a slice holds in all, as two environments compare it at the end of a handover. Pure.

    row: part u32 | records u64 | sum u128 | floor u128 | cfg u64

The sum is the exclusive or of the XXH3-128 of every stored key with its value; of a blob only
the key counts, which is its digest.  Promises count, and references, and marks of shut buckets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from xxhash import xxh3_128_intdigest

from ssastore.core.numbers import is_part_number, plane_of_slice
from ssastore.core.pages import KIND_AT
from ssastore.core.records import in_plane, slice_range
from ssastore.env import ReadTxn
from ssastore.errors import BadFrame
from ssastore.messages import BALLOT_BYTES, Kind
from ssastore.wire import Body

_ROW = struct.Struct(f">IQ16s{BALLOT_BYTES}sQ")
_BLOB = int(Kind.BLOB)
_STEP_RECORDS = 500
_STEP_BYTES = 1 << 20


class SliceTotal(NamedTuple):
    """Of one slice."""

    records: int
    sum: int
    floor: bytes
    cfg: int


class Tally:
    """Counts a slice step by step, so that nobody waits for it; with the keys that it has in ``plane``."""

    def __init__(self, number: int, plane: int | None = None) -> None:
        self._first, self._end = slice_range(number)
        self._plane = plane_of_slice(number) if plane is None else plane
        self.records = 0
        self.sum = 0

    def step(self, txn: ReadTxn) -> bool:
        """Take some more; whether there is more. Raises CorruptObject."""
        size = 0
        stop = self.records + _STEP_RECORDS
        for key, value in txn.scan(self._first, self._end):
            content = b"" if key[KIND_AT] == _BLOB else value
            named = key if key[0] >> 4 == self._plane else in_plane(key, self._plane)
            self.sum ^= xxh3_128_intdigest(b"".join((len(named).to_bytes(2, "big"), named, content)))
            self.records += 1
            size += len(value)
            if self.records == stop or size >= _STEP_BYTES:
                self._first = key + b"\0"
                return True
        return False


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
