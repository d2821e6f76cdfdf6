from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.cluster import Cluster, ClusterRecord, FormingRecord, NodeRecord, check_nodes, node_key
from ssastore.core.groups import RECOVERING, GroupRecord, PlaneOwner, group_key, group_of_key
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS

SERVICE = IPv6Network("2001:db8:5a:1::/64")
CLUSTER = ClusterRecord("0123456789abcdef0123456789abcdef", str(SERVICE), 3, 1_700_000_000_000)
NODES = tuple(NodeRecord(f"n{number}", f"fd00::{number}", zone=f"z{number}") for number in (1, 2, 3, 4))
GROUP = GroupRecord(0xA3F, (PlaneOwner("n1"), PlaneOwner("n2", 5), PlaneOwner("n3")), cfg=7)


def whole(**changes: Any) -> Cluster:
    """A sound cluster of four nodes, with changes."""
    groups = tuple(
        GroupRecord(group, tuple(PlaneOwner(NODES[(group + plane) % 4].name) for plane in range(3)))
        for group in range(GROUPS)
    )
    return replace(Cluster(CLUSTER, NODES, groups), **changes)


# -- keys and JSON ----------------------------------------------------------------------------------


def test_keys_are_readable() -> None:
    assert node_key("n1") == "node/n1"
    assert group_key(0xA3F) == "group/a3f"
    assert group_key(0) == "group/000"


def test_json_is_what_an_operator_reads() -> None:
    """These texts are stored: a change of them is a new format."""
    assert json.loads(CLUSTER.encode()) == {
        "format": 1,
        "cluster_id": "0123456789abcdef0123456789abcdef",
        "service": "2001:db8:5a:1::/64",
        "replicas": 3,
        "created_at_ms": 1_700_000_000_000,
        "hash_name": "xxh3-64",
        "rule_version": 1,
    }
    assert NODES[0].encode() == (
        b'{"format": 1, "name": "n1", "address": "fd00::1", "port": 7480, "zone": "z1", "weight": 1, '
        b'"workers": 1}'
    )
    assert GROUP.encode() == (
        b'{"format": 1, "group": "a3f", "cfg": 7, "planes": [{"owner": "n1", "epoch": 1, "state": "ACTIVE"}, '
        b'{"owner": "n2", "epoch": 5, "state": "ACTIVE"}, {"owner": "n3", "epoch": 1, "state": "ACTIVE"}]}'
    )


def test_records_come_back() -> None:
    assert ClusterRecord.decode(CLUSTER.encode()) == CLUSTER
    assert NodeRecord.decode(NODES[1].encode()) == NODES[1]
    assert GroupRecord.decode(GROUP.encode()) == GROUP
    assert FormingRecord.decode(FormingRecord(NODES).encode()) == FormingRecord(NODES)
    assert CLUSTER.network == SERVICE


DECODERS = [ClusterRecord.decode, NodeRecord.decode, GroupRecord.decode, FormingRecord.decode]


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe\xfd",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b'{"format": 1}',
        b"[" * 100_000,
        b'{"format": true}',
    ],
)
def test_what_is_no_record_is_refused(decode: Any, value: bytes) -> None:
    with pytest.raises(ConfigError):
        decode(value)


@pytest.mark.parametrize("record", [CLUSTER, NODES[0], GROUP, FormingRecord(NODES)])
def test_every_field_is_needed_and_no_other(record: Any) -> None:
    """An unknown field may mean anything, so a reader that does not know it does not read the record."""
    fields = json.loads(record.encode())
    changes: list[dict[str, Any]] = [{**fields, "format": 2}, {**fields, "surprise": 1}]
    changes.extend({k: v for k, v in fields.items() if k != missing} for missing in fields)
    for changed in changes:
        with pytest.raises(ConfigError):
            type(record).decode(json.dumps(changed).encode())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    ),
    st.sampled_from([CLUSTER, NODES[0], GROUP, FormingRecord(NODES[:1])]),
    st.data(),
)
def test_any_value_in_any_field_is_taken_or_a_config_error(value: Any, record: Any, data: Any) -> None:
    fields = json.loads(record.encode())
    fields[data.draw(st.sampled_from(sorted(fields)))] = value
    encoded = json.dumps(fields).encode()
    try:
        decoded = type(record).decode(encoded)
    except ConfigError:
        return
    assert json.loads(decoded.encode()) == fields


