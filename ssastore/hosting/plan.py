"""What a site is, and what the files of each of its hosts say. Pure.

A site is one service on several hosts, each with a node, a gateway and perhaps a member of the etcd.  Its
record, ``site.json``, is the same on all hosts; what it does not say follows from it and from which host
this is, so that nothing can be copied wrongly.

    SETTINGS/site.json          the site
    SETTINGS/secrets.json       cluster secret, access keys, wrapping keys
    SETTINGS/admin-token        of the gateway's console; each host has its own
    SETTINGS/tls/ca.pem         whom everybody believes
    SETTINGS/tls/host.pem .key  this host's certificate: the service's name, and its own address
    SETTINGS/tls/ca.key         on the first host only
    SETTINGS/node.toml  gateway.toml  etcd.json
    DATA/node  DATA/etcd
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

from ssastore.config.claims import check_tls
from ssastore.core.cluster import NodeRecord, check_nodes
from ssastore.errors import ConfigError
from ssastore.keyspace import REPLICAS_ALLOWED, service_network

ADMIT_PORT = 7484
"Where the first host admits further ones."

_CLIENT_PORT, _PEER_PORT = 2379, 2380
_MEMBERS = 3
"Of the etcd: one of them may be away. More would only make every change slower."
_FIELDS = {"name": str, "service": str, "replicas": int, "nodes": list, "settings": dict, "etcd_token": str}
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

Setting = str | int | bool


@dataclass(frozen=True, slots=True)
class Site:
    """One service on several hosts."""

    name: str
    "Of the service, as certificates have it."
    service: str
    replicas: int
    nodes: tuple[NodeRecord, ...]
    "Those that the cluster is formed of; the first one's host admits the others."
    settings: Mapping[str, Setting] = field(default_factory=dict)
    "Of every node, beside those that follow."
    etcd_token: str = ""
    "Keeps members of different etcds apart."

    def __post_init__(self) -> None:
        check_tls(self.name, (".", ".", "."))
        try:
            network = service_network(self.service)
        except ValueError as error:
            raise ConfigError(f"service: {error}") from None
        if self.replicas not in REPLICAS_ALLOWED or len(self.nodes) < self.replicas:
            raise ConfigError(
                f"{self.replicas} replicas on {len(self.nodes)} nodes: there are 1, 3 or 5, on as many nodes"
            )
        check_nodes([network], self.nodes)
        here = _what_follows(self, self.nodes[0], Places(Path(), Path()))
        if taken := [name for name in self.settings if name in here]:
            raise ConfigError(
                f"{taken[0]}: follows from the site, differs between its hosts or is checked with it;"
                " it cannot be set for every node"
            )

    @property
    def network(self) -> IPv6Network:
        return service_network(self.service)

    @property
    def members(self) -> tuple[NodeRecord, ...]:
        """Nodes whose hosts have a member of the etcd: an odd number of them."""
        return self.nodes[: _MEMBERS if len(self.nodes) >= _MEMBERS else 1]

    def encode(self) -> str:
        """As JSON."""
        fields = asdict(self) | {"nodes": [asdict(node) for node in self.nodes]}
        return json.dumps({"schema": "ssastore.site/1", **fields}, indent=1)


def decode_site(text: str | bytes) -> Site:
    """Inverse of ``Site.encode``. Raises ConfigError."""
    try:
        found = json.loads(text)
        if found.pop("schema") != "ssastore.site/1" or found.keys() != _FIELDS.keys():
            raise ConfigError("no record of a site that this version knows")
        if any(type(found[name]) is not kind for name, kind in _FIELDS.items()):
            raise ConfigError("the record of a site has a field of another kind")
        nodes = tuple(NodeRecord(**node) for node in found.pop("nodes"))
        return Site(nodes=nodes, **found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("no record of a site") from None


@dataclass(frozen=True, slots=True)
class Places:
    """Where a host keeps its settings and its data."""

    settings: Path
    data: Path

    @property
    def site(self) -> Path:
        return self.settings / "site.json"

    @property
    def secrets(self) -> Path:
        return self.settings / "secrets.json"

    @property
    def admin_token(self) -> Path:
        return self.settings / "admin-token"

    @property
    def tls(self) -> Path:
        return self.settings / "tls"

    @property
    def node(self) -> Path:
        return self.settings / "node.toml"

    @property
    def gateway(self) -> Path:
        return self.settings / "gateway.toml"

    @property
    def etcd(self) -> Path:
        return self.settings / "etcd.json"


def names_of(site: Site, node: NodeRecord) -> list[str]:
    """What a host's certificate proves: the service, buckets as its subdomains, and itself."""
    return [site.name, f"*.{site.name}", node.address, *_LOCAL_NAMES]


