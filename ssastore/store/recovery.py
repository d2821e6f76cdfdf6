"""The log at the start of a store: made if there is none, else read back and brought into LMDB.

A store without a log is of version 1; with one, of version 2, and LMDB says so in the same transaction as
where the log stands.  So an older program does not open a store whose log it would not read.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import lmdb

from ssastore.errors import DataDirError
from ssastore.limits import KIB, LOG_BLOCK_BYTES, LOG_FILE_BYTES, LOG_FILE_MAP_SHARE
from ssastore.store.datadir import DataDir
from ssastore.store.lmdbcommit import GroupCommit, Logged
from ssastore.store.lmdbtxn import LOG, Databases
from ssastore.store.log import Log
from ssastore.store.logfiles import make_log_files, read_back
from ssastore.store.logformat import SALT_BYTES, LogRecord
from ssastore.store.logio import Die
from ssastore.store.table import Records

FORMAT = b"format"
FORMAT_1 = b"ssastore-store 1"
FORMAT_2 = b"ssastore-store 2"
"Record of `long` that names this format; another value belongs to a program that knows more than this one."

_LOG_FILE_BYTES_MIN = 64 * KIB


class OpenedLog(NamedTuple):
    """A log, and what is in it only."""

    log: Log | None
    "None: there was no room for one. The store works without, slower."
    records: Records
    "Empty, but when LMDB has no room for them."


def log_file_bytes(map_bytes: int) -> int:
    """Size of a log file for a map of ``map_bytes``."""
    wanted = max(_LOG_FILE_BYTES_MIN, min(LOG_FILE_BYTES, map_bytes // LOG_FILE_MAP_SHARE))
    return wanted // LOG_BLOCK_BYTES * LOG_BLOCK_BYTES


def open_log(
    databases: Databases,
    directory: DataDir,
    commit: GroupCommit,
    file_bytes: int,
    disk_reserve_bytes: int,
    die: Die,
) -> OpenedLog:
    """Open the log of a store, or make one of two files of ``file_bytes``.

    Raises:
        DataDirError: the log is missing or damaged, with acknowledged writes in it.
    """
    with databases.env.begin() as txn:
        found = txn.get(LOG, db=databases.long)
    if found is None:
        return OpenedLog(_made(databases, directory, file_bytes, disk_reserve_bytes, die), {})
    try:
        record = LogRecord.decode(found)
    except ValueError as error:
        raise DataDirError(
            f"data directory {directory.path} is damaged: its record of the log has {error}"
        ) from error
    frames = read_back(directory.path, record.file_bytes, record.applied, record.salt)
    records: Records = {}
    for frame in frames:
        records.update(frame.records)
    last = frames[-1].sequence if frames else record.applied
    if frames:
        _, is_covered = commit([], Logged(records, record._replace(applied=last).encode()))
        if is_covered:
            records = {}
    try:
        return OpenedLog(Log(directory.path, record, last, die), records)
    except OSError as error:
        raise DataDirError(f"the log in {directory.path} cannot be opened: {error.strerror}") from error


def _made(
    databases: Databases, directory: DataDir, file_bytes: int, disk_reserve_bytes: int, die: Die
) -> Log | None:
    """A new log; None if there is no room for it."""
    if not file_bytes or directory.free_bytes() < disk_reserve_bytes + 2 * file_bytes:
        return None
    record = LogRecord(0, os.urandom(SALT_BYTES), file_bytes)
    try:
        make_log_files(directory.path, file_bytes)
        log = Log(directory.path, record, 0, die)
    except OSError:
        return None
    try:
        directory.sync()
        with databases.env.begin(write=True) as txn:
            txn.put(FORMAT, FORMAT_2, db=databases.long)
            txn.put(LOG, record.encode(), db=databases.long)
    except (lmdb.Error, OSError):
        log.close()
        return None
    return log
