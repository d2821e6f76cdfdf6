"""How many planes a group has, as one client knows it. Coroutines on a Caller.

Nearly always all groups have as many, and any greeting tells.  While a cluster is given more
replicas its groups get their planes one after the other: who is asked with another number than a
group has refuses, and says the right one (RECOUNT).  That is kept here for the group, until it is
found to be wrong again: a few bytes for each of at most 4096 groups, and no word of any node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ssastore.core.caller import Caller
from ssastore.errors import Recounted
from ssastore.keyspace import GROUPS, slice16_of
from ssastore.limits import RETRY_BASE_MS, RETRY_CAP_MS

T = TypeVar("T")

_AT_ONCE = 2
"Times that the right number is tried without a pause: after that, planes do not agree on it yet."


class Counts:
    """The number of planes of each group, for the requests of one client."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._odd: dict[int, int] = {}

    @property
    def is_mixed(self) -> bool:
        """Whether some group is known to have another number of planes than most."""
        return bool(self._odd)

    async def at(self, position: int) -> int:
        """How many planes the group of a position has. Raises Unavailable: nobody has told yet."""
        return self.now(position) or self._odd_or(position, await self._caller.replica_count(position))

    def now(self, position: int) -> int:
        """The same without a wait; 0 when nobody has told yet."""
        known = self._caller.replicas
        return self._odd_or(position, known) if self._odd and known else known

    def _odd_or(self, position: int, known: int) -> int:
        return self._odd.get(slice16_of(position) & (GROUPS - 1), known)

    async def counted(self, position: int, work: Callable[[int], Awaitable[T]]) -> T:
        """Do something with the number of planes that a group has. Raises what it raises."""
        try:
            return await work(await self.at(position))
        except Recounted as error:
            return await self.again(position, error, work)

    async def again(self, position: int, error: Recounted, work: Callable[[int], Awaitable[T]]) -> T:
        """Do with the right number of planes what was refused for a wrong one, until the deadline.

        ``work`` may have been done in part: whatever it does must be good to do again. Raises what it raises.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._caller.deadline_ms / 1000
        attempt = 0
        while True:
            self._learn(position, error)
            try:
                return await work(await self.at(position))
            except Recounted as other:
                error = other
            attempt += 1
            pause_s = min(RETRY_BASE_MS << attempt, RETRY_CAP_MS) / 1000 if attempt >= _AT_ONCE else 0.0
            if loop.time() + pause_s >= deadline:
                raise error
            await asyncio.sleep(pause_s)

    def _learn(self, position: int, error: Recounted) -> None:
        group = slice16_of(position) & (GROUPS - 1)
        if error.replicas in (0, self._caller.replicas):
            self._odd.pop(group, None)
        else:
            self._odd[group] = error.replicas
