"""Which stored keys of some slices were changed, for whoever copies them while they are written.

A log is begun before the first page of a copy is read.  Every change that runs later
notes its keys, inside its transaction and so in the order of the commits.  Whoever asks what
was changed does that in a transaction too: what is listed there is in the store when that
is durable, and is read afterwards, so no value is older than its number.

Bounded: a log that has too many keys is overrun, and the copy has to begin again.  It
lives in memory: after a restart nobody knows the session any more, with the same end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from ssastore.core.numbers import WHOLE_SLICES
from ssastore.core.records import slice_range
from ssastore.core.totals import KeptTotals, RunningTotal
from ssastore.env import ReadTxn, Store, StoreUsage, WriteTxn

T = TypeVar("T")


class ChangeLog:
    """The keys of some slices that were changed, each with the number of its last change."""

    def __init__(self, slices: Iterable[int], keys_max: int) -> None:
        self.slices = frozenset(slices)
        self._parts = [slice_range(number) for number in self.slices if number >= WHOLE_SLICES]
        self._keys_max = keys_max
        self._numbers: dict[bytes, int] = {}
        "In the order of the numbers."
        self._count = 0
        self.is_overrun = False

    def note(self, key: bytes) -> None:
        """A key is changed, in a transaction."""
        if self.is_overrun or not self._is_of_these(key):
            return
        self._count += 1
        self._numbers.pop(key, None)
        self._numbers[key] = self._count
        if len(self._numbers) > self._keys_max:
            self.is_overrun = True
            self._numbers.clear()

    def _is_of_these(self, key: bytes) -> bool:
        is_whole = int.from_bytes(key[:2], "big") in self.slices
        return is_whole or any(first <= key < end for first, end in self._parts)

    def take(self, seen: int, limit: int) -> list[tuple[int, bytes]]:
        """Forget what has been seen; (number, key) of the next ones. To be called in a transaction."""
        outdated = []
        for key, number in self._numbers.items():
            if number > seen:
                break
            outdated.append(key)
        for key in outdated:
            del self._numbers[key]
        found: list[tuple[int, bytes]] = []
        for key, number in self._numbers.items():
            if len(found) == limit:
                break
            found.append((number, key))
        return found


class _NotedTxn:
    """A write transaction whose changes are noted."""

    def __init__(self, txn: WriteTxn, logs: tuple[ChangeLog, ...], totals: KeptTotals) -> None:
        self._txn = txn
        self._logs = logs
        self._totals = totals
        self.get = txn.get
        self.scan = txn.scan

    def put(self, key: bytes, *parts: bytes | memoryview, use_reserve: bool = False) -> None:
        """See ``env.WriteTxn.put``."""
        total = self._totals.of_key(key)
        counted = None if total is None else total.after(self._txn, key, parts)
        self._txn.put(key, *parts, use_reserve=use_reserve)
        if total is not None and counted is not None:
            total.write(self._txn, counted)
        for log in self._logs:
            log.note(key)

    def delete(self, key: bytes) -> bool:
        """See ``env.WriteTxn.delete``."""
        total = self._totals.of_key(key)
        counted = None if total is None else total.after(self._txn, key, None)
        for log in self._logs:
            log.note(key)
        was_there = self._txn.delete(key)
        if total is not None and counted is not None:
            total.write(self._txn, counted)
        return was_there


class NotedStore:
    """``env.Store`` of an environment whose slices can be copied while they are written.

    While nobody does that, it is the store itself that everybody calls.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # Never changed but replaced: a change may run on another thread (``store.writer``), and must not
        # lose one because another one goes.
        self._logs: tuple[ChangeLog, ...] = ()
        self._totals = KeptTotals({})
        self.do: Callable[..., None] = store.do
        self.submit: Callable[..., asyncio.Future[Any]] = store.submit

    def read(self) -> AbstractContextManager[ReadTxn]:
        """See ``env.Store.read``."""
        return self._store.read()

    def usage(self) -> StoreUsage:
        """See ``env.Store.usage``."""
        return self._store.usage()

    async def close(self) -> None:
        """See ``env.Store.close``."""
        await self._store.close()

    async def begin(self, slices: Iterable[int], keys_max: int) -> ChangeLog:
        """A log of all that is changed from now on; what was changed before is in the store afterwards."""
        log = ChangeLog(slices, keys_max)
        self._logs = (*self._logs, log)
        self._note_all()
        await self._store.submit(lambda txn: None)
        return log

    def end(self, log: ChangeLog) -> None:
        """Note no more for a log."""
        self._logs = tuple(known for known in self._logs if known is not log)
        self._note_no_more()

    def begin_totals(self, slices: Iterable[int], plane: int | None = None) -> dict[int, RunningTotal]:
        """Totals of slices that are right whatever is changed from now on; nothing is counted yet.

        A slice has one: what was kept of it before is ended.
        """
        begun = {number: RunningTotal(number, plane) for number in slices}
        self._end_for_good(
            self._totals.by_slice[number] for number in begun if number in self._totals.by_slice
        )
        self._totals = KeptTotals({**self._totals.by_slice, **begun})
        self._note_all()
        self._clear(begun.values())
        return begun

    def end_totals(self, totals: Iterable[RunningTotal]) -> None:
        """Keep totals no more; those that others have replaced are gone already."""
        ended = [total for total in totals if self._totals.by_slice.get(total.number) is total]
        self._end_for_good(ended)
        gone = {total.number for total in ended}
        kept = {number: total for number, total in self._totals.by_slice.items() if number not in gone}
        self._totals = KeptTotals(kept)
        self._note_no_more()
        self._clear(ended)

    @staticmethod
    def _end_for_good(totals: Iterable[RunningTotal]) -> None:
        for total in totals:
            total.is_ended = True

    def _clear(self, totals: Collection[RunningTotal]) -> None:
        def clear(txn: WriteTxn) -> None:
            for total in totals:
                total.clear(txn)

        if totals:
            self._store.do(clear, _ignore)

    def _note_all(self) -> None:
        self.do, self.submit = self._do_noted, self._submit_noted

    def _note_no_more(self) -> None:
        if not self._logs and not self._totals.by_slice:
            self.do, self.submit = self._store.do, self._store.submit

    def _do_noted(
        self,
        change: Callable[[WriteTxn], Any],
        then: Callable[[Any, BaseException | None], None],
        *,
        size: int = 0,
    ) -> None:
        self._store.do(lambda txn: change(_NotedTxn(txn, self._logs, self._totals)), then, size=size)

    def _submit_noted(self, change: Callable[[WriteTxn], T], *, size: int = 0) -> asyncio.Future[T]:
        return self._store.submit(lambda txn: change(_NotedTxn(txn, self._logs, self._totals)), size=size)


def _ignore(result: Any, error: BaseException | None) -> None:
    """What is left behind of a total is cleared before the next one is begun."""
