"""A clock that follows the wall without its jumps."""

from __future__ import annotations

import pytest

from ssastore.core.steady import SLEW_PERCENT, SteadyClock

HOUR_MS = 3_600_000


class Clocks:
    """A wall clock that can be set, and seconds that cannot."""

    def __init__(self) -> None:
        self.wall_ms = 1_900_000_000_000
        self.count_s = 77.0
        self.steady = SteadyClock(self, lambda: self.count_s)

    def now_ms(self) -> int:
        return self.wall_ms

    def pass_s(self, seconds: float) -> int:
        self.count_s += seconds
        self.wall_ms += int(seconds * 1000)
        return self.steady.now_ms()


def test_it_shows_the_wall_clock_when_that_does_not_jump() -> None:
    clocks = Clocks()
    assert clocks.steady.now_ms() == clocks.wall_ms
    for _ in range(100):
        assert clocks.pass_s(0.7) == pytest.approx(clocks.wall_ms, abs=1)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
def test_a_jump_changes_no_age_by_more_than_the_slew(jump_ms: int) -> None:
    clocks = Clocks()
    before = clocks.steady.now_ms()
    clocks.wall_ms += jump_ms
    assert clocks.steady.now_ms() == before
    age_ms = clocks.pass_s(60) - before
    assert abs(age_ms - 60_000) <= 60_000 * SLEW_PERCENT / 100 + 1


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
def test_it_gets_to_the_wall_clock_in_the_end(jump_ms: int) -> None:
    clocks = Clocks()
    clocks.wall_ms += jump_ms
    shown = [clocks.pass_s(60) for _ in range(60 * 101)]
    assert shown[-1] == pytest.approx(clocks.wall_ms, abs=1)
    assert shown == sorted(shown)
