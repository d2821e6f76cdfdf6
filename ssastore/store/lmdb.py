"""The production store: one LMDB environment behind a log; changes and reads on the event loop.

    datadir.py     the directory and its lock
    writer.py      order of events: batches, checkpoints, direct commits
    log.py         the log; logfiles.py its files, logformat.py their bytes, logio.py how they are written
    views.py       what readers and changes see; table.py the layers over LMDB
    checkpoint.py  what the log holds goes into LMDB
    lmdbcommit.py  changes straight on LMDB
    lmdbtxn.py     LMDB's transactions; longkeys.py and seal.py say what they write

Choices, with the reason for each:

- ``sync`` and ``metasync`` on: a commit is two flushes, and only when it is durable is its part of the log
  used again.
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
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

import lmdb

from ssastore.env import LogUsage, StoreUsage, WriteTxn
from ssastore.errors import ConfigError, DataDirError
from ssastore.limits import DISK_RESERVE_BYTES, MAP_BYTES_DEFAULT, STORE_READERS_MAX
from ssastore.store.changes import Change, Submitted, Then, submit
from ssastore.store.datadir import DataDir
from ssastore.store.lmdbcommit import GroupCommit
from ssastore.store.lmdbtxn import Databases
from ssastore.store.logio import Die
from ssastore.store.longkeys import MARKER_BYTES, MARKER_COUNT
from ssastore.store.recovery import FORMAT, FORMAT_1, FORMAT_2, OpenedLog, log_file_bytes, open_log
from ssastore.store.room import put_limit_bytes
from ssastore.store.views import ReadView, State
from ssastore.store.writer import GroupWriter

log = logging.getLogger(__name__)

T = TypeVar("T")

DATA_NAME = "data.mdb"

LIB_VERSION = 0
"LMDB 0.9 and its file format, whatever a later binding or the environment prefers for new files."

LONG_NAME = b"ssastore-long".ljust(511, b"-")
"Name of the database `long`. LMDB keeps it among the records of the main database, so no key may equal it."

_OWN_RECORDS = 3
"Beside the record of the log: the name of `long`, the format, the count of markers."

EXIT_LOG_FAILED = 74
"Exit code when a write to the log failed; EX_IOERR of sysexits.h."

FORKED = "a store must not be used across a fork"

assert len(LONG_NAME) > MARKER_BYTES


class LmdbStore:
    """``env.Store`` on a directory. Belongs to the thread that runs the event loop."""

    def __init__(
        self, directory: DataDir, databases: Databases, opened: OpenedLog, commit: GroupCommit, die: Die
    ) -> None:
        self._directory = directory
        self._databases = databases
        self._log = opened.log
        self._is_forked = False
        self._limit_bytes = put_limit_bytes(databases.env.info()["map_size"])
        self._closed = False
        self._state = State(databases, opened.records)
        self._writer = GroupWriter(self._state, opened.log, commit, name=directory.path.name, die=die)
        _OPEN.add(self)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        map_bytes: int = MAP_BYTES_DEFAULT,
        disk_reserve_bytes: int = DISK_RESERVE_BYTES,
        log_bytes: int | None = None,
        die: Die | None = None,
    ) -> LmdbStore:
        """Open the store in directory ``path``; make it if it is not there.

        Args:
            path: the directory.
            map_bytes: size of the LMDB map.
            disk_reserve_bytes: new data is refused while the file system has less than this free.
            log_bytes: of each of two new log files; by default what fits the map. 0: no log.
            die: ends the process when a write to the log has failed; by default at once.

        Raises:
            DataDirError: the directory is in use, not a directory, not writable, or holds something else
                or something damaged.
            ConfigError: ``map_bytes`` is smaller than the data.
        """
        directory = DataDir.open(Path(path))
        try:
            databases = _open_databases(directory, map_bytes)
            try:
                commit = GroupCommit(databases, directory, disk_reserve_bytes)
                wanted = log_file_bytes(map_bytes) if log_bytes is None else log_bytes
                opened = open_log(databases, directory, commit, wanted, disk_reserve_bytes, die or _die)
            except BaseException:
                databases.env.close()
                raise
        except BaseException:
            directory.close()
            raise
        return cls(directory, databases, opened, commit, die or _die)

    def read(self) -> ReadView:
        """See ``env.Store.read``. In the event-loop thread only."""
        assert not self._is_forked, FORKED
        return ReadView(self._state)

    def do(self, change: Change, then: Then, *, size: int = 0) -> None:
        """See ``env.Store.do``."""
        assert not self._is_forked, FORKED
        self._writer.do(Submitted(change, size, then))

    def submit(self, change: Callable[[WriteTxn], T], *, size: int = 0) -> asyncio.Future[T]:
        """See ``env.Store.submit``."""
        return submit(self.do, change, size)

    def usage(self) -> StoreUsage:
        """See ``env.Store.usage``; ``limit_bytes`` is what records may fill."""
        snapshot = self._state.snapshot()
        entries, markers = snapshot.counts()
        records = entries - markers - _OWN_RECORDS - (self._log is not None)
        used = snapshot.used_bytes()
        logged = self._state.merged()
        for key, sealed in logged.items():
            # What only the log holds counts by its length, and what it replaces does not count any more.
            for value, sign in ((sealed, 1), (snapshot.sealed(key), -1)):
                if value is not None:
                    records += sign
                    used += sign * (len(key) + len(value))
        writer = self._writer
        usage = LogUsage(
            len(logged), writer.writes, round(writer.write_s, 6), writer.checkpoints, writer.direct_commits
        )
        return StoreUsage(used, self._limit_bytes, records, usage)

    async def close(self) -> None:
        """See ``env.Store.close``. No read transaction may be open. May be called again."""
        await self._writer.close()
        if not self._closed:
            self._closed = True
            self._state.renew()
            self._databases.env.close()
            if self._log is not None:
                self._log.close()
            self._directory.close()


_OPEN: WeakSet[LmdbStore] = WeakSet()


def _forked() -> None:
    """In a forked child: asking for the process id in every call would be a system call."""
    for store in _OPEN:
        store._is_forked = True


os.register_at_fork(after_in_child=_forked)


def _die(error: BaseException) -> None:
    """Nothing is known of what was being written, so nobody may be told anything: the next start reads it."""
    log.critical("store.failed", extra={"reason": str(error)}, exc_info=error)
    os._exit(EXIT_LOG_FAILED)


def _open_databases(directory: DataDir, map_bytes: int) -> Databases:
    """Open or make the environment in a directory that is ours."""
    path = directory.path
    try:
        env = lmdb.open(
            os.fspath(path),
            map_size=map_bytes,
            mode=0o600,
            max_readers=STORE_READERS_MAX,
            max_dbs=1,
            max_spare_txns=1,
            lib_version=LIB_VERSION,
        )
    except (lmdb.Error, OSError) as error:
        raise _cannot_open(path, error) from error
    try:
        _check_size(env, path, map_bytes)
        env.reader_check()
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
    if found not in (FORMAT_1, FORMAT_2):
        raise DataDirError(f"data directory {path} has format {found!r}, this program knows {FORMAT_2!r}")
    return Databases(env, env.open_db(), long)


def _made(env: lmdb.Environment, directory: DataDir) -> Databases:
    """Write the records of our own into a new environment, which has no log yet."""
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
