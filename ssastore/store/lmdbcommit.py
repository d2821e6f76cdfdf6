"""Changes straight on LMDB, in one synced commit: what the log does not take.

Large values would be written twice, and a nearly full store has to know exactly what still fits.  Such a
batch runs in a write transaction of its own, behind all records that so far only the log holds: they come
first in the same transaction, so that the changes see them, and it covers the log.

Normally all changes share a transaction.  When that transaction cannot be kept (no room left, or a change
raised after it had written), it is aborted and every change runs again in a transaction of its own, from
the old state: slow, and only what cannot succeed fails.  That is how deletes get through when the map or
the disk is full.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

import lmdb

from ssastore.errors import EnvironmentProblem, StoreFull
from ssastore.limits import CHECKPOINT_PARTS, COMMIT_BYTES_MAX
from ssastore.store.changes import Change, Outcome, without_trace
from ssastore.store.checkpoint import Checkpoint
from ssastore.store.datadir import DataDir
from ssastore.store.lmdbtxn import Databases, LmdbWriteTxn, Snapshot, lacks_room, translated
from ssastore.store.room import Room, room_for_puts
from ssastore.store.table import Records, Table


class Logged(NamedTuple):
    """What the log holds and LMDB does not yet."""

    records: Records
    log_record: bytes
    "Says that all of it is in LMDB."


class _Abandoned(Exception):
    """The transaction was aborted; ``error`` is the outcome if the change was alone in it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class GroupCommit:
    """Commits batches to one environment; called by one thread only."""

    def __init__(self, databases: Databases, directory: DataDir, disk_reserve_bytes: int) -> None:
        self._databases = databases
        self._directory = directory
        self._disk_reserve_bytes = disk_reserve_bytes
        self.page_bytes: int = databases.env.stat()["psize"]
        self._map_bytes: int = databases.env.info()["map_size"]
        self._logged: Logged | None = None
        "What the next transaction begins with; None once it is committed."

    def __call__(self, changes: list[Change], logged: Logged | None) -> tuple[list[Outcome], bool]:
        """One outcome for each change, in order, and whether LMDB now holds what was ``logged``.

        What succeeded is durable, the rest left no trace.
        """
        self._logged = logged
        try:
            outcomes = self._all(changes)
        except BaseException as error:  # A bug of ours. Nobody may be left waiting for it.
            outcomes = [(None, EnvironmentProblem(f"the commit failed: {error!r}")) for _ in changes]
        is_covered, self._logged = self._logged is None, None
        return outcomes, is_covered

    def checkpoint(self, table: Table, log_record: bytes) -> Checkpoint:
        """A checkpoint of ``table``; ``log_record`` says what it covers."""
        return Checkpoint(self._databases, self.page_bytes, table, log_record)

    def _all(self, changes: list[Change]) -> list[Outcome]:
        try:
            return self._attempt(changes)
        except _Abandoned as abandoned:
            if len(changes) == 1:
                return [(None, abandoned.error)]
        return [self._all([change])[0] for change in changes]

    def _attempt(self, changes: list[Change]) -> list[Outcome]:
        try:
            txn = self._begin()
        except lmdb.Error as error:
            return [(None, translated(error)) for _ in changes]
        try:
            txn.allow(self.room(txn))
            outcomes = [_run(change, txn) for change in changes]
        except BaseException:
            txn.abort()
            raise
        try:
            txn.commit()
        except lmdb.Error as error:
            if lacks_room(error) or self._is_short_write(error):
                raise _Abandoned(StoreFull(f"the store is full: {error}")) from None
            return [(None, translated(error)) for _ in changes]
        self._logged = None
        return outcomes

    def _begin(self) -> LmdbWriteTxn:
        """A transaction that holds what was logged. Raises lmdb.Error."""
        txn = LmdbWriteTxn(self._databases, self.page_bytes)
        if self._logged is None:
            return txn
        try:
            _apply(txn, self._logged)
            return txn
        except lmdb.Error as error:
            txn.abort()
            if not lacks_room(error):
                raise
        except BaseException:
            txn.abort()
            raise
        self._commit_in_parts(self._logged)
        self._logged = None
        return LmdbWriteTxn(self._databases, self.page_bytes)

    def _commit_in_parts(self, logged: Logged) -> None:
        """Bring what was logged into LMDB in small transactions. Raises lmdb.Error.

        Each gives back the pages that it replaced to the next but one; deletes come first.  Only the last one
        says what it covers: until then the log is replayed, which changes nothing in what is already there.
        """
        keys = sorted(logged.records, key=lambda key: (logged.records[key] is not None, key))
        step = -(-len(keys) // CHECKPOINT_PARTS)
        for first in range(0, len(keys), step):
            part = {key: logged.records[key] for key in keys[first : first + step]}
            is_last = first + step >= len(keys)
            txn = LmdbWriteTxn(self._databases, self.page_bytes)
            try:
                _apply(txn, Logged(part, logged.log_record if is_last else b""))
                txn.commit()
            except BaseException:
                txn.abort()
                raise

    def _is_short_write(self, error: lmdb.Error) -> bool:
        """Whether a failed commit means a full disk.

        A write that fits in part returns a count and no error, which LMDB reports as EIO; a disk that cannot
        take one commit is then the likelier cause than a broken one.
        """
        return error.code == errno.EIO and self._directory.free_bytes() < COMMIT_BYTES_MAX

    def room(self, txn: LmdbWriteTxn | Snapshot) -> Room:
        """What may be put over the state that ``txn`` sees."""
        used = txn.used_bytes()
        high_water = (self._databases.env.info()["last_pgno"] + 1) * self.page_bytes
        free = self._directory.free_bytes()
        return room_for_puts(
            self._map_bytes,
            used=used,
            recyclable=high_water - used,
            free=free,
            disk_reserve=self._disk_reserve_bytes,
        )


def _apply(txn: LmdbWriteTxn, logged: Logged) -> None:
    """Raises lmdb.Error; then abort."""
    for key in sorted(logged.records):
        txn.apply(key, logged.records[key])
    if logged.log_record:
        txn.mark(logged.log_record)


def _run(change: Change, txn: LmdbWriteTxn) -> Outcome:
    """Run one change of a transaction.

    Raises:
        _Abandoned: it left something behind that must not be committed.
    """
    writes = txn.writes
    outcome: Outcome
    try:
        outcome = change(txn), None
    except BaseException as error:
        outcome = None, without_trace(error)
    failed = outcome[1]
    if failed is not None and txn.writes != writes:
        raise _Abandoned(failed)
    if txn.broken is not None:
        # Also when the change has swallowed the error.
        raise _Abandoned(failed or translated(txn.broken))
    return outcome
