"""What the control store knows of a cluster: its records, their keys, their JSON, their checks.

Pure.  The values are JSON because an operator who has nothing left but a generic
client of the control store must be able to read who owns what.

    cluster        ClusterRecord  what never changes: identity, prefix, replicas, hash
    forming        FormingRecord  only while the first layout is being written
    node/NAME      NodeRecord     one storage node
    group/a3f      GroupRecord    who owns the slices of group a3f; one key, so one compare-and-set

Every value has a format number and exactly the fields of its record: a reader
that does not know a field must not write the record back without it, so it
refuses.  A group record speaks for its whole group; parts of a group are a later
format.  Records check themselves when they are made, decoded ones included.

Who votes for a plane is an *environment* of its owner: the one that the record names,
or, where it names none, the first one that the owner's worker ever had.  A recovery
changes it:

    ACTIVE(old) --begin_recovery--> RECOVERING(new) --finish_recovery--> ACTIVE(new)
       epoch e, cfg c                 e+1, c+1                              e+2, c+1

``begin_recovery`` of a slice that is RECOVERING already starts over, for an environment
that was lost as well.  A slice that is handed over goes another way (``core.moving``):

    ACTIVE(X) ---- begin_move ----> MOVING(X, Y) ---- finish_move ----> ACTIVE(Y)
     epoch e                            e+1           cancel_move: ACTIVE(X)   e+2

The epoch of MOVING is the number h of the handover: no other has it.  One slice of a
group at a time is recovered or moved.

Invariants (``Cluster.check``): every plane of every group has exactly one owner,
the owners are known nodes, and no node owns two planes of one group.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address, IPv6Network
from typing import Any

from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS, HASH_NAME, LANES, REPLICAS_ALLOWED, RULE_VERSION, service_network

CLUSTER_KEY = "cluster"
FORMING_KEY = "forming"
NODE_PREFIX = "node/"
GROUP_PREFIX = "group/"

FORMAT = 1
NATIVE_PORT = 7480
ACTIVE = "ACTIVE"
RECOVERING = "RECOVERING"
MOVING = "MOVING"
CLUSTER_ID_BYTES = 16
WEIGHT_MAX = 1_000_000
"Only the ratio of weights counts; the bound keeps the planner's fractions small."

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ENV_ID = re.compile(r"[0-9a-f]{8}")
_CLUSTER_ID = re.compile(rf"[0-9a-f]{{{2 * CLUSTER_ID_BYTES}}}")
_NAME_RULE = "1 to 63 of A-Z a-z 0-9 . _ -, letter or digit first"
_REPLICAS_RULE = f"replicas must be one of {REPLICAS_ALLOWED}"
_ADDRESS_RULE = "node address must be a routable unicast IPv6 address in canonical spelling"
_SERVICE_RULE = "service must be a unicast IPv6 /64 in canonical spelling"
_GROUP_NAMES = tuple(f"{group:03x}" for group in range(GROUPS))
_GROUP_OF_KEY = {GROUP_PREFIX + name: group for group, name in enumerate(_GROUP_NAMES)}
_GROUP_OF_NAME = {name: group for group, name in enumerate(_GROUP_NAMES)}


def node_key(name: str) -> str:
    """Key of a node's record."""
    return NODE_PREFIX + name


def group_key(group: int) -> str:
    """Key of a group's record."""
    return GROUP_PREFIX + _GROUP_NAMES[group]


