"""Keys of up to 1200 bytes in byte order, although LMDB takes 511.

A key of at most ``DIRECT`` bytes is stored as it is, in the main database.  Of a longer one the first
``DIRECT`` bytes, its *head*, are stored there followed by a zero byte: a *marker*, known by its length.
It sorts after the key that equals the head and before every other key, which is where all keys with this
head belong, and its value is the *branch* of the head: 16 bytes of BLAKE2b.  The record itself lies in the
database `long` under branch + rest of the key.  Where that is again longer than ``DIRECT``, the same rule
is applied to it inside `long`, one level deeper.

    key     |<------------ head, 500 ------------>|<---------------- rest ---------------->|
    main    head 00 -> branch(1, head)
    long    branch(1, head) rest -> sealed value                       (up to 984 bytes of key)
    long    branch(1, head) rest[:484] 00 -> branch(2, branch(1, head) rest[:484])
    long    branch(2, ...) rest[484:] -> sealed value                  (up to 1200 bytes of key)

The level is hashed with the head: else somebody could choose a key whose head is what a deeper level
stores, and have his records listed among those of another key.

Invariant: a marker exists exactly when a record exists below its branch.  Both change in one transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from lmdb import Cursor, Transaction, _Database

from ssastore.errors import CorruptObject
from ssastore.store.seal import check_key, shown

View = TypeVar("View", bound=bytes | memoryview)
"What the transaction gives out: copies in a write transaction, views in a read transaction."

DIRECT = 500
"Longest key that is stored as it is."

MARKER_BYTES = DIRECT + 1
"Length of a marker; no record has it."

BRANCH_BYTES = 16

MARKER_COUNT = b"markers"
"Record of `long` that counts the markers, so that the number of records is known. Shorter than a branch."


def branch(level: int, head: bytes) -> bytes:
    """Prefix in `long` of everything below ``head``; ``level`` is 1 for heads of the main database."""
    return hashlib.blake2b(bytes((level,)) + head, digest_size=BRANCH_BYTES).digest()


def heads_of(key: bytes) -> tuple[list[bytes], bytes]:
    """The heads of a long key, level 1 first, and the key of its record in `long`."""
    heads: list[bytes] = []
    while len(key) > DIRECT:
        head = key[:DIRECT]
        heads.append(head)
        key = branch(len(heads), head) + key[DIRECT:]
    return heads, key


class LongKeys(Generic[View]):
    """The long keys as one transaction sees them."""

    __slots__ = ("_long", "_main", "_txn")

    def __init__(self, txn: Transaction[View], main: _Database, long: _Database) -> None:
        self._txn = txn
        self._main = main
        self._long = long

    def get(self, key: bytes) -> View | None:
        """What is stored for a long key."""
        check_key(key)
        return self._txn.get(heads_of(key)[1], None, self._long)

    def put(self, key: bytes, sealed: bytes) -> None:
        """Store ``sealed`` for a long key, and the markers that lead to it."""
        heads, stored = heads_of(key)
        self._txn.put(stored, sealed, db=self._long)
        added = 0
        for level in range(len(heads), 0, -1):
            head = heads[level - 1]
            if not self._txn.put(
                head + b"\0", branch(level, head), overwrite=False, db=self._database(level)
            ):
                break  # Its own marker is there too, by the invariant.
            added += 1
        self._count(added)

    def delete(self, key: bytes) -> bool:
        """Remove a long key, and the markers that lead nowhere without it."""
        heads, stored = heads_of(key)
        if not self._txn.delete(stored, db=self._long):
            return False
        removed = 0
        for level in range(len(heads), 0, -1):
            head = heads[level - 1]
            if self._is_used(branch(level, head)):
                break
            self._txn.delete(head + b"\0", db=self._database(level))
            removed += 1
        self._count(-removed)
        return True

    def scan(
        self, first: bytes, end: bytes, mutations: Callable[[], int] | None
    ) -> Iterator[tuple[bytes, View]]:
        """All records with ``first <= key < end``, short and long keys, in the order of the whole keys.

        Args:
            mutations: a number that changes whenever the transaction has changed a record.  The scan then
                looks for its place again: it goes on with the smallest key after the last one.  None: the
                transaction changes none.
        """
        return self._scan(1, b"", b"", first, end, mutations)

    def _scan(
        self,
        level: int,
        space: bytes,
        known: bytes,
        first: bytes,
        end: bytes | None,
        mutations: Callable[[], int] | None,
    ) -> Iterator[tuple[bytes, View]]:
        """Records below one branch.

        ``space`` is the branch, which in stored keys stands for ``known`` in whole keys; the bounds are
        without it.
        """
        width = DIRECT - len(space)
        skip = len(space)
        start = space + first if len(first) <= width else space + first[:width] + b"\0"
        with self._txn.cursor(self._database(level)) as cursor:
            if not cursor.set_range(start):
                return
            for item, sealed in cursor.iternext() if mutations is None else _restless(cursor, mutations):
                stored = bytes(item)
                if not stored.startswith(space):
                    return
                rest = stored[skip:DIRECT]
                if end is not None and rest >= end:
                    return
                if len(stored) <= DIRECT:
                    yield known + rest, sealed
                elif len(stored) == MARKER_BYTES:
                    below = branch(level, stored[:DIRECT])
                    if sealed != below:
                        at = known + rest
                        raise CorruptObject(f"the marker of long keys at {shown(at)} is damaged", at)
                    lower = first[width:] if first[:width] == rest else b""
                    upper = end[width:] if end is not None and end[:width] == rest else None
                    yield from self._scan(level + 1, below, known + rest, lower, upper, mutations)

    def _database(self, level: int) -> _Database:
        return self._main if level == 1 else self._long

    def _is_used(self, space: bytes) -> bool:
        with self._txn.cursor(self._long) as cursor:
            return cursor.set_range(space) and bytes(cursor.key()).startswith(space)

    def _count(self, change: int) -> None:
        if change:
            count = marker_count(self._txn, self._long) + change
            self._txn.put(MARKER_COUNT, count.to_bytes(8, "big"), db=self._long)


def _restless(cursor: Cursor[View], mutations: Callable[[], int]) -> Iterator[tuple[View, View]]:
    """Items from a cursor's place on, while records are put and deleted."""
    is_there = True
    while is_there:
        seen = mutations()
        item, sealed = cursor.item()
        stored = bytes(item)
        yield item, sealed
        is_there = cursor.next() if mutations() == seen else cursor.set_range(stored + b"\0")


def marker_count(txn: Transaction[View], long: _Database) -> int:
    """How many markers both databases hold."""
    return int.from_bytes(txn.get(MARKER_COUNT, b"", long), "big")
