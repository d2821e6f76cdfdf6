"""Bytes of the log: one frame for each batch of changes. Pure.

    offset  size  meaning
    0       8     checksum: XXH3-64 of bytes 8 to 32 + length, seeded with the log's salt
    8       4     "SSAL"
    12      4     length of the records
    16      8     sequence number of the batch; one more than that of the batch before, for ever
    24      4     number of records
    28      4     zero
    32      ...   records: key length (2), value length (4, FFFFFFFF: deleted), key, sealed value
    ...           zeros up to a multiple of 4096

Numbers are big-endian.  A frame begins at a multiple of 4096, so writing one never touches a sector of
another.  Log files are used again without being cleared: what an old frame says is known to be old by its
sequence number, which the last checkpoint covers.  The salt is random and never leaves the data directory:
a value that looks like a frame, inside a frame, is none, for who stored it does not know the salt.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from ssastore.limits import LOG_BLOCK_BYTES, STORED_KEY_BYTES_MAX, STORED_VALUE_BYTES_MAX
from ssastore.store.seal import SEAL_BYTES

MAGIC = b"SSAL"

SALT_BYTES = 8

HEADER_BYTES = 32

DELETED = 0xFFFFFFFF
"Value length of a record that is deleted."

RECORD_BYTES = 6
"Of a record, beside its key and value."

_CHECKSUM = struct.Struct(">Q")
_HEADER = struct.Struct(">8x4sIQII")
_RECORD = struct.Struct(">HI")
_LOG_RECORD = struct.Struct(">Q8sQ")
_pack_record = _RECORD.pack

assert _HEADER.size == HEADER_BYTES and _RECORD.size == RECORD_BYTES
assert STORED_KEY_BYTES_MAX < 1 << 16 and STORED_VALUE_BYTES_MAX + SEAL_BYTES < DELETED


class Frame(NamedTuple):
    """One batch as it was read back."""

    sequence: int
    records: dict[bytes, bytes | None]
    "None: the key was deleted."
    size: int
    "Bytes in the file, padding included."


def padded(size: int) -> int:
    """``size`` rounded up to whole blocks."""
    return -(-size // LOG_BLOCK_BYTES) * LOG_BLOCK_BYTES


def encode_frame(sequence: int, records: Mapping[bytes, bytes | None], salt: bytes) -> bytearray:
    """The frame of a batch, padded."""
    parts: list[bytes] = [bytes(HEADER_BYTES)]
    for key, sealed in records.items():
        if sealed is None:
            parts += (_pack_record(len(key), DELETED), key)
        else:
            parts += (_pack_record(len(key), len(sealed)), key, sealed)
    frame = bytearray().join(parts)
    size = len(frame)
    frame += bytes(padded(size) - size)
    _HEADER.pack_into(frame, 0, MAGIC, size - HEADER_BYTES, sequence, len(records), 0)
    with memoryview(frame) as whole:
        checksum = xxh3_64_intdigest(whole[8:size], int.from_bytes(salt, "big"))
    _CHECKSUM.pack_into(frame, 0, checksum)
    return frame


def decode_frame(data: memoryview, at: int, salt: bytes, applied: int = 0) -> Frame | None:
    """The frame at offset ``at``; None if there is none that is whole and later than batch ``applied``."""
    if len(data) - at < HEADER_BYTES or data[at + 8 : at + 12] != MAGIC:
        return None
    _, length, sequence, count, zero = _HEADER.unpack_from(data, at)
    end = at + HEADER_BYTES + length
    if zero or end > len(data) or sequence <= applied:
        return None
    if (
        xxh3_64_intdigest(data[at + 8 : end], int.from_bytes(salt, "big"))
        != _CHECKSUM.unpack_from(data, at)[0]
    ):
        return None
    records = _decode_records(data[at + HEADER_BYTES : end], count)
    return None if records is None else Frame(sequence, records, padded(HEADER_BYTES + length))


def _decode_records(data: memoryview, count: int) -> dict[bytes, bytes | None] | None:
    """Records of a frame whose checksum is right; None where they do not fit the frame all the same."""
    records: dict[bytes, bytes | None] = {}
    at = 0
    for _ in range(count):
        if len(data) - at < RECORD_BYTES:
            return None
        key_length, value_length = _RECORD.unpack_from(data, at)
        at += RECORD_BYTES
        key = bytes(data[at : at + key_length])
        at += key_length
        if value_length == DELETED:
            records[key] = None
        else:
            records[key] = bytes(data[at : at + value_length])
            at += value_length
    return records if at == len(data) and len(records) == count else None


class LogRecord(NamedTuple):
    """What LMDB says of the log, in the record ``log`` of its database `long`."""

    applied: int
    "Sequence number of the last batch that is in LMDB; later ones are in the log alone."
    salt: bytes
    file_bytes: int
    "Size of each of the two files; 0 when there are none."

    def encode(self) -> bytes:
        """The record."""
        return _LOG_RECORD.pack(self.applied, self.salt, self.file_bytes)

    @classmethod
    def decode(cls, record: bytes) -> LogRecord:
        """Raises ValueError."""
        if len(record) != _LOG_RECORD.size:
            raise ValueError(f"{len(record)} bytes and not {_LOG_RECORD.size}")
        return cls(*_LOG_RECORD.unpack(record))