def group_of_key(key: str) -> int | None:
    """Inverse of ``group_key``; None when it is no such key."""
    return _GROUP_OF_KEY.get(key)


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What client and node must agree on; written once."""

    cluster_id: str
    "16 random bytes in hex."
    service: str
    "The service /64 in its canonical spelling."
    replicas: int
    created_at_ms: int
    hash_name: str = HASH_NAME
    rule_version: int = RULE_VERSION

    def __post_init__(self) -> None:
        _require(_is_match(_CLUSTER_ID, self.cluster_id), "cluster_id must be 32 hex digits", self.cluster_id)
        _require(_is_canonical_service(self.service), _SERVICE_RULE, self.service)
        _require_int("replicas", self.replicas, 1, max(REPLICAS_ALLOWED))
        _require(self.replicas in REPLICAS_ALLOWED, _REPLICAS_RULE, self.replicas)
        _require_int("created_at_ms", self.created_at_ms, 0, 1 << 63)
        _require(self.hash_name == HASH_NAME, f"this version knows only the hash {HASH_NAME}", self.hash_name)
        _require_int("rule_version", self.rule_version, RULE_VERSION, RULE_VERSION)

    @property
    def network(self) -> IPv6Network:
        """The service prefix."""
        return IPv6Network(self.service)

    def encode(self) -> bytes:
        return _encode(asdict(self))

    @staticmethod
    def decode(value: bytes) -> ClusterRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        return ClusterRecord(**_decode(value, "cluster record", _CLUSTER_FIELDS))


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A storage node as the operator described it."""

    name: str
    address: str
    "Node address, outside the service prefix: next hop and node-to-node endpoint."
    port: int = NATIVE_PORT
    zone: str = ""
    "Fault domain; empty when not labelled."
    weight: int = 1
    "Share of the groups, relative to the other nodes."
    workers: int = 1

    def __post_init__(self) -> None:
        _require(_is_match(_NAME, self.name), f"node name must be {_NAME_RULE}", self.name)
        _require(_is_node_address(self.address), _ADDRESS_RULE, self.address)
        _require_int("port", self.port, 1, 65535)
        _require(self.zone == "" or _is_match(_NAME, self.zone), f"zone must be {_NAME_RULE}", self.zone)
        _require_int("weight", self.weight, 1, WEIGHT_MAX)
        # More workers than lanes would leave some without a single slice.
        _require_int("workers", self.workers, 1, LANES)

    def encode(self) -> bytes:
        return _encode(asdict(self))

    @staticmethod
    def decode(value: bytes) -> NodeRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        return NodeRecord(**_decode(value, "node record", _NODE_FIELDS))


@dataclass(frozen=True, slots=True)
class PlaneOwner:
    """Who answers for one plane of a group."""

    owner: str
    "Name of a node."
    epoch: int = 1
    "Raised by every change of owner or state."
    state: str = ACTIVE
    env: int = 0
    "Id of the environment that votes, or is being recovered; 0: the owner's first one."
    since: int = 0
    "The epoch that the data of ``env`` must be complete for; 0: this one. Moves that are begun leave it."
    target: str = ""
    "Of a slice that is MOVING: the node that it is handed over to."
    target_env: int = 0
    "And the environment there."

    @property
    def complete_epoch(self) -> int:
        """What the standing of the environment that votes must say."""
        return self.since or self.epoch

    def __post_init__(self) -> None:
        if not (type(self.owner) is str and self.owner and type(self.epoch) is int and self.epoch >= 1):
            raise ConfigError(
                f"an owner needs a name and an epoch from 1, got {self.owner!r}, {self.epoch!r}"
            )
        if self.state not in (ACTIVE, RECOVERING, MOVING):
            raise ConfigError(f"this version knows no slice state {self.state!r}")
        _require_int("env", self.env, 0, (1 << 32) - 1)
        if self.state == ACTIVE and self.since == 0 and not self.target and not self.target_env:
            return  # As nearly all are.
        is_named = self.state != RECOVERING or self.env > 0
        _require(is_named, "what is recovered names its environment", self.env)
        _require_int("since", self.since, 0, self.epoch)
        _require_int("target_env", self.target_env, 0, (1 << 32) - 1)
        is_name = self.target == "" or _is_match(_NAME, self.target)
        _require(is_name, f"target must be {_NAME_RULE}", self.target)
        has_target = bool(self.target) and self.target_env > 0 and self.since > 0
        is_plain = not (self.target or self.target_env)
        _require(
            has_target if self.state == MOVING else is_plain,
            "what is moved, and nothing else, names its target",
            self.target,
        )


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """Who owns a group, plane 0 first."""

    group: int
    planes: tuple[PlaneOwner, ...]
    cfg: int = 1
    "Number of the group's configuration; every recovery takes the next one."
    is_untouched: bool = field(init=False, compare=False, repr=False)
    "Nothing was ever recovered. Found once: a start judges some thousand slices."

    def __post_init__(self) -> None:
        _require_int("group", self.group, 0, GROUPS - 1)
        _require_int("cfg", self.cfg, 1, 1 << 63)
        _require(len(self.planes) in REPLICAS_ALLOWED, "a group must have 1, 3 or 5 planes", len(self.planes))
        untouched = self.cfg == 1 and all(plane == PlaneOwner(plane.owner) for plane in self.planes)
        object.__setattr__(self, "is_untouched", untouched)

    @property
    def owners(self) -> tuple[str, ...]:
        """Names of the owners, plane 0 first."""
        return tuple(plane.owner for plane in self.planes)

    def encode(self) -> bytes:
        planes = [_encode_plane(plane) for plane in self.planes]
        return _encode({"group": _GROUP_NAMES[self.group], "cfg": self.cfg, "planes": planes})

    def begin_recovery(self, plane: int, env: int) -> GroupRecord:
        """The record in which ``env`` is rebuilding a plane whose state was lost.

        A move of the plane ends with it.  ConfigError: another plane of the group is recovered or moved.
        """
        self.check_idle(plane, f"group {_GROUP_NAMES[self.group]} recovers one slice at a time")
        found = self.planes[plane]
        return self.replaced(plane, PlaneOwner(found.owner, found.epoch + 1, RECOVERING, env), self.cfg + 1)

    def finish_recovery(self, plane: int) -> GroupRecord:
        """The record in which the environment that was rebuilt votes. ConfigError: it was not begun."""
        found = self.planes[plane]
        _require(found.state == RECOVERING, "only what is being recovered can be finished", found.state)
        return self.replaced(plane, replace(found, state=ACTIVE, epoch=found.epoch + 1), self.cfg)

    def check_idle(self, plane: int, rule: str) -> None:
        """ConfigError when another plane than this one is recovered or moved."""
        busy = [p for p, found in enumerate(self.planes) if found.state != ACTIVE and p != plane]
        _require(not busy, rule, busy)

    def replaced(self, plane: int, changed: PlaneOwner, cfg: int) -> GroupRecord:
        """The record with another plane in the place of one."""
        planes = (*self.planes[:plane], changed, *self.planes[plane + 1 :])
        return GroupRecord(self.group, planes, cfg)

    @staticmethod
    @lru_cache(maxsize=2 * GROUPS)
    def decode(value: bytes) -> GroupRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        fields = _decode(value, "group record", _GROUP_FIELDS)
        name, planes = fields["group"], fields["planes"]
        group = _GROUP_OF_NAME.get(name) if type(name) is str else None
        if group is None or type(planes) is not list:
            raise ConfigError(f"group record: no such group {name!r}, or its planes are not a list")
        return GroupRecord(group, tuple([_decode_plane(plane) for plane in planes]), fields["cfg"])


