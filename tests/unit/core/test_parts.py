"""The list of an object's parts: small where parts are alike, and found wherever it lies."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.content import Blobs, fold_segments
from ssastore.core.metadata import Metadata, Segment, SegmentKind, decode_metadata
from ssastore.core.parts import (
    IN_METADATA_BYTES_MAX,
    PartOf,
    decode_parts,
    encode_parts,
    keep_parts,
    parts_of,
)
from ssastore.errors import CorruptObject
from ssastore.limits import PARTS_MAX, SEGMENTS_MAX
from tests.direct import DirectCaller

NAME = b"name of the record"


def some(count: int, *, width: int = 0, size: int = 5, last: int = 3) -> list[PartOf]:
    draw = Random(count)
    sizes = [size] * (count - 1) + [last]
    return [PartOf(number, sizes[number - 1], draw.randbytes(width)) for number in range(1, count + 1)]


@given(
    st.lists(st.tuples(st.integers(1, PARTS_MAX), st.sampled_from([0, 5, 7])), min_size=1, max_size=40),
    st.sampled_from([0, 4, 32]),
)
def test_parts_come_back(rows: list[tuple[int, int]], width: int) -> None:
    parts = [
        PartOf(number, size, bytes([number % 256]) * width) for number, size in sorted(dict(rows).items())
    ]
    assert decode_parts(encode_parts(parts)) == parts


def test_parts_of_one_size_are_small_however_many() -> None:
    assert len(encode_parts(some(PARTS_MAX))) < 32


@pytest.mark.parametrize("width", [0, 4, 32])
@pytest.mark.parametrize("count", [1, 3, PARTS_MAX])
async def test_list_lies_with_the_metadata_or_in_a_blob(count: int, width: int) -> None:
    blobs, parts = Blobs(DirectCaller()), some(count, width=width)
    extra, segments = await keep_parts(blobs, parts, NAME)
    assert len(segments) == (len(encode_parts(parts)) > IN_METADATA_BYTES_MAX)
    stored = decode_metadata(Metadata("e", 0, segments, extra=extra).encode())
    assert await parts_of(blobs, stored) == parts and stored.extra["parts"] == count


async def test_list_has_room_beside_as_many_segments_as_a_record_names() -> None:
    blobs = Blobs(DirectCaller())
    data = [Segment(SegmentKind.DATA, bytes([at]) * 32, 1) for at in range(SEGMENTS_MAX)]
    extra, listed = await keep_parts(blobs, some(100, width=32), NAME)
    segments = listed + await fold_segments(blobs, data, NAME, others=len(listed))
    assert Metadata("e", SEGMENTS_MAX, segments, extra=extra).encode()
    assert len(await fold_segments(blobs, data, NAME)) == SEGMENTS_MAX, "without a list there is room for all"


async def test_object_that_was_not_made_of_parts_has_none() -> None:
    assert await parts_of(Blobs(DirectCaller()), Metadata("e", 5)) == []


async def test_list_that_is_lost_is_no_empty_list() -> None:
    blobs = Blobs(DirectCaller())
    for segments in ([], [Segment(SegmentKind.PARTS, b"x" * 32, 0)]):
        with pytest.raises(CorruptObject):
            await parts_of(blobs, Metadata("e", 5, segments, extra={"parts": 2}))


@pytest.mark.parametrize(
    "shape",
    [
        [],
        [[], b""],
        [[[1, 2]], b""],
        [[[1, 2, 3]], b"x"],
        [[[1, PARTS_MAX + 1, 3]], b""],
        [[["a", 1, 3]], b""],
        [5, b""],
        "text",
    ],
    ids=str,
)
def test_what_is_no_list_of_parts(shape: Any) -> None:
    with pytest.raises(CorruptObject):
        decode_parts(msgpack.packb(shape))
