"""Names, positions, reserved identifiers and addresses of keyspace.py; slices: test_keyspace_slices.py."""

from __future__ import annotations

import json
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from ssastore import keyspace as ks
from ssastore.keyspace import Slice

SERVICE = IPv6Network("2001:db8:5a:1::/64")
BUCKET = 0x1122334455667788
IID_MAX = 2**64 - 1
POSITION_MAX = 2**60 - 1
GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "keyspace.json").read_text(encoding="utf-8")
)

iids = st.one_of(
    st.integers(0, IID_MAX), st.sampled_from([0, 1, 2**48, 2**60, 2**63 - 1, 2**63, IID_MAX - 1, IID_MAX])
)
positions = st.integers(0, POSITION_MAX)
bucket_ids = st.integers(0, 2**64 - 1)
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).map(str.encode)


# -- vectors ----------------------------------------------------------------------------------------


def position_of_vector(vector: dict[str, Any]) -> int:
    if vector["kind"] == "blob":
        return ks.position_of_blob(bytes.fromhex(vector["digest"]))
    return ks.position_of_key(int(vector["bucket_id"], 16), vector["shards"], vector["key"].encode())


@pytest.mark.parametrize(
    ("position", "plane_0", "plane_2"),
    [
        (
            ks.position_of_key(BUCKET, 0, b"cat.jpg"),
            "2001:db8:5a:1:8b6:5d07:3f92:5c9d",
            "2001:db8:5a:1:28b6:5d07:3f92:5c9d",
        ),
        (
            ks.position_of_key(BUCKET, 16, b"cat.jpg"),
            "2001:db8:5a:1:528:eb22:eb27:f281",
            "2001:db8:5a:1:2528:eb22:eb27:f281",
        ),
        (
            ks.position_of_key(0, 16, b"bucket/photos"),
            "2001:db8:5a:1:bc9:e5cf:dae6:c90c",
            "2001:db8:5a:1:2bc9:e5cf:dae6:c90c",
        ),
        (
            ks.position_of_blob(blake3(b"hello\n").digest()),
            "2001:db8:5a:1:274:331d:9667:9203",
            "2001:db8:5a:1:2274:331d:9667:9203",
        ),
    ],
    ids=["hashed", "indexed", "system", "blob"],
)
def test_the_design_s_own_vectors(position: int, plane_0: str, plane_2: str) -> None:
    """Spelled out here once more, so that no edit of the JSON file can change them unseen."""
    assert ks.address_of(SERVICE, ks.iid_of(position, 0)) == IPv6Address(plane_0)
    assert ks.address_of(SERVICE, ks.iid_of(position, 2)) == IPv6Address(plane_2)


def test_the_design_s_intermediate_hashes() -> None:
    assert xxh3_64_intdigest(ks.object_name(BUCKET, b"cat.jpg")) == 0x8B65D073F925C9D4
    assert xxh3_64_intdigest(b"cat.jpg") == 0xAFF81A74EB27F281
    assert ks.shard_of_key(b"cat.jpg", 16) == 1
    assert xxh3_64_intdigest(ks.shard_name(BUCKET, 1)) == 0x528EB2247957BB10
    assert xxh3_64_intdigest(b"bucket/photos") == 0xF1B613CFDAE6C90C
    assert ks.shard_of_key(b"bucket/photos", 16) == 12
    assert xxh3_64_intdigest(ks.shard_name(0, 12)) == 0xBC9E5CFD25630D8F
    digest = blake3(b"hello\n").digest()
    assert digest.hex().startswith("8e4c7c1b") and digest.hex().endswith("9a99")
    assert xxh3_64_intdigest(ks.blob_name(digest)) == 0x274331D96679203D


def test_golden_header_matches_the_module() -> None:
    assert (GOLDEN["hash"], GOLDEN["rule"], GOLDEN["rule_version"]) == (
        ks.HASH_NAME,
        ks.RULE_NAME,
        ks.RULE_VERSION,
    )
    assert GOLDEN["service"] == str(SERVICE)
    reserved = tuple((int(entry["first"], 16), int(entry["last"], 16)) for entry in GOLDEN["reserved"])
    assert reserved == ks.RESERVED_IIDS