@dataclass(frozen=True, slots=True)
class FormingRecord:
    """The nodes of a first layout that may not be written in full yet.

    The layout follows from them alone, so whoever finds this record can finish the work.
    """

    nodes: tuple[NodeRecord, ...]

    def encode(self) -> bytes:
        return _encode({"nodes": [asdict(node) for node in self.nodes]})

    @staticmethod
    def decode(value: bytes) -> FormingRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        nodes = _decode(value, "forming record", {"nodes"})["nodes"]
        if type(nodes) is not list:
            raise ConfigError("forming record: nodes must be a list")
        return FormingRecord(tuple([NodeRecord(**_fields(node, "node", _NODE_FIELDS)) for node in nodes]))


@dataclass(frozen=True, slots=True)
class Cluster:
    """All of it, read at about one time; nodes by name, groups by number."""

    record: ClusterRecord
    nodes: tuple[NodeRecord, ...]
    groups: tuple[GroupRecord, ...]

    def check(self) -> None:
        """Assert the invariants of the module. ConfigError names the first group that breaks one."""
        check_nodes(self.record.network, self.nodes)
        listed = [record.group for record in self.groups]
        _check_unique("groups", "number", [_GROUP_NAMES[group] for group in listed])
        for group in sorted(set(range(GROUPS)).difference(listed)):
            raise ConfigError(f"nobody is listed for group {_GROUP_NAMES[group]}: its addresses are a hole")
        names = {node.name for node in self.nodes}
        for record in self.groups:
            _check_owners(record, self.record.replicas, names)


