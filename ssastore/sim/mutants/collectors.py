"""Planes that forget too early, or more than they may."""

from __future__ import annotations

from typing import Any

from ssastore.core import settle, votes
from ssastore.core.register import NO_BALLOT
from ssastore.core.settle import Settler
from ssastore.sim.mutants import Mutant, Put


def _collect_at_a_majority(put: Put) -> None:
    async def collect(self: Settler, planes: Any, seen: Any) -> bool | None:
        everywhere = range(planes.count)
        ballot = self._ballots.just_above(seen.ballot)
        promises = await settle._ask(everywhere, lambda plane: planes.prepare(plane, ballot))
        if not settle._is_majority(promises, planes, seen):
            return None
        newest, value, encoded = settle._newest(planes, list(promises.by_plane.values()))
        if value.is_live or newest.accepted == NO_BALLOT:
            return False
        accepted = await settle._ask(
            everywhere, lambda plane: planes.accept(plane, newest.cfg, ballot, encoded, NO_BALLOT)
        )
        if not settle._is_majority(accepted, planes, seen):
            return None
        await settle._ask(everywhere, lambda plane: planes.collect(plane, newest.cfg, ballot))
        return True

    put(Settler, "_collect", collect)


def _floor_forgotten(put: Put) -> None:
    put(votes, "raise_floor", lambda txn, slice16, ballot: None)


def _floor_is_no_time(put: Put) -> None:
    put(votes, "read_floor", lambda txn, stored_key: NO_BALLOT)


MUTANTS = [
    Mutant(
        "collected-at-a-majority",
        "a tombstone goes when a majority holds it",
        _collect_at_a_majority,
        "forget",
    ),
    Mutant("floor-forgotten", "what is dropped leaves no floor", _floor_forgotten, "forget"),
    Mutant("floor-not-read", "an absent record has promised nothing", _floor_is_no_time, "forget"),
]
