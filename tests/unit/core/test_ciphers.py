"""Pieces of encrypted objects: found by offset, encrypted on the way out, opened on the way back."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssastore.core import ciphers, content
from ssastore.core.ciphers import CIPHER_BYTES, PIECE_BYTES, Piece, Pieces
from ssastore.core.content import Blobs, Budget, Content, ContentWriter, read_content
from ssastore.errors import CorruptObject
from ssastore.limits import CHUNK_BYTES
from ssastore.wire import Body
from tests.direct import DirectCaller

PIECE, INLINE = 100, 64


class Stamp:
    """Encrypts by writing before the bytes which piece they are, and opens nothing else."""

    def encrypt(self, piece: Piece, plain: Body) -> bytes:
        return f"{piece.part:10}/{piece.index:<17}".encode() + bytes(plain)

    def decrypt(self, piece: Piece, encrypted: Body) -> bytes:
        plain = bytes(encrypted)[CIPHER_BYTES:]
        if self.encrypt(piece, plain) != bytes(encrypted):
            raise CorruptObject("another piece")
        return plain


@pytest.fixture(autouse=True)
def small_pieces() -> Iterator[None]:
    with patch.object(content, "PIECE_BYTES", PIECE), patch.object(ciphers, "PIECE_BYTES", PIECE):
        yield


def test_an_encrypted_piece_is_a_blob() -> None:
    assert PIECE_BYTES + CIPHER_BYTES == CHUNK_BYTES
    assert len(Stamp().encrypt(Piece(10_000, 10**9), b"")) == CIPHER_BYTES


@pytest.mark.parametrize(
    ("parts", "offset", "piece"),
    [
        ([], 0, Piece(0, 0)),
        ([], 3 * PIECE, Piece(0, 3)),
        ([(1, 250), (2, 250)], 200, Piece(1, 2)),
        ([(1, 250), (2, 250)], 250, Piece(2, 0)),
        ([(1, 250), (7, 250)], 350, Piece(7, 1)),
        ([(3, 100), (4, 100), (9, 0)], 100, Piece(4, 0)),
    ],
)
def test_pieces_are_counted_anew_in_each_part(
    parts: list[tuple[int, int]], offset: int, piece: Piece
) -> None:
    assert Pieces(parts).at(offset) == piece


@pytest.mark.parametrize(("parts", "offset"), [([], 1), ([], PIECE - 1), ([(1, 250), (2, 250)], 300)])
def test_a_blob_that_begins_inside_a_piece_is_corrupt(parts: list[tuple[int, int]], offset: int) -> None:
    with pytest.raises(CorruptObject):
        Pieces(parts).at(offset)


async def write(caller: DirectCaller, data: bytes, part: int, cut: int) -> Content:
    writer = ContentWriter(
        Blobs(caller), b"r", Budget(4), inline_bytes_max=INLINE if not part else 0, cipher=Stamp(), part=part
    )
    for at in range(0, len(data), cut):
        await writer.write(data[at : at + cut])
    return await writer.finish()


async def read(
    caller: DirectCaller, stored: list[Content], numbers: list[int], start: int, end: int
) -> bytes:
    pieces = Pieces([(number, one.size) for number, one in zip(numbers, stored, strict=True) if number])
    segments = [segment for one in stored for segment in one.segments]

    def opened(offset: int, encrypted: Body) -> Body:
        return Stamp().decrypt(pieces.at(offset), encrypted)

    found = read_content(Blobs(caller), segments, start, end, Budget(4), opened)
    return b"".join([bytes(chunk) async for chunk in found])


@given(
    sizes=st.lists(st.integers(1, 5 * PIECE), min_size=1, max_size=5),
    is_whole=st.booleans(),
    cut=st.integers(1, 3 * PIECE),
    span=st.tuples(st.integers(0, 25 * PIECE), st.integers(0, 25 * PIECE)),
)
@settings(max_examples=60, deadline=None)
async def test_any_range_over_any_parts_comes_back(
    sizes: list[int], is_whole: bool, cut: int, span: tuple[int, int]
) -> None:
    """Also from manifests: they are folded after every third segment."""
    with patch.object(content, "_MANIFEST_SEGMENTS", 3), patch.object(content, "SEGMENTS_MAX", 4):
        caller = DirectCaller()
        numbers = [0] if is_whole else list(range(2, 2 * len(sizes) + 2, 2))
        sizes = [max(sum(sizes), INLINE)] if is_whole else sizes
        parts = [Random(size).randbytes(size) for size in sizes]
        stored = [await write(caller, one, part, cut) for one, part in zip(parts, numbers, strict=True)]
        whole = b"".join(parts)
        start, end = sorted(min(at, len(whole)) for at in span)
        assert [one.size for one in stored] == sizes
        assert await read(caller, stored, numbers, start, end) == whole[start:end]


async def test_a_small_object_is_sealed_where_it_lies() -> None:
    caller = DirectCaller()
    stored = await write(caller, b"small", 0, 99)
    assert stored.size == 5 and stored.data == Stamp().encrypt(Piece(0, 0), b"small")
    most = await write(caller, bytes(INLINE - CIPHER_BYTES), 0, 99)
    assert len(most.data) == INLINE, "what lies with a record is no larger for being encrypted"
    assert (await write(caller, bytes(INLINE - CIPHER_BYTES + 1), 0, 99)).segments
    assert (await write(caller, b"", 0, 99)).data == b""
    assert caller.calls.count("PutBlob") == 1


async def test_blobs_that_changed_places_do_not_open() -> None:
    caller = DirectCaller()
    stored = await write(caller, Random(1).randbytes(3 * PIECE), 0, 99)
    stored.segments[0], stored.segments[1] = stored.segments[1], stored.segments[0]
    with pytest.raises(CorruptObject):
        await read(caller, [stored], [0], 0, stored.size)