def _check_owners(record: GroupRecord, replicas: int, names: set[str]) -> None:
    where, owners = f"group {_GROUP_NAMES[record.group]}", record.owners
    if len(owners) != replicas:
        raise ConfigError(f"{where} has {len(owners)} planes, the cluster {replicas}")
    if len(set(owners)) != replicas:
        raise ConfigError(f"two planes of {where} are on one node: {', '.join(owners)}")
    for owner in owners:
        if owner not in names:
            raise ConfigError(f"{where} is owned by {owner}, an unknown node")


def check_nodes(service: IPv6Network, nodes: Sequence[NodeRecord]) -> None:
    """ConfigError unless names and endpoints are unique and addresses lie outside the service."""
    _check_unique("nodes", "name", [node.name for node in nodes])
    _check_unique("nodes", "address and port", [f"[{node.address}]:{node.port}" for node in nodes])
    for node in nodes:
        if IPv6Address(node.address) in service:
            raise ConfigError(f"address {node.address} of node {node.name} lies inside the service {service}")


def _check_unique(things: str, what: str, values: Sequence[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"two {things} have the same {what}: {value}")
        seen.add(value)


# -- JSON -------------------------------------------------------------------------------------------

_CLUSTER_FIELDS = set(ClusterRecord.__dataclass_fields__)
_NODE_FIELDS = set(NodeRecord.__dataclass_fields__)
_GROUP_FIELDS = set(GroupRecord.__dataclass_fields__) - {"is_untouched"}
_PLANE_FIELDS = {"owner", "epoch", "state"}
_MORE_PLANE_FIELDS = {"env", "since", "target", "target_env"}


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps({"format": FORMAT, **fields}).encode()


def _decode(value: bytes, what: str, fields: set[str]) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what}: not JSON: {error}") from error
    number = found.pop("format", None) if type(found) is dict else None
    if type(number) is not int or number != FORMAT:
        raise ConfigError(f"{what}: format {number!r}, this version reads {FORMAT}")
    return _fields(found, what, fields)


def _encode_plane(plane: PlaneOwner) -> dict[str, Any]:
    fields: dict[str, Any] = {"owner": plane.owner, "epoch": plane.epoch, "state": plane.state}
    # A record that names no environment is written as before there were any; so it is without a move.
    if plane.env:
        fields["env"] = f"{plane.env:08x}"
    if plane.since:
        fields["since"] = plane.since
    if plane.target:
        fields |= {"target": plane.target, "target_env": f"{plane.target_env:08x}"}
    return fields


def _decode_plane(found: Any) -> PlaneOwner:
    more = _MORE_PLANE_FIELDS & found.keys() if type(found) is dict else set()
    fields = _fields(found, "plane of a group", _PLANE_FIELDS | more)
    return PlaneOwner(
        fields["owner"],
        fields["epoch"],
        fields["state"],
        _decode_env(fields, "env"),
        fields.get("since", 0),
        fields.get("target", ""),
        _decode_env(fields, "target_env"),
    )


def _decode_env(fields: dict[str, Any], name: str) -> int:
    found = fields.get(name, "00000000")
    _require(_is_match(_ENV_ID, found), f"{name} must be 8 hex digits", found)
    return int(found, 16)


def _fields(found: Any, what: str, fields: set[str]) -> dict[str, Any]:
    if type(found) is not dict or found.keys() != fields:
        raise ConfigError(f"{what}: wants exactly the fields {', '.join(sorted(fields))}")
    return found


def _require(claim: bool, rule: str, got: object) -> None:
    if not claim:
        raise ConfigError(f"{rule}, got {got!r}")


def _require_int(what: str, value: object, first: int, last: int) -> None:
    # bool is an int for isinstance, and JSON's true must not pass for 1.
    if type(value) is not int or not first <= value <= last:
        raise ConfigError(f"{what} must be an integer from {first} to {last}, got {value!r}")


def _is_match(pattern: re.Pattern[str], value: object) -> bool:
    return type(value) is str and pattern.fullmatch(value) is not None


def _is_canonical_service(value: object) -> bool:
    try:
        return type(value) is str and str(service_network(value)) == value
    except ValueError:
        return False


def _is_node_address(value: object) -> bool:
    try:
        address = IPv6Address(value) if type(value) is str else None
    except AddressValueError:
        return False
    if address is None or address.is_multicast or address.is_unspecified or address.is_link_local:
        return False
    # Text is compared as text, so there is one spelling; Python versions spell mapped ones differently.
    return str(address) == value and address.ipv4_mapped is None and address.scope_id is None
