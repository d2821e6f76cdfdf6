"""What judges the histories of labs has itself been seen red."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from ssastore.judge.history import Condition, Kind, Op, Outcome
from ssastore.judge.verdicts import judge, read_history, share_of_success

PUT, GET, DELETE = Kind.PUT, Kind.GET, Kind.DELETE
DONE, ABSENT, UNKNOWN = Outcome.DONE, Outcome.ABSENT, Outcome.UNKNOWN


def op(kind: Kind, called: int, answered: int, outcome: Outcome = DONE, value: str = "") -> Op:
    return Op(1, kind, called, answered, outcome, value)


GOOD = {
    "last write": [op(PUT, 0, 1, value="a"), op(PUT, 2, 3, value="b"), op(GET, 4, 5, value="b")],
    "deleted": [op(PUT, 0, 1, value="a"), op(DELETE, 2, 3), op(GET, 4, 5, ABSENT)],
    "one of two at once": [op(PUT, 0, 9, value="a"), op(PUT, 1, 8, value="b"), op(GET, 10, 11, value="a")],
    "unknown put took effect": [
        op(PUT, 0, 1, value="a"),
        op(PUT, 2, 3, UNKNOWN, "b"),
        op(GET, 4, 5, value="b"),
    ],
    "unknown delete took effect late": [
        op(DELETE, 0, 1, UNKNOWN),
        op(PUT, 2, 3, value="a"),
        op(GET, 4, 5, ABSENT),
    ],
}
LOST = {
    "older value": [op(PUT, 0, 1, value="a"), op(PUT, 2, 3, value="b"), op(GET, 4, 5, value="a")],
    "nothing there": [op(PUT, 0, 1, value="a"), op(GET, 4, 5, ABSENT)],
    "delete undone": [op(PUT, 0, 1, value="a"), op(DELETE, 2, 3), op(GET, 4, 5, value="a")],
    "made up": [op(PUT, 0, 1, value="a"), op(GET, 4, 5, value="x")],
    "delete long before": [op(DELETE, 0, 1, ABSENT), op(PUT, 2, 3, value="a"), op(GET, 4, 5, ABSENT)],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD)
def test_good_history_is_green(history: list[Op]) -> None:
    judged = judge({"k": history})
    assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
    assert (judged.keys, judged.operations) == (1, len(history))


@pytest.mark.parametrize("history", LOST.values(), ids=LOST)
def test_lost_write_is_red_twice(history: list[Op]) -> None:
    judged = judge({"good": GOOD["last write"], "bad": history})
    assert judged.lost == ["bad"] and len(judged.violations) == 1


def test_history_comes_back_from_its_file(tmp_path: Path) -> None:
    kept = Op(3, PUT, 5, 6, Outcome.FAILED, "v", Condition.IF_VALUE, "w")
    names = {"kind": kept.kind.value, "outcome": kept.outcome.value, "condition": kept.condition.value}
    for name in ("a", "b"):
        (tmp_path / name).write_text(json.dumps(asdict(kept) | names | {"key": name}) + "\n")
    found = read_history(str(tmp_path / "a"), str(tmp_path / "b"))
    assert found == {"a": [kept], "b": [kept]}


def test_share_of_success_counts_doubts_and_refusals_of_service_as_failures() -> None:
    answers = {"done": 996, "condition failed": 2, "unavailable": 1, "unknown": 1, "writes": 500}
    assert share_of_success({"answers": answers}) == pytest.approx(0.998)
