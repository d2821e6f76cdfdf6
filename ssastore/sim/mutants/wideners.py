"""Groups that get another plane by steps that leave something out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssastore.core import custody, standing, widener, widening
from ssastore.core.groups import ACTIVE, RECOVERING, GroupRecord
from ssastore.core.place import Served
from ssastore.core.standing import State
from ssastore.sim.mutants import Mutant, Put
from ssastore.sim.mutants.movers import no_seal

_SCENARIO = "replicas"


def _count_not_checked(put: Put) -> None:
    put(Served, "check_count", lambda self, request: None)


def _empty_plane(put: Put) -> None:
    """A later plane is there at once, with nothing."""
    begin = widening.begin_plane

    def begin_and_finish(record: GroupRecord, *facts: Any) -> GroupRecord:
        begun = begin(record, *facts)
        last = replace(begun.planes[-1], state=ACTIVE)
        return GroupRecord(begun.group, (*begun.planes[:-1], last), begun.cfg)

    put(widener, "begin_plane", begin_and_finish)


def _votes_unrecovered(put: Put) -> None:
    """A plane that is being recovered for the first time votes."""
    judge = standing.judge

    def too_early(record: GroupRecord, plane: int, environment: Any, known: Any) -> State:
        state = judge(record, plane, environment, known)
        found = record.planes[plane]
        is_new = found.state == RECOVERING and found.epoch == record.cfg
        return State.ACTIVE if is_new and state is State.RECOVERING else state

    put(custody, "judge", too_early)


def _alone_at_first(put: Put) -> None:
    """The second plane is there before it is filled."""
    put(widener.Widener, "_is_filled", lambda self, part, held: True)


MUTANTS = [
    Mutant("second-plane-unsealed", "the only plane votes while it is copied to the end", no_seal, _SCENARIO),
    Mutant("second-plane-empty", "the second plane is one before it is filled", _alone_at_first, _SCENARIO),
    Mutant(
        "count-not-checked",
        "a plane answers as one of however many",
        _count_not_checked,
        _SCENARIO,
        is_rare=True,  # It takes a client that sleeps meanwhile; tests/sim/test_replicas.py has one.
    ),
    Mutant("later-plane-empty", "the third plane is one before it is rebuilt", _empty_plane, _SCENARIO),
    Mutant("later-plane-votes", "the third plane votes while it is rebuilt", _votes_unrecovered, _SCENARIO),
]
