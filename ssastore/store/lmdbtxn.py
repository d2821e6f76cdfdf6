"""Read and write transactions over LMDB.

Values of a snapshot are views into the map.  Those of a write transaction are copies: LMDB moves
records about in pages that the transaction has already changed, so a view would not outlive the next put.

What LMDB raises is translated here, for the modules that use these as well.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import lmdb

from ssastore.errors import CorruptObject, EnvironmentProblem, SsaStoreError, StoreFull
from ssastore.store.longkeys import DIRECT, LongKeys, marker_count
from ssastore.store.room import Room
from ssastore.store.seal import check_key, seal, shown, unseal

LOG = b"log"
"Record of `long` about the log (``logrecord``). Shorter than a branch."

_DAMAGED = (lmdb.CorruptedError, lmdb.PageNotFoundError)
_LACKS_ROOM = (lmdb.MapFullError, lmdb.DiskError, lmdb.TxnFullError)


class Databases(NamedTuple):
    """An open environment and its two databases (``longkeys.py``)."""

    env: lmdb.Environment
    main: lmdb._Database
    long: lmdb._Database


class _Ended:
    """In the place of a transaction that has ended: who holds that keeps its place among LMDB's readers."""

    def get(self, *_: object) -> NoReturn:
        raise lmdb.BadTxnError("the state of the store that this belongs to is not there any more")

    def cursor(self, *_: object) -> NoReturn:
        self.get()

    def stat(self, *_: object) -> NoReturn:
        self.get()


class Snapshot:
    """One state of the environment: a read transaction that everybody shares until the next commit.

    It stays valid for those who hold it (``users``) when it is retired; the last one ends it.

    LMDB ends a transaction in which it has met a damaged page: whatever else is read by it fails.  Records
    on other pages are then read by transactions of their own, until somebody asks for a new snapshot.
    """

    __slots__ = ("_databases", "_get", "_is_retired", "_txn", "is_spoilt", "users")

    def __init__(self, databases: Databases) -> None:
        """Raises lmdb.Error."""
        self._databases = databases
        self._txn: Any = databases.env.begin(databases.main, None, False, True)
        self._get: Callable[[bytes], memoryview | None] = self._txn.get
        self._is_retired = False
        self.is_spoilt = False
        self.users = 0

    def retire(self) -> None:
        """Nobody new will use it."""
        self._is_retired = True
        self._end()

    def release(self) -> None:
        """One user less."""
        self.users -= 1
        if self._is_retired:
            self._end()

    def get(self, key: bytes) -> memoryview | None:
        """See ``env.ReadTxn.get``."""
        sealed = self.sealed(key)
        return None if sealed is None else unseal(key, sealed)

    def sealed(self, key: bytes) -> memoryview | None:
        """What is stored for ``key``, unverified."""
        try:
            return self._get(key) if len(key) <= DIRECT else self._long_keys().get(key)
        except lmdb.Error as error:
            if self.is_spoilt:
                return self._sealed_apart(key)
            self.is_spoilt = isinstance(error, _DAMAGED)
            raise _unreadable(error, key) from error

    def _sealed_apart(self, key: bytes) -> memoryview | None:
        """A copy: the transaction that it was read by has ended."""
        databases = self._databases
        try:
            with databases.env.begin(databases.main, None, False, True) as txn:
                if len(key) <= DIRECT:
                    found = txn.get(key)
                else:
                    found = LongKeys(txn, databases.main, databases.long).get(key)
                return None if found is None else memoryview(bytes(found))
        except lmdb.Error as error:
            raise _unreadable(error, key) from error

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """Sealed records with ``first <= key < end``, unverified, in order."""
        try:
            yield from self._long_keys().scan(first, end, None)
        except lmdb.Error as error:
            self.is_spoilt = True
            raise translated(error) from error

    def used_bytes(self) -> int:
        """Bytes of the pages that hold records."""
        return used_bytes(self._txn, self._databases)

    def counts(self) -> tuple[int, int]:
        """(entries of both databases, markers among them)."""
        _, main, long = self._databases
        entries = self._txn.stat(main)["entries"] + self._txn.stat(long)["entries"]
        return entries, marker_count(self._txn, long)

    def _end(self) -> None:
        if not self.users:
            self._txn.abort()
            self._txn = _Ended()
            self._get = self._txn.get

    def _long_keys(self) -> LongKeys[memoryview]:
        _, main, long = self._databases
        return LongKeys(self._txn, main, long)


class LmdbWriteTxn:
    """``env.WriteTxn`` straight on LMDB, shared by all changes of one commit.

    Begins, commits and aborts on one thread, whose write lock it holds; may be used on another between.
    """

    __slots__ = ("_databases", "_long_keys", "_page_bytes", "_put_bytes", "_room", "_txn", "broken", "writes")

    def __init__(self, databases: Databases, page_bytes: int) -> None:
        env, main, long = databases
        self._databases = databases
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

    def apply(self, key: bytes, sealed: bytes | None) -> None:
        """Store or remove (None) a record that the log holds. Raises lmdb.Error; then abort."""
        if len(key) > DIRECT:
            if sealed is None:
                self._long_keys.delete(key)
            else:
                self._long_keys.put(key, sealed)
        elif sealed is None:
            self._txn.delete(key)
        else:
            self._txn.put(key, sealed)

    def mark(self, record: bytes) -> None:
        """Write the record of the log, which says what of it this transaction covers. Raises lmdb.Error."""
        self._txn.put(LOG, record, db=self._databases.long)

    def used_bytes(self) -> int:
        """Bytes of the pages that hold records now."""
        return used_bytes(self._txn, self._databases)

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
    if isinstance(error, _DAMAGED):
        return CorruptObject(f"the stored record of key {shown(key)} cannot be read: {error}", key)
    return translated(error)
