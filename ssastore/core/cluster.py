"""What the control store knows of a cluster: its records, their keys, their JSON, their checks.

Pure.  The values are JSON because an operator who has nothing left but a generic
client of the control store must be able to read who owns what.

    cluster        ClusterRecord  identity, prefix, hash; how many replicas there are to be; while it is
                                  renumbered, the other prefix (``core.renumbering``); prefixes of
                                  further sites (``core.sites``)
    forming        FormingRecord  only while the first layout is being written
    node/NAME      NodeRecord     one storage node
    group/a3f      GroupRecord    who owns the slices of a group (``core.groups``)

Every value has a format number and exactly the fields of its record: a reader
that does not know a field must not write the record back without it, so it
refuses.  A group that is split (``core.recut``) has a second format, with all its parts under
the one key; so has a cluster that was renumbered or is being so, and one with further sites a
third.  Records check themselves when they are made, decoded ones included.

Invariants (``Cluster.check``): every plane of every part has exactly one owner,
the owners are known nodes, and no node owns two planes of one part.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from ssastore.core.fields import (
    decode_fields,
    encode_fields,
    exact_fields,
    is_canonical_service,
    is_match,
    is_node_address,
    require,
    require_int,
)
from ssastore.core.groups import GROUP_NAMES, NAME, NAME_RULE, GroupRecord
from ssastore.core.numbers import part_piece
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS, HASH_NAME, LANES, REPLICAS_ALLOWED, RULE_VERSION
from ssastore.limits import RENUMBER_TTL_S_MAX

CLUSTER_KEY = "cluster"
FORMING_KEY = "forming"
NODE_PREFIX = "node/"

NATIVE_PORT = 7480
CLUSTER_ID_BYTES = 16
WEIGHT_MAX = 1_000_000
"Only the ratio of weights counts; the bound keeps the planner's fractions small."

OPENING = "opening"
"The other prefix is accepted and routed as well; clients hear of it when every node answers there."
CLOSING = "closing"
"The other prefix is the former one; it stays for a while."
SERIALS_END = 1 << 31
SITES_MAX = 16
"As many as a client takes of a name (docs/how-to/naming.md)."

_CLUSTER_ID = re.compile(rf"[0-9a-f]{{{2 * CLUSTER_ID_BYTES}}}")
_REPLICAS_RULE = f"replicas must be one of {REPLICAS_ALLOWED}"
_ADDRESS_RULE = "node address must be a routable unicast IPv6 address in canonical spelling"
_SERVICE_RULE = "service must be a unicast IPv6 /64 in canonical spelling"


def node_key(name: str) -> str:
    """Key of a node's record."""
    return NODE_PREFIX + name


