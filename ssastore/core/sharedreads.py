"""Few reads for all who want the same at the same time: a hot name does not melt a worker. Pure asyncio.

Who asks while a read of the name is under way shares the next one with all who ask in the same turn of the
event loop; while as many as may be are under way, with all who come until one of them is done.  It begins
after each of them asked and ends before they hear of it, so what it finds is what each could have found
itself: linearizability stays.  A read that was under way may not be shared: what it found may have been
overwritten before they asked.

However many callers a process has, it has a few reads of a name under way, or some more when they are slow;
a caller waits for a part of the time that one takes.  The idea is that of a single flight (Go's
golang.org/x/sync/singleflight), which joins the one under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from ssastore.env import spawn
from ssastore.limits import SHARED_READ_WAIT_MS, SHARED_READS_MAX

T = TypeVar("T")


class _Waiting(Generic[T]):
    """Who waits for the next read of a name, and when that begins at the latest."""

    __slots__ = ("ask", "due", "futures")

    def __init__(self, ask: Callable[[], Awaitable[T]], due: asyncio.Handle) -> None:
        self.ask = ask
        self.due = due
        self.futures: list[asyncio.Future[T]] = []


class SharedReads(Generic[T]):
    """Reads under way, by name. Most are of one that nobody else wants: two looks into a dictionary each."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, _Waiting[T]] = {}

    def begin(self, name: Hashable) -> bool:
        """Whether the caller reads itself, and says ``end`` then; else it waits for the ``next`` read."""
        if name in self._under_way:
            return False
        self._under_way[name] = 1
        return True

    def end(self, name: Hashable) -> None:
        """A read that began is over, whatever came of it."""
        count = self._under_way[name] - 1
        if count:
            self._under_way[name] = count
        else:
            del self._under_way[name]
        if self._waiting:
            self._go_on(name)

    def next(self, name: Hashable, ask: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        """What a read finds that begins from now on, ``ask`` or another caller's. Raises as that does."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(name)
        if waiting is None:
            due: asyncio.Handle
            if self._under_way.get(name, 0) < SHARED_READS_MAX:
                due = loop.call_soon(self._go_on, name)
            else:
                # Reads that hang hold nobody up for long.
                due = loop.call_later(SHARED_READ_WAIT_MS / 1000, self._go_on, name)
            waiting = self._waiting[name] = _Waiting(ask, due)
        future: asyncio.Future[T] = loop.create_future()
        waiting.futures.append(future)
        return future

    def _go_on(self, name: Hashable) -> None:
        """Begin the next read, if somebody still waits for it."""
        waiting = self._waiting.pop(name, None)
        if waiting is None:
            return
        waiting.due.cancel()
        if not all(future.done() for future in waiting.futures):
            self._under_way[name] = self._under_way.get(name, 0) + 1
            spawn("read for all who wait", self._read_for(name, waiting))

    async def _read_for(self, name: Hashable, waiting: _Waiting[T]) -> None:
        try:
            found = await waiting.ask()
        except BaseException as error:
            # It began after each of them asked, and had as long as a read of their own.
            for future in waiting.futures:
                if not future.done():
                    future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise
        else:
            for future in waiting.futures:
                if not future.done():
                    future.set_result(found)
        finally:
            self.end(name)
