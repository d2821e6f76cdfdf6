"""Where a record is in the store. Pure.

Stored key:  locator u32 | kind u8 | then
    OBJECT, VERSION, UPLOAD, PART   bucket id u64 | key
    SHUT                            bucket id u64
    BLOB                            digest, 32 bytes
    REF                             digest, 32 bytes | BLAKE3-128 of the reference

The locator comes first, so a slice is one contiguous range; then kind and bucket,
so a shard of a bucket is one range in key order.

The value of OBJECT, VERSION, UPLOAD and PART is a slot (``core.register``).

Plane f holds no data, so its last locator is free for bookkeeping of the environment:
    ffffffff 01  environment       id u32 | boot u32 | mark u64 (``core.boot``)
    ffffffff 02  tombstones        time u64 | BLAKE3-128 of the stored key -> stored key
    ffffffff 03  slice u16         standing: epoch u64 | cfg u64 (``core.standing``); of a part of a slice
                                   first locator u32 | depth u8
    ffffffff 04  environment u32   mark of another environment: boot u32 | sequence u64 (``core.marks``)
    ffffffff 05  slice             running total of a slice that is handed over (``core.totals``); the rest of
                                   the key as for a standing
    ffffffff 10  slice u16         floor: a ballot (``core.floors``)
    ffffffff 11                    ceiling: counter u64 (``core.ceiling``)
"""

from __future__ import annotations

import struct

from blake3 import blake3

from ssastore.core.numbers import WHOLE_SLICES, locators_of_slice, number_of_slice, numbered_slice
from ssastore.keyspace import SLICE_DEPTH_MAX, SLICE_DEPTH_MIN, TAIL_BITS, Slice, locator_of
from ssastore.limits import STORED_KEY_BYTES_MAX
from ssastore.messages import Kind

_SHUT = int(Kind.SHUT)
_PLACE = struct.Struct(">IB")
_NAME = struct.Struct(">QH")
_PLACE_BUCKET = struct.Struct(">IBQ")
_WHOLE_BYTES = 2
_PART_BYTES = 5

TOMBSTONES_FIRST = b"\xff\xff\xff\xff\x02"
TOMBSTONES_END = b"\xff\xff\xff\xff\x03"
"Queue of tombstones by time."

STANDINGS_FIRST = b"\xff\xff\xff\xff\x03"
STANDINGS_END = b"\xff\xff\xff\xff\x04"

MARKS_FIRST = b"\xff\xff\xff\xff\x04"
MARKS_END = b"\xff\xff\xff\xff\x05"

TOTALS_FIRST = b"\xff\xff\xff\xff\x05"
TOTALS_END = b"\xff\xff\xff\xff\x06"


FLOORS_FIRST = b"\xff\xff\xff\xff\x10"
"Floors (``core.floors``), each followed by its slice's 16-bit number."

CEILING_KEY = b"\xff\xff\xff\xff\x11"
"The ceiling (``core.ceiling``)."

PLACE_BYTES = _PLACE.size
"Locator and kind, which open every key but those of bookkeeping."

BOOKKEEPING_FIRST = b"\xff\xff\xff\xff"
"All keys from here on are bookkeeping."


def slice_range(number: int) -> tuple[bytes, bytes]:
    """First stored key that a numbered slice can have, and the first after it: keys begin with locators."""
    if number < WHOLE_SLICES:
        return number.to_bytes(2, "big"), (number + 1).to_bytes(2, "big")
    first, end = locators_of_slice(number)
    return first.to_bytes(4, "big"), end.to_bytes(4, "big")


def standing_key(number: int) -> bytes:
    """Stored key of how far a slice's data here has come."""
    return STANDINGS_FIRST + _slice_bytes(number)


def total_key(number: int) -> bytes:
    """Stored key of the running total of a slice."""
    return TOTALS_FIRST + _slice_bytes(number)


def _slice_bytes(number: int) -> bytes:
    if number < WHOLE_SLICES:
        return number.to_bytes(2, "big")
    piece = numbered_slice(number)
    return locator_of(piece.first).to_bytes(4, "big") + bytes([piece.depth])


