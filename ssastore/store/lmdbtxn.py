"""Read and write transactions over LMDB.

Values of a read transaction are views into the map.  Those of a write transaction are copies: LMDB moves
records about in pages that the transaction has already changed, so a view would not outlive the next put.

What LMDB raises is translated here, for ``lmdbcommit.py`` and ``lmdb.py`` as well.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

import lmdb

from ssastore.errors import CorruptObject, EnvironmentProblem, SsaStoreError, StoreFull
from ssastore.store.longkeys import DIRECT, LongKeys
from ssastore.store.room import Room
from ssastore.store.seal import check_key, seal, shown, unseal

_LACKS_ROOM = (lmdb.MapFullError, lmdb.DiskError, lmdb.TxnFullError)


class Databases(NamedTuple):
    """An open environment and its two databases (``longkeys.py``)."""

    env: lmdb.Environment
    main: lmdb._Database
    long: lmdb._Database


class LmdbReadTxn:
    """``env.ReadTxn``, and the context manager that begins and ends it."""

    __slots__ = ("_databases", "_get", "_txn")

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def __enter__(self) -> LmdbReadTxn:
        # The environment keeps one ended transaction and renews it here, which takes 0.1 us.
        env, main, _ = self._databases
        try:
            self._txn = env.begin(main, None, False, True)
        except lmdb.Error as error:
            raise translated(error) from error
        self._get = self._txn.get
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._txn.abort()
        del self._get, self._txn  # The environment gets it back with the last reference.

    def get(self, key: bytes) -> memoryview | None:
        """See ``env.ReadTxn.get``."""
        try:
            sealed = self._get(key) if len(key) <= DIRECT else self._long_keys().get(key)
        except lmdb.Error as error:
            raise _unreadable(error, key) from error
        return None if sealed is None else unseal(key, sealed)

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """See ``env.ReadTxn.scan``."""
        try:
            for key, sealed in self._long_keys().scan(first, end, _never):
                yield key, unseal(key, sealed)
        except lmdb.Error as error:
            raise translated(error) from error

    def _long_keys(self) -> LongKeys[memoryview]:
        _, main, long = self._databases
        return LongKeys(self._txn, main, long)


class LmdbWriteTxn:
    """``env.WriteTxn``, shared by all changes of one commit."""

    __slots__ = ("_long_keys", "_page_bytes", "_put_bytes", "_room", "_txn", "broken", "writes")

    def __init__(self, databases: Databases, page_bytes: int) -> None:
        env, main, long = databases
        self._txn = env.begin(main, write=True)
        self._long_keys = LongKeys(self._txn, main, long)
        self._page_bytes = page_bytes
        self._room = Room(0, 0, "")
        self._put_bytes = 0
        self.broken: lmdb.Error | None = None
        "A change that LMDB refused half way: nothing of this transaction can be committed any more."
        self.writes = 0
        "Puts and deletes so far."

    def allow(self, room: Room) -> None:
        """Let puts take ``room``; before this call they take nothing."""
        self._room = room

    def get(self, key: bytes) -> memoryview | None:
        """See ``env.ReadTxn.get``."""
        try:
            sealed = self._txn.get(key) if len(key) <= DIRECT else self._long_keys.get(key)
        except lmdb.Error as error:
            raise _unreadable(error, key) from error
        return None if sealed is None else unseal(key, memoryview(sealed))

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """See ``env.ReadTxn.scan``; sees changes ahead of its place that are made while it runs."""
        try:
            for key, sealed in self._long_keys.scan(first, end, lambda: self.writes):
                yield key, unseal(key, memoryview(sealed))
        except lmdb.Error as error:
            raise translated(error) from error

    def put(self, key: bytes, *parts: bytes | memoryview, use_reserve: bool = False) -> None:
        """See ``env.WriteTxn.put``."""
        sealed = seal(key, parts)
        # A value's last page is filled in part, and a leaf may have to be split.
        put_bytes = self._put_bytes + len(key) + len(sealed) + self._page_bytes
        if put_bytes > (self._room.reserve if use_reserve else self._room.data):
            raise StoreFull(self._room.why_full)
        self._put_bytes = put_bytes
        try:
            if len(key) <= DIRECT:
                self._txn.put(key, sealed)
            else:
                self._long_keys.put(key, sealed)
        except lmdb.Error as error:
            self.broken = error
            raise translated(error) from error
        self.writes += 1

    def delete(self, key: bytes) -> bool:
        """See ``env.WriteTxn.delete``."""
        check_key(key)
        try:
            found = self._txn.delete(key) if len(key) <= DIRECT else self._long_keys.delete(key)
        except lmdb.Error as error:
            self.broken = error
            raise translated(error) from error
        self.writes += found
        return found

    def used_bytes(self, databases: Databases) -> int:
        """Bytes of the pages that hold records now."""
        return used_bytes(self._txn, databases)

    def commit(self) -> None:
        """Make everything durable. Raises lmdb.Error; then nothing was committed."""
        self._txn.commit()

    def abort(self) -> None:
        """Forget everything."""
        self._txn.abort()


def used_bytes(txn: lmdb.Transaction[bytes] | lmdb.Transaction[memoryview], databases: Databases) -> int:
    """Bytes of the pages that hold records; free pages inside the file do not count."""
    used = 0
    for database in databases[1:]:
        stat = txn.stat(database)
        used += (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"]
    return used


def lacks_room(error: lmdb.Error) -> bool:
    """Whether map, disk, quota or transaction were too small."""
    return isinstance(error, _LACKS_ROOM) or error.code == errno.EDQUOT


def translated(error: lmdb.Error) -> EnvironmentProblem:
    """What to raise for an error of LMDB that is not about one record."""
    if lacks_room(error):
        return StoreFull(f"the store is full: {error}")
    return EnvironmentProblem(f"the store failed: {error}")


def _unreadable(error: lmdb.Error, key: bytes) -> SsaStoreError:
    """What to raise when ``key`` could not be read. Raises InvalidKey itself if that was the reason."""
    check_key(key)
    if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
        return CorruptObject(f"the stored record of key {shown(key)} cannot be read: {error}", key)
    return translated(error)


def _never() -> int:
    """A read transaction changes nothing."""
    return 0
