"""Group commit: one batch at a time, everything submitted meanwhile goes into the next.

    event loop   submit submit | run |   submit submit   | end, run |  replies, submit ...
    thread                           | sync ............ |          | sync ............

``run`` is Python, ``sync`` waits for the disk.  Small changes run on the event loop's thread: on another one
each call into LMDB would give the interpreter away and have to win it back from the event loop.  They run a
slice at a time, so that requests are answered in between.  A batch with a large change runs on the writer's
thread: its checksums and copies take milliseconds, and need the interpreter for little of that.

Changes of one turn of the loop travel together, for the first ``submit`` only schedules the start; so do
those that follow from the replies to a batch.  A batch that was abandoned is not run again as a whole: each
of its changes becomes a batch of its own, ahead of all others.

Knows nothing of LMDB: what a transaction does is passed in.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Protocol, TypeVar

from ssastore.env import WriteTxn
from ssastore.errors import EnvironmentProblem
from ssastore.limits import KIB
from ssastore.store.changes import Abandoned, Change, Outcome, Submitted, settle, take_batch

T = TypeVar("T")

LOOP_CHANGE_BYTES_MAX = 256 * KIB
"Largest change that runs on the event loop."

SLICE_OPS_MAX = 32
SLICE_BYTES_MAX = 256 * KIB
"What runs in one turn of the event loop."


class Attempt(Protocol):
    """One transaction for one batch.

    Either method may raise, and then nothing was kept: Abandoned if the changes may do better alone,
    EnvironmentProblem if nothing can be done for any of them.
    """

    def run(self, changes: list[Change]) -> list[Outcome]:
        """Run the next changes of the batch; one outcome for each. On either thread."""
        ...

    def sync(self) -> None:
        """Make everything durable. On the writer's thread."""
        ...


class _Batch:
    """A batch under way; one thread at a time has it."""

    __slots__ = ("_attempt", "_outcomes", "_rest", "is_abandoned", "is_over", "submitted")

    def __init__(self, submitted: list[Submitted], attempt: Attempt) -> None:
        self.submitted = submitted
        self._attempt = attempt
        self._rest = deque(submitted)
        "What has not run yet."
        self._outcomes: list[Outcome] = []
        self.is_abandoned = False
        "Nothing was kept; every change is to run again, alone."
        self.is_over = False

    @property
    def is_large(self) -> bool:
        """Whether one of its changes would hold the event loop up."""
        return max([submitted.size for submitted in self.submitted]) > LOOP_CHANGE_BYTES_MAX

    def run_slice(self) -> bool:
        """Run as much as one turn of the event loop has time for; True when that was the last of it."""
        try:
            self._run(take_batch(self._rest, ops_max=SLICE_OPS_MAX, bytes_max=SLICE_BYTES_MAX))
        except BaseException as error:
            self._fail(error)
        return not self._rest

    def finish(self) -> None:
        """Run what has not run, and make all of it durable."""
        try:
            self._run(self._rest)
            self._attempt.sync()
        except BaseException as error:
            self._fail(error)
        self.is_over = True

    def settle(self) -> None:
        """Answer the callers."""
        for submitted, outcome in zip(self.submitted, self._outcomes, strict=True):
            settle(submitted.future, outcome)

    def _run(self, part: Iterable[Submitted]) -> None:
        self._outcomes += self._attempt.run([submitted.change for submitted in part])

    def _fail(self, error: BaseException) -> None:
        """Nothing was kept. ``error`` itself is not: its traceback leads to this batch."""
        self.is_over = True
        self._rest.clear()
        if isinstance(error, Abandoned):
            self.is_abandoned = len(self.submitted) > 1
            self._outcomes = [(None, error.outcome)]
            return
        if not isinstance(error, EnvironmentProblem):
            # A bug of ours. Nobody may be left waiting for it.
            error = EnvironmentProblem(f"the commit failed: {error!r}")
        self._outcomes = [(None, type(error)(*error.args)) for _ in self.submitted]


class GroupWriter:
    """Queue and thread of one store. All methods belong to the thread of the event loop."""

    def __init__(self, begin: Callable[[], Attempt], ended: Callable[[], None], name: str) -> None:
        """
        Args:
            begin: makes the attempt for a batch.
            ended: called on the event loop after each attempt, before anybody hears of its outcome.
            name: of the thread.
        """
        self._begin = begin
        self._ended = ended
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[Submitted] = deque()
        self._alone: deque[Submitted] = deque()
        "Changes of an abandoned batch: they go first, each by itself."
        self._busy = False
        "A start is scheduled, or a batch is under way."
        self._drained: asyncio.Future[None] | None = None
        "Made by close, which waits for it; nothing is accepted from then on."
        self._batches: SimpleQueue[_Batch | None] = SimpleQueue()
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
        """Begin the next batch, or go idle."""
        if self._alone:
            submitted = [self._alone.popleft()]
        elif self._waiting:
            submitted = take_batch(self._waiting)
        else:
            self._busy = False
            if self._drained is not None:
                self._drained.set_result(None)
            return
        batch = _Batch(submitted, self._begin())
        if batch.is_large:
            self._batches.put(batch)
        else:
            self._run(batch)

    def _run(self, batch: _Batch) -> None:
        """Run a slice; then the next one, when others have had their turn."""
        assert self._loop is not None
        if not batch.run_slice():
            self._loop.call_soon(self._run, batch)
        elif batch.is_over:
            self._loop.call_soon(self._end, batch)
        else:
            self._batches.put(batch)

    def _end(self, batch: _Batch) -> None:
        """Answer the callers, and start what has queued meanwhile: replies are written while it is synced."""
        self._ended()
        if batch.is_abandoned:
            self._alone.extend(batch.submitted)
        else:
            batch.settle()
        self._start()

    def _work(self) -> None:
        """The thread."""
        while (batch := self._batches.get()) is not None:
            batch.finish()
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._end, batch)
            except RuntimeError:
                return  # The loop was closed and the store was not: nobody is waiting any more.
            del batch  # Else the idle thread would keep its values.
