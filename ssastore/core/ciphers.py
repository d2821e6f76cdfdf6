"""Where the pieces of an encrypted object lie, and what whoever has its key does with them. Pure.

A piece is what is encrypted at once: the bytes of one blob, or of a small object that lies with its record.
That makes it ``CIPHER_BYTES`` longer; sizes and offsets everywhere else are those of the plain bytes.  Pieces
are cut anew at the beginning of each part, so that a part can be stored before anybody knows where in the
object it will be.  How a piece is encrypted is for the front end that has the keys
(docs/adr/0024-encryption-at-rest.md); the core has none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from ssastore.errors import CorruptObject
from ssastore.limits import CHUNK_BYTES, INLINE_BYTES_MAX
from ssastore.wire import Body

ENCRYPTION = "encryption"
"Key in the ``extra`` of records of encrypted objects and of uploads of such."
CIPHER_BYTES = 12 + 16
"Nonce before the bytes, tag after them."
PIECE_BYTES = CHUNK_BYTES - CIPHER_BYTES
"Plain bytes of every piece of a part but the last: encrypted, it is one blob."

assert CIPHER_BYTES < INLINE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Piece:
    """Which piece of an object: it opens only where it was encrypted for."""

    part: int
    "Number of the part that it belongs to; 0 in an object that was not uploaded in parts."
    index: int
    "From 0, within the part."


class Cipher(Protocol):
    """Encrypts and decrypts the pieces of one object."""

    def encrypt(self, piece: Piece, plain: Body) -> bytes:
        """``CIPHER_BYTES`` more than came; never twice the same."""
        ...

    def decrypt(self, piece: Piece, encrypted: Body) -> bytes:
        """The plain bytes. Raises CorruptObject for what was not encrypted with this key as this piece."""
        ...


class Pieces:
    """The pieces of an object, found by where they begin."""

    def __init__(self, parts: Sequence[tuple[int, int]]) -> None:
        """``parts``: (number, bytes) in order; none for an object that was not uploaded in parts."""
        self._numbers = [number for number, _ in parts] or [0]
        self._starts = [0, *accumulate(size for _, size in parts)][: len(self._numbers)]

    def at(self, offset: int) -> Piece:
        """The piece that begins at byte ``offset``. Raises CorruptObject when none does."""
        which = bisect_right(self._starts, offset) - 1
        index, rest = divmod(offset - self._starts[which], PIECE_BYTES)
        if rest:
            raise CorruptObject("a blob of an encrypted object begins inside a piece")
        return Piece(self._numbers[which], index)
