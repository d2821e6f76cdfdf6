"""The quick check by versions: silent on what is right, and each rule names its culprit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ssastore.judge.checker import Verdict, check
from ssastore.judge.history import Condition, Kind, Op, Outcome
from ssastore.judge.versions import version_complaints
from tests.unit.judge.histories import BREAKINGS, broken, working


def put(called: int, answered: int, value: str, version: int, **more: object) -> Op:
    fields = {"outcome": Outcome.DONE, "condition": Condition.NONE, "expected": "", **more}
    return Op(1, Kind.PUT, called, answered, value=value, version=version, **fields)  # type: ignore[arg-type]


def get(called: int, answered: int, value: str, version: int) -> Op:
    outcome = Outcome.DONE if value else Outcome.ABSENT
    return Op(2, Kind.GET, called, answered, outcome, value, version=version)


A, B = put(0, 10, "a", 1), put(20, 30, "b", 2)

RULES = {
    "given twice": [A, replace(B, version=1)],
    "after 2": [A, B, get(40, 50, "a", 1)],
    "is a:": [A, B, get(5, 50, "b", 1)],
    "never written": [A, get(20, 30, "x", 7)],
    "applied to a": [A, put(20, 30, "b", 2, condition=Condition.IF_ABSENT)],
    "refused without": [A, put(20, 30, "b", 1, outcome=Outcome.FAILED, condition=Condition.IF_PRESENT)],
}


@pytest.mark.parametrize("complaint", RULES)
def test_each_rule_has_its_complaint(complaint: str) -> None:
    complaints = version_complaints(RULES[complaint])
    assert any(complaint in found for found in complaints), complaints
    is_seen_by_search = complaint not in ("given twice", "is a:")
    assert (check(RULES[complaint]).verdict is Verdict.VIOLATION) is is_seen_by_search


@pytest.mark.parametrize(
    "history",
    [
        [],
        [A, B, get(40, 50, "b", 2)],
        [A, B, get(5, 25, "a", 1)],
        [get(0, 1, "", 0), A],
        [A, put(20, 30, "b", 2, condition=Condition.IF_VALUE, expected="a")],
        [A, put(20, 30, "b", 1, outcome=Outcome.FAILED, condition=Condition.IF_ABSENT)],
        [put(0, 0, "a", 0, outcome=Outcome.UNKNOWN), B, get(40, 50, "a", 3)],
    ],
)
def test_right_histories_pass(history: list[Op]) -> None:
    assert not version_complaints(history)


def test_what_a_working_register_tells_passes() -> None:
    for seed in range(200):
        assert not version_complaints(working(seed))


@pytest.mark.parametrize("name", ["invented_value", "groundless_refusal", "stale_read"])
def test_broken_histories_are_noticed_when_versions_tell_the_truth(name: str) -> None:
    """The value is wrong and its version is the real one, or none."""
    noticed = sum(bool(version_complaints(broken(seed, BREAKINGS[name]))) for seed in range(40))
    assert noticed >= 30


def test_it_is_fast_on_long_histories() -> None:
    """Ten thousand operations, far more than the search can judge."""
    history = working(1, ops=10_000, unknown=0)
    reads = [op for op in history if op.kind is Kind.GET]
    assert not version_complaints([op for op in history if op.outcome is Outcome.DONE])
    stale = replace(reads[-1], value="", outcome=Outcome.ABSENT, version=0)
    assert version_complaints([*[op for op in history if op.outcome is Outcome.DONE], stale])