@pytest.mark.parametrize(
    "plane", [None, [], "n1", {}, {"owner": "n1", "epoch": 1}, {"owner": 1, "epoch": 1, "state": "ACTIVE"}]
)
def test_plane_of_other_fields_is_refused(plane: Any) -> None:
    fields = json.loads(GROUP.encode())
    fields["planes"][1] = plane
    with pytest.raises(ConfigError):
        GroupRecord.decode(json.dumps(fields).encode())


# -- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cluster_id", "0123456789ABCDEF0123456789ABCDEF"),
        ("cluster_id", "0" * 31),
        ("service", "2001:db8:5a:1::/65"),
        ("service", "2001:DB8:5a:1::/64"),
        ("service", "2001:db8:5a:1::1/64"),
        ("service", "ff05:0:0:1::/64"),
        ("service", "10.0.0.0/24"),
        ("replicas", 2),
        ("replicas", 7),
        ("replicas", True),
        ("replicas", 3.0),
        ("created_at_ms", -1),
        ("hash_name", "md5"),
        ("rule_version", 2),
    ],
)
def test_impossible_cluster_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError):
        replace(CLUSTER, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a/b"),
        ("name", "-a"),
        ("name", "a\n"),
        ("name", "n" * 64),
        ("address", "fd00::01"),
        ("address", "FD00::1"),
        ("address", "10.0.0.1"),
        ("address", "::"),
        ("address", "ff02::1"),
        ("address", "fe80::1"),
        ("address", "fd00::1%eth0"),
        ("address", "::ffff:102:304"),
        ("address", "::ffff:1.2.3.4"),
        ("address", "n1.example"),
        ("port", 0),
        ("port", 65536),
        ("port", True),
        ("zone", "a b"),
        ("weight", 0),
        ("weight", 1.5),
        ("weight", 1_000_001),
        ("workers", 0),
        ("workers", 17),
    ],
)
def test_impossible_node_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError):
        replace(NODES[0], **{field: value})


@pytest.mark.parametrize("address", ["::1", "fd00::1", "2001:db8::7"])
def test_possible_address_is_taken(address: str) -> None:
    assert replace(NODES[0], address=address).address == address


@pytest.mark.parametrize(
    "make",
    [
        lambda: GroupRecord(-1, GROUP.planes),
        lambda: GroupRecord(GROUPS, GROUP.planes),
        lambda: GroupRecord(0, GROUP.planes * 2),
        lambda: GroupRecord(0, ()),
        lambda: GroupRecord(0, GROUP.planes, cfg=0),
        lambda: PlaneOwner(""),
        lambda: PlaneOwner("n1", 0),
        lambda: PlaneOwner("n1", 1, "MOVING"),
        lambda: PlaneOwner("n1", 1, target_plane=1),
        lambda: PlaneOwner("n1", 1, RECOVERING),
        lambda: PlaneOwner("n1", 1, RECOVERING, -1),
        lambda: PlaneOwner("n1", 1, "ACTIVE", 1 << 32),
    ],
)
def test_impossible_group_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


# -- the whole --------------------------------------------------------------------------------------


def test_sound_cluster_passes() -> None:
    whole().check()


def test_hole_in_the_groups_is_found() -> None:
    groups = whole().groups
    with pytest.raises(ConfigError, match="group 007"):
        whole(groups=groups[:7] + groups[8:]).check()
    with pytest.raises(ConfigError, match="group fff"):
        whole(groups=groups[:-1]).check()
    with pytest.raises(ConfigError, match="group 000"):
        whole(groups=()).check()


