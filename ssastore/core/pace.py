"""How fast what is copied may be copied, while clients are served by the same loop, cores and disks.

    SharedPace    so many bytes a second, of all who share it together
    Stint         rests in proportion to how long was worked, whatever that took: processor, disk or partner
    Gate          so many at a time

All that they are set to may be changed at any time, and counts for who waits already.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

_STEP_S = 0.25
"Longest wait until a rate that was changed has its effect."
_REST_S = 0.0001
"Shortest wait: a clock may not show less, and who is let through late makes up for it."
_REST_S_MAX = 10.0
"""Of one rest. What would be longer was no work but waiting for a partner that did not answer; and it must
hear of us in time (``limits.MOVE_SILENT_MS``)."""
_CREDIT_S = 0.1
"What was not used lately may be made up for: a page's own time is no time lost."


class SharedPace:
    """Lets bytes through in the order in which they are asked for."""

    def __init__(self, bytes_per_s: int) -> None:
        self.bytes_per_s = bytes_per_s
        self._asked = 0.0
        "Bytes that were asked for, in all."
        self._allowed = 0.0
        "And those of them that may have gone through by ``_at_s``."
        self._at_s = 0.0

    async def spend(self, size: int) -> None:
        """Wait for the turn of ``size`` more bytes."""
        self._allow()
        self._asked += size
        turn = self._asked
        left = turn - self._allow()
        while left > 0:
            await asyncio.sleep(max(_REST_S, min(left / self.bytes_per_s, _STEP_S)))
            left = turn - self._allow()

    def correct(self, more: int) -> None:
        """What was asked for turned out to be so many bytes more, or less: whoever waits feels it."""
        self._allowed -= more

    def _allow(self) -> float:
        now_s = asyncio.get_running_loop().time()
        grown = self._allowed + (now_s - self._at_s) * self.bytes_per_s
        self._allowed, self._at_s = min(grown, self._asked + _CREDIT_S * self.bytes_per_s), now_s
        return self._allowed


class Stint:
    """One worker's time, of which it rests a part.

    Args:
        rest_to_work: how many times as long a rest is as the work before it; 0: no rests.
    """

    def __init__(self, rest_to_work: float = 0.0) -> None:
        self.rest_to_work = rest_to_work
        self.begin()

    def begin(self) -> None:
        """What was before was no work."""
        self._since_s = asyncio.get_running_loop().time()

    async def rest(self) -> None:
        """Rest for the work since the last rest, or since it began."""
        loop = asyncio.get_running_loop()
        worked_s = loop.time() - self._since_s
        until_s = loop.time() + min(worked_s * self.rest_to_work, _REST_S_MAX)
        left_s = until_s - loop.time()
        while left_s > 0 and self.rest_to_work:
            await asyncio.sleep(min(left_s, _STEP_S))
            left_s = until_s - loop.time()
        self.begin()


class Gate:
    """Lets so many in at a time, in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._changed = asyncio.Event()

    def let(self, limit: int) -> None:
        """So many from now on; who is in stays in."""
        self._limit = limit
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> None:
        while self._inside >= self._limit:
            await self._changed.wait()
        self._inside += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside -= 1
        self._wake()
