"""So many bytes a second, of all who share it together. The rate may change at any time."""

from __future__ import annotations

import asyncio

_STEP_S = 0.25
"Longest wait until a rate that was changed has its effect."
_REST_S = 0.0001
"Shortest wait: a clock may not show less, and who is let through late makes up for it."
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
