"""The vectors of the address contract, through the function that people see."""

from __future__ import annotations

import json

import pytest
from blake3 import blake3

from ssastore.core.locate import locate_blob, locate_object
from ssastore.core.place import Place
from ssastore.keyspace import (
    address_of,
    is_reserved_iid,
    locator_of,
    plane_of,
    service_network,
    shard_locator,
    slice16_of,
    slice_of,
)
from tests.direct import iid_of_part, iid_of_record

SERVICE = service_network("2001:db8:5a:1::/64")
BUCKET = 0x1122334455667788


def test_object_of_a_hashed_bucket() -> None:
    found = locate_object(SERVICE, Place(BUCKET, 0), b"cat.jpg", 3)
    assert found.addresses[0] == "2001:db8:5a:1:8b6:5d07:3f92:5c9d"
    assert found.addresses[2] == "2001:db8:5a:1:28b6:5d07:3f92:5c9d"
    assert (found.group, found.lane, found.shard, found.key_hash) == (0x8B6, 6, None, None)
    assert found.position == 0x8B65D073F925C9D
    assert found.slices == ["08b6", "18b6", "28b6"]
    assert found.prefixes[1] == "2001:db8:5a:1:18b6::/80"


def test_object_of_an_indexed_bucket() -> None:
    found = locate_object(SERVICE, Place(BUCKET, 16), b"cat.jpg", 3)
    assert found.addresses[0] == "2001:db8:5a:1:528:eb22:eb27:f281"
    assert found.addresses[2] == "2001:db8:5a:1:2528:eb22:eb27:f281"
    assert (found.shard, found.key_hash) == (1, 0xAFF81A74EB27F281)


def test_record_of_a_bucket() -> None:
    found = locate_object(SERVICE, Place(0, 16), b"bucket/photos", 3)
    assert found.addresses[0] == "2001:db8:5a:1:bc9:e5cf:dae6:c90c"
    assert found.addresses[2] == "2001:db8:5a:1:2bc9:e5cf:dae6:c90c"
    assert (found.shard, found.key_hash) == (12, 0xF1B613CFDAE6C90C)


def test_blob() -> None:
    found = locate_blob(SERVICE, blake3(b"hello\n").digest(), 3)
    assert found.addresses[0] == "2001:db8:5a:1:274:331d:9667:9203"
    assert found.addresses[2] == "2001:db8:5a:1:2274:331d:9667:9203"


def test_json_has_no_number_that_a_double_cannot_hold() -> None:
    found = locate_object(SERVICE, Place(BUCKET, 16), b"cat.jpg", 1).as_json()
    assert json.loads(json.dumps(found)) == found
    assert found["schema"] == "ssastore.location/1"
    assert (found["position"], found["key_hash"]) == ("528eb22eb27f281", "aff81a74eb27f281")
    assert (found["group"], found["lane"], found["shard"]) == ("528", "8", 1)
    assert locate_object(SERVICE, Place(BUCKET, 0), b"k", 1).as_json()["key_hash"] is None


def test_location_is_where_requests_go() -> None:
    for place in (Place(BUCKET, 0), Place(BUCKET, 16), Place(0, 16), Place(BUCKET, 4096)):
        for key in (b"a", "é/ü".encode(), b"k" * 1024):
            found = locate_object(SERVICE, place, key, 1)
            assert found.addresses == [str(address_of(SERVICE, iid_of_record(place, key)))]
            assert found.name == key.decode()


@pytest.mark.parametrize("shard", range(16))
def test_requests_for_a_whole_shard_go_to_its_locator(shard: int) -> None:
    iid = iid_of_part(Place(BUCKET, 16), shard)
    assert locator_of(iid) == shard_locator(BUCKET, shard)
    assert not is_reserved_iid(iid) and plane_of(iid) == 0


@pytest.mark.parametrize("group", [0, 1, 0x200, 0xA3F, 0xDFF, 0xFFF])
def test_requests_for_a_whole_group_go_to_its_slice(group: int) -> None:
    iid = iid_of_part(Place(BUCKET, 0), group)
    assert iid in slice_of(0, group)
    assert slice16_of(iid) == group and not is_reserved_iid(iid)
