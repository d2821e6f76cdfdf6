"""Frames of the log, against the worked example of docs/reference/store-format.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.limits import LOG_BLOCK_BYTES
from ssastore.store.logformat import HEADER_BYTES, LogRecord, decode_frame, encode_frame, padded
from ssastore.store.seal import seal

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "store-format.md"

SALT = bytes.fromhex("0123456789abcdef")

records = st.dictionaries(st.binary(min_size=1, max_size=40), st.none() | st.binary(max_size=300), max_size=8)


def test_worked_example_is_what_the_code_writes() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    frame = encode_frame(7, {b"cat": seal(b"cat", (b"hello",)), b"dog": None}, SALT)
    written = frame.rstrip(b"\0").hex()
    for line in (
        f"header {written[:64]}",
        f"put    {written[64 : 64 + 44]}",
        f"delete {written[64 + 44 :]}",
        f"log    {LogRecord(7, SALT, 16 << 20).encode().hex()}",
    ):
        assert line in document, line
    assert len(frame) == LOG_BLOCK_BYTES


@given(records, st.integers(1, (1 << 64) - 1), st.binary(min_size=8, max_size=8))
def test_frame_is_read_back(written: dict[bytes, bytes | None], sequence: int, salt: bytes) -> None:
    frame = encode_frame(sequence, written, salt)
    assert len(frame) == padded(len(frame)) >= HEADER_BYTES
    before = bytes(LOG_BLOCK_BYTES)
    found = decode_frame(memoryview(before + frame + before), LOG_BLOCK_BYTES, salt)
    assert found is not None
    assert (found.sequence, found.records, found.size) == (sequence, written, len(frame))
    assert decode_frame(memoryview(frame), 0, salt, sequence - 1) == found
    assert decode_frame(memoryview(frame), 0, salt, sequence) is None


@given(records, st.data())
def test_any_flipped_bit_makes_it_none(written: dict[bytes, bytes | None], data: st.DataObject) -> None:
    frame = encode_frame(3, written, SALT)
    used = len(frame.rstrip(b"\0"))
    bit = data.draw(st.integers(0, 8 * used - 1))
    frame[bit // 8] ^= 1 << bit % 8
    assert decode_frame(memoryview(frame), 0, SALT) is None


@given(records, st.integers(0, 4096))
def test_cut_frame_is_none(written: dict[bytes, bytes | None], kept: int) -> None:
    frame = encode_frame(3, written, SALT)
    used = HEADER_BYTES + int.from_bytes(frame[12:16], "big")
    found = decode_frame(memoryview(frame[: min(kept, used - 1)]), 0, SALT)
    assert found is None


def test_frame_of_another_store_is_none() -> None:
    """A value may look like a frame; who stored it does not know the salt."""
    frame = encode_frame(3, {b"a": b"sealed"}, SALT)
    assert decode_frame(memoryview(frame), 0, bytes(8)) is None


@given(st.binary(max_size=200))
def test_garbage_is_none(garbage: bytes) -> None:
    assert decode_frame(memoryview(garbage), 0, SALT) is None


def test_log_record_of_another_length_is_refused() -> None:
    record = LogRecord(1, SALT, 4096)
    assert LogRecord.decode(record.encode()) == record
    with pytest.raises(ValueError, match="25 bytes"):
        LogRecord.decode(record.encode() + b"x")
