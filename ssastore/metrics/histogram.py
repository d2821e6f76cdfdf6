"""How long things took, in fixed buckets. Pure.

Their ends go 1, 2, 5, 10: a percentile that is read from them is off by the width of its bucket at most, and
to note one costs a search among sixteen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

BOUNDS = (
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
)
"Upper ends, in seconds; what took longer is in one more bucket."


class Histogram:
    """Of one kind of request."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        "By bucket, not summed up."
        self.seconds = 0.0

    def note(self, seconds: float) -> None:
        """One more took so long."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


def summed(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The counts of several, by bucket."""
    counts = [0] * (len(BOUNDS) + 1)
    for found in histograms:
        counts = [sum(pair) for pair in zip(counts, found, strict=True)]
    return counts


def quantile(counts: Sequence[int], share: float) -> float | None:
    """How long at most that ``share`` of all took, in seconds; None when there are none.

    Between the ends of a bucket it goes evenly, as Prometheus takes it; beyond the last end nobody knows, so
    it is that end.
    """
    total = sum(counts)
    if not total:
        return None
    rank, below = share * total, 0
    for at, (bound, count) in enumerate(zip(BOUNDS, counts, strict=False)):
        if below + count >= rank and count:
            start = BOUNDS[at - 1] if at else 0.0
            return start + (bound - start) * (rank - below) / count
        below += count
    return BOUNDS[-1]