@pytest.mark.parametrize("vector", GOLDEN["names"], ids=lambda vector: vector["name"][:40])
def test_golden_name(vector: dict[str, Any]) -> None:
    position = position_of_vector(vector)
    assert f"{position:015x}" == vector["position"]
    for plane in range(5):
        iid = ks.iid_of(position, plane)
        address = ks.address_of(SERVICE, iid)
        assert str(address) == vector["addresses"][plane]
        assert ks.iid_of_address(SERVICE, address) == iid
        assert (ks.plane_of(iid), ks.position_of(iid)) == (plane, position)
        assert ks.lane_of(iid) == vector["lane"]
        assert ks.slice16_of(iid) == int(vector["slices"][plane], 16)
        assert str(ks.slice_of(plane, ks.group_of(iid))) == vector["slices"][plane]


@pytest.mark.parametrize("vector", GOLDEN["names"], ids=lambda vector: vector["name"][:40])
def test_golden_intermediate_steps(vector: dict[str, Any]) -> None:
    """Every hash that was tried is there, and only the last one gives a free position."""
    name = bytes.fromhex(vector["name"])
    if "content" in vector:
        assert blake3(bytes.fromhex(vector["content"])).hexdigest() == vector["digest"]
    if vector.get("layout") == "indexed":
        key, bucket_id = vector["key"].encode(), int(vector["bucket_id"], 16)
        assert ks.shard_of_key(key, vector["shards"]) == vector["shard"]
        assert ks.shard_name(bucket_id, vector["shard"]) == name
        assert f"{xxh3_64_intdigest(name):016x}" == vector["name_hash"]
        locator = ks.shard_locator(bucket_id, vector["shard"])
        assert f"{locator:07x}" == vector["name_hash"][:7]
        tried = [locator << 32 | int(tail_hash, 16) & 0xFFFFFFFF for tail_hash in vector["tail_hashes"]]
        hashed, hashes = key, vector["tail_hashes"]
    else:
        hashes = vector["hashes"]
        tried = [int(name_hash, 16) >> 4 for name_hash in hashes]
        hashed = name
    assert hashes == [f"{xxh3_64_intdigest(hashed + bytes(n)):016x}" for n in range(len(hashes))]
    assert [ks.is_reserved_position(position) for position in tried] == [True] * (len(tried) - 1) + [False]
    assert f"{tried[-1]:015x}" == vector["position"]


def test_golden_names_cover_every_case() -> None:
    names = GOLDEN["names"]
    assert {(v["kind"], v.get("layout")) for v in names} == {
        ("object", "hashed"),
        ("object", "indexed"),
        ("blob", None),
    }
    assert {v["shards"] for v in names if v.get("layout") == "indexed"} >= {1, 16, 4096}
    hit = {int(v["position"], 16) >> 32 for v in names if len(v.get("tail_hashes", ())) > 1}
    assert hit == {0, 0x2005EFF, 0xDFFFFFF}, "each reserved range is met by a natural vector"
    assert any(len(v.get("hashes", ())) > 1 for v in names)


@pytest.mark.parametrize("vector", GOLDEN["slices"], ids=lambda vector: vector["text"])
def test_golden_slice(vector: dict[str, Any]) -> None:
    piece = Slice(int(vector["first"], 16), vector["depth"])
    assert str(piece) == vector["text"]
    assert piece.end - 1 == int(vector["last"], 16)
    assert str(piece.network(SERVICE)) == vector["prefix"]
    assert ks.slice_from_network(SERVICE, IPv6Network(vector["prefix"])) == piece
    if "lane" in vector:
        assert (piece.plane, f"{piece.group:03x}", piece.lane) == (
            vector["plane"],
            vector["group"],
            vector["lane"],
        )


# -- names and positions ----------------------------------------------------------------------------


@given(bucket_ids, keys, st.sampled_from([0, 1, 2, 16, 1000, 4096]))
def test_position_is_the_same_below_every_plane(bucket_id: int, key: bytes, shards: int) -> None:
    position = ks.position_of_key(bucket_id, shards, key)
    assert 0 <= position <= POSITION_MAX
    texts = {ks.address_of(SERVICE, ks.iid_of(position, plane)).exploded for plane in range(ks.PLANES)}
    assert len(texts) == ks.PLANES
    plane_digit = len("2001:0db8:005a:0001:")
    assert len({text[:plane_digit] + text[plane_digit + 1 :] for text in texts}) == 1