def control_of(site: Site, places: Places) -> str:
    """The setting ``control`` of every process of a host."""
    endpoints = ",".join(f"[{member.address}]:{_CLIENT_PORT}" for member in site.members)
    tls = places.tls
    return f"etcds://{endpoints}/ssastore?ca={tls / 'ca.pem'}&cert={tls / 'host.pem'}&key={tls / 'host.key'}"


def node_settings(site: Site, node: NodeRecord, places: Places) -> dict[str, Setting]:
    """Of ``node.toml``."""
    return {**_what_follows(site, node, places), **site.settings}


def _what_follows(site: Site, node: NodeRecord, places: Places) -> dict[str, Setting]:
    return {
        "name": node.name,
        "control": control_of(site, places),
        "data_dir": str(places.data / "node"),
        "secrets_file": str(places.secrets),
        "port": node.port,
        "workers": node.workers,
        **_tls_settings(site, places),
    }


def gateway_settings(site: Site, places: Places) -> dict[str, Setting]:
    """Of ``gateway.toml``: S3 by HTTPS on every address of the host, the admin port for the host itself."""
    return {
        "control": control_of(site, places),
        "secrets_file": str(places.secrets),
        "admin_listen": "127.0.0.1:7481",
        "s3_domain": site.name,
        "s3_cert": str(places.tls / "host.pem"),
        "s3_key": str(places.tls / "host.key"),
        **_tls_settings(site, places),
        **{name: value for name, value in site.settings.items() if name in ("rules", "rules_monitor")},
    }


def _tls_settings(site: Site, places: Places) -> dict[str, Setting]:
    return {
        "tls_name": site.name,
        "tls_ca": str(places.tls / "ca.pem"),
        "tls_cert": str(places.tls / "host.pem"),
        "tls_key": str(places.tls / "host.key"),
    }


def etcd_settings(site: Site, node: NodeRecord, places: Places) -> dict[str, Any] | None:
    """Of ``etcd.json`` (its YAML takes JSON); None on a host that has no member."""
    if node not in site.members:
        return None
    tls = {
        "cert-file": str(places.tls / "host.pem"),
        "key-file": str(places.tls / "host.key"),
        "trusted-ca-file": str(places.tls / "ca.pem"),
        "client-cert-auth": True,
    }
    client, peer = f"https://[{node.address}]:{_CLIENT_PORT}", f"https://[{node.address}]:{_PEER_PORT}"
    peers = [f"{member.name}=https://[{member.address}]:{_PEER_PORT}" for member in site.members]
    return {
        "name": node.name,
        "data-dir": str(places.data / "etcd"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": ",".join(peers),
        "initial-cluster-token": site.etcd_token,
        "client-transport-security": tls,
        "peer-transport-security": tls,
        # Without it every revision is kept, and nodes write a few keys every 5 s.
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
        # A file that does not say so switches it off, though the command's default is on.
        "enable-grpc-gateway": True,
        "logger": "zap",
    }


def toml(settings: Mapping[str, Setting]) -> str:
    """Settings as a file: TOML takes JSON's strings, but not its pairs of surrogates."""
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in settings.items())
