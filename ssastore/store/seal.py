"""The seal: eight bytes before every stored value that bind it to its key.

LMDB does not notice a flipped bit, a page of another time, or a page of another record.  So the seal is
the XXH3-64 of the value, seeded with the XXH3-64 of the whole key, big-endian.  It is checked on every
read and guards against accident, not against an attacker who can write to the disk.

Seeding keeps key and value apart without copying them together: a blob of 4 MiB is hashed where it lies.
"""

from __future__ import annotations

from xxhash import xxh3_64_digest, xxh3_64_intdigest

from ssastore.errors import CorruptObject, InvalidKey, ObjectTooLarge
from ssastore.limits import STORED_KEY_BYTES_MAX, STORED_VALUE_BYTES_MAX

SEAL_BYTES = 8
"Length of an XXH3-64 digest."

_SEALED_BYTES_MAX = SEAL_BYTES + STORED_VALUE_BYTES_MAX

_SHOWN_KEY_BYTES = 64
"Bytes of a key that a message repeats: enough for locator, kind, bucket and the start of the name."


def seal(key: bytes, parts: tuple[bytes | memoryview, ...]) -> bytes:
    """The bytes to store under ``key`` for the concatenation of ``parts``.

    Raises:
        InvalidKey: ``key`` is empty or longer than a store takes.
        ObjectTooLarge: the value is longer than a store takes.
    """
    check_key(key)
    # Joined first, a small record is hashed in one call, in two thirds of the time of a hasher that is fed
    # part by part. A blob is one part and is not copied for it.
    value = parts[0] if len(parts) == 1 else b"".join(parts)
    sealed = xxh3_64_digest(value, xxh3_64_intdigest(key)) + value
    if len(sealed) > _SEALED_BYTES_MAX:
        raise ObjectTooLarge(
            f"a stored value has at most {STORED_VALUE_BYTES_MAX} bytes, got {len(sealed) - SEAL_BYTES}"
        )
    return sealed


def unseal(key: bytes, sealed: memoryview) -> memoryview:
    """The value inside ``sealed``, verified; a view, not a copy.

    Raises:
        CorruptObject: the bytes are not those that were sealed under ``key``.
    """
    value = sealed[SEAL_BYTES:]
    if xxh3_64_digest(value, xxh3_64_intdigest(key)) != sealed[:SEAL_BYTES]:
        raise CorruptObject(f"the stored record of key {shown(key)} fails its checksum", key)
    return value


def check_key(key: bytes) -> None:
    """Raises InvalidKey for a key that no store takes."""
    if not 0 < len(key) <= STORED_KEY_BYTES_MAX:
        raise InvalidKey(f"a stored key has 1 to {STORED_KEY_BYTES_MAX} bytes, got {len(key)}")


def shown(key: bytes) -> str:
    """``key`` in hex for a message, of bounded length."""
    if len(key) <= _SHOWN_KEY_BYTES:
        return key.hex()
    return f"{key[:_SHOWN_KEY_BYTES].hex()}... ({len(key)} bytes)"
