"""The LMDB file of an embedded control store: loaded once, then only written.

    key            value
    m              [format, revision, next lease, count of changes]
    k + KEY        [value, revision, lease or nil]
    l + NUMBER     period in milliseconds; NUMBER is 8 bytes, big endian

Values are msgpack behind 8 bytes of XXH3-64 over key and value, because LMDB does not
see rotten bytes.  One change is one synced commit.  A second file, ``NAME.owner``, is
locked as long as the file is open: two writers would each answer from a memory of
their own.  The file must not be used across a fork.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import lmdb
import msgpack
from xxhash import xxh3_64_digest

from ssastore.control.state import Change, ControlState, Entry
from ssastore.errors import DataDirError, EnvironmentProblem, OutcomeUnknown
from ssastore.limits import CONTROL_MAP_BYTES

FORMAT = 1

_META = b"m"
_ENTRY = b"k"
_LEASE = b"l"
_CHECKSUM_BYTES = 8
_READERS_MAX = 4


class ControlFile:
    """The durable half of a store. ``write`` may run on another thread, one call at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            DataDirError: another server has it, it cannot be opened, or it is not one of ours.
        """
        self._path = path
        self._lock = _lock(path.with_name(path.name + ".owner"))
        try:
            self._env = lmdb.open(
                str(path), subdir=False, map_size=CONTROL_MAP_BYTES, max_readers=_READERS_MAX, mode=0o600
            )
        except lmdb.Error as error:
            os.close(self._lock)
            raise DataDirError(f"cannot open {path}: {error}") from error
        self._changes = 0

    def load(self, now_ms: int) -> ControlState:
        """The state as it was saved; the empty one of a new file.

        Raises:
            DataDirError: a record is rotten, or the format is of another version.
        """
        entries: dict[str, Entry] = {}
        periods: dict[int, int] = {}
        meta: list[int] = [FORMAT, 0, 1, 0]
        for key, value in self._records():
            if key == _META:
                meta = value
            elif key.startswith(_ENTRY):
                entries[key[1:].decode()] = Entry(*value)
            else:
                periods[int.from_bytes(key[1:], "big")] = value
        if meta[0] != FORMAT:
            raise DataDirError(f"{self._path} has format {meta[0]}, this version reads {FORMAT}")
        _, revision, next_lease, self._changes = meta
        return ControlState(
            now_ms=now_ms, revision=revision, next_lease=next_lease, entries=entries, periods=periods
        )

    def write(self, change: Change) -> None:
        """Make one change durable.

        Raises:
            EnvironmentProblem: disk or map said no, and nothing of the change was kept.
            OutcomeUnknown: it may have been kept; load the file again before writing to it.
        """
        try:
            with self._env.begin(write=True) as txn:
                self._put(txn, change)
        except lmdb.Error as error:
            if self._saved_changes() == self._changes:
                raise EnvironmentProblem(f"cannot write {self._path}: {error}") from error
            raise OutcomeUnknown(f"a commit of {self._path} failed half way: {error}") from error
        self._changes += 1

    def close(self) -> None:
        """Close the file and let another server have it."""
        self._env.close()
        os.close(self._lock)

    def _put(self, txn: lmdb.Transaction, change: Change) -> None:
        for write in change.writes:
            key = _ENTRY + write.key.encode()
            if write.value is None:
                txn.delete(key)
            else:
                txn.put(key, _seal(key, (write.value, change.revision, write.lease)))
        if change.granted:
            key = _lease_key(change.granted[0])
            txn.put(key, _seal(key, change.granted[1]))
        for lease in change.ended:
            txn.delete(_lease_key(lease))
        txn.put(_META, _seal(_META, (FORMAT, change.revision, change.next_lease, self._changes + 1)))

    def _records(self) -> list[tuple[bytes, Any]]:
        try:
            with self._env.begin() as txn:
                return [(key, _unseal(key, sealed)) for key, sealed in txn.cursor()]
        except (lmdb.Error, ValueError) as error:
            raise DataDirError(f"cannot read {self._path}: {error}") from error

    def _saved_changes(self) -> int | None:
        """Count of changes that the file has; None when it cannot be read."""
        try:
            with self._env.begin() as txn:
                sealed = txn.get(_META)
                count: int = _unseal(_META, sealed)[3] if sealed else 0
                return count
        except (lmdb.Error, ValueError):
            return None


def _lock(path: Path) -> int:
    """A descriptor that holds the lock file until it is closed; the kernel frees it when we die."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirError(f"cannot open {path}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DataDirError(f"another control server has {path}") from error
    except OSError as error:
        os.close(descriptor)
        raise DataDirError(
            f"{path} cannot be locked ({error.strerror}): it needs a disk of this machine"
        ) from error
    return descriptor


def _lease_key(lease: int) -> bytes:
    return _LEASE + lease.to_bytes(8, "big")


def _seal(key: bytes, value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return xxh3_64_digest(key + packed) + packed


def _unseal(key: bytes, sealed: bytes) -> Any:
    packed = sealed[_CHECKSUM_BYTES:]
    if xxh3_64_digest(key + packed) != sealed[:_CHECKSUM_BYTES]:
        raise ValueError(f"record {key!r} fails its checksum")
    return msgpack.unpackb(packed)
