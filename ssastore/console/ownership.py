"""Who owns each slice, as a browser is told: runs of alike slices, and only the groups that changed. Pure.

    runs    [first, count, owner, state, target]     first: number of a /80, 0 to 65535; count: of them
    parts   [locator, depth, owner, state, target]   of a group that is split; locator: 32 bits

``owner`` and ``target`` are places in ``names``, -1 for nobody; ``state`` is a place in ``STATES``. A group
that is split has the state SPLIT in its runs, and what its parts have in ``parts``. Names are never taken
out of the list, so a place stays what it was for as long as the process lives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ssastore.core.groups import ACTIVE, GROUP_NAMES, MOVING, RECOVERING, GroupRecord, PartRecord, PlaneOwner
from ssastore.core.numbers import locators_of_slice, numbered_slice, slice_number
from ssastore.keyspace import GROUP_BITS

STATES = (ACTIVE, MOVING, RECOVERING, "SPLIT")
_SPLIT = STATES.index("SPLIT")

Cell = tuple[int, int, int]
"Owner, state, target."


class Mark(NamedTuple):
    """What became of slices between two looks."""

    what: str
    source: str
    target: str


class Ownership:
    """What was seen last, and since which version each group is as it is."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.version = 0
        self._places: dict[str, int] = {}
        self._seen: dict[int, GroupRecord] = {}
        self._since: dict[int, int] = {}

    def place_of(self, name: str) -> int:
        """The place of a name in ``names``; -1 for the empty name."""
        if not name:
            return -1
        if name not in self._places:
            self._places[name] = len(self.names)
            self.names.append(name)
        return self._places[name]

    def take(self, groups: Mapping[int, GroupRecord]) -> Counter[Mark]:
        """Look at all groups; how many slices began or ended what since the last look."""
        changed = [record for group, record in groups.items() if self._seen.get(group) is not record]
        marks: Counter[Mark] = Counter()
        if not changed:
            return marks
        self.version += 1
        for record in changed:
            former = self._seen.get(record.group)
            if former is not None:
                marks.update(_marks(former, record))
            self._seen[record.group] = record
            self._since[record.group] = self.version
        return marks

    def since(self, version: int) -> dict[str, Any]:
        """The groups that changed after ``version``; 0: all that there are."""
        groups = [group for group, at in self._since.items() if at > version]
        cells: dict[int, Cell] = {}
        parts: dict[str, list[list[int]]] = {}
        for group in groups:
            record = self._seen[group]
            parts[GROUP_NAMES[group]] = self._parts(record)
            for plane, found in enumerate(record.planes):
                cell = self._cell(found)
                number = plane << GROUP_BITS | group
                cells[number] = cell if record.split is None else (cell[0], _SPLIT, -1)
        return {
            "runs": list(runs_of(cells)),
            "parts": {name: found for name, found in parts.items() if found},
        }

    def _cell(self, found: PlaneOwner) -> Cell:
        return self.place_of(found.owner), STATES.index(found.state), self.place_of(found.target)

    def _parts(self, record: GroupRecord) -> list[list[int]]:
        if record.split is None:
            return []
        return [
            [locators_of_slice(number)[0], numbered_slice(number).depth, *self._cell(found)]
            for part in record.parts
            for plane, found in enumerate(part.planes)
            for number in (slice_number(plane, part.part),)
        ]


def runs_of(cells: Mapping[int, Cell]) -> Iterator[list[int]]:
    """Slices that follow each other and are alike, as one run."""
    run: list[int] = []
    for number in sorted(cells):
        if run and run[0] + run[1] == number and tuple(run[2:]) == cells[number]:
            run[1] += 1
            continue
        if run:
            yield run
        run = [number, 1, *cells[number]]
    if run:
        yield run


def _marks(former: GroupRecord, record: GroupRecord) -> Iterator[Mark]:
    if [found.part for found in former.parts] != [found.part for found in record.parts]:
        yield Mark("split" if len(record.parts) > len(former.parts) else "merged", "", "")
        return
    for old, new in _planes(former.parts, record.parts):
        if old is new or old == new:
            continue
        if new.state == MOVING and old.state != MOVING:
            yield Mark("begun", new.owner, new.target)
        elif new.state == RECOVERING and old.state != RECOVERING:
            yield Mark("lost", old.owner, new.owner)
        elif new.owner != old.owner:
            yield Mark("moved", old.owner, new.owner)
        elif old.state == RECOVERING and new.state == ACTIVE:
            yield Mark("recovered", "", new.owner)
        elif old.state == MOVING and new.state == ACTIVE:
            yield Mark("called off", old.owner, old.target)


def _planes(
    former: Iterable[PartRecord], parts: Iterable[PartRecord]
) -> Iterator[tuple[PlaneOwner, PlaneOwner]]:
    for old, new in zip(former, parts, strict=True):
        yield from zip(old.planes, new.planes, strict=False)
