"""Which shard of which bucket. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ssastore.core.place import place_key
from ssastore.keyspace import ANY_TAIL, TAIL_BITS, iid_of, shard_locator, shard_of_key


class ShardName(NamedTuple):
    """One shard of an indexed bucket."""

    bucket: int
    shards: int
    shard: int

    @property
    def locator(self) -> int:
        """Where it is, without the plane."""
        return shard_locator(self.bucket, self.shard)

    def iid(self, plane: int) -> int:
        """The IID of requests for all of it."""
        return iid_of(self.locator << TAIL_BITS | ANY_TAIL, plane)


def shard_with(bucket: int, shards: int, key: bytes) -> ShardName:
    """The shard that a record is in, by the key that it is stored under."""
    return ShardName(bucket, shards, shard_of_key(place_key(key), shards))
