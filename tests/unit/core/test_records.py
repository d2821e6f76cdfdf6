from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.records import (
    TOMBSTONES_END,
    TOMBSTONES_FIRST,
    blob_key,
    just_below,
    record_key,
    reference_key,
    shut_key,
    tombstone_key,
)
from ssastore.limits import STORED_KEY_BYTES_MAX
from ssastore.messages import Kind

DIGEST = bytes(range(32))


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


@given(st.binary(min_size=1, max_size=20), st.binary(min_size=1, max_size=20))
def test_nothing_stands_between_a_key_and_what_is_just_below_it(key: bytes, other: bytes) -> None:
    below = just_below(key)
    assert below < key and len(below) <= STORED_KEY_BYTES_MAX
    assert not below < other < key
    longest = key.ljust(STORED_KEY_BYTES_MAX, b"\0")
    assert just_below(longest) < longest and len(just_below(longest)) <= STORED_KEY_BYTES_MAX
