from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.records import (
    LIVE,
    TOMBSTONE,
    TOMBSTONES_END,
    TOMBSTONES_FIRST,
    Record,
    blob_key,
    decode_record,
    record_key,
    reference_key,
    shut_key,
    split_live,
    tombstone_key,
)
from ssastore.errors import CorruptObject
from ssastore.limits import RECENT_OPS_MAX, RECENT_OPS_MS, STORED_KEY_BYTES_MAX
from ssastore.messages import Kind

DIGEST = bytes(range(32))
recents = st.lists(
    st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 2**63), st.integers(0, 2**63)),
    max_size=RECENT_OPS_MAX,
)


def stored(record: Record) -> bytes:
    return b"".join(bytes(part) for part in record.encode())


@given(
    state=st.sampled_from([LIVE, TOMBSTONE]),
    modified_ms=st.integers(0, 2**64 - 1),
    metadata=st.binary(max_size=300),
    data=st.binary(max_size=300),
    recent=recents,
)
def test_round_trip(
    state: int, modified_ms: int, metadata: bytes, data: bytes, recent: list[tuple[bytes, int, int]]
) -> None:
    value = stored(Record(state, modified_ms, metadata, data, recent))
    found = decode_record(value)
    assert (found.state, found.modified_ms, found.recent) == (state, modified_ms, recent)
    assert (bytes(found.metadata), bytes(found.data)) == (metadata, data)
    short = split_live(value)
    assert short == ((modified_ms, metadata, data) if state == LIVE else None)


def test_golden_value() -> None:
    record = Record(LIVE, 0x0102, b"meta", b"data", [(b"o" * 16, 3, 4)])
    assert stored(record).hex() == (
        "01010100" + "00000004" + "0000000000000102" + "6f" * 16 + "00" * 7 + "03" + "00" * 7 + "04"
    ) + (b"metadata".hex())


@given(st.binary(max_size=80))
def test_damaged_value_is_corrupt_or_a_record(value: bytes) -> None:
    for decode in (decode_record, split_live):
        try:
            decode(value)
        except CorruptObject:
            pass


@pytest.mark.parametrize("decode", [decode_record, split_live])
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x01\x01",
        b"\x02" + bytes(15),
        b"\x01\x01\xff" + bytes(13),
        b"\x01\x01\0\0\0\0\0\x01" + bytes(8),
    ],
    ids=["empty", "cut in its head", "another version", "cut in its operations", "cut in its metadata"],
)
def test_what_is_no_record_is_corrupt(decode: object, value: bytes) -> None:
    with pytest.raises(CorruptObject):
        decode(value)  # type: ignore[operator]


# -- recent operations ------------------------------------------------------------------------------


def op(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_last_operations_are_remembered() -> None:
    record = Record(LIVE, 0)
    for number in range(100):
        record.modified_ms = 1000 + number
        record.remember(op(number), 1000 + number)
    assert [entry[0] for entry in record.recent] == [op(number) for number in range(36, 100)]
    assert record.recent[-1] == (op(99), 1099, 1099)
    assert len(decode_record(stored(record)).recent) == RECENT_OPS_MAX


def test_old_operations_are_forgotten() -> None:
    record = Record(LIVE, 5)
    record.remember(op(1), 0)
    record.remember(op(2), RECENT_OPS_MS - 1)
    assert len(record.recent) == 2
    record.remember(op(3), RECENT_OPS_MS)
    assert [entry[0] for entry in record.recent] == [op(2), op(3)]


def test_operations_are_kept_when_the_clock_steps_back() -> None:
    record = Record(LIVE, 5)
    record.remember(op(1), 10 * RECENT_OPS_MS)
    record.remember(op(2), 0)
    assert len(record.recent) == 2


# -- keys -------------------------------------------------------------------------------------------


def test_golden_keys() -> None:
    assert record_key(0x05280001, Kind.OBJECT, 0x1122334455667788, b"cat").hex() == (
        "05280001" + "10" + "1122334455667788" + "636174"
    )
    assert shut_key(0x05280001, 0x1122334455667788).hex() == "05280001" + "08" + "1122334455667788"
    assert blob_key(0x05280001, DIGEST).hex() == "05280001" + "40" + DIGEST.hex()
    assert reference_key(1, DIGEST, b"r")[:37].hex() == "00000001" + "41" + DIGEST.hex()
    assert len(reference_key(1, DIGEST, b"r" * 1200)) == 53


@given(keys=st.lists(st.binary(min_size=1, max_size=8), min_size=2, max_size=8))
def test_keys_of_a_bucket_keep_their_order_and_stand_together(keys: list[bytes]) -> None:
    mine = [record_key(7, Kind.OBJECT, 5, key) for key in sorted(keys)]
    assert mine == sorted(mine)
    for stranger in (
        record_key(7, Kind.OBJECT, 4, b"\xff"),
        record_key(7, Kind.OBJECT, 6, b"\0"),
        record_key(7, Kind.UPLOAD, 5, b"\0"),
        record_key(6, Kind.OBJECT, 5, b"\xff"),
        shut_key(7, 5),
    ):
        assert not mine[0] <= stranger <= mine[-1]


def test_bookkeeping_is_apart_from_all_planes_of_data() -> None:
    """No locator of a data plane, 0 to 14, reaches the queue of tombstones."""
    highest = record_key(0xEFFFFFFF, 0xFF, 2**64 - 1, b"\xff" * 1024)
    assert (
        highest < TOMBSTONES_FIRST < tombstone_key(0, b"k") < tombstone_key(2**64 - 1, b"k") < TOMBSTONES_END
    )
    assert len(tombstone_key(1, b"k" * STORED_KEY_BYTES_MAX)) <= STORED_KEY_BYTES_MAX


def test_queue_of_tombstones_is_in_order_of_time() -> None:
    keys = [tombstone_key(at_ms, b"key %d" % at_ms) for at_ms in range(0, 1 << 40, 1 << 37)]
    assert keys == sorted(keys)
    assert tombstone_key(1, b"a") != tombstone_key(1, b"b")
