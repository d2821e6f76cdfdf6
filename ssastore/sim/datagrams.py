"""Between nodes: requests that come twice, or long after their answer was given up, or never.

TCP repeats nothing and loses nothing by itself, but what is sent again after a reset may
find that the first one was taken after all, much later, and what was sent before one may
not have been read.  Here that happens to any request, at the place where production sends
it; the answer of a second copy interests nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy

from ssastore.env import Randomness, spawn
from ssastore.errors import OutcomeUnknown, SsaStoreError, Unavailable
from ssastore.messages import Message
from ssastore.transport.connection import Reply
from ssastore.transport.pool import _UNCERTAIN, Pool
from ssastore.wire import Body

_LATE_MS_MAX = 2000


class UnreliablePool(Pool):
    """A pool some of whose requests are delivered a second time, up to two seconds later, or not at all."""

    _repeated_percent = _lost_percent = 0
    _dice: Randomness

    def harm(self, repeated_percent: int, lost_percent: int, dice: Randomness) -> None:
        """Let these shares of the requests be delivered twice, or lost. The dice are not the process's."""
        self._repeated_percent, self._lost_percent, self._dice = repeated_percent, lost_percent, dice

    def heal(self) -> None:
        """Deliver everything once from now on."""
        self._repeated_percent = self._lost_percent = 0

    async def call(
        self, message: Message, iid: int, body: Body = b"", *, within_ms: int | None = None
    ) -> Reply:
        """See ``Pool.call``."""
        if self._lost_percent and within_ms and self._dice.below(100) < self._lost_percent:
            await asyncio.sleep(within_ms / 1000)
            lost = OutcomeUnknown if isinstance(message, _UNCERTAIN) else Unavailable
            raise lost("the request was lost")
        if self._repeated_percent and self._dice.below(100) < self._repeated_percent:
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