@given(bucket_ids, st.integers(1, 4096), keys, keys)
def test_keys_of_one_shard_share_one_slice(bucket_id: int, shards: int, key: bytes, other: bytes) -> None:
    """A listing reads one contiguous range for each shard: a /96 of each plane, by the locator."""
    shard = ks.shard_of_key(key, shards)
    assert 0 <= shard < shards
    locator = ks.shard_locator(bucket_id, shard)
    assert ks.position_of_key(bucket_id, shards, key) >> 32 == locator
    if ks.shard_of_key(other, shards) == shard:
        assert ks.position_of_key(bucket_id, shards, other) >> 32 == locator


def test_kinds_of_name_never_coincide() -> None:
    """The first byte keeps the kinds apart even where the rest is equal."""
    names = [ks.object_name(0, bytes(4)), ks.shard_name(0, 0), ks.blob_name(bytes(12))]
    assert names == [b"o" + bytes(12), b"s" + bytes(12), b"d" + bytes(12)]


# -- reserved identifiers ---------------------------------------------------------------------------


class PlannedHash:
    """XXH3, but for some inputs; remembers what it was asked."""

    def __init__(self, planned: dict[bytes, int]) -> None:
        self.planned = planned
        self.asked: list[bytes] = []

    def __call__(self, data: bytes) -> int:
        self.asked.append(data)
        return self.planned.get(data, xxh3_64_intdigest(data))


RESERVED_POSITIONS = [
    iid & POSITION_MAX
    for first, last in ks.RESERVED_IIDS
    for iid in sorted({first, min(first + 1, last), (first + last) // 2, last})
]
FREE_NEIGHBOURS = [
    1,
    0x2005EFFFE000000 - 1,
    0x2005EFFFF000000,
    0xDFFFFFFFFFFFF80 - 1,
    0xE00000000000000,
    POSITION_MAX,
]


@pytest.mark.parametrize("position", RESERVED_POSITIONS, ids=lambda position: f"{position:015x}")
@pytest.mark.parametrize("misses", [1, 3])
@pytest.mark.parametrize(
    "name", [ks.object_name(BUCKET, b"k"), ks.blob_name(bytes(32))], ids=["object", "blob"]
)
def test_reserved_name_is_hashed_again(
    monkeypatch: pytest.MonkeyPatch, position: int, misses: int, name: bytes
) -> None:
    """A zero byte is appended until the position is free, whatever the 4 spare hash bits are."""
    planned = PlannedHash({name + bytes(n): position << 4 | n for n in range(misses)})
    monkeypatch.setattr(ks, "xxh3_64_intdigest", planned)
    found = ks.position_of_name(name)
    assert found == xxh3_64_intdigest(name + bytes(misses)) >> 4
    assert planned.asked == [name + bytes(n) for n in range(misses + 1)]
    assert not any(ks.is_reserved_iid(ks.iid_of(found, plane)) for plane in range(ks.PLANES))


@pytest.mark.parametrize("position", RESERVED_POSITIONS, ids=lambda position: f"{position:015x}")
@pytest.mark.parametrize("misses", [1, 3])
def test_reserved_tail_is_hashed_again_within_its_shard(
    monkeypatch: pytest.MonkeyPatch, position: int, misses: int
) -> None:
    """Only the tail changes: shard and locator stay, or a listing would miss the key.

    The bits of the key's hash above the tail are junk on purpose: they must not matter.
    """
    key, shards = b"cat.jpg", 16
    tail, junk = position & 0xFFFFFFFF, 0xABCDEF01 << 32
    planned = PlannedHash({key + bytes(n): junk | tail for n in range(misses)})
    planned.planned[ks.shard_name(BUCKET, tail % shards)] = position >> 32 << 36 | 0x123456789
    monkeypatch.setattr(ks, "xxh3_64_intdigest", planned)
    found = ks.position_of_key(BUCKET, shards, key)
    assert found == position >> 32 << 32 | xxh3_64_intdigest(key + bytes(misses)) & 0xFFFFFFFF
    assert not any(ks.is_reserved_iid(ks.iid_of(found, plane)) for plane in range(ks.PLANES))


@pytest.mark.parametrize("position", FREE_NEIGHBOURS, ids=lambda position: f"{position:015x}")
def test_neighbour_of_a_reserved_range_is_used(monkeypatch: pytest.MonkeyPatch, position: int) -> None:
    name = ks.object_name(BUCKET, b"k")
    monkeypatch.setattr(ks, "xxh3_64_intdigest", PlannedHash({name: position << 4 | 0xF}))
    assert ks.position_of_name(name) == position


@given(
    st.one_of(
        positions,
        st.sampled_from(RESERVED_POSITIONS + FREE_NEIGHBOURS),
        # The locators in question with any tail.
        st.builds(
            lambda head, tail: head << 32 | tail,
            st.sampled_from([0, 0x2005EFF, 0xDFFFFFF]),
            st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 256, 2**32 - 1)),
        ),
    )
)
def test_position_is_reserved_if_any_plane_s_iid_is(position: int) -> None:
    in_any_plane = any(ks.is_reserved_iid(ks.iid_of(position, plane)) for plane in range(ks.PLANES))
    assert ks.is_reserved_position(position) == in_any_plane


