"""One group commit: run changes in one write transaction, sync, say what became of each.

When a transaction cannot be kept (no room left, or a change raised after it had written), it is abandoned,
and ``writer.py`` runs every change again in a transaction of its own, from the old state: slow, and only what
cannot succeed fails.  That is how deletes get through when the map or the disk is full.
"""

from __future__ import annotations

import errno

import lmdb

from ssastore.errors import StoreFull
from ssastore.limits import COMMIT_BYTES_MAX
from ssastore.store.changes import Abandoned, Change, Outcome, without_trace
from ssastore.store.datadir import DataDir
from ssastore.store.lmdbtxn import Databases, LmdbWriteTxn, ParkedRead, lacks_room, translated
from ssastore.store.room import Room, room_for_puts


class GroupCommit:
    """Write transactions of one environment, never two at once."""

    def __init__(
        self, databases: Databases, directory: DataDir, parked: ParkedRead, disk_reserve_bytes: int
    ) -> None:
        self._databases = databases
        self._directory = directory
        self._parked = parked
        self._disk_reserve_bytes = disk_reserve_bytes
        self._page_bytes: int = databases.env.stat()["psize"]
        self._map_bytes: int = databases.env.info()["map_size"]

    def attempt(self) -> LmdbAttempt:
        """The attempt for the next batch; its transaction begins when it runs."""
        return LmdbAttempt(self)

    def begin(self) -> LmdbWriteTxn:
        """A write transaction that knows how much it may put. Raises EnvironmentProblem."""
        try:
            self._parked.current()  # Later, while this transaction is written, none could begin.
            txn = LmdbWriteTxn(self._databases, self._page_bytes)
        except lmdb.Error as error:
            raise translated(error) from error
        try:
            txn.allow(self._room(txn))
        except BaseException:
            txn.abort()
            raise
        return txn

    def commit(self, txn: LmdbWriteTxn) -> None:
        """Make ``txn`` durable. Raises Abandoned for want of room, else EnvironmentProblem."""
        try:
            txn.commit()
        except lmdb.Error as error:
            txn.abort()
            if lacks_room(error) or self._is_short_write(error):
                raise Abandoned(StoreFull(f"the store is full: {error}")) from None
            raise translated(error) from error

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


class LmdbAttempt:
    """``writer.Attempt`` in one write transaction."""

    __slots__ = ("_commit", "_txn")

    def __init__(self, commit: GroupCommit) -> None:
        self._commit = commit
        self._txn: LmdbWriteTxn | None = None

    def run(self, changes: list[Change]) -> list[Outcome]:
        """See ``writer.Attempt.run``."""
        if self._txn is None:
            self._txn = self._commit.begin()
        txn = self._txn
        try:
            return [_run(change, txn) for change in changes]
        except BaseException:
            txn.abort()
            raise

    def sync(self) -> None:
        """See ``writer.Attempt.sync``."""
        assert self._txn is not None
        self._commit.commit(self._txn)


def _run(change: Change, txn: LmdbWriteTxn) -> Outcome:
    """Run one change of a transaction.

    Raises:
        Abandoned: it left something behind that must not be committed.
    """
    writes = txn.writes
    outcome: Outcome
    try:
        outcome = change(txn), None
    except BaseException as error:
        outcome = None, without_trace(error)
    failed = outcome[1]
    if failed is not None and txn.writes != writes:
        raise Abandoned(failed)
    if txn.broken is not None:
        # Also when the change has swallowed the error.
        raise Abandoned(failed or translated(txn.broken))
    return outcome
