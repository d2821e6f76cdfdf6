"""From stored keys back to names: the address that comes out is the one that the record was stored at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.names import Names
from ssastore.core.place import expected_position
from ssastore.core.records import blob_key, record_key, shut_key
from ssastore.keyspace import iid_of, locator_of
from ssastore.limits import SHARDS_MAX
from ssastore.messages import Kind

buckets = st.integers(0, (1 << 64) - 1)
keys = st.binary(min_size=1, max_size=40).filter(lambda key: not key.startswith(b"\0"))
shards = st.one_of(st.sampled_from([0, 1, 16, SHARDS_MAX]), st.integers(0, SHARDS_MAX))


@given(bucket=buckets, key=keys, shards=shards, plane=st.integers(0, 4))
def test_name_leads_back_to_where_it_was_stored(bucket: int, key: bytes, shards: int, plane: int) -> None:
    iid = iid_of(expected_position(bucket, shards, key), plane)
    name = Names().of_stored(record_key(locator_of(iid), Kind.OBJECT, bucket, key))
    assert name is not None and (name.kind, name.bucket, name.key) == (Kind.OBJECT, bucket, key)
    assert name.fields(plane)[0] == iid
    # Another count of shards may come out: no acceptor can tell, it hashes to the same address.
    assert expected_position(bucket, name.shards, key) == name.position


@given(bucket=buckets, found=st.lists(st.tuples(keys, shards), min_size=1, max_size=8))
def test_buckets_met_before_change_nothing(bucket: int, found: list[tuple[bytes, int]]) -> None:
    names = Names()
    for key, count in found:
        position = expected_position(bucket, count, key)
        name = names.of_stored(record_key(position >> 32, Kind.PART, bucket, key))
        assert name is not None and name.position == position


@pytest.mark.parametrize(
    "stored_key",
    [
        b"",
        b"abc",
        b"\x00\x01\x02\x03\x10",
        blob_key(1, bytes(32)),
        shut_key(1, 5),
        b"\x01\x02\x03\x04\x10" + bytes(8),
    ],
)
def test_what_is_no_record_has_no_name(stored_key: bytes) -> None:
    assert Names().of_stored(stored_key) is None
