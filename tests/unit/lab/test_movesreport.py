"""The table says what clients noticed, and what they did not may not hide what went wrong."""

from __future__ import annotations

from dataclasses import replace

from ssastore.judge.history import Kind, Op, Outcome
from ssastore.lab.movesreport import Phase, Result, Row, row_of

MS = 1_000_000


def calls(*took_ms: int, began_ms: int = 0) -> list[Op]:
    return [
        Op(1, Kind.GET, (began_ms + n) * MS, (began_ms + n + took) * MS, Outcome.DONE)
        for n, took in enumerate(took_ms)
    ]


def test_calls_count_for_every_phase_in_which_they_were_under_way() -> None:
    found = [*calls(*range(1, 101)), *calls(900, began_ms=190)]
    row = row_of(Phase("before", 0, 150 * MS, 7), found)
    assert (row.calls, row.moves, row.seconds) == (100, 7, 0.15)
    assert (row.p50_ms, row.p99_ms, row.slowest_ms) == (51, 100, 100)
    for began_ms in (180, 500, 1000):
        assert row_of(Phase("stall", began_ms * MS, (began_ms + 80) * MS), found).slowest_ms == 900
    assert row_of(Phase("nothing", 2000 * MS, 2100 * MS), found).calls == 0


GOOD = Result(
    objects=10,
    rows=[Row("before", 1, 0, 9, 1, 2, 3), Row("moves", 1, 5, 9, 1, 5, 8), Row("after", 1, 0, 9, 1, 9, 9)],
    answers={"done": 27, "writes": 9},
    failures=[],
    wrong_objects=0,
    violations=[],
    undecided=[],
    lost=[],
)


def test_a_run_is_good_only_when_nothing_went_wrong() -> None:
    assert GOOD.is_good and GOOD.failed == 0 and GOOD.p99_ratio == 2.5
    for wrong in (
        {"answers": {"done": 26, "unavailable": 1}},
        {"answers": {"done": 26, "unknown": 1}},
        {"wrong_objects": 1},
        {"violations": ["k"]},
        {"undecided": ["k"]},
        {"lost": ["k"]},
        {"rows": [*GOOD.rows, Row("stall", 1, 0, 0, 0, 0, 0)]},
    ):
        assert not replace(GOOD, **wrong).is_good, wrong


def test_the_table_has_a_line_a_phase_and_the_verdict() -> None:
    table = replace(GOOD, failures=["get k after 5 ms: nobody is there"], answers={"unavailable": 1}).table()
    assert [line.split()[0] for line in table.splitlines()[1:4]] == ["before", "moves", "after"]
    assert "failed calls 1, of 1" in table and "nobody is there" in table
