"""AES-256-GCM: how pieces of objects are encrypted, and how their keys are kept. Pure.

    data key    256 random bits, one for each object or upload
    piece       nonce (12 random bytes), ciphertext, tag (16); the part's number and the piece's index are
                authenticated with it
    wrapped     salt (32 random bytes), then the data key, encrypted with a nonce of zeros under
                HMAC-SHA256(wrapping key, "ssastore wrap 1" salt), which is never used again; the
                object's name is authenticated with it

Nonces: NIST SP 800-38D allows 2^32 random ones for a key.  The largest object has 1.4 million pieces; its
10,000 parts would have to be uploaded a thousand times each.  What all of this is good for, and what it is
not: docs/adr/0024-encryption-at-rest.md.
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ssastore.core.ciphers import CIPHER_BYTES, Piece
from ssastore.env import Randomness
from ssastore.errors import CorruptObject
from ssastore.limits import CHUNK_BYTES, OBJECT_BYTES_MAX
from ssastore.wire import Body

KEY_BYTES = 32
_NONCE_BYTES = 12
_SALT_BYTES = 32
_WRAP = b"ssastore wrap 1"
_PIECE = b"ssastore piece 1"

assert CIPHER_BYTES == _NONCE_BYTES + 16
assert OBJECT_BYTES_MAX // (CHUNK_BYTES // 2) < 1 << 32, "an index has four bytes, and a key 2^32 nonces"


class DataCipher:
    """The cipher of one data key. Implements ``core.ciphers.Cipher``."""

    def __init__(self, key: bytes, randomness: Randomness) -> None:
        self._aead = AESGCM(key)
        self._randomness = randomness

    def encrypt(self, piece: Piece, plain: Body) -> bytes:
        """See ``core.ciphers.Cipher``."""
        nonce = self._randomness.bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, _name(piece))

    def decrypt(self, piece: Piece, encrypted: Body) -> bytes:
        """See ``core.ciphers.Cipher``."""
        view = memoryview(encrypted)
        if len(view) < CIPHER_BYTES:
            raise CorruptObject("an encrypted piece is cut short")
        try:
            return self._aead.decrypt(bytes(view[:_NONCE_BYTES]), view[_NONCE_BYTES:], _name(piece))
        except InvalidTag:
            raise CorruptObject(
                f"piece {piece.index} of part {piece.part} is not what was encrypted"
            ) from None


def _name(piece: Piece) -> bytes:
    return _PIECE + piece.part.to_bytes(2, "big") + piece.index.to_bytes(4, "big")


def wrap(key: bytes, data_key: bytes, name: bytes, randomness: Randomness) -> bytes:
    """A data key that only ``key``, of 32 bytes, gives back, and only for ``name``."""
    salt = randomness.bytes(_SALT_BYTES)
    return salt + _wrapping(key, salt).encrypt(bytes(_NONCE_BYTES), data_key, name)


def unwrap(key: bytes, wrapped: bytes, name: bytes) -> bytes | None:
    """The data key; None when it was wrapped by another key or for another name, or was changed."""
    try:
        salt, encrypted = wrapped[:_SALT_BYTES], wrapped[_SALT_BYTES:]
        return _wrapping(key, salt).decrypt(bytes(_NONCE_BYTES), encrypted, name)
    except InvalidTag:
        return None


def _wrapping(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(key, _WRAP + salt, "sha256"))
