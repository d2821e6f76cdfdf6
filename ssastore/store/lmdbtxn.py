"""Read and write transactions over LMDB.

Values of a read transaction are views into the map.  Those of a write transaction are copies: LMDB moves
records about in pages that the transaction has already changed, so a view would not outlive the next put.

What LMDB raises is translated here, for ``lmdbcommit.py`` and ``lmdb.py`` as well.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

import lmdb

from ssastore.errors import CorruptObject, EnvironmentProblem, SsaStoreError, StoreFull
from ssastore.store.longkeys import DIRECT, LongKeys
from ssastore.store.room import Room
from ssastore.store.seal import check_key, seal, shown, unseal

HELD = "a read transaction was held across an await: a commit has ended it"

_LACKS_ROOM = (lmdb.MapFullError, lmdb.DiskError, lmdb.TxnFullError)


class Databases(NamedTuple):
    """An open environment and its two databases (``longkeys.py``)."""

    env: lmdb.Environment
    main: lmdb._Database
    long: lmdb._Database


class LmdbReadTxn:
    """``env.ReadTxn``, and the context manager around it; one serves all who read between two commits.

    Entering it is free.  Leaving it after a commit has ended it is an error, for what was read last may
    already be written over.
    """

    __slots__ = ("_databases", "_get", "txn")

    def __init__(self, databases: Databases) -> None:
        """Raises lmdb.Error."""
        self._databases = databases
        # The environment keeps one ended transaction and renews it here, which takes 0.1 us.
        self.txn = databases.env.begin(databases.main, None, False, True)
        self._get: Callable[[bytes], memoryview | None] = self.txn.get

    def __enter__(self) -> LmdbReadTxn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._get is not _ended, HELD

    def end(self) -> None:
        """Nobody may read it from now on: its pages are going to be written over."""
        self._get = _ended
        self.txn.abort()

    def get(self, key: bytes) -> memoryview | None:
        """See ``env.ReadTxn.get``."""
        try:
            sealed = self._get(key) if len(key) <= DIRECT else self._long_keys().get(key)
        except lmdb.Error as error:
            raise _unreadable(error, key) from error
        return None if sealed is None else unseal(key, sealed)

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """See ``env.ReadTxn.scan``."""
        assert self._get is not _ended, HELD
        try:
            for key, sealed in self._long_keys().scan(first, end, _never):
                yield key, unseal(key, sealed)
        except lmdb.Error as error:
            raise translated(error) from error

    def _long_keys(self) -> LongKeys[memoryview]:
        _, main, long = self._databases
        return LongKeys(self.txn, main, long)


class ParkedRead:
    """The one read transaction of an environment: what was committed last, until something else is.

    The environment has no table of readers (``lmdb.py`` says why), so nobody tells the writer which pages
    are being read.  What protects them is the order of events, with rules of LMDB 0.9 (``mdb.c``):

    - Transaction W takes free pages only from records of the free list older than ``mdb_find_oldest``, which
      without a table is W - 1: pages that W - 2 or an earlier one has freed (``mdb_page_alloc``).
    - A page of state S is freed by S + 1 at the earliest.  So S + 3 is the first that may write over it.
    - A write transaction begins with the state before it parked, and ``renew`` follows its end before the
      next one begins.  So S is read until S + 1 is on disk: safe by one transaction more than is needed.
    - A reader that begins takes the newer of two meta pages (``mdb_env_pick_meta``), and a commit writes one
      before its sync is done.  So none begins while a commit is under way.

    A transaction that fails takes no number: the next one is W again.
    """

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._parked: LmdbReadTxn | None = None
        "None before the first use, and when LMDB has refused."

    def current(self) -> LmdbReadTxn:
        """The read transaction. Raises lmdb.Error if there is none and LMDB refuses to begin one."""
        if self._parked is None:
            self._parked = LmdbReadTxn(self._databases)
        return self._parked

    def end(self) -> None:
        """Let go of it; whoever still holds it finds out."""
        parked, self._parked = self._parked, None
        if parked is not None:
            parked.end()

    def renew(self) -> None:
        """Read what was committed meanwhile. No commit may be under way."""
        self.end()
        with suppress(lmdb.Error):  # Whoever needs it next asks again, and hears why not.
            self.current()


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


def _ended(key: bytes) -> memoryview | None:
    """In place of ``get`` when a read transaction has ended."""
    raise AssertionError(HELD)


def _never() -> int:
    """A read transaction changes nothing."""
    return 0
