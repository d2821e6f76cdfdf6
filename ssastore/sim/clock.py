"""What a simulated host believes the time is.

A host has two clocks and neither is the world's: a monotonic one that starts
anywhere and runs a little fast or slow, and a wall clock that is off and can jump.
All time is integer nanoseconds: floats that are summed drift apart, and traces
would differ in the last digit.
"""

from __future__ import annotations

from typing import Protocol

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
EXACT_PPM = 1_000_000
"Rate of a clock that is right, in parts per million."

EPOCH_MS = 1_900_000_000_000
"Wall-clock time at the start of a run: in March 2030."


class Time(Protocol):
    """The world's time."""

    now_ns: int


class HostClock:
    """The clocks of one host; implements ``env.Clock``.

    Args:
        world: the world's time.
        origin_ns: what the monotonic clock shows now.
        rate_ppm: how fast both clocks run; 1_000_000 is exact.
        offset_ms: how far the wall clock is ahead.
    """

    def __init__(
        self,
        world: Time,
        *,
        origin_ns: int = 0,
        rate_ppm: int = EXACT_PPM,
        offset_ms: int = 0,
    ) -> None:
        self._world = world
        self._since_ns = world.now_ns
        self._base_ns = origin_ns
        "What the monotonic clock showed at ``_since_ns``."
        self._origin_ns = origin_ns
        self._rate_ppm = rate_ppm
        self._offset_ms = offset_ms
        self._started_ns = self._since_ns

    def monotonic_ns(self) -> int:
        """Never goes back and never jumps; only differences mean something, and only on this host."""
        return self._base_ns + (self._world.now_ns - self._since_ns) * self._rate_ppm // EXACT_PPM

    def now_ms(self) -> int:
        """See ``env.Clock``."""
        counted_ms = (self._started_ns + self.monotonic_ns() - self._origin_ns) // NS_PER_MS
        return max(0, EPOCH_MS + self._offset_ms + counted_ms)

    def world_span_ns(self, span_ns: int) -> int:
        """How long the world takes until this clock has counted ``span_ns``, rounded up."""
        return -(-span_ns * EXACT_PPM // self._rate_ppm)

    def jump(self, by_ms: int) -> None:
        """Set the wall clock; the monotonic one does not notice."""
        self._offset_ms += by_ms

    def set_offset(self, offset_ms: int) -> None:
        """Set the wall clock to this far ahead of the truth, but for its drift."""
        self._offset_ms = offset_ms

    def set_rate(self, rate_ppm: int) -> None:
        """Run faster or slower from now on. Timers that are set keep their world time."""
        self._base_ns, self._since_ns = self.monotonic_ns(), self._world.now_ns
        self._rate_ppm = rate_ppm