def slice_of_standing(key: bytes) -> int:
    """Inverse of ``standing_key``; -1 when it is of no slice."""
    rest = key[len(STANDINGS_FIRST) :]
    if len(rest) == _WHOLE_BYTES:
        return int.from_bytes(rest, "big")
    depth = rest[-1] if len(rest) == _PART_BYTES else 0
    if not SLICE_DEPTH_MIN < depth <= SLICE_DEPTH_MAX:
        return -1
    return number_of_slice(Slice(int.from_bytes(rest[:4], "big") << TAIL_BITS, depth))


def mark_key(env_id: int) -> bytes:
    """Stored key of what another environment told of itself."""
    return MARKS_FIRST + env_id.to_bytes(4, "big")


def record_key(locator: int, kind: int, bucket: int, key: bytes) -> bytes:
    """Stored key of an object, upload or part."""
    return _PLACE_BUCKET.pack(locator, kind, bucket) + key


def shut_key(locator: int, bucket: int) -> bytes:
    """Stored key of the mark that a bucket takes no writes in this locator."""
    return _PLACE_BUCKET.pack(locator, _SHUT, bucket)


def shut_range(locator: int) -> tuple[bytes, bytes]:
    """First stored key of such marks in a locator, and the first after them."""
    return _PLACE.pack(locator, _SHUT), _PLACE.pack(locator, _SHUT + 1)


def blob_key(locator: int, digest: bytes) -> bytes:
    """Stored key of a blob."""
    return _PLACE.pack(locator, Kind.BLOB) + digest


def blob_of(stored_key: bytes) -> bytes:
    """The stored key of the blob that a blob's or a reference's key is about."""
    return stored_key[:4] + bytes([Kind.BLOB]) + stored_key[5:37]


def reference_key(locator: int, digest: bytes, reference: bytes) -> bytes:
    """Stored key of one reference to a blob; the value holds time and reference in full."""
    return _PLACE.pack(locator, Kind.REF) + digest + blake3(reference).digest(length=16)


def reference_name(bucket: int, shards: int, key: bytes) -> bytes:
    """What a reference says: the record that a blob is stored for, so that its address can be computed.

    ``key`` is an object's, or an object's key, NUL and upload id for the parts of an upload, or its key,
    NUL and name for a version that was kept.
    """
    return _NAME.pack(bucket, shards) + key


def split_reference_name(name: bytes) -> tuple[int, int, bytes]:
    """Inverse of ``reference_name``. Raises ValueError: it is the name of no record."""
    if len(name) <= _NAME.size:
        raise ValueError("a reference names no record")
    bucket, shards = _NAME.unpack_from(name)
    return bucket, shards, name[_NAME.size :]


def references_range(locator: int, digest: bytes) -> tuple[bytes, bytes]:
    """First stored key of the references to a blob, and the first after them."""
    first = _PLACE.pack(locator, Kind.REF) + digest
    return first, first + b"\xff" * 17


def tombstone_key(at_ms: int, stored_key: bytes) -> bytes:
    """Key in the queue of tombstones; its value is the tombstone's own stored key."""
    return TOMBSTONES_FIRST + at_ms.to_bytes(8, "big") + blake3(stored_key).digest(length=16)


def floor_key(slice16: int) -> bytes:
    """Stored key of a slice's floor."""
    return FLOORS_FIRST + slice16.to_bytes(2, "big")


def floor_key_for(stored_key: bytes) -> bytes:
    """Stored key of the floor of the slice that a stored key is in."""
    return FLOORS_FIRST + stored_key[:_WHOLE_BYTES]


def split_place(stored_key: bytes) -> tuple[int, int, bytes]:
    """(locator, kind, rest) of a stored key. Raises ValueError: it has none."""
    if len(stored_key) < PLACE_BYTES:
        raise ValueError("a stored key is too short")
    locator, kind = _PLACE.unpack_from(stored_key)
    return locator, kind, stored_key[PLACE_BYTES:]


def just_below(stored_key: bytes) -> bytes:
    """The greatest stored key below another one, which is not empty: between the two there is none."""
    rest, last = stored_key[:-1], stored_key[-1]
    return rest if last == 0 else (rest + bytes([last - 1])).ljust(STORED_KEY_BYTES_MAX, b"\xff")


def in_plane(stored_key: bytes, plane: int) -> bytes:
    """The stored key of the same name in another plane: its first digit is another."""
    return bytes([plane << 4 | stored_key[0] & 0x0F]) + stored_key[1:]
