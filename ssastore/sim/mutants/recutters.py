"""Splits and merges that leave out a step."""

from __future__ import annotations

from dataclasses import replace

from ssastore.core import heirs, recut, recutting
from ssastore.core.groups import RECOVERING, GroupRecord, Merging, PlaneOwner, split_record
from ssastore.core.joiner import Joiner
from ssastore.core.numbers import slice_number
from ssastore.core.recut import merging_parts
from ssastore.sim.mutants import Mutant, Put

_SCENARIO = "recut"


def _numbers_by_part(put: Put) -> None:
    """A merge, or a recovery, takes the number after those of its own parts."""

    def begin_merge(record: GroupRecord, part: int) -> GroupRecord:
        begun = recut.begin_merge(record, part)
        inside = merging_parts(begun)
        cfg = 1 + max(found.cfg for found in record.parts if found.part in inside)
        parts = tuple(found._replace(cfg=cfg) if found.part in inside else found for found in begun.parts)
        assert begun.split is not None
        return split_record(record.group, replace(begun.split, parts=parts))

    def begin_recovery(self: GroupRecord, plane: int, env: int) -> GroupRecord:
        self.check_idle(plane, "one at a time")
        found = self.planes[plane]
        return self.replaced(plane, PlaneOwner(found.owner, found.epoch + 1, RECOVERING, env), self.cfg + 1)

    put(recutting, "begin_merge", begin_merge)
    put(GroupRecord, "begin_recovery", begin_recovery)


def _ready_unasked(put: Put) -> None:
    """An environment says that it is ready whatever it has of the parts."""

    def ready_plane(self: Joiner, record: GroupRecord) -> int | None:
        merging = record.merging
        assert isinstance(merging, Merging)
        for plane, ready in enumerate(merging.ready):
            slices = {slice_number(plane, part) for part in merging_parts(record)}
            if ready != self._custody.environment.env_id and slices <= self._custody.owned:
                return plane
        return None

    put(Joiner, "_ready_plane", ready_plane)


def _marks_not_inherited(put: Put) -> None:
    """The mark of a hashed bucket stays where it was when its slice is cut."""
    put(heirs, "_marks_of", lambda txn, source, heir: [])


MUTANTS = [
    Mutant("numbers-by-part", "configurations are drawn for each part", _numbers_by_part, _SCENARIO),
    Mutant(
        "ready-unasked",
        "a plane is said to be ready for a merge whatever it has",
        _ready_unasked,
        _SCENARIO,
        is_rare=True,
    ),
    Mutant(
        "marks-not-inherited",
        "marks of shut buckets are not inherited",
        _marks_not_inherited,
        _SCENARIO,
    ),
]