@dataclass(frozen=True, slots=True)
class OtherPrefix:
    """The second /64 that a cluster answers at while it is renumbered."""

    service: str
    phase: str
    "OPENING or CLOSING."
    left_s: int
    "How long it is to stay; while it is OPENING: how long the prefix of now is to stay after the switch."
    waits_for: tuple[str, ...] = ()
    "Some of the nodes that hold the next step up, for people."

    def __post_init__(self) -> None:
        require(is_canonical_service(self.service), _SERVICE_RULE, self.service)
        require(self.phase in (OPENING, CLOSING), "no such phase of a prefix", self.phase)
        require_int("left_s", self.left_s, 0, RENUMBER_TTL_S_MAX)
        require(all(is_match(NAME, name) for name in self.waits_for), f"a node's name is {NAME_RULE}", self)

    @property
    def network(self) -> IPv6Network:
        return IPv6Network(self.service)

    @staticmethod
    def of(found: object) -> OtherPrefix | None:
        """From JSON. ConfigError: it is none."""
        if found is None:
            return None
        fields = exact_fields(found, "other prefix", _OTHER_FIELDS)
        require(type(fields["waits_for"]) is list, "waits_for must be a list", fields["waits_for"])
        return OtherPrefix(**(fields | {"waits_for": tuple(fields["waits_for"])}))


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What client and node must agree on."""

    cluster_id: str
    "16 random bytes in hex."
    service: str
    "The service /64 in its canonical spelling."
    replicas: int
    created_at_ms: int
    hash_name: str = HASH_NAME
    rule_version: int = RULE_VERSION
    serial: int = 0
    "Counts the times that clients were told of a prefix, so that none believes an old word."
    other: OtherPrefix | None = None
    sites: tuple[str, ...] = ()
    "Further service prefixes, at which the cluster answers for good: the first one's addresses over again."

    def __post_init__(self) -> None:
        require(is_match(_CLUSTER_ID, self.cluster_id), "cluster_id must be 32 hex digits", self.cluster_id)
        require(is_canonical_service(self.service), _SERVICE_RULE, self.service)
        require_int("replicas", self.replicas, 1, max(REPLICAS_ALLOWED))
        require(self.replicas in REPLICAS_ALLOWED, _REPLICAS_RULE, self.replicas)
        require_int("created_at_ms", self.created_at_ms, 0, 1 << 63)
        require(self.hash_name == HASH_NAME, f"this version knows only the hash {HASH_NAME}", self.hash_name)
        require_int("rule_version", self.rule_version, RULE_VERSION, RULE_VERSION)
        require_int("serial", self.serial, 0, SERIALS_END - 1)
        if self.other is not None:
            require(self.other.service != self.service, "two prefixes must differ", self.service)
            require(
                self.serial > 0 or self.other.phase == OPENING, "who closes a prefix was told", self.other
            )
        self._check_sites()

    def _check_sites(self) -> None:
        for site in self.sites:
            require(is_canonical_service(site), _SERVICE_RULE, site)
        prefixes = {self.service, *self.sites}
        require(len(prefixes) == 1 + len(self.sites), "prefixes of sites must differ", self.sites)
        require(len(self.sites) < SITES_MAX, f"at most {SITES_MAX} sites", self.sites)
        # Clients believe one prefix, the one of the highest serial; those of another site would leave it.
        is_told = self.serial > 0 or self.other is not None
        require(not (self.sites and is_told), "a cluster that was renumbered has one site", self.sites)

    @property
    def network(self) -> IPv6Network:
        """The service prefix: what clients are told."""
        return IPv6Network(self.service)

    @property
    def networks(self) -> tuple[IPv6Network, ...]:
        """All prefixes that are accepted and routed: nearly always the one."""
        others = self.sites if self.other is None else (self.other.service,)
        return (self.network, *[IPv6Network(other) for other in others])

    def encode(self) -> bytes:
        fields = asdict(self)
        if self.sites:
            return encode_fields(fields, 3)
        del fields["sites"]
        if self.serial or self.other is not None:
            return encode_fields(fields, 2)
        return encode_fields({name: fields[name] for name in _CLUSTER_FIELDS_1})

    @staticmethod
    @lru_cache(maxsize=16)
    def decode(value: bytes) -> ClusterRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        fields = decode_fields(
            value, "cluster record", set(_CLUSTER_FIELDS_1), _CLUSTER_FIELDS_2, _CLUSTER_FIELDS_3
        )
        sites = fields.get("sites", [])
        require(type(sites) is list, "sites must be a list", sites)
        changed = {"other": OtherPrefix.of(fields.get("other")), "sites": tuple(sites)}
        return ClusterRecord(**(fields | changed))


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
        require(is_match(NAME, self.name), f"node name must be {NAME_RULE}", self.name)
        require(is_node_address(self.address), _ADDRESS_RULE, self.address)
        require_int("port", self.port, 1, 65535)
        require(self.zone == "" or is_match(NAME, self.zone), f"zone must be {NAME_RULE}", self.zone)
        require_int("weight", self.weight, 1, WEIGHT_MAX)
        # More workers than lanes would leave some without a single slice.
        require_int("workers", self.workers, 1, LANES)

    def encode(self) -> bytes:
        return encode_fields(asdict(self))

    @staticmethod
    @lru_cache(maxsize=1024)
    def decode(value: bytes) -> NodeRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        return NodeRecord(**decode_fields(value, "node record", _NODE_FIELDS))


@dataclass(frozen=True, slots=True)
class FormingRecord:
    """The nodes of a first layout that may not be written in full yet.

    The layout follows from them alone, so whoever finds this record can finish the work.
    """

    nodes: tuple[NodeRecord, ...]

    def encode(self) -> bytes:
        return encode_fields({"nodes": [asdict(node) for node in self.nodes]})

    @staticmethod
    def decode(value: bytes) -> FormingRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        nodes = decode_fields(value, "forming record", {"nodes"})["nodes"]
        if type(nodes) is not list:
            raise ConfigError("forming record: nodes must be a list")
        return FormingRecord(
            tuple([NodeRecord(**exact_fields(node, "node", _NODE_FIELDS)) for node in nodes])
        )


@dataclass(frozen=True, slots=True)
class Cluster:
    """All of it, read at about one time; nodes by name, groups by number."""

    record: ClusterRecord
    nodes: tuple[NodeRecord, ...]
    groups: tuple[GroupRecord, ...]

    def check(self) -> None:
        """Assert the invariants of the module. ConfigError names the first group that breaks one."""
        check_nodes(self.record.networks, self.nodes)
        listed = [record.group for record in self.groups]
        _check_unique("groups", "number", [GROUP_NAMES[group] for group in listed])
        for group in sorted(set(range(GROUPS)).difference(listed)):
            raise ConfigError(f"nobody is listed for group {GROUP_NAMES[group]}: its addresses are a hole")
        names = {node.name for node in self.nodes}
        sound: set[tuple[str, ...]] = set()  # Most of the groups have the owners of another one.
        for record in self.groups:
            for view in record.views():
                if view.owners not in sound:
                    _check_owners(view, self.record.replicas, names)
                    sound.add(view.owners)


def _check_owners(record: GroupRecord, replicas: int, names: set[str]) -> None:
    where = (
        f"group {GROUP_NAMES[record.group]}" if record.split is None else f"part {part_piece(record.part)}"
    )
    owners = record.owners
    # A cluster that is given more replicas has groups with fewer for a while.
    if len(owners) > replicas:
        raise ConfigError(f"{where} has {len(owners)} planes, the cluster {replicas}")
    if len(set(owners)) != len(owners):
        raise ConfigError(f"two planes of {where} are on one node: {', '.join(owners)}")
    for owner in owners:
        if owner not in names:
            raise ConfigError(f"{where} is owned by {owner}, an unknown node")


def check_nodes(services: Collection[IPv6Network], nodes: Sequence[NodeRecord]) -> None:
    """ConfigError unless names and endpoints are unique and addresses lie outside of all service prefixes."""
    _check_unique("nodes", "name", [node.name for node in nodes])
    _check_unique("nodes", "address and port", [f"[{node.address}]:{node.port}" for node in nodes])
    for node in nodes:
        for service in services:
            if IPv6Address(node.address) in service:
                raise ConfigError(
                    f"address {node.address} of node {node.name} lies inside the service {service}"
                )


def _check_unique(things: str, what: str, values: Sequence[str]) -> None:
    if len(set(values)) == len(values):
        return
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"two {things} have the same {what}: {value}")
        seen.add(value)


# -- JSON -------------------------------------------------------------------------------------------

_CLUSTER_FIELDS_1 = (
    "cluster_id",
    "service",
    "replicas",
    "created_at_ms",
    "hash_name",
    "rule_version",
)
"Of a cluster that was never renumbered."
_CLUSTER_FIELDS_3 = set(ClusterRecord.__dataclass_fields__)
_CLUSTER_FIELDS_2 = _CLUSTER_FIELDS_3 - {"sites"}
_OTHER_FIELDS = set(OtherPrefix.__dataclass_fields__)
_NODE_FIELDS = set(NodeRecord.__dataclass_fields__)
