"""What became of slices: the last events one by one, and those of a day by the minute. Pure.

mark    [ms, what, source, target, slices]     as a page is told; by the minute source and target are empty
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from ssastore.console.ownership import Mark

MARKS_MAX = 1000
_MINUTE_MS = 60_000
DAY_MS = 24 * 60 * _MINUTE_MS


class Story:
    """Of one gateway, since its start."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, list[Any]]] = deque(maxlen=MARKS_MAX)
        "Each with its number."
        self.number = 0
        "Of the last mark."
        self._minutes: Counter[tuple[int, str]] = Counter()
        "Slices by minute and what became of them: at most seven of a minute."

    def add(self, now_ms: int, marks: Counter[Mark]) -> None:
        """What was seen at a look."""
        for mark, count in marks.items():
            self.number += 1
            self._marks.append((self.number, [now_ms, *mark, count]))
            self._minutes[now_ms // _MINUTE_MS, mark.what] += count
        if marks:
            oldest = (now_ms - DAY_MS) // _MINUTE_MS
            for key in [key for key in self._minutes if key[0] < oldest]:
                del self._minutes[key]

    def since(self, number: int) -> list[list[Any]]:
        """The marks after a number, as far as they are kept."""
        return [mark for at, mark in self._marks if at > number]

    def by_minute(self, after_ms: int) -> list[list[Any]]:
        """The marks of a day, oldest first."""
        found = sorted((minute * _MINUTE_MS, what, count) for (minute, what), count in self._minutes.items())
        return [[at_ms, what, "", "", count] for at_ms, what, count in found if at_ms > after_ms]
