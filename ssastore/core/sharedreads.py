"""One read for all who want the same at the same time: a hot name does not melt a worker. Pure asyncio.

Who asks while a read of the name is under way waits for the next one, which begins when that is done, and
shares it with all who came meanwhile.  It begins after each of them asked and ends before they hear of it,
so what it finds is what each could have found itself: linearizability stays.  The read that was under way
may not be shared: what it found may have been overwritten before they asked.

However many callers a process has, it has one read of a name under way, or a few when they are slow.
The idea is that of a single flight (Go's golang.org/x/sync/singleflight), which joins the flight under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from ssastore.env import spawn
from ssastore.limits import SHARED_READ_WAIT_MS

T = TypeVar("T")


class _Waiting(Generic[T]):
    """Who waits for the next read of a name."""

    __slots__ = ("ask", "futures", "name", "timer")

    def __init__(self, name: Hashable, ask: Callable[[], Awaitable[T]], timer: asyncio.TimerHandle) -> None:
        self.name = name
        self.ask = ask
        self.timer = timer
        "A read that hangs holds nobody up for long."
        self.futures: list[asyncio.Future[T | None]] = []


class SharedReads(Generic[T]):
    """Reads under way, by name. Most are of one that nobody else wants: two looks into a dictionary each.

    Reads of equal names can be shared.  Each call comes with a name that is an object of its own (a tuple
    that was made for it): which of two equal ones it is tells the reads apart.
    """

    def __init__(self) -> None:
        self._under_way: dict[Hashable, Hashable] = {}
        "The name of the latest read that began, by the name."
        self._waiting: dict[Hashable, _Waiting[T]] = {}

    def begin(self, name: Hashable) -> bool:
        """Whether the caller may read at once, and says ``end`` then; else it waits for the ``next`` read."""
        return self._under_way.setdefault(name, name) is name

    def end(self, name: Hashable) -> None:
        """A read that began is over, whatever came of it."""
        if self._under_way.get(name) is name:
            self._go_on(name)

    async def next(self, name: Hashable, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What a read finds that begins from now on: ``ask``, or that of another caller.

        None when it failed: a failure is not shared, and who waited asks itself.
        """
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(name)
        if waiting is None:
            timer = loop.call_later(SHARED_READ_WAIT_MS / 1000, self._go_on, name)
            waiting = self._waiting[name] = _Waiting(name, ask, timer)
        future: asyncio.Future[T | None] = loop.create_future()
        waiting.futures.append(future)
        return await future

    def _go_on(self, name: Hashable) -> None:
        """The read is done, or takes too long: begin the next one, if somebody still waits for it."""
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            waiting.timer.cancel()
            if not all(future.done() for future in waiting.futures):
                self._under_way[name] = waiting.name
                spawn("read for all who wait", self._read_for(waiting))
                return
        self._under_way.pop(name, None)

    async def _read_for(self, waiting: _Waiting[T]) -> None:
        found: T | None = None
        try:
            with suppress(Exception):  # Each of them will hear why from its own read.
                found = await waiting.ask()
        finally:
            for future in waiting.futures:
                if not future.done():
                    future.set_result(found)
            self.end(waiting.name)
