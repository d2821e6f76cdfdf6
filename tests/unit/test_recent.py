"""What requests took, second by second."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ssastore.recent import SECONDS, Recent, Row


def test_a_second_is_told_when_it_is_over() -> None:
    recent = Recent()
    for took_us in range(1, 1001):
        recent.note(5.9, took_us / 1e6, 200)
    recent.note(5.9, 2 / 1e6, 503)
    assert recent.rows(5.99, -1) == []
    assert recent.rows(6.0, -1) == [Row(5, 1001, 1, 500, 990, 999)]
    assert recent.rows(6.0, 5) == []


def test_seconds_without_requests_are_there_too() -> None:
    recent = Recent()
    recent.note(5.0, 7 / 1e6, 200)
    assert [row.ended for row in recent.rows(8.0, -1)] == [1, 0, 0]
    recent.note(8.0, 9 / 1e6, 404)
    assert recent.rows(9.0, 7) == [Row(8, 1, 0, 9, 9, 9)]


def test_only_the_last_quarter_of_an_hour_is_kept() -> None:
    recent = Recent()
    recent.note(0.0, 1e-6, 200)
    rows = recent.rows(10_000_000.0, -1)
    assert len(rows) == SECONDS and (rows[0].at_s, rows[-1].at_s) == (10_000_000 - SECONDS, 10_000_000 - 1)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200))
def test_percentiles_are_of_all_requests(took_us: list[int]) -> None:
    recent = Recent()
    for one in took_us:
        recent.note(9.5, one / 1e6, 200)
    (row,) = recent.rows(10.0, -1)
    ordered = sorted(took_us)
    for share, found in ((500, row.p50_us), (990, row.p99_us), (999, row.p999_us)):
        assert found == ordered[len(took_us) * share // 1000]


def test_what_is_older_is_told_more_coarsely_and_within_bounds() -> None:
    recent = Recent()
    for at_s in range(0, 200_000, 7):
        recent.note(at_s + 0.5, 0.001 if at_s % 3 else 0.1, 500 if at_s % 70 == 0 else 200)
    for back_s, step_s, most in ((900, 10, 90), (10_800, 10, 1080), (86_400, 60, 1440)):
        step, rows = recent.past(200_000.0, back_s)
        assert step == step_s and most - 2 <= len(rows) <= most
        assert all(later.at_s - row.at_s == step_s for row, later in pairwise(rows))
        assert rows[0].at_s > 200_000 - back_s - 2 * step_s
        ended = sum(row.ended for row in rows)
        assert abs(ended - back_s / 7) <= step_s
        assert abs(sum(row.errors for row in rows) - back_s / 70) <= step_s
        assert step_s == 10 or all(940 < row.p50_us < 1060 and 94_000 < row.p99_us < 106_000 for row in rows)
    assert recent.past(200_000.0, 1 << 40)[0] == 60


@given(st.lists(st.floats(1e-6, 200), min_size=1, max_size=50))
def test_coarse_percentiles_are_within_five_percent(took_s: list[float]) -> None:
    recent = Recent()
    for one in took_s:
        recent.note(9.5, one, 200)
    recent.note(25.0, 1.0, 200)
    _, (row,) = recent.past(30.0, 10_800)
    ordered = sorted(took_s)
    for share, found in ((500, row.p50_us), (990, row.p99_us), (999, row.p999_us)):
        exact = ordered[len(ordered) * share // 1000] * 1e6
        assert abs(found - exact) <= 0.05 * exact + 1
