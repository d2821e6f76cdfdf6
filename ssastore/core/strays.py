"""Data of slices that are others': a former owner's, or what a handover that came to nothing left. Pure.

Most of it is known by its standing on the disk.  An untouched slice has none: one that was lost together
with its node, which comes back later with all that it had, is found by what is stored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Set
from functools import lru_cache

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


def stored_beside(txn: ReadTxn, kept: frozenset[int]) -> list[int]:
    """The /80s that something is stored of, but for those that are kept, or parts of which are.

    Costs a look-up for each slice that is found, and for each row of kept ones of which something is stored.
    """
    firsts, ends = _rows_of(kept)
    found: list[int] = []
    first, end_key = 0, slice_range(_PLANES_END)[0]
    while first < _PLANES_END:
        key = next((key for key, _ in walk(txn, slice_range(first)[0], end_key)), None)
        if key is None:
            break
        first = int.from_bytes(key[:2], "big")
        row = bisect_right(firsts, first) - 1
        if row >= 0 and first < ends[row]:
            first = ends[row]
        else:
            found.append(first)
            first += 1
    return found


@lru_cache(maxsize=64)
def _rows_of(numbers: frozenset[int]) -> tuple[list[int], list[int]]:
    """Where the rows of /80s begin that these slices are in, and where they end.

    Kept: there are thousands, and nodes of a simulation start again all the time.
    """
    wholes = sorted(set(map(whole_of, numbers)))
    firsts = [at for at, before in zip(wholes, [-2, *wholes], strict=False) if at != before + 1]
    ends = [at + 1 for at, after in zip(wholes, [*wholes[1:], -1], strict=False) if at + 1 != after]
    return firsts, ends
