"""Planes that heal, settle or sweep by less than they must know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssastore.core import boot, settle
from ssastore.core.register import NO_BALLOT, Ballot
from ssastore.core.settle import Settler
from ssastore.core.sweep import Sweeper
from ssastore.sim.mutants import Mutant, Put


def _below_the_ceiling(put: Put) -> None:
    rebuild = Settler.rebuild

    async def low(self: Settler, label: bytes, planes: Any, own: int, ceiling: int) -> Any:
        return await rebuild(self, label, planes, own, 0)

    put(Settler, "rebuild", low)


def _from_one_plane(put: Put) -> None:
    async def rebuild(
        self: Settler, planes: Any, others: Sequence[int], seen: Any
    ) -> tuple[Ballot, bytes] | None:
        ballot = self._ballots.just_above(seen.ballot)
        promises = await settle._ask(others, lambda plane: planes.prepare(plane, ballot))
        if not settle._are_enough(promises, 1, seen):
            return None
        newest, _, encoded = settle._newest(planes, list(promises.by_plane.values()))
        await settle._ask(others, lambda plane: planes.accept(plane, newest.cfg, ballot, encoded, NO_BALLOT))
        return ballot, encoded

    put(Settler, "_rebuild", rebuild)


def _lost_state_is_believed(put: Put) -> None:
    async def nothing_is_known(*_: Any) -> str:
        return ""

    put(boot, "_why_lost", nothing_is_known)


def _swept_by_a_read(put: Put) -> None:
    async def holds(self: Sweeper, place: Any, kind: Any, key: bytes, digest: bytes | None) -> bool:
        return await self._read(place, kind, key, digest)

    put(Sweeper, "_holds", holds)


MUTANTS = [
    Mutant("lost-state-is-believed", "a disk that forgot votes on", _lost_state_is_believed, "lying"),
    Mutant(
        "repair-below-ceiling",
        "a repair's ballot need not be above lost promises",
        _below_the_ceiling,
        "mend5",
        is_rare=True,
    ),
    Mutant("repair-from-one-plane", "one other plane is enough to repair from", _from_one_plane, "mend"),
    Mutant("swept-by-a-read", "a reader's no is enough to drop a reference", _swept_by_a_read, "sweep"),
]
