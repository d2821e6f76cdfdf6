"""What readers and changes see: layers of recent changes over one state of LMDB.

    reader                      change
                                what it has written itself
                                its batch
                                the batch that is being written to the log
    the table   ---------------  the table: durable, in the log
    the table being checkpointed, while that runs
    LMDB

A reader sees what is durable and nothing else: the layers above the table are for changes only.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

import lmdb

from ssastore.errors import StoreFull
from ssastore.store.lmdbtxn import Databases, Snapshot, translated
from ssastore.store.logformat import RECORD_BYTES
from ssastore.store.seal import SEAL_BYTES, check_key, seal, unseal
from ssastore.store.table import MISSING, Missing, Records, Sealed, Table, keys_of, overlaid


class State:
    """What is durable: one state of LMDB, and the tables over it. Belongs to the event loop."""

    __slots__ = ("_databases", "_snapshot", "frozen", "readers", "table")

    def __init__(self, databases: Databases, records: Records) -> None:
        """``records`` is what the log holds."""
        self._databases = databases
        self.table = Table(records)
        "In the log."
        self.frozen: Table | None = None
        "In the log, and on its way into LMDB."
        self.readers = 0
        "Of ``table``: while there are any, it is replaced and not changed."
        self._snapshot: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """LMDB as the last checkpoint left it. Raises EnvironmentProblem."""
        if self._snapshot is None or self._snapshot.is_spoilt:
            self.renew()
            try:
                self._snapshot = Snapshot(self._databases)
            except lmdb.Error as error:
                raise translated(error) from error
        return self._snapshot

    def renew(self) -> None:
        """LMDB has changed. None may be being committed: a reader that begins now could see it early."""
        retired, self._snapshot = self._snapshot, None
        if retired is not None:
            retired.retire()

    def apply(self, records: Records) -> None:
        """A batch has become durable."""
        if self.readers:
            self.table, self.readers = self.table.copy(), 0
        self.table.records.update(records)

    def freeze(self) -> None:
        """Begin a new table; the old one goes into LMDB."""
        assert self.frozen is None
        self.frozen, self.table, self.readers = self.table, Table(), 0

    @property
    def is_logged(self) -> bool:
        """Whether the log holds anything that LMDB does not."""
        return bool(self.table.records) or self.frozen is not None

    def merged(self) -> Records:
        """All that the log holds and LMDB does not."""
        return self.table.records if self.frozen is None else self.frozen.records | self.table.records

    def clear(self) -> None:
        """LMDB holds all of it."""
        self.table, self.frozen, self.readers = Table(), None, 0

    def tables(self) -> list[Table]:
        """The tables, newest first."""
        return [self.table] if self.frozen is None else [self.table, self.frozen]


class ReadView:
    """``env.ReadTxn``, and the context manager around it."""

    __slots__ = ("_frozen", "_records", "_snapshot", "_state", "_table")

    def __init__(self, state: State) -> None:
        self._state = state

    def __enter__(self) -> ReadView:
        state = self._state
        self._snapshot = snapshot = state.snapshot()
        snapshot.users += 1
        self._table = state.table
        self._records = state.table.records
        self._frozen = state.frozen
        state.readers += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._table is self._state.table:
            self._state.readers -= 1
        self._snapshot.release()

    def get(self, key: bytes) -> memoryview | None:
        """See ``env.ReadTxn.get``."""
        sealed: bytes | Missing | None = self._records.get(key, MISSING)
        if sealed is MISSING and self._frozen is not None:
            sealed = self._frozen.records.get(key, MISSING)
        if sealed is MISSING:
            return self._snapshot.get(key)
        return None if sealed is None else memoryview(sealed)[SEAL_BYTES:]

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """See ``env.ReadTxn.scan``."""
        tables = [self._table] if self._frozen is None else [self._table, self._frozen]
        found = overlaid(
            lambda at: keys_of(tables, at, end),
            lambda key: _look(tables, key),
            self._snapshot.scan(first, end),
            None,
            first,
        )
        for key, sealed in found:
            yield key, unseal(key, memoryview(sealed))


def _look(tables: list[Table], key: bytes) -> bytes | Missing | None:
    for table in tables:
        sealed = table.records.get(key, MISSING)
        if sealed is not MISSING:
            return sealed
    return MISSING


class Overflow(StoreFull):
    """A change that the log does not take; it runs again, straight on LMDB."""


class BatchTxn:
    """``env.WriteTxn`` for the changes of one batch that goes to the log.

    Args:
        state: what lies below.
        in_flight: the batch that is being written to the log; later than ``state``.
        bytes_max: of the whole batch, in the log.
        cost_max: bytes that LMDB may need for the whole batch.
        page_bytes: of LMDB.
    """

    __slots__ = (
        "_bytes_max",
        "_cost_max",
        "_in_flight",
        "_mine",
        "_page_bytes",
        "_records",
        "_snapshot",
        "_tables",
        "bytes",
        "cost",
        "has_overflowed",
        "is_full",
        "records",
        "writes",
    )

    def __init__(
        self, state: State, in_flight: Records, *, bytes_max: int, cost_max: int, page_bytes: int
    ) -> None:
        self.records: Records = {}
        "Of the changes so far."
        self.bytes = 0
        self.cost = 0
        self.writes = 0
        "Puts and deletes so far."
        self.has_overflowed = False
        "A change did not fit."
        self.is_full = False
        "Nothing more is to run in it."
        self._mine: Records = {}
        "Of the change that runs."
        self._bytes_max = bytes_max
        self._cost_max = cost_max
        self._page_bytes = page_bytes
        self.lie_over(state, in_flight)

    def lie_over(self, state: State, in_flight: Records) -> None:
        """The layers below have changed places; what they say together is the same."""
        self._in_flight = in_flight
        self._tables = state.tables()
        self._records = [self._mine, self.records, in_flight, *(table.records for table in self._tables)]
        self._snapshot = state.snapshot()

    def get(self, key: bytes) -> memoryview | None:
        """See ``env.ReadTxn.get``."""
        for records in self._records:
            if key in records:
                sealed = records[key]
                return None if sealed is None else memoryview(sealed)[SEAL_BYTES:]
        found = self._snapshot.sealed(key)
        return None if found is None else unseal(key, found)

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """See ``env.ReadTxn.scan``; sees changes ahead of its place that are made while it runs."""
        layers: list[Table | Records] = [self._mine, self.records, self._in_flight, *self._tables]
        found = overlaid(
            lambda at: keys_of(layers, at, end),
            self._look,
            self._snapshot.scan(first, end),
            lambda: self.writes,
            first,
        )
        for key, sealed in found:
            yield key, unseal(key, memoryview(sealed))

    def put(self, key: bytes, *parts: bytes | memoryview, use_reserve: bool = False) -> None:
        """See ``env.WriteTxn.put``."""
        sealed = seal(key, parts)
        self._spend(len(key) + len(sealed))
        self._mine[key] = sealed

    def delete(self, key: bytes) -> bool:
        """See ``env.WriteTxn.delete``."""
        check_key(key)
        sealed: Sealed | Missing | None = self._look(key)
        if sealed is MISSING:
            sealed = self._snapshot.sealed(key)
        if sealed is None:
            return False
        self._spend(len(key))
        self._mine[key] = None
        return True

    def keep(self) -> None:
        """The change has succeeded: what it has written belongs to the batch."""
        self.records.update(self._mine)
        self._mine.clear()

    def undo(self, bytes_before: int, cost_before: int) -> None:
        """The change has failed."""
        self._mine.clear()
        self.has_overflowed = False
        self.bytes, self.cost = bytes_before, cost_before

    def _spend(self, size: int) -> None:
        """Account for a record. Raises Overflow."""
        self.writes += 1
        self.bytes += size + RECORD_BYTES
        # A copy of its leaf, a split of that, and the unused end of a value's last page.
        self.cost += size + 3 * self._page_bytes
        if self.bytes > self._bytes_max or self.cost > self._cost_max:
            self.has_overflowed = True
            raise Overflow("the log does not take this change")

    def _look(self, key: bytes) -> bytes | Missing | None:
        for records in self._records:
            sealed = records.get(key, MISSING)
            if sealed is not MISSING:
                return sealed
        return MISSING
