"""What requests took, kept in the process that answered them: the coarser the longer ago. Pure.

No other program is needed to look back.  Three tiers of rows of six numbers, some 600 KB in all:

    900 of a second      a quarter of an hour     percentiles exact: times are kept until the second is over
    1080 of 10 s         three hours              percentiles to 5 %: of times counted in eighths of an octave
    1440 of a minute     a day
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

SECONDS = 900
"How far back each second is told."
TIERS = ((10, 1080), (60, 1440))
"Seconds of a row and rows, of what is older."
_PARTS = (500, 990, 999)
"Percentiles, in thousandths."
_EDGES_S = [2 ** (eighth / 8) / 1e6 for eighth in range(8 * 28)]
"Of the classes in which times are counted, from a microsecond to four minutes; the first and last are open."


class Row(NamedTuple):
    """What ended in a second, or in several; times in microseconds, 0 where nothing did."""

    at_s: int
    "Its first second, by the caller's own monotonic clock."
    ended: int
    errors: int
    p50_us: int
    p99_us: int
    p999_us: int


class _Tier:
    """Rows of several seconds."""

    def __init__(self, step_s: int, rows: int) -> None:
        self.step_s = step_s
        self.rows: deque[Row] = deque(maxlen=rows)
        self._first_s = -1
        self._counts: Counter[int] = Counter()
        self._errors = 0

    def add(self, at_s: int, counts: Counter[int], errors: int) -> None:
        """A second that is over; nothing ended in those that are not told."""
        first_s = at_s - at_s % self.step_s
        if first_s != self._first_s:
            self._close()
            self._first_s = first_s
        self._counts.update(counts)
        self._errors += errors

    def _close(self) -> None:
        if ended := self._counts.total():
            shares = [_share(self._counts, ended * part // 1000) for part in _PARTS]
            self.rows.append(Row(self._first_s, ended, self._errors, *shares))
        self._counts, self._errors = Counter(), 0


def _share(counts: Counter[int], at: int) -> int:
    """The time, in microseconds, of the request with a number, in the order of times."""
    for found in sorted(counts):
        at -= counts[found]
        if at < 0:
            # Between the edges of its class, half way by proportion.
            return round(2 ** ((found - 0.5) / 8))
    return 0


class Recent:
    """Requests of the last day."""

    def __init__(self) -> None:
        self._rows: deque[Row] = deque(maxlen=SECONDS)
        self._tiers = [_Tier(*tier) for tier in TIERS]
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

    def rows(self, now_s: float, after_s: int) -> list[Row]:
        """The seconds after ``after_s`` that are over, oldest first."""
        if int(now_s) != self._at_s:
            self._turn(int(now_s))
        return [row for row in self._rows if row.at_s > after_s]

    def past(self, now_s: float, back_s: int) -> tuple[int, list[Row]]:
        """Seconds of a row, and the rows of the finest tier that goes so far back, but for empty ones."""
        self.rows(now_s, 1 << 62)
        far = [tier for tier in self._tiers if tier.step_s * (tier.rows.maxlen or 0) >= back_s]
        tier = far[0] if far else self._tiers[-1]
        return tier.step_s, [row for row in tier.rows if row.at_s > now_s - back_s]

    def _turn(self, now_s: int) -> None:
        """Close the second that was, and those without a request after it."""
        if self._at_s >= 0:
            took = sorted(self._took_s)
            shares = [round(took[len(took) * part // 1000] * 1e6) if took else 0 for part in _PARTS]
            self._rows.append(Row(self._at_s, len(took), self._errors, *shares))
            for at_s in range(max(self._at_s + 1, now_s - SECONDS), now_s):
                self._rows.append(Row(at_s, 0, 0, 0, 0, 0))
            counts = _classes(took)
            for tier in self._tiers:
                tier.add(self._at_s, counts, self._errors)
        self._took_s, self._errors, self._at_s = [], 0, now_s


def _classes(took: Sequence[float]) -> Counter[int]:
    """How many of times in order are in each class: a look for each class, not for each time."""
    counts: Counter[int] = Counter()
    at = 0
    while at < len(took):
        found = bisect_right(_EDGES_S, took[at])
        end = len(took) if found == len(_EDGES_S) else bisect_left(took, _EDGES_S[found], at)
        counts[found] += end - at
        at = end
    return counts
