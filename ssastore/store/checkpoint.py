"""Brings a table of durable changes into LMDB, beside everything else that goes on.

A write transaction begins and commits on one thread, which owns LMDB's write lock between.  The records are
put from the event loop, a few in one turn: LMDB's binding gives the interpreter away around every put, and a
thread that puts thousands would take it from the event loop, and wait for it, once for each of them
(docs/adr/0006).
"""

from __future__ import annotations

from itertools import islice

import lmdb

from ssastore.limits import CHECKPOINT_SLICE_RECORDS
from ssastore.store.lmdbtxn import Databases, LmdbWriteTxn
from ssastore.store.table import Table


class Checkpoint:
    """One table on its way."""

    def __init__(self, databases: Databases, page_bytes: int, table: Table, log_record: bytes) -> None:
        """``log_record`` says what of the log is covered when this is committed."""
        self._databases = databases
        self._page_bytes = page_bytes
        self._log_record = log_record
        self._records = table.records
        self._items = iter(sorted(table.records))
        self._txn: LmdbWriteTxn | None = None
        self.error: lmdb.Error | None = None
        "Why nothing of it is in LMDB."

    def begin(self) -> None:
        """On the thread."""
        try:
            self._txn = LmdbWriteTxn(self._databases, self._page_bytes)
        except lmdb.Error as error:
            self.error = error

    def put_some(self) -> bool:
        """On the event loop: put a slice; whether that was the last one."""
        if self._txn is None or self.error is not None:
            return True
        apply, records = self._txn.apply, self._records
        count = 0
        try:
            # In order of the keys: the pages of one leaf follow one another, in LMDB and on the disk.
            for key in islice(self._items, CHECKPOINT_SLICE_RECORDS):
                apply(key, records[key])
                count += 1
        except lmdb.Error as error:
            self.error = error
            return True
        return count < CHECKPOINT_SLICE_RECORDS

    def commit(self) -> None:
        """On the thread: durable on return, unless there is an ``error``."""
        if self._txn is None:
            return
        try:
            if self.error is None:
                self._txn.mark(self._log_record)
                self._txn.commit()
                return
        except lmdb.Error as error:
            self.error = error
        self._txn.abort()
