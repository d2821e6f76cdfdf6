"""Data of slices that are others': a former owner's, or what a handover that came to nothing left. Pure.

Most of it is known by its standing on the disk.  An untouched slice has none: one that was lost together
with its node, which comes back later with all that it had, is found by what is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from ssastore.core.numbers import WHOLE_SLICES, overlaps, whole_of
from ssastore.core.records import slice_range
from ssastore.core.survey import walk
from ssastore.env import ReadTxn
from ssastore.keyspace import GROUPS, PLANES

_PLANES_END = (PLANES - 1) * GROUPS
"The last plane holds no data."


def strays_among(touched: Iterable[int], kept: Set[int]) -> list[int]:
    """Of slices that may have data, those that have nothing in common with what is kept, in order."""
    strays = sorted(number for number in touched if number not in kept)
    if not strays:
        return []
    parts = sorted(number for number in kept if number >= WHOLE_SLICES)
    return [s for s in strays if whole_of(s) not in kept and not any(overlaps(s, part) for part in parts)]


def stored_beside(txn: ReadTxn, kept: Set[int]) -> list[int]:
    """The /80s that something is stored of, but for those that are kept, or parts of which are.

    Costs a look-up for each slice that is found, and for each row of kept ones of which something is stored.
    """
    split = {whole_of(number) for number in kept if number >= WHOLE_SLICES}
    found: list[int] = []
    first, end_key = 0, slice_range(_PLANES_END)[0]
    while first < _PLANES_END:
        key = next((key for key, _ in walk(txn, slice_range(first)[0], end_key)), None)
        if key is None:
            break
        first = int.from_bytes(key[:2], "big")
        if first not in kept and first not in split:
            found.append(first)
            first += 1
        while first in kept or first in split:
            first += 1
    return found
