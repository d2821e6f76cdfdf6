"""Where a record is in the store. Pure.

Stored key:  locator u32 | kind u8 | then
    OBJECT, UPLOAD, PART   bucket id u64 | key
    SHUT                   bucket id u64
    BLOB                   digest, 32 bytes
    REF                    digest, 32 bytes | BLAKE3-128 of the reference

The locator comes first, so a slice is one contiguous range; then kind and bucket,
so a shard of a bucket is one range in key order.

The value of OBJECT, UPLOAD and PART is a slot (``core.register``).
"""

from __future__ import annotations

import struct

from blake3 import blake3

from ssastore.messages import Kind

_SHUT = int(Kind.SHUT)
_PLACE = struct.Struct(">IB")
_PLACE_BUCKET = struct.Struct(">IBQ")

TOMBSTONES_FIRST = b"\xff\xff\xff\xff\x02"
TOMBSTONES_END = b"\xff\xff\xff\xff\x03"
"Queue of tombstones by time. Plane f holds no data, so its last locator is free for bookkeeping."


def record_key(locator: int, kind: int, bucket: int, key: bytes) -> bytes:
    """Stored key of an object, upload or part."""
    return _PLACE_BUCKET.pack(locator, kind, bucket) + key


def shut_key(locator: int, bucket: int) -> bytes:
    """Stored key of the mark that a bucket takes no writes in this locator."""
    return _PLACE_BUCKET.pack(locator, _SHUT, bucket)


def blob_key(locator: int, digest: bytes) -> bytes:
    """Stored key of a blob."""
    return _PLACE.pack(locator, Kind.BLOB) + digest


def reference_key(locator: int, digest: bytes, reference: bytes) -> bytes:
    """Stored key of one reference to a blob; the value holds time and reference in full."""
    return _PLACE.pack(locator, Kind.REF) + digest + blake3(reference).digest(length=16)


def tombstone_key(at_ms: int, stored_key: bytes) -> bytes:
    """Key in the queue of tombstones; its value is the tombstone's own stored key."""
    return TOMBSTONES_FIRST + at_ms.to_bytes(8, "big") + blake3(stored_key).digest(length=16)
