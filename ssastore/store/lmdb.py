"""The production store: one LMDB environment, changes and reads on the event loop, syncs on a thread.

    datadir.py     the directory and its lock
    lmdbtxn.py     transactions; longkeys.py and seal.py say what they write
    lmdbcommit.py  what becomes of a batch of changes; writer.py how batches come about

Choices, with the reason for each:

- ``lock`` off: LMDB's write lock belongs to a thread, and here a write transaction begins on one thread and
  is committed on another (docs/adr/0004).  One process: ``datadir.py``.  One write transaction at a time:
  ``writer.py``.  No page is written over while it is read: ``lmdbtxn.ParkedRead``.
- ``sync`` and ``metasync`` on: a commit is two flushes, and what is acknowledged survives power loss.
- ``writemap`` off: a stray write of this process cannot reach the map, and a full disk is an error of the
  commit and not a SIGBUS.
- ``meminit`` on: else old heap, secrets included, would reach the disk in unused ends of pages. It clears
  one page for each allocation, which does not show beside the copy of the value.
- ``readahead`` on: a blob is 1025 pages in a row, and without it each would be a disk access of its own
  (measured cold: 11 ms with, 100 ms without; small records gain as well).
- One map size for ever: the file is sparse, and a map that never grows needs no stop of all readers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from threading import get_ident
from typing import TypeVar
from weakref import WeakSet

import lmdb

from ssastore.env import StoreUsage, WriteTxn
from ssastore.errors import ConfigError, DataDirError
from ssastore.limits import DISK_RESERVE_BYTES, MAP_BYTES_DEFAULT
from ssastore.store.datadir import DataDir
from ssastore.store.lmdbcommit import GroupCommit
from ssastore.store.lmdbtxn import Databases, LmdbReadTxn, ParkedRead, translated, used_bytes
from ssastore.store.longkeys import MARKER_BYTES, MARKER_COUNT, marker_count
from ssastore.store.room import put_limit_bytes
from ssastore.store.writer import GroupWriter

T = TypeVar("T")

DATA_NAME = "data.mdb"

LIB_VERSION = 0
"LMDB 0.9 and its file format, whatever a later binding or the environment prefers for new files."

LONG_NAME = b"ssastore-long".ljust(511, b"-")
"Name of the database `long`. LMDB keeps it among the records of the main database, so no key may equal it."

FORMAT = b"format"
FORMAT_1 = b"ssastore-store 1"
"Record of `long` that names this format; another value belongs to a program that knows more than this one."

_OWN_RECORDS_MAIN = 1
"The name of `long`."
_OWN_RECORDS_LONG = 2
"The format and the count of markers."

FORKED = "a store must not be used across a fork"

assert len(LONG_NAME) > MARKER_BYTES


class LmdbStore:
    """``env.Store`` on a directory. Belongs to the thread that opens it, which runs the event loop.

    All read transactions between two commits are the same one, and a commit ends it: use it within one turn
    of the event loop, in a ``with`` block without ``await``, and copy what is to outlive the block.  One that
    was held longer raises AssertionError at the latest where its block ends.
    """

    def __init__(self, directory: DataDir, databases: Databases, disk_reserve_bytes: int) -> None:
        self._directory = directory
        self._databases = databases
        self._thread = get_ident()
        self._is_forked = False
        self._limit_bytes = put_limit_bytes(databases.env.info()["map_size"])
        self._closed = False
        self._parked = ParkedRead(databases)
        commit = GroupCommit(databases, directory, self._parked, disk_reserve_bytes)
        self._writer = GroupWriter(commit.attempt, self._parked.renew, f"store-writer {directory.path.name}")
        _OPEN.add(self)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        map_bytes: int = MAP_BYTES_DEFAULT,
        disk_reserve_bytes: int = DISK_RESERVE_BYTES,
    ) -> LmdbStore:
        """Open the store in directory ``path``; make it if it is not there.

        Raises:
            DataDirError: the directory is in use, not a directory, not writable, or holds something else
                or something damaged.
            ConfigError: ``map_bytes`` is smaller than the data.
        """
        directory = DataDir.open(Path(path))
        try:
            databases = _open_databases(directory, map_bytes)
        except BaseException:
            directory.close()
            raise
        return cls(directory, databases, disk_reserve_bytes)

    def read(self) -> LmdbReadTxn:
        """See ``env.Store.read``. Raises EnvironmentProblem when the environment has failed."""
        assert not self._is_forked, FORKED
        assert get_ident() == self._thread, "a store belongs to the thread that opened it"
        try:
            return self._parked.current()
        except lmdb.Error as error:
            raise translated(error) from error

    def submit(self, change: Callable[[WriteTxn], T], *, size: int = 0) -> asyncio.Future[T]:
        """See ``env.Store.submit``."""
        assert not self._is_forked, FORKED
        return self._writer.submit(change, size)

    def usage(self) -> StoreUsage:
        """See ``env.Store.usage``; ``limit_bytes`` is what records may fill."""
        databases = self._databases
        with self.read() as read:
            entries = sum(read.txn.stat(database)["entries"] for database in databases[1:])
            own = _OWN_RECORDS_MAIN + _OWN_RECORDS_LONG + marker_count(read.txn, databases.long)
            return StoreUsage(used_bytes(read.txn, databases), self._limit_bytes, entries - own)

    async def close(self) -> None:
        """See ``env.Store.close``. No read transaction may be open. May be called again."""
        await self._writer.close()
        if not self._closed:
            self._closed = True
            self._parked.end()
            self._databases.env.close()
            self._directory.close()


_OPEN: WeakSet[LmdbStore] = WeakSet()


def _forked() -> None:
    """In a forked child: asking for the process id in every call would be a system call."""
    for store in _OPEN:
        store._is_forked = True


os.register_at_fork(after_in_child=_forked)


def _open_databases(directory: DataDir, map_bytes: int) -> Databases:
    """Open or make the environment in a directory that is ours."""
    path = directory.path
    try:
        env = lmdb.open(
            os.fspath(path),
            map_size=map_bytes,
            mode=0o600,
            lock=False,
            max_dbs=1,
            max_spare_txns=1,
            lib_version=LIB_VERSION,
        )
    except (lmdb.Error, OSError) as error:
        raise _cannot_open(path, error) from error
    try:
        _check_size(env, path, map_bytes)
        return _existing(env, path) or _made(env, directory)
    except (lmdb.Error, OSError) as error:
        env.close()
        raise _cannot_open(path, error) from error
    except BaseException:
        env.close()
        raise


def _check_size(env: lmdb.Environment, path: Path, map_bytes: int) -> None:
    """Compare the size of the map, of the data, and of the file."""
    info = env.info()
    if info["map_size"] > map_bytes:  # LMDB raises it silently to what the data need.
        raise ConfigError(f"map_bytes = {map_bytes} is too small: {path} holds {info['map_size']} bytes")
    data_bytes = (info["last_pgno"] + 1) * env.stat()["psize"]
    if (path / DATA_NAME).stat().st_size < data_bytes:
        # Reading behind the end of a mapped file kills the process; a hole reads as zeros, which is a
        # checksum error of one record.  LMDB may leave the file short itself: it does not write the pages
        # at the end that were freed in the transaction that took them.
        os.truncate(path / DATA_NAME, data_bytes)


def _existing(env: lmdb.Environment, path: Path) -> Databases | None:
    """The databases of a store, None if the environment is new or not ours."""
    try:
        long = env.open_db(LONG_NAME, create=False)
    except lmdb.NotFoundError:
        return None
    with env.begin() as txn:
        found = txn.get(FORMAT, b"", long)
    if found != FORMAT_1:
        raise DataDirError(f"data directory {path} has format {found!r}, this program knows {FORMAT_1!r}")
    return Databases(env, env.open_db(), long)


def _made(env: lmdb.Environment, directory: DataDir) -> Databases:
    """Write the records of our own into a new environment."""
    main = env.open_db()
    with env.begin(write=True) as txn:
        if txn.stat(main)["entries"]:
            raise DataDirError(f"data directory {directory.path} holds records of another program")
        long = env.open_db(LONG_NAME, txn=txn)
        txn.put(FORMAT, FORMAT_1, db=long)
        txn.put(MARKER_COUNT, bytes(8), db=long)
    directory.sync()
    return Databases(env, main, long)


def _cannot_open(path: Path, error: lmdb.Error | OSError) -> ConfigError | DataDirError:
    if isinstance(error, lmdb.MapFullError):
        return ConfigError(f"map_bytes is too small for any store: {error}")
    return DataDirError(f"data directory {path} cannot be opened or is damaged: {error}")
