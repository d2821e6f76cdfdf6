"""A wall clock that does not jump: what a worker compares ages by. Pure but for the clocks it is given.

A register forgets operations and deletes by their age, and that is a reading of a wall
clock, which may be set while a call is under way: after a jump of an hour an operation of a
second ago would be forgotten, and its repetition told that nobody knows (``core.birth``).

So time is read from the wall once and goes on by the event loop's clock, which counts
seconds and is never set.  Whatever the wall clock says later is approached slowly: a
clock that was wrong at the start becomes right, and in the minute that a call may take
no age is wrong by more than ``SLEW_PERCENT`` of it.
"""

from __future__ import annotations

from collections.abc import Callable

from ssastore.env import Clock
from ssastore.limits import CALL_DEADLINE_MS_MAX, REACH_SKEW_MS

SLEW_PERCENT = 1
"How much faster or slower than real time it may run to get to where the wall clock is."

assert CALL_DEADLINE_MS_MAX * SLEW_PERCENT // 100 < REACH_SKEW_MS // 10


class SteadyClock:
    """``env.Clock`` over another that may jump.

    Args:
        wall: the clock to follow.
        count_s: seconds that only go forward; the event loop's.
    """

    def __init__(self, wall: Clock, count_s: Callable[[], float]) -> None:
        self._wall = wall
        self._count_s = count_s
        self._counted_s = count_s()
        self._ms = float(wall.now_ms())

    def now_ms(self) -> int:
        """See ``env.Clock``. Never goes back."""
        counted_s = self._count_s()
        if counted_s == self._counted_s:
            return int(self._ms)
        passed_ms = (counted_s - self._counted_s) * 1000
        self._counted_s = counted_s
        self._ms += passed_ms
        slew_ms = passed_ms * SLEW_PERCENT / 100
        self._ms += min(max(self._wall.now_ms() - self._ms, -slew_ms), slew_ms)
        return int(self._ms)
