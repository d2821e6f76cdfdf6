"""A thread that does one thing after the other and reports each to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class WorkThread:
    """Belongs to the thread of the event loop, but for the work that it is given."""

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        """``failed`` is called, on the thread, with what ``work`` raises; ``then`` is not, in that case."""
        self._failed = failed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Run ``work`` on the thread, then ``then`` with its result on the event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._jobs.put((work, then))

    def end(self) -> None:
        """Wait until everything is done. May be called again."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, then = job
            try:
                result = work()
            except BaseException as error:
                self._failed(error)
                continue
            # Emptied by the loop: else this thread would keep the last batch's values while it idles.
            done = [(then, result)]
            del job, work, then, result
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(_report, done)
            except RuntimeError:
                return  # The loop was closed and the store was not: nobody is waiting any more.


def _report(done: list[tuple[Callable[[Any], None], Any]]) -> None:
    then, result = done.pop()
    then(result)
