"""From a stored key back to the name of a record and its address. Pure.

A stored key has the locator, not the number of shards that led to it.  Any number that
leads to the same locator will do, since nothing but the locator follows from it; so one is
looked for, beginning with what was right for the bucket's last record.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from ssastore.core.place import expected_position
from ssastore.core.records import split_place
from ssastore.keyspace import TAIL_BITS, iid_of
from ssastore.limits import SHARDS_DEFAULT, SHARDS_MAX
from ssastore.messages import RECORD_KINDS

_BUCKETS_REMEMBERED = 1024
_BUCKET_BYTES = 8


class RecordName(NamedTuple):
    """A record, wherever it is stored."""

    position: int
    kind: int
    bucket: int
    shards: int
    key: bytes

    def fields(self, plane: int) -> tuple[int, int, int, int, bytes]:
        """The first fields of every message about a record."""
        return iid_of(self.position, plane), self.kind, self.bucket, self.shards, self.key

    @property
    def label(self) -> bytes:
        """The same for every plane; tells records apart."""
        return b"%d/%d/%d/" % (self.position >> TAIL_BITS, self.kind, self.bucket) + self.key


class Names:
    """Finds names; remembers the shards of buckets that it met."""

    def __init__(self) -> None:
        self._shards: OrderedDict[int, int] = OrderedDict()

    def of_stored(self, stored_key: bytes) -> RecordName | None:
        """The record of a stored key; None when it is no record's, or hashes to nowhere near its place."""
        try:
            locator, kind, rest = split_place(stored_key)
        except ValueError:
            return None
        if kind not in RECORD_KINDS or len(rest) <= _BUCKET_BYTES:
            return None
        bucket = int.from_bytes(rest[:_BUCKET_BYTES], "big")
        return self._at(locator & 0x0FFFFFFF, kind, bucket, rest[_BUCKET_BYTES:])

    def _at(self, locator: int, kind: int, bucket: int, key: bytes) -> RecordName | None:
        for shards in (self._shards.get(bucket, SHARDS_DEFAULT), 0, *range(1, SHARDS_MAX + 1)):
            position = expected_position(bucket, shards, key)
            if position >> TAIL_BITS == locator:
                self._shards[bucket] = shards
                self._shards.move_to_end(bucket)
                if len(self._shards) > _BUCKETS_REMEMBERED:
                    self._shards.popitem(last=False)
                return RecordName(position, kind, bucket, shards, key)
        return None