def test_reserved_iids_are_those_of_the_rfcs() -> None:
    """Spelled as the registry of RFC 5453 spells them."""

    def iid(text: str) -> int:
        return int(IPv6Address(f"::{text}"))

    for text in ("0:0:0:0", "200:5eff:fe00:0", "200:5eff:fe00:5212", "200:5eff:fe00:5213"):
        assert ks.is_reserved_iid(iid(text))
    for text in ("200:5eff:fe00:5214", "200:5eff:feff:ffff", "fdff:ffff:ffff:ff80", "fdff:ffff:ffff:ffff"):
        assert ks.is_reserved_iid(iid(text))
    for text in ("0:0:0:1", "200:5eff:fdff:ffff", "200:5eff:ff00:0", "fdff:ffff:ffff:ff7f", "fe00:0:0:0"):
        assert not ks.is_reserved_iid(iid(text))


# -- addresses --------------------------------------------------------------------------------------


@given(iids, st.sampled_from(["2001:db8:5a:1::/64", "fd00::/64", "2001:db8:ffff:ffff::/64"]))
def test_address_and_iid_are_one_to_one(iid: int, prefix: str) -> None:
    service = ks.service_network(prefix)
    address = ks.address_of(service, iid)
    assert address in service
    assert ks.iid_of_address(service, address) == iid
    assert ks.iid_of(ks.position_of(iid), ks.plane_of(iid)) == iid


@given(iids)
def test_parts_of_an_iid_are_its_digits(iid: int) -> None:
    digits = f"{iid:016x}"
    assert f"{ks.plane_of(iid):x}" == digits[0]
    assert f"{ks.group_of(iid):03x}" == digits[1:4]
    assert f"{ks.lane_of(iid):x}" == digits[3]
    assert f"{ks.slice16_of(iid):04x}" == digits[:4]
    assert f"{ks.locator_of(iid):08x}" == digits[:8]
    assert f"{ks.position_of(iid):015x}" == digits[1:]
    fifth_hextet = ks.address_of(SERVICE, iid).exploded.split(":")[4]
    assert fifth_hextet == digits[:4]


@pytest.mark.parametrize(
    "text",
    [
        "2001:db8:5a:1::/63",
        "2001:db8:5a:1::/80",
        "2001:db8:5a:1::",
        "2001:db8:5a:1::1/64",
        "192.0.2.0/24",
        "ff02::/64",
        "fe80::/64",
        "::/64",
        "2001:db8:5a:1::%eth0/64",
        "",
        "store.example",
    ],
)
def test_service_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ks.service_network(text)


@pytest.mark.parametrize("address", ["2001:db8:5a:2::", "2001:db8:5a:0:ffff:ffff:ffff:ffff", "::1"])
def test_address_outside_the_service_has_no_iid(address: str) -> None:
    with pytest.raises(ValueError, match="is not in"):
        ks.iid_of_address(SERVICE, IPv6Address(address))


@pytest.mark.parametrize("iid", [-1, 2**64])
def test_iid_outside_64_bits_has_no_address(iid: int) -> None:
    with pytest.raises(AssertionError):
        ks.address_of(SERVICE, iid)
