"""The store of tests and simulations: ordered, crashable, without threads and without a clock of its own.

It behaves as ``lmdb.py`` where a caller could tell the difference (same limits, same seals, same order of
commits) and is stricter where a caller could go wrong: views are released when their time is over, so that
a use after the end of a transaction raises here instead of reading another record's bytes there.

A commit takes effect as a whole at its end.  What ``crash`` forgets is exactly what was not acknowledged.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

from ssastore.env import StoreUsage, WriteTxn
from ssastore.errors import EnvironmentProblem, StoreFull
from ssastore.limits import MAP_BYTES_DEFAULT
from ssastore.store.changes import Change, Outcome, Submitted, Then, answer, submit, take_batch, without_trace
from ssastore.store.room import put_limit_bytes
from ssastore.store.seal import check_key, seal, unseal

T = TypeVar("T")


class Records:
    """Sealed values by key, and the keys in order."""

    __slots__ = ("keys", "sealed", "used_bytes")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.sealed: dict[bytes, bytes] = {}
        self.used_bytes = 0

    def copy(self) -> Records:
        copied = Records()
        copied.keys = self.keys.copy()
        copied.sealed = self.sealed.copy()
        copied.used_bytes = self.used_bytes
        return copied

    def set(self, key: bytes, sealed: bytes | None) -> bytes | None:
        """Store or remove (None); returns what was there."""
        before = self.sealed.pop(key, None)
        if before is not None:
            self.used_bytes -= len(key) + len(before)
        if sealed is not None:
            self.sealed[key] = sealed
            self.used_bytes += len(key) + len(sealed)
        if before is None and sealed is not None:
            insort(self.keys, key)
        elif before is not None and sealed is None:
            del self.keys[bisect_left(self.keys, key)]
        return before

    def get(self, key: bytes) -> memoryview | None:
        check_key(key)
        sealed = self.sealed.get(key)
        return None if sealed is None else unseal(key, memoryview(sealed))

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview]]:
        at = bisect_left(self.keys, first)
        while at < len(self.keys) and (key := self.keys[at]) < end:
            value = unseal(key, memoryview(self.sealed[key]))
            yield key, value
            value.release()
            at = bisect_right(self.keys, key)  # The transaction may have changed records meanwhile.


class MemoryReadTxn:
    """``env.ReadTxn``, and the context manager around it."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._records: Records | None = None
        "None outside the ``with`` block."
        self._views: list[memoryview] = []

    def __enter__(self) -> MemoryReadTxn:
        self._records = self._store.pin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.unpin(self._open())
        self._records = None
        for view in self._views:
            view.release()

    def get(self, key: bytes) -> memoryview | None:
        """See ``env.ReadTxn.get``."""
        value = self._open().get(key)
        if value is not None:
            self._views.append(value)
        return value

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """See ``env.ReadTxn.scan``."""
        for item in self._open().scan(first, end):
            yield item
            self._open()

    def _open(self) -> Records:
        assert self._records is not None, "the read transaction has ended"
        return self._records


class MemoryWriteTxn:
    """``env.WriteTxn`` of one change."""

    def __init__(self, records: Records, map_bytes: int) -> None:
        self._records = records
        self._map_bytes = map_bytes
        self.changes: list[tuple[bytes, bytes | None]] = []
        "Every key that was put or deleted, with the sealed value before it, in order."
        self.get = records.get
        self.scan = records.scan

    def put(self, key: bytes, *parts: bytes | memoryview, use_reserve: bool = False) -> None:
        """See ``env.WriteTxn.put``."""
        sealed = seal(key, parts)
        limit_bytes = self._map_bytes if use_reserve else put_limit_bytes(self._map_bytes)
        if self._records.used_bytes + len(key) + len(sealed) > limit_bytes:
            raise StoreFull(f"the store is full: {self._records.used_bytes} of {limit_bytes} bytes")
        self.changes.append((key, self._records.set(key, sealed)))

    def delete(self, key: bytes) -> bool:
        """See ``env.WriteTxn.delete``."""
        check_key(key)
        before = self._records.set(key, None)
        if before is None:
            return False
        self.changes.append((key, before))
        return True

    def undo(self) -> None:
        """Take back what the change has done."""
        while self.changes:
            self._records.set(*self.changes.pop())


