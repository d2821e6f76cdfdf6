"""Planted faults are seen, and what breaks nothing is not. `make mutants` plants all of them."""

from __future__ import annotations

import pytest

from ssastore.core import proposer
from ssastore.sim.hunt import hunt
from ssastore.sim.mutants import Mutant, harmless, mutants, planted

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
    "collected-at-a-majority",
    "floor-forgotten",
)
"Those that a few dozen seeds show."

SEEDS_MAX = 200


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_fault_is_seen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    caught = hunt(name, seeds_max=SEEDS_MAX)
    assert caught.is_caught, caught.line()
    with capsys.disabled():
        print(f"\n  {caught.line()} ", end="")


@pytest.mark.parametrize("name", list(harmless()))
def test_what_breaks_no_rule_is_not_seen(name: str) -> None:
    caught = hunt(name, seeds_max=25)
    assert not caught.is_caught, caught.text


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
