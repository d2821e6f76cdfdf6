from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.metadata import (
    Metadata,
    Segment,
    decode_manifest,
    decode_metadata,
    encode_manifest,
    summary,
)
from ssastore.errors import CorruptObject, ObjectTooLarge
from ssastore.limits import (
    CHUNK_BYTES,
    FRAME_HEADER_BYTES_MAX,
    METADATA_BYTES_MAX,
    OBJECT_BYTES_MAX,
    SEGMENTS_MAX,
)

DIGEST = bytes(range(32))
names = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)
segments = st.builds(
    Segment,
    st.sampled_from([0, 1]),
    st.binary(min_size=32, max_size=32),
    st.integers(0, OBJECT_BYTES_MAX),
)


@given(
    st.builds(
        Metadata,
        st.text(max_size=40),
        st.integers(0, OBJECT_BYTES_MAX),
        st.lists(segments, max_size=SEGMENTS_MAX),
        names,
        names,
        st.dictionaries(st.text(max_size=8), st.integers(0, 99) | st.text(max_size=5), max_size=2),
    )
)
def test_round_trip(metadata: Metadata) -> None:
    packed = metadata.encode()
    assert decode_metadata(packed) == metadata
    assert decode_metadata(memoryview(packed)) == metadata
    assert summary(packed) == (metadata.etag, metadata.size)


def test_golden_bytes() -> None:
    metadata = Metadata("e", 5, [Segment(0, b"d" * 32, 5)], {"content-type": "t"}, {"n": "v"}, {"x": 1})
    assert metadata.encode().hex() == (
        "96" + "a165" + "05" + "9193" + "00" + "c420" + "64" * 32 + "05"
        "81" + "ac636f6e74656e742d74797065" + "a174" + "81" + "a16e" + "a176" + "81" + "a178" + "01"
    )  # fmt: skip


def test_largest_metadata_fits_a_header() -> None:
    full = [Segment(1, DIGEST, OBJECT_BYTES_MAX)] * SEGMENTS_MAX
    user = {"n": "v" * (METADATA_BYTES_MAX - 9)}
    packed = Metadata("e" * 64, OBJECT_BYTES_MAX, full, {}, user).encode()
    assert len(packed) + 1024 + 300 < FRAME_HEADER_BYTES_MAX


@pytest.mark.parametrize("place", ["headers", "user", "extra"])
def test_too_much_metadata_is_refused(place: str) -> None:
    metadata = Metadata("e", 1, **{place: {"n": "v" * METADATA_BYTES_MAX}})  # type: ignore[arg-type]
    with pytest.raises(ObjectTooLarge):
        metadata.encode()


def test_too_many_segments_are_refused() -> None:
    Metadata("e", 1, [Segment(0, DIGEST, 1)] * SEGMENTS_MAX).encode()
    with pytest.raises(ObjectTooLarge):
        Metadata("e", 1, [Segment(0, DIGEST, 1)] * (SEGMENTS_MAX + 1)).encode()


BAD: list[Any] = [
    1,
    {},
    [],
    ["e", 1],
    ["e", 1, [], {}, {}],
    ["e", 1, [], {}, {}, {}, 0],
    ["e", 1, 5, {}, {}, {}],
    ["e", 1, [[0, DIGEST]], {}, {}, {}],
    ["e", 1, [[2, DIGEST, 1]], {}, {}, {}],
    ["e", 1, [[0, DIGEST[1:], 1]], {}, {}, {}],
    ["e", 1, [[0, DIGEST, -1]], {}, {}, {}],
    ["e", 1, [[0, 7, 1]], {}, {}, {}],
    ["e", 1, [[0, DIGEST, "1"]], {}, {}, {}],
    ["e", 1, [None], {}, {}, {}],
]


@pytest.mark.parametrize("shape", BAD, ids=str)
def test_what_is_no_metadata_is_corrupt(shape: Any) -> None:
    with pytest.raises(CorruptObject):
        decode_metadata(msgpack.packb(shape))


@pytest.mark.parametrize(
    "shape", [1, {}, [], "text", ["e"], ["e", 1], [1, 1, 1, 1, 1, 1], ["e", "1", 1, 1, 1, 1]], ids=str
)
def test_summary_of_another_shape_is_corrupt(shape: Any) -> None:
    with pytest.raises(CorruptObject):
        summary(msgpack.packb(shape))


@given(st.binary(max_size=60))
def test_garbage_is_corrupt(packed: bytes) -> None:
    for decode in (decode_metadata, summary, decode_manifest):
        try:
            decode(packed)
        except CorruptObject:
            pass


@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x96", b"\x90\x90", b"\xd4\x05\x00"], ids=bytes.hex)
def test_what_is_no_msgpack_is_corrupt(packed: bytes) -> None:
    with pytest.raises(CorruptObject):
        decode_metadata(packed)


@given(st.lists(segments, max_size=80))
def test_manifest_round_trip(listed: list[Segment]) -> None:
    assert decode_manifest(encode_manifest(listed)) == listed


def test_largest_manifest_fits_a_blob() -> None:
    rows = [Segment(0, DIGEST, CHUNK_BYTES)] * 65_536
    assert len(encode_manifest(rows)) <= CHUNK_BYTES
    with pytest.raises(ObjectTooLarge):
        encode_manifest(rows * 2)
