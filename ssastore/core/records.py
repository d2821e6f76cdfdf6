"""What a record looks like in the store, and where. Pure.

Stored key:  locator u32 | kind u8 | then
    OBJECT, UPLOAD, PART   bucket id u64 | key
    SHUT                   bucket id u64
    BLOB                   digest, 32 bytes
    REF                    digest, 32 bytes | BLAKE3-128 of the reference

The locator comes first, so a slice is one contiguous range; then kind and bucket,
so a shard of a bucket is one range in key order.

Stored value of OBJECT, UPLOAD and PART:
    version u8 = 1 | state u8 | recent count u8 | 0 u8 | metadata length u32 | modified_ms u64
    recent operations: (op id 16 bytes | at_ms u64 | modified_ms u64) each
    metadata (msgpack, ``core.content.Metadata``) | inline data

State is LIVE or TOMBSTONE.  A record remembers recent operations so that a call
that is repeated, because its answer was lost, gets the first result again
instead of being applied a second time over a later write.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from blake3 import blake3

from ssastore.errors import CorruptObject
from ssastore.limits import RECENT_OPS_MAX, RECENT_OPS_MS
from ssastore.messages import Kind

LIVE = 1
TOMBSTONE = 2

_VERSION = 1
_HEAD = struct.Struct(">BBBxIQ")
_RECENT = struct.Struct(">16sQQ")
_PLACE = struct.Struct(">IB")
_PLACE_BUCKET = struct.Struct(">IBQ")

TOMBSTONES_FIRST = b"\xff\xff\xff\xff\x02"
TOMBSTONES_END = b"\xff\xff\xff\xff\x03"
"Queue of tombstones by time. Plane f holds no data, so its last locator is free for bookkeeping."

Recent = tuple[bytes, int, int]


def record_key(locator: int, kind: int, bucket: int, key: bytes) -> bytes:
    """Stored key of an object, upload or part."""
    return _PLACE_BUCKET.pack(locator, kind, bucket) + key


def shut_key(locator: int, bucket: int) -> bytes:
    """Stored key of the mark that a bucket takes no writes in this locator."""
    return _PLACE_BUCKET.pack(locator, Kind.SHUT, bucket)


def blob_key(locator: int, digest: bytes) -> bytes:
    """Stored key of a blob."""
    return _PLACE.pack(locator, Kind.BLOB) + digest


def reference_key(locator: int, digest: bytes, reference: bytes) -> bytes:
    """Stored key of one reference to a blob; the value holds time and reference in full."""
    return _PLACE.pack(locator, Kind.REF) + digest + blake3(reference).digest(length=16)


def tombstone_key(at_ms: int, stored_key: bytes) -> bytes:
    """Key in the queue of tombstones; its value is the tombstone's own stored key."""
    return TOMBSTONES_FIRST + at_ms.to_bytes(8, "big") + blake3(stored_key).digest(length=16)


@dataclass(slots=True)
class Record:
    """A decoded register value. ``metadata`` and ``data`` are views into the store's page."""

    state: int
    modified_ms: int
    metadata: memoryview | bytes = b""
    data: memoryview | bytes = b""
    recent: list[Recent] = field(default_factory=list)

    @property
    def is_live(self) -> bool:
        return self.state == LIVE

    def remember(self, op_id: bytes, now_ms: int) -> None:
        """Add an operation that was applied, and forget those that no caller repeats any more."""
        kept = [entry for entry in self.recent if now_ms - entry[1] < RECENT_OPS_MS]
        self.recent = [*kept[-(RECENT_OPS_MAX - 1) :], (op_id, now_ms, self.modified_ms)]

    def encode(self) -> list[bytes | memoryview]:
        """The parts of the stored value, in order."""
        head = _HEAD.pack(_VERSION, self.state, len(self.recent), len(self.metadata), self.modified_ms)
        recent = b"".join([_RECENT.pack(*entry) for entry in self.recent])
        return [head + recent, self.metadata, self.data]


def decode_record(stored: memoryview | bytes) -> Record:
    """The record of a stored value, with views into it.

    Raises:
        CorruptObject: not a record of this version.
    """
    if len(stored) < _HEAD.size:
        raise CorruptObject("a stored record is shorter than its head")
    version, state, count, metadata_length, modified_ms = _HEAD.unpack_from(stored)
    start = _HEAD.size + count * _RECENT.size
    if version != _VERSION or start + metadata_length > len(stored):
        raise CorruptObject("a stored record has an unknown version or impossible lengths")
    view = memoryview(stored)
    recent = list(_RECENT.iter_unpack(view[_HEAD.size : start]))
    middle = start + metadata_length
    return Record(state, modified_ms, view[start:middle], view[middle:], recent)


def split_live(stored: memoryview | bytes) -> tuple[int, memoryview | bytes, memoryview | bytes] | None:
    """(modified_ms, metadata, inline data) of a live record, None for a tombstone.

    The short way of a plain read: recent operations are skipped, not decoded.
    """
    if len(stored) < _HEAD.size:
        raise CorruptObject("a stored record is shorter than its head")
    version, state, count, metadata_length, modified_ms = _HEAD.unpack_from(stored)
    start = _HEAD.size + count * _RECENT.size
    if version != _VERSION or start + metadata_length > len(stored):
        raise CorruptObject("a stored record has an unknown version or impossible lengths")
    if state != LIVE:
        return None
    return modified_ms, stored[start : start + metadata_length], stored[start + metadata_length :]
