"""What a slice holds, in short, so that planes can be compared without sending it all. Pure.

All planes of a group hold the same names under the same keys but for the first digit.
An *entry* of a survey is a key as it is in plane 0, and a witness of what is stored there:

    record            accepted ballot 16 | XXH3-64 of the value
    blob, reference   nothing: the key says it all
    shut mark         the mark

A record that has only promised is left out, since promises differ between planes, and
so is a rotten one: it is not there as far as the others are concerned.  A page's
digest is the sum of the XXH3-128 of its entries, so it does not depend on their order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from xxhash import xxh3_64_digest, xxh3_128_intdigest

from ssastore.core.numbers import plane_of_slice
from ssastore.core.records import BOOKKEEPING_FIRST, in_plane, slice_range, split_place
from ssastore.core.register import NO_BALLOT, decode_slot
from ssastore.core.shuts import told_mark
from ssastore.env import ReadTxn
from ssastore.errors import CorruptObject
from ssastore.limits import SURVEY_BYTES_MAX, SURVEY_ENTRIES_MAX
from ssastore.messages import BALLOT_BYTES, RECORD_KINDS, Kind

Row = tuple[bytes, bytes]
"""Key as in plane 0, witness."""

EMPTY = bytes(16)
"Digest of nothing."

_DIGEST_MASK = (1 << 128) - 1
_ENTRY_BYTES = 200
"What an entry costs beside its bytes: it bounds a page of very small ones."


@dataclass(slots=True)
class SurveyPage:
    """The entries after a key, as many as fit a page."""

    last: bytes
    "The last key looked at, as in plane 0; empty when nothing was."
    is_cut: bool
    rows: list[Row] = field(default_factory=list)
    seen: int = 0
    "Records that were read, those without an entry too."
    size: int = 0
    "Bytes that were read."
    rotten: list[bytes] = field(default_factory=list)
    "Stored keys that fail their checksum."

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> bytes:
        return digest_of(self.rows)


def digest_of(rows: list[Row]) -> bytes:
    """The digest of entries, in whatever order."""
    total = sum(xxh3_128_intdigest(key + witness) for key, witness in rows)
    return (total & _DIGEST_MASK).to_bytes(16, "big")


def walk(txn: ReadTxn, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview | bytes | None]]:
    """Like ``scan``, but goes on behind a rotten record, which comes with None."""
    while True:
        try:
            yield from txn.scan(first, end)
            return
        except CorruptObject as error:
            if not error.key:
                raise
            yield error.key, None
            first = error.key + b"\0"


def survey(
    txn: ReadTxn,
    number: int,
    after: bytes,
    end: bytes,
    visit: Callable[[bytes, memoryview | bytes], None] | None = None,
) -> SurveyPage:
    """The page of a slice after ``after``, up to and with ``end`` (empty: up to what fits).

    ``visit`` sees every stored key and value that is not rotten; the value's view dies with the call.
    """
    plane = plane_of_slice(number)
    first, stop = slice_range(number)
    if after:
        first = max(first, in_plane(after, plane) + b"\0")
    if end:
        stop = min(stop, in_plane(end, plane) + b"\0")
    page = SurveyPage(after, False)
    for stored_key, value in walk(txn, first, stop):
        if page.seen >= SURVEY_ENTRIES_MAX or page.size >= SURVEY_BYTES_MAX:
            page.is_cut = True
            break
        page.last = in_plane(stored_key, 0)
        page.seen += 1
        page.size += len(stored_key) + _ENTRY_BYTES + (0 if value is None else len(value))
        if value is None:
            page.rotten.append(stored_key)
            continue
        if visit is not None:
            visit(stored_key, value)
        if (witness := witness_of(stored_key, value)) is not None:
            page.rows.append((page.last, witness))
    return page


def occupied(txn: ReadTxn, slices: Sequence[int]) -> set[int]:
    """Which of these slices, in address order, hold anything. One seek for each that does."""
    found: set[int] = set()
    at = 0
    while at < len(slices):
        entry = next(walk(txn, slice_range(slices[at])[0], BOOKKEEPING_FIRST), None)
        if entry is None:
            break
        at = bisect_right(slices, entry[0], lo=at, key=_end_of)
        if at < len(slices) and slice_range(slices[at])[0] <= entry[0]:
            found.add(slices[at])
            at += 1
    return found


def _end_of(number: int) -> bytes:
    return slice_range(number)[1]


def witness_of(stored_key: bytes, value: memoryview | bytes) -> bytes | None:
    """What stands for a stored value in an entry; None when it has none."""
    kind = split_place(stored_key)[1]
    if kind in RECORD_KINDS:
        slot = decode_slot(value, NO_BALLOT)
        return None if slot.accepted == NO_BALLOT else slot.accepted + xxh3_64_digest(slot.value)
    return told_mark(value) if kind == Kind.SHUT else b""


def accepted_of(witness: bytes) -> bytes:
    """The ballot in a record's witness."""
    return witness[:BALLOT_BYTES]


@dataclass(frozen=True, slots=True)
class Difference:
    """An entry that two planes do not hold alike; None where it is missing."""

    key: bytes
    mine: bytes | None
    theirs: bytes | None


def differences(mine: list[Row], theirs: list[Row]) -> list[Difference]:
    """Entries in which two lists for the same range differ, in key order."""
    here, there = dict(mine), dict(theirs)
    keys = sorted(here.keys() | there.keys())
    return [Difference(k, here.get(k), there.get(k)) for k in keys if here.get(k) != there.get(k)]