def test_group_that_is_listed_twice_is_found() -> None:
    groups = whole().groups
    with pytest.raises(ConfigError, match=r"two groups .* 005"):
        whole(groups=groups[:7] + groups[5:6] + groups[8:]).check()


def changed_group(planes: tuple[PlaneOwner, ...]) -> Cluster:
    groups = whole().groups
    return whole(groups=(*groups[:9], GroupRecord(9, planes), *groups[10:]))


def test_two_planes_on_one_node_are_found() -> None:
    with pytest.raises(ConfigError, match="two planes of group 009"):
        changed_group((PlaneOwner("n1"), PlaneOwner("n2"), PlaneOwner("n1"))).check()


def test_owner_that_is_no_node_is_found() -> None:
    with pytest.raises(ConfigError, match="n9"):
        changed_group((PlaneOwner("n1"), PlaneOwner("n2"), PlaneOwner("n9"))).check()


def test_group_of_more_planes_than_replicas_is_found() -> None:
    """One of fewer is there while a cluster is given more."""
    with pytest.raises(ConfigError, match="4 planes"):
        changed_group(tuple(map(PlaneOwner, ("n1", "n2", "n3", "n4")))).check()
    changed_group((PlaneOwner("n1"),)).check()


def test_nodes_that_cannot_live_together_are_found() -> None:
    with pytest.raises(ConfigError, match="name: n1"):
        check_nodes([SERVICE], [NODES[0], replace(NODES[1], name="n1")])
    with pytest.raises(ConfigError, match=r"\[fd00::1\]:7480"):
        check_nodes([SERVICE], [NODES[0], replace(NODES[1], address="fd00::1")])
    with pytest.raises(ConfigError, match="inside the service"):
        check_nodes([SERVICE], [replace(NODES[0], address="2001:db8:5a:1::7")])
    check_nodes([SERVICE], [NODES[0], replace(NODES[1], address="fd00::1", port=7490)])


# -- recovery ---------------------------------------------------------------------------------------


def test_recovery_takes_the_next_cfg_once_and_an_epoch_at_each_end() -> None:
    begun = GROUP.begin_recovery(1, 0xA1)
    assert begun.cfg == 8 and begun.planes[1] == PlaneOwner("n2", 6, RECOVERING, 0xA1)
    done = begun.finish_recovery(1)
    assert done.cfg == 8 and done.planes[1] == PlaneOwner("n2", 7, "ACTIVE", 0xA1)
    assert begun.begin_recovery(1, 0xA2).cfg == 9, "what was being rebuilt is lost as well"
    for record in (begun, done):
        assert record.planes[0] == GROUP.planes[0] and record.planes[2] == GROUP.planes[2]
        assert GroupRecord.decode(record.encode()) == record
    assert b'"env": "000000a1"' in done.encode()


def test_one_slice_of_a_group_recovers_at_a_time() -> None:
    with pytest.raises(ConfigError, match="one slice at a time"):
        GROUP.begin_recovery(1, 0xA1).begin_recovery(2, 0xA2)
    with pytest.raises(ConfigError):
        GROUP.finish_recovery(1)


@pytest.mark.parametrize("env", [0, 1, "", "A1", "000000a", "0000000a1", "0000000A", None])
def test_environment_of_another_form_is_refused(env: Any) -> None:
    fields = json.loads(GROUP.encode())
    fields["planes"][1]["env"] = env
    with pytest.raises(ConfigError):
        GroupRecord.decode(json.dumps(fields).encode())


def test_group_of_a_key() -> None:
    assert [group_of_key(group_key(group)) for group in (0, 0xA3F, 4095)] == [0, 0xA3F, 4095]
    assert group_of_key("group/fff0") is None and group_of_key("node/a3f") is None
