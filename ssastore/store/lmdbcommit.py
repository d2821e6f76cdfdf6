"""One group commit: run changes in one write transaction, sync, say what became of each.

Normally all changes share a transaction.  When that transaction cannot be kept (no room left, or a change
raised after it had written), it is aborted and every change runs again in a transaction of its own, from
the old state: slow, and only what cannot succeed fails.  That is how deletes get through when the map or
the disk is full.
"""

from __future__ import annotations

import errno

import lmdb

from ssastore.errors import StoreFull
from ssastore.limits import COMMIT_BYTES_MAX
from ssastore.store.changes import Change, Outcome, without_trace
from ssastore.store.datadir import DataDir
from ssastore.store.lmdbtxn import Databases, LmdbWriteTxn, lacks_room, translated
from ssastore.store.room import Room, room_for_puts


class _Abandoned(Exception):
    """The transaction was aborted; ``error`` is the outcome if the change was alone in it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class GroupCommit:
    """Commits batches to one environment; called by the writer thread only."""

    def __init__(self, databases: Databases, directory: DataDir, disk_reserve_bytes: int) -> None:
        self._databases = databases
        self._directory = directory
        self._disk_reserve_bytes = disk_reserve_bytes
        self._page_bytes: int = databases.env.stat()["psize"]
        self._map_bytes: int = databases.env.info()["map_size"]

    def __call__(self, changes: list[Change]) -> list[Outcome]:
        """One outcome for each change, in order. What succeeded is durable, the rest left no trace."""
        try:
            return self._attempt(changes)
        except _Abandoned as abandoned:
            if len(changes) == 1:
                return [(None, abandoned.error)]
        return [self([change])[0] for change in changes]

    def _attempt(self, changes: list[Change]) -> list[Outcome]:
        try:
            txn = LmdbWriteTxn(self._databases, self._page_bytes)
        except lmdb.Error as error:
            return [(None, translated(error)) for _ in changes]
        try:
            txn.allow(self._room(txn))
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
        return outcomes

    def _is_short_write(self, error: lmdb.Error) -> bool:
        """Whether a failed commit means a full disk.

        A write that fits in part returns a count and no error, which LMDB reports as EIO; a disk that cannot
        take one commit is then the likelier cause than a broken one.
        """
        return error.code == errno.EIO and self._directory.free_bytes() < COMMIT_BYTES_MAX

    def _room(self, txn: LmdbWriteTxn) -> Room:
        """What this transaction may put."""
        used = txn.used_bytes(self._databases)
        high_water = (self._databases.env.info()["last_pgno"] + 1) * self._page_bytes
        free = self._directory.free_bytes()
        return room_for_puts(
            self._map_bytes,
            used=used,
            recyclable=high_water - used,
            free=free,
            disk_reserve=self._disk_reserve_bytes,
        )


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
