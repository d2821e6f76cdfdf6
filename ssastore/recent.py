"""What requests took in the last minutes, second by second, kept in the process that answered them. Pure.

No other program is needed to look back: ``SECONDS`` rows of six numbers. Percentiles are exact, of all
requests that ended in the second: their times are kept until it is over, and then sorted.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

SECONDS = 900
"How far back: a quarter of an hour."


class Second(NamedTuple):
    """What ended in one second; times in microseconds, 0 where nothing did."""

    at_s: int
    "By the caller's own monotonic clock."
    ended: int
    errors: int
    p50_us: int
    p99_us: int
    p999_us: int


class Recent:
    """Requests of the last minutes."""

    def __init__(self) -> None:
        self._rows: deque[Second] = deque(maxlen=SECONDS)
        self._took_s: list[float] = []
        self._errors = 0
        self._at_s = -1

    def note(self, now_s: float, took_s: float, status: int) -> None:
        """A request that has ended. ``status``: of HTTP; from 500 on it counts as an error."""
        if int(now_s) != self._at_s:
            self._turn(int(now_s))
        self._took_s.append(took_s)
        if status >= 500:
            self._errors += 1

    def rows(self, now_s: float, after_s: int) -> list[Second]:
        """The seconds after ``after_s`` that are over, oldest first."""
        if int(now_s) != self._at_s:
            self._turn(int(now_s))
        return [row for row in self._rows if row.at_s > after_s]

    def _turn(self, now_s: int) -> None:
        """Close the second that was, and those without a request after it."""
        if self._at_s >= 0:
            took = sorted(self._took_s)
            shares = [round(took[len(took) * part // 1000] * 1e6) if took else 0 for part in (500, 990, 999)]
            self._rows.append(Second(self._at_s, len(took), self._errors, *shares))
            for at_s in range(max(self._at_s + 1, now_s - SECONDS), now_s):
                self._rows.append(Second(at_s, 0, 0, 0, 0, 0))
        self._took_s, self._errors, self._at_s = [], 0, now_s
