"""The control store as simulated nodes reach it: a round trip away, and gone in an outage.

All clients of a cluster share one store in memory, which is linearizable because it does
one thing at a time.  In an outage every call waits as long as production's does, then
raises Unavailable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass

from ssastore.control.memory import MemoryControlStore
from ssastore.env import Compare, Event, Item, Write
from ssastore.errors import Unavailable
from ssastore.limits import CONTROL_TIMEOUT_MS

_ROUND_TRIP_S = 0.002
_POLL_S = 0.05


@dataclass(slots=True)
class ControlNetwork:
    """Between the nodes and the control store."""

    is_down: bool = False


class VirtualControlStore:
    """``env.ControlStore`` of one process."""

    def __init__(
        self, store: MemoryControlStore, network: ControlNetwork, line: ControlNetwork | None = None
    ) -> None:
        """``network`` is everybody's, ``line`` this node's own way."""
        self._store = store
        self._network = network
        self._line = line or ControlNetwork()

    async def get(self, key: str) -> Item | None:
        await self._reach()
        return await self._store.get(key)

    async def list(self, prefix: str) -> tuple[Sequence[Item], int]:
        await self._reach()
        return await self._store.list(prefix)

    async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
        await self._reach()
        revision = await self._store.transact(compares, writes)
        await self._answer()
        return revision

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Event, None]:
        await self._reach()
        async for event in self._store.watch(prefix, after_revision):
            await self._answer()
            yield event

    async def grant(self, ttl_ms: int) -> int:
        await self._reach()
        return await self._store.grant(ttl_ms)

    async def keep_alive(self, lease: int) -> bool:
        await self._reach()
        return await self._store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self._reach()
        await self._store.revoke(lease)

    async def close(self) -> None:
        await self._store.close()

    async def _reach(self) -> None:
        """Half of a round trip; in an outage the time that a call is given."""
        await asyncio.sleep(_ROUND_TRIP_S / 2)
        await self._answer()

    async def _answer(self) -> None:
        """Whether it happened or not: what is not answered in time raises Unavailable."""
        left_s = CONTROL_TIMEOUT_MS / 1000
        while self._network.is_down or self._line.is_down:
            await asyncio.sleep(_POLL_S)
            left_s -= _POLL_S
            if left_s <= 0:
                raise Unavailable("the control store did not answer in time")
