"""Group commit: one thread, one batch at a time, everything submitted meanwhile goes into the next.

    event loop   submit submit submit | start                submit submit | finish start ...
    thread                                    changes, synced commit

A batch costs two hand-overs, however many changes it holds: a queue put towards the thread and one
``call_soon_threadsafe`` back.  A batch is started by a callback of the loop and not by the first
``submit``, so that changes of the same turn, and those that follow from the replies to the last batch,
travel together.

Knows nothing of LMDB: what a batch does is a function that is passed in.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

from ssastore.env import WriteTxn
from ssastore.errors import EnvironmentProblem
from ssastore.store.changes import Change, Outcome, Submitted, settle, take_batch

T = TypeVar("T")

Commit: TypeAlias = Callable[[list[Change]], list[Outcome]]
"Runs changes in order and returns one outcome for each; what it says succeeded is durable."


class GroupWriter:
    """Queue and thread of one store. All methods belong to the thread of the event loop."""

    def __init__(self, commit: Commit, name: str) -> None:
        self._commit = commit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[Submitted] = deque()
        self._busy = False
        "A start is scheduled, or a batch is with the thread."
        self._drained: asyncio.Future[None] | None = None
        "Made by close, which waits for it; nothing is accepted from then on."
        self._batches: SimpleQueue[list[Submitted] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, change: Callable[[WriteTxn], T], size: int) -> asyncio.Future[T]:
        """Queue a change; see ``env.Store.submit``."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._drained is not None:
            future.set_exception(EnvironmentProblem("the store is closed"))
            return future
        self._waiting.append(Submitted(change, size, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._start)
        return future

    async def close(self) -> None:
        """Wait for everything that was submitted, then end the thread. May be called again."""
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()
            if not self._busy:
                self._drained.set_result(None)
        await asyncio.shield(self._drained)
        self._batches.put(None)
        self._thread.join()

    def _start(self) -> None:
        """Hand the next batch to the thread, or go idle."""
        if self._waiting:
            self._batches.put(take_batch(self._waiting))
            return
        self._busy = False
        if self._drained is not None:
            self._drained.set_result(None)

    def _finish(self, batch: list[Submitted], outcomes: list[Outcome]) -> None:
        """Answer the callers; the next batch starts after they have run, so that what they add joins it."""
        for submitted, outcome in zip(batch, outcomes, strict=True):
            settle(submitted.future, outcome)
        assert self._loop is not None
        self._loop.call_soon(self._start)

    def _work(self) -> None:
        """The thread."""
        while (batch := self._batches.get()) is not None:
            try:
                outcomes = self._commit([submitted.change for submitted in batch])
            except BaseException as error:  # A bug of ours. Nobody may be left waiting for it.
                outcomes = [(None, EnvironmentProblem(f"the commit failed: {error!r}")) for _ in batch]
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._finish, batch, outcomes)
            except RuntimeError:
                return  # The loop was closed and the store was not: nobody is waiting any more.
            del batch, outcomes  # Else the idle thread would keep the last batch's values.