class MemoryStore:
    """``env.Store`` in memory.

    Args:
        map_bytes: room for keys and values; the last ``MAP_RESERVE_PERCENT`` of it for ``use_reserve`` only.
        commit_ms: how long a commit takes, on the clock of the event loop; 0 is the next turn of the loop.
    """

    def __init__(self, *, map_bytes: int = MAP_BYTES_DEFAULT, commit_ms: int = 0) -> None:
        self._map_bytes = map_bytes
        self._commit_ms = commit_ms
        self._records = Records()
        self._pins = 0
        "Read transactions on ``_records``; a commit then works on a copy and leaves them the old state."
        self._waiting: deque[Submitted] = deque()
        self._batch: list[Submitted] = []
        "The commit under way; empty when there is none."
        self._timer: asyncio.Handle | None = None
        self._drained: asyncio.Future[None] | None = None

    def read(self) -> MemoryReadTxn:
        """See ``env.Store.read``."""
        return MemoryReadTxn(self)

    def pin(self) -> Records:
        """For read transactions: the committed state, which stays as it is until ``unpin``."""
        self._pins += 1
        return self._records

    def unpin(self, records: Records) -> None:
        """For read transactions: ``records`` may change again."""
        if records is self._records:
            self._pins -= 1

    def do(self, change: Change, then: Then, *, size: int = 0) -> None:
        """See ``env.Store.do``."""
        loop = asyncio.get_running_loop()
        if self._drained is not None:
            loop.call_soon(then, None, EnvironmentProblem("the store is closed"))
            return
        self._waiting.append(Submitted(change, size, then))
        if self._timer is None:
            self._timer = loop.call_soon(self._start)

    def submit(self, change: Callable[[WriteTxn], T], *, size: int = 0) -> asyncio.Future[T]:
        """See ``env.Store.submit``."""
        return submit(self.do, change, size)

    def usage(self) -> StoreUsage:
        """See ``env.Store.usage``."""
        return StoreUsage(self._records.used_bytes, put_limit_bytes(self._map_bytes), len(self._records.keys))

    def crash(self) -> None:
        """Forget what is not committed, as a power failure does; the store then serves what it has.

        Who waits for forgotten changes is cancelled: it died as well.
        """
        if self._timer is not None:
            self._timer.cancel()
        forgotten = [*self._batch, *self._waiting]
        self._timer, self._batch = None, []
        self._waiting.clear()
        for submitted in forgotten:
            answer(submitted, (None, asyncio.CancelledError()))
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def poke(self, key: bytes, sealed: bytes) -> None:
        """Replace what is stored for an existing key, seal included, as a failing disk does."""
        assert key in self._records.sealed
        self._records.set(key, sealed)

    def peek(self, key: bytes) -> bytes:
        """What is stored for an existing key, seal included."""
        return self._records.sealed[key]

    async def close(self) -> None:
        """See ``env.Store.close``. May be called again."""
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()
            if self._timer is None:
                self._drained.set_result(None)
        await asyncio.shield(self._drained)

    def _start(self) -> None:
        """Begin the next commit, or go idle."""
        self._timer = None
        if self._waiting:
            self._batch = take_batch(self._waiting)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._commit_ms / 1000, self._commit)
        elif self._drained is not None:
            self._drained.set_result(None)

    def _commit(self) -> None:
        """End the commit under way; the next one starts after the callers have run."""
        if self._pins:
            self._records, self._pins = self._records.copy(), 0
        batch, self._batch = self._batch, []
        # Nobody hears of a change before all of its commit are made: who reads then sees them together.
        outcomes = [self._run(submitted) for submitted in batch]
        for submitted, outcome in zip(batch, outcomes, strict=True):
            answer(submitted, outcome)
        is_idle = not self._waiting and self._drained is None
        self._timer = None if is_idle else asyncio.get_running_loop().call_soon(self._start)

    def _run(self, submitted: Submitted) -> Outcome:
        txn = MemoryWriteTxn(self._records, self._map_bytes)
        try:
            return submitted.change(txn), None
        except BaseException as error:
            txn.undo()
            return None, without_trace(error)
