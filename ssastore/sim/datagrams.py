"""Between nodes: requests that come twice, or long after their answer was given up.

TCP repeats nothing by itself, but what is sent again after a reset may find that the
first one was taken after all, much later.  Here that happens to any request, at the
place where production sends it, and the answer of the second copy interests nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy

from ssastore.env import Randomness, spawn
from ssastore.errors import SsaStoreError
from ssastore.messages import Message
from ssastore.transport.connection import Reply
from ssastore.transport.pool import Pool
from ssastore.wire import Body

_LATE_MS_MAX = 2000


class RepeatingPool(Pool):
    """A pool some of whose requests are delivered a second time, up to two seconds later."""

    _percent = 0
    _dice: Randomness

    def repeat(self, percent: int, dice: Randomness) -> None:
        """Let this share of the requests be delivered twice. The dice are not those of the process."""
        self._percent, self._dice = percent, dice

    async def call(
        self, message: Message, iid: int, body: Body = b"", *, within_ms: int | None = None
    ) -> Reply:
        """See ``Pool.call``."""
        if self._percent and self._dice.below(100) < self._percent:
            spawn("repeat", self._repeat(copy(message), iid, bytes(body), within_ms))
        return await super().call(message, iid, body, within_ms=within_ms)

    async def _repeat(self, message: Message, iid: int, body: Body, within_ms: int | None) -> None:
        await asyncio.sleep(self._dice.below(_LATE_MS_MAX) / 1000)
        await quietly(lambda: Pool.call(self, message, iid, body, within_ms=within_ms))


async def quietly(call: Callable[[], Awaitable[object]]) -> None:
    """Do it; what it raises was somebody else's business."""
    try:
        await call()
    except (OSError, SsaStoreError):
        pass
