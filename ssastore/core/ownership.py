"""The fewest prefixes of every node, kept up to date at the cost of what changes. Pure.

A router and every node ask after each change of a record, and one record in 4096 has
changed then; a slice that has moved must be announced within milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

from ssastore.core.groups import GroupRecord
from ssastore.core.numbers import numbered_slice, slice_number
from ssastore.keyspace import GROUP_BITS, IID_BITS, SLICE_BITS, Slice, range_cover

_BITS_INSIDE = IID_BITS - SLICE_BITS
"Of an IID, behind plane and group."

_Range = tuple[int, int]
"The first IID of a slice, and the one behind its last."


class OwnedPrefixes:
    """Who owns which prefixes, of group records that were shown."""

    def __init__(self, groups: Iterable[GroupRecord] = ()) -> None:
        self._records: dict[int, GroupRecord] = {}
        self._ranges: dict[str, list[_Range]] = {}
        "In order."
        self._pieces: dict[str, list[Slice]] = {}
        "Of those whose ranges did not change since somebody asked."
        self.show(groups)

    def show(self, groups: Iterable[GroupRecord]) -> None:
        """Learn records, each in the place of the one of its group. The same again costs next to nothing."""
        known = self._records
        for record in groups:
            before = known.get(record.group)
            if before is record:
                continue
            known[record.group] = record
            if before is None:
                for owner, piece in _owned(record):
                    insort(self._ranges.setdefault(owner, []), piece)
                    self._pieces.pop(owner, None)
                continue
            gone, come = set(_owned(before)), set(_owned(record))
            for owner, piece in gone - come:
                ranges = self._ranges[owner]
                del ranges[bisect_left(ranges, piece)]
                self._pieces.pop(owner, None)
            for owner, piece in come - gone:
                insort(self._ranges.setdefault(owner, []), piece)
                self._pieces.pop(owner, None)

    def of(self, node: str) -> Sequence[Slice]:
        """The fewest prefixes that are exactly what a node owns, in address order."""
        pieces = self._pieces.get(node)
        if pieces is None:
            pieces = self._pieces[node] = _cover(self._ranges.get(node, ()))
        return pieces


def _owned(record: GroupRecord) -> Iterator[tuple[str, _Range]]:
    for view in record.views():
        for plane, found in enumerate(view.planes):
            yield found.owner, _range(view, plane)
            if found.target_plane:
                # The plane that this one is copied to counts from the moment that the record has it:
                # whoever learns of it then must find its address announced.
                yield found.target, _range(view, found.target_plane)


def _range(view: GroupRecord, plane: int) -> _Range:
    if view.split is None:
        first = plane << GROUP_BITS | view.group
        return first << _BITS_INSIDE, (first + 1) << _BITS_INSIDE
    piece = numbered_slice(slice_number(plane, view.part))
    return piece.first, piece.end


def _cover(ranges: Sequence[_Range]) -> list[Slice]:
    """The cover of ranges that are given in order and do not overlap."""
    pieces: list[Slice] = []
    first = end = -1
    for begin, after in ranges:
        if begin != end:
            if end >= 0:
                pieces += range_cover(first, end)
            first = begin
        end = after
    return pieces + range_cover(first, end) if ranges else pieces
