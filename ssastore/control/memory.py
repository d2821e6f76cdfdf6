"""``env.ControlStore`` in this process: for tests, simulations and clusters that live in one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from ssastore.control.engine import ControlEngine, loop_now_ms
from ssastore.control.state import ControlState
from ssastore.env import Compare, Event, Item, Write
from ssastore.errors import Unavailable


class MemoryControlStore:
    """One client of a store in memory; ``another_client`` makes more of the same store.

    No call but a watch ever waits, so a call takes effect in the step of the event loop that
    makes it.  Everything is forgotten with the last client.
    """

    def __init__(self, *, now_ms: Callable[[], int] = loop_now_ms, state: ControlState | None = None) -> None:
        """``now_ms`` is the leases' clock, the event loop's unless told; ``state`` what it holds at first."""
        self._engine = ControlEngine(state or ControlState(now_ms=0), now_ms=now_ms)
        self._is_closed = False

    def another_client(self) -> MemoryControlStore:
        """A client of the same store; closing one leaves the others."""
        other = MemoryControlStore()
        other._engine = self._engine
        return other

    async def get(self, key: str) -> Item | None:
        return await self._open().get(key)

    async def list(self, prefix: str) -> tuple[Sequence[Item], int]:
        return await self._open().list(prefix)

    async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
        return await self._open().transact(compares, writes)

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Event, None]:
        while True:
            events, after_revision = await self._open().next_events(prefix, after_revision)
            self._open()
            for event in events:
                yield event

    async def grant(self, ttl_ms: int) -> int:
        return await self._open().grant(ttl_ms)

    async def keep_alive(self, lease: int) -> bool:
        return await self._open().keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self._open().revoke(lease)

    async def close(self) -> None:
        self._is_closed = True
        self._engine.wake()

    def _open(self) -> ControlEngine:
        if self._is_closed:
            raise Unavailable("this client of the control store is closed")
        return self._engine
