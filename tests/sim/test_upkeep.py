"""The scenarios ``gc`` and ``scrub``, and what they must catch when it is planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ssastore.core import named
from ssastore.core.acceptor import Acceptor
from ssastore.core.floors import slice_of_key
from ssastore.core.records import floor_key, record_key
from ssastore.core.register import LIVE, NO_BALLOT
from ssastore.core.settle import Settler, _ask, _newest
from ssastore.keyspace import locator_of
from ssastore.messages import Collect, Prepare
from ssastore.sim.cluster import PARTS, SimEngine
from ssastore.sim.scenarios import scenarios
from ssastore.sim.stage import Played, play_seed

SEEDS = {"gc": 3, "scrub": 3}


def tell(played: Played) -> str:
    """What went wrong, for a failed assertion."""
    wrong = [*played.violations, *played.undecided, *played.stuck, played.crash]
    return f"{played.scenario} seed {played.seed}: {wrong}"


@pytest.mark.parametrize("name", SEEDS)
def test_nothing_comes_back_and_everything_heals(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no object is called unreadable: a blob vanishes on one plane at a time."""
    told: list[str] = []
    monkeypatch.setattr(named.log, "error", lambda message, **_: told.append(message))
    for seed in range(SEEDS[name]):
        played = play_seed(scenarios()[name], seed)
        assert played.is_good, tell(played)
        assert played.outcomes["done"] > 10 and not told, (name, seed, told)


# -- planted mutants --------------------------------------------------------------------------------


class MajoritySettler(Settler):
    """Collects what a majority holds: a plane that missed the delete brings the object back."""

    async def _collect(self, planes: Any, seen: Any) -> bool | None:
        everywhere = range(planes.count)
        ballot = self._ballots.just_above(seen.ballot)
        promises = await _ask(everywhere, lambda plane: planes.prepare(plane, ballot))
        seen.learn(promises.seen)
        if len(promises.by_plane) <= planes.count // 2:
            return None if promises.seen != NO_BALLOT else False
        newest, value, encoded = _newest(planes, list(promises.by_plane.values()))
        if value.state == LIVE or newest.accepted == NO_BALLOT:
            return False
        held = await _ask(
            everywhere, lambda plane: planes.accept(plane, newest.cfg, ballot, encoded, NO_BALLOT)
        )
        if len(held.by_plane) <= planes.count // 2:
            return False
        await _ask(everywhere, lambda plane: planes.collect(plane, newest.cfg, ballot))
        return True


class ForgetfulAcceptor(Acceptor):
    """Collects and forgets the floor."""

    def write(self, request: Any, txn: Any, body: Any, now_ms: int) -> Any:
        reply = super().write(request, txn, body, now_ms)
        if isinstance(request, Collect):
            key = record_key(locator_of(request.iid), request.kind, request.bucket, request.key)
            txn.delete(floor_key(slice_of_key(key)))
        return reply


class SilentAcceptor(Acceptor):
    """Does not tell proposers of the floor: a call is repeated blindly."""

    def write(self, request: Any, txn: Any, body: Any, now_ms: int) -> Any:
        fields, data = super().write(request, txn, body, now_ms)
        return (
            ([*fields[:2], NO_BALLOT, *fields[3:]], data) if isinstance(request, Prepare) else (fields, data)
        )


class Majority(SimEngine):
    settler_type = MajoritySettler


class Forgetful(SimEngine):
    acceptor_type = ForgetfulAcceptor


class Silent(SimEngine):
    acceptor_type = SilentAcceptor


# With a seed that showed each: after a change of the code it may be one of the next.
# What a sweep must look at: tests/unit/core/test_settle.py, test_sweep.py.
MUTANTS: dict[str, tuple[str, type[SimEngine], int]] = {
    "tombstones are collected at a majority": ("gc", Majority, 6),
    "collecting forgets the floor": ("gc", Forgetful, 0),
    "a call is repeated blindly across a collection": ("gc", Silent, 1),
}
SEEDS_MAX = 12


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_caught(mutant: str) -> None:
    name, engine, first = MUTANTS[mutant]
    parts = replace(PARTS, engine=engine)
    seeds = range(first, first + SEEDS_MAX)
    assert any(play_seed(scenarios()[name], seed, parts=parts).violations for seed in seeds), (
        "nobody has noticed"
    )
