"""Records by name: the address is computed, the request sent there. Coroutines on a Caller."""

from __future__ import annotations

from dataclasses import dataclass

import msgpack

from ssastore.core.acceptor import expected_position
from ssastore.core.caller import Caller
from ssastore.core.listing import Page
from ssastore.core.metadata import Metadata, decode_metadata
from ssastore.env import Randomness
from ssastore.errors import BadFrame, InvalidKey
from ssastore.keyspace import TAIL_BITS, iid_of, shard_locator, slice_of
from ssastore.limits import KEY_BYTES_MAX
from ssastore.messages import OP_ID_BYTES, Condition, Delete, Get, Kind, Put, Scan, Shut
from ssastore.wire import Body

PLANE = 0
"The plane that is asked: with one replica there is no other."


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket as far as addresses go: its id, and its shard count (0: hashed)."""

    bucket: int
    shards: int


@dataclass(frozen=True, slots=True)
class When:
    """Precondition of a write."""

    condition: int = Condition.NONE
    etag: str = ""


ALWAYS = When()
IF_ABSENT = When(Condition.IF_ABSENT)


class Found:
    """A record that was read. Its metadata is decoded when it is asked for: a small read needs none."""

    __slots__ = ("_metadata", "_packed", "data", "modified_ms")

    def __init__(self, modified_ms: int, packed: bytes, data: Body) -> None:
        self.modified_ms = modified_ms
        self.data = data
        self._packed = packed
        self._metadata: Metadata | None = None

    @property
    def metadata(self) -> Metadata:
        """Raises CorruptObject when it is none."""
        if self._metadata is None:
            self._metadata = decode_metadata(self._packed)
        return self._metadata


def when(if_match: str | None, if_none_match: str | None) -> When:
    """The precondition of the two arguments that every write takes.

    Raises:
        InvalidKey: never; ValueError for a combination that no store can mean.
    """
    if if_none_match is not None:
        if if_none_match != "*" or if_match is not None:
            raise ValueError('a write takes if_none_match="*" or if_match=ETAG, not both')
        return IF_ABSENT
    if if_match is None:
        return ALWAYS
    return When(Condition.IF_PRESENT) if if_match == "*" else When(Condition.IF_ETAG, if_match)


def key_bytes(key: str) -> bytes:
    """A key as it is stored.

    Raises:
        InvalidKey: empty, above KEY_BYTES_MAX, with a NUL, or not encodable as UTF-8.
    """
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise InvalidKey("a key must be encodable as UTF-8") from None
    if not 0 < len(encoded) <= KEY_BYTES_MAX:
        raise InvalidKey(f"a key has 1 to {KEY_BYTES_MAX} bytes of UTF-8, got {len(encoded)}")
    if b"\0" in encoded:
        raise InvalidKey("a key cannot hold a NUL character")
    return encoded


def iid_of_record(place: Place, key: bytes, plane: int = PLANE) -> int:
    """The IID of a record."""
    return iid_of(expected_position(place.bucket, place.shards, key), plane)


def iid_of_shard(place: Place, shard: int) -> int:
    """An IID of a shard; its tail is all ones but for a bit, which nothing reserves."""
    return iid_of(shard_locator(place.bucket, shard) << TAIL_BITS | 0x7FFFFFFF, PLANE)


def iid_of_slice(group: int) -> int:
    """An IID of a group's slice, for requests that are for all of it."""
    return slice_of(PLANE, group).first | 0x7FFFFFFF


class Registers:
    """Reads and writes of records. One call each, at the computed address."""

    def __init__(self, caller: Caller, randomness: Randomness) -> None:
        self._caller = caller
        self._randomness = randomness

    async def get(self, place: Place, kind: Kind, key: bytes, *, head_only: bool = False) -> Found:
        """Raises ObjectNotFound."""
        iid = iid_of_record(place, key)
        message = Get(iid, int(kind), place.bucket, place.shards, key, head_only)
        header, body = await self._caller.call(message, iid)
        if len(header) != 4 or type(header[2]) is not int:
            raise BadFrame("a reply to Get has other fields")
        return Found(header[2], header[3], body)

    async def put(
        self,
        place: Place,
        kind: Kind,
        key: bytes,
        metadata: Metadata,
        data: Body = b"",
        *,
        condition: When = ALWAYS,
        op_id: bytes | None = None,
    ) -> int:
        """Write a record; the time it was given, in ms since the epoch.

        Raises PreconditionFailed, ObjectNotFound (if_match on nothing), BucketNotFound, StoreFull,
        OutcomeUnknown.
        """
        iid = iid_of_record(place, key)
        message = Put(
            iid,
            int(kind),
            place.bucket,
            place.shards,
            key,
            op_id or self._randomness.bytes(OP_ID_BYTES),
            int(condition.condition),
            condition.etag,
            metadata.encode(),
        )
        header, _ = await self._caller.call(message, iid, data)
        modified_ms: int = header[2]
        return modified_ms

    async def delete(self, place: Place, kind: Kind, key: bytes, *, condition: When = ALWAYS) -> bool:
        """Delete a record; whether there was one. Raises as ``put``."""
        iid = iid_of_record(place, key)
        op_id = self._randomness.bytes(OP_ID_BYTES)
        message = Delete(
            iid,
            int(kind),
            place.bucket,
            place.shards,
            key,
            op_id,
            int(condition.condition),
            condition.etag,
        )
        header, _ = await self._caller.call(message, iid)
        return bool(header[2])

    async def page(
        self,
        place: Place,
        kind: Kind,
        shard: int,
        *,
        prefix: bytes = b"",
        after: bytes = b"",
        delimiter: bytes = b"",
        limit: int,
    ) -> Page:
        """One page of a shard of an indexed bucket (``core.listing``)."""
        iid = iid_of_shard(place, shard)
        message = Scan(
            iid, int(kind), place.bucket, place.shards, shard, prefix, after, delimiter, max(1, limit)
        )
        header, body = await self._caller.call(message, iid)
        rows = msgpack.unpackb(body, max_ext_len=0, max_map_len=0)
        return Page(rows, bool(header[2]), header[3])

    async def slice_holds(self, place: Place, kind: Kind, group: int) -> bool:
        """Whether a group holds any live record of a hashed bucket."""
        iid = iid_of_slice(group)
        message = Scan(iid, int(kind), place.bucket, 0, 0, b"", b"", b"", 1)
        header, _ = await self._caller.call(message, iid)
        return bool(header[2])

    async def shut(self, place: Place, part: int, attempt: int, *, shut: bool) -> None:
        """Refuse (or take again) writes in one shard, or in one group of a hashed bucket.

        Raises PreconditionFailed when a later deletion, with a higher ``attempt``, was there before.
        """
        iid = iid_of_shard(place, part) if place.shards else iid_of_slice(part)
        shard = part if place.shards else 0
        await self._caller.call(Shut(iid, place.bucket, place.shards, shard, attempt, shut), iid)
