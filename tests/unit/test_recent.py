"""What requests took, second by second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssastore.recent import SECONDS, Recent, Second


def test_a_second_is_told_when_it_is_over() -> None:
    recent = Recent()
    for took_us in range(1, 1001):
        recent.note(5.9, took_us / 1e6, 200)
    recent.note(5.9, 2 / 1e6, 503)
    assert recent.rows(5.99, -1) == []
    assert recent.rows(6.0, -1) == [Second(5, 1001, 1, 500, 990, 999)]
    assert recent.rows(6.0, 5) == []


def test_seconds_without_requests_are_there_too() -> None:
    recent = Recent()
    recent.note(5.0, 7 / 1e6, 200)
    assert [row.ended for row in recent.rows(8.0, -1)] == [1, 0, 0]
    recent.note(8.0, 9 / 1e6, 404)
    assert recent.rows(9.0, 7) == [Second(8, 1, 0, 9, 9, 9)]


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
