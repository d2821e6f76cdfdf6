"""A copy of a store that may be in use by another process meanwhile: of one moment, and whole.

LMDB lets other processes read a snapshot while its one writer goes on.  What is acknowledged and only in the
log is taken first.  The log's files are written meanwhile, so what was copied is looked through: it must
hold, without a gap, what a start needs that finds the snapshot of that time.  The data come from a later
snapshot, which needs the same frames or fewer of them.

To take a snapshot takes a moment, to copy its data perhaps hours: two steps, so that several stores can be
copied as they were at about one time.

While a snapshot is held, the store cannot use the space again that was freed since: its file may grow.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb

from ssastore.errors import DataDirError, EnvironmentProblem
from ssastore.store.datadir import LOCK_NAME
from ssastore.store.lmdb import DATA_NAME, LIB_VERSION, LONG_NAME, LmdbStore
from ssastore.store.lmdbtxn import LOG
from ssastore.store.logfiles import log_paths, read_back
from ssastore.store.logformat import LogRecord

_LOG_TRIES = 20
"Copies of the log until one is not cut by a change of files in the middle: that takes half a file of writes."

_LOCKS = (LOCK_NAME, "lock.mdb")


@contextmanager
def snapshot(source: Path, target: Path) -> Iterator[Callable[[], None]]:
    """Hold the state that the store in directory ``source`` has now, for a copy in the empty ``target``.

    The copy is made, durably but for its names, by a call of what this gives.  Not in the process that has
    the store open: LMDB knows no second time.

    Raises:
        DataDirError: it is no store, is damaged, or cannot be read.
        EnvironmentProblem, OSError: ``target`` cannot be written.
    """
    env = _open(source)
    try:
        env.reader_check()  # A copy that was killed holds back the space of what is deleted until then.
        _copy_log(env, source, target)
        with env.begin() as txn:
            yield lambda: _copy_data(env, txn, source, target)
    except lmdb.Error as error:
        raise DataDirError(f"{source} cannot be copied: {error}") from error
    finally:
        env.close()


def release(source: Path) -> None:
    """Let a store have the space back that a copy held which was killed; no error when it is none."""
    with suppress(DataDirError, lmdb.Error):
        env = _open(source)
        try:
            env.reader_check()
        finally:
            env.close()


def open_copy(target: Path, map_bytes: int) -> LmdbStore:
    """Open a copy that was made: what is only in the log goes into LMDB.

    Raises as ``LmdbStore.open``.
    """
    return LmdbStore.open(target, map_bytes=map_bytes, log_bytes=0)


def seal_copy(target: Path) -> None:
    """Make a copy that is closed durable, without locks: these are of processes of this machine."""
    for name in _LOCKS:
        with suppress(FileNotFoundError):
            (target / name).unlink()
    for path in target.iterdir():
        sync(path)
    sync(target)


def _open(source: Path) -> lmdb.Environment:
    try:
        return lmdb.open(
            os.fspath(source), readonly=True, create=False, map_size=0, max_dbs=1, lib_version=LIB_VERSION
        )
    except (lmdb.Error, OSError) as error:
        raise DataDirError(f"{source} cannot be opened as a store: {error}") from error


def _copy_data(env: lmdb.Environment, txn: lmdb.Transaction, source: Path, target: Path) -> None:
    try:
        env.copy(os.fspath(target), compact=True, txn=txn)
    except lmdb.Error as error:
        if "MDB_" in str(error):
            raise DataDirError(f"{source} cannot be copied: {error}") from error
        # What the system says is of the copy: the source is mapped, and read without calls.
        raise EnvironmentProblem(f"{target} cannot be written: {error}") from error
    os.chmod(target / DATA_NAME, 0o600)


def _copy_log(env: lmdb.Environment, source: Path, target: Path) -> None:
    """With the frames, without a gap, from what LMDB holds at this moment on."""
    for _ in range(_LOG_TRIES):
        with env.begin(db=env.open_db(LONG_NAME, create=False)) as txn:
            found = txn.get(LOG)
        if found is None:
            return
        try:
            record = LogRecord.decode(found)
        except ValueError as error:
            raise DataDirError(f"{source} is damaged: its record of the log has {error}") from error
        for path, copied in zip(log_paths(source), log_paths(target), strict=True):
            shutil.copyfile(path, copied)
            os.chmod(copied, 0o600)
        try:
            read_back(target, record.file_bytes, record.applied, record.salt)
            return
        except DataDirError as error:
            cut = error
    raise DataDirError(f"{source}: its log cannot be copied whole: {cut}")


def sync(path: Path) -> None:
    """Make a file or the names in a directory durable. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
