"""Planted faults are seen, and what breaks nothing is not. `make mutants` plants all of them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ssastore.core import proposer
from ssastore.sim.hunt import Caught, hunt_all
from ssastore.sim.mutants import Mutant, harmless, mutants, planted
from tests.shares import cores

QUICK = (
    "accept-not-durable",
    "restarts-empty",
    "promises-forgotten",
    "promises-ignored",
    "no-write-back",
    "trimmed-without-cut",
    "operation-not-looked-up",
    "planes-counted-twice",
    "conditions-not-checked",
    "one-plane-is-enough",
    "floor-forgotten",
    "repair-from-one-plane",
    "swept-by-a-read",
    "no-seal",
    "seal-forgotten",
    "values-without-promises",
    "blobs-outside-the-seal",
    "marks-stay",
    "numbers-by-part",
    "marks-not-inherited",
    "holds-ignored",
    "shares-without-limit",
    "pairs-spent-twice",
)
"Those that a few dozen seeds show. ``test_upkeep`` has one that is collected at a majority."

SEEDS_MAX = 200
HARMLESS_SEEDS = 6
SLOW_SEEDS = 2
"Of those of recovery, which take 3 CPU seconds each; `make mutants` plays 60."


def hunted(names: Iterable[str], seeds_max: int) -> dict[str, Caught]:
    return {caught.name: caught for caught in hunt_all(list(names), 0, seeds_max, cores())}


@pytest.fixture(scope="module")
def planted_faults() -> dict[str, Caught]:
    return hunted(QUICK, SEEDS_MAX)


@pytest.fixture(scope="module")
def harmless_changes() -> dict[str, Caught]:
    slow = [name for name, change in harmless().items() if change.scenario == "recovery"]
    quick = [name for name in harmless() if name not in slow]
    return hunted(quick, HARMLESS_SEEDS) | hunted(slow, SLOW_SEEDS)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", QUICK)
def test_a_planted_fault_is_seen(
    name: str, planted_faults: dict[str, Caught], capsys: pytest.CaptureFixture[str]
) -> None:
    caught = planted_faults[name]
    assert caught.is_caught, caught.line()
    with capsys.disabled():
        print(f"\n  {caught.line()} ", end="")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", list(harmless()))
def test_what_breaks_no_rule_is_not_seen(name: str, harmless_changes: dict[str, Caught]) -> None:
    assert not harmless_changes[name].is_caught, harmless_changes[name].text


@pytest.mark.parametrize("name", [*mutants(), *harmless()])
def test_a_mutant_changes_what_is_there_and_puts_it_back(name: str) -> None:
    mutant = {**mutants(), **harmless()}[name]
    touched: list[tuple[object, str, object]] = []
    mutant.plant(lambda owner, attribute, changed: touched.append((owner, attribute, vars(owner)[attribute])))
    with planted(mutant):
        assert touched
        assert all(vars(owner)[attribute] is not before for owner, attribute, before in touched)
    assert all(vars(owner)[attribute] is before for owner, attribute, before in touched)


def test_a_mutant_of_what_is_no_longer_there_is_refused() -> None:
    gone = Mutant("gone", "", lambda put: put(proposer, "_no_such_thing", None))
    with pytest.raises(AssertionError, match="_no_such_thing"), planted(gone):
        pass
