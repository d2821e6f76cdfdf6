"""Settings of a node."""

from __future__ import annotations

from dataclasses import dataclass

from ssastore.config.claims import (
    NAME,
    NAME_RULE,
    check_announce,
    check_port,
    check_rules,
    check_tls,
    require,
)
from ssastore.control.address import parse_control
from ssastore.limits import BLOB_GRACE_MS, MAP_BYTES_DEFAULT, MIB, TOMBSTONE_KEPT_MS

_YEAR_S = 366 * 24 * 3600
_WORKERS_MAX = 16


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """``ssastore node --config FILE``."""

    name: str
    "Name of this node, as in the control store."
    control: str
    "The control store: the path of its Unix socket, or `etcd://HOST:PORT[,HOST:PORT...][/PREFIX]`."
    data_dir: str
    "Where this node's data is. One node, one directory, on a disk of its machine."
    secrets_file: str
    "JSON with cluster_secret and access_keys; for its owner alone, or root's and for a group."
    port: int = 7480
    "Native protocol, on all addresses of the host."
    workers: int = 1
    "Processes that share the node by lane, 1 to 16, when it joins; then the cluster's record counts."
    map_bytes: int = MAP_BYTES_DEFAULT
    "Most that one worker can store; the file grows only as it is written."
    tombstone_kept_s: int = TOMBSTONE_KEPT_MS // 1000
    "How long a delete is remembered. Shorter than an hour only for tests: calls are repeated that long."
    blob_grace_s: int = BLOB_GRACE_MS // 1000
    "How long a blob is kept for an upload that has not named it yet. Shorter than a day only for tests."
    scrub_every_s: int = 24 * 3600
    "Time from one scrub pass to the next; one begins 10 s after the start as well."
    scrub_bytes_per_s: int = 32 * MIB
    "What a scrub pass reads in a second, at most."
    lifecycle_day_s: int = 24 * 3600
    "What a day is for lifecycle rules of buckets. Shorter only for tests."
    rules: str = ""
    "The published service record, as `v=SSA1; data=content+source`: connections that break its rule end."
    rules_monitor: bool = False
    "Connections that break the rule are counted and go on: while a rule is brought in, or changed."
    manage_routes: bool = True
    "Set this host's AnyIP routes for what the node owns (needs CAP_NET_ADMIN)."
    announce: str = ""
    "How routers hear of it: `kernel`, by routes for BIRD or FRR; `bgp`, by this node; empty: by others."
    bgp_as: int = 0
    'With `announce = "bgp"`: the autonomous system of this node.'
    bgp_neighbours: str = ""
    "And the routers that are told: `ADDRESS as NUMBER`, with commas between them."
    simulated: bool = False
    "Every node is a port of ::1, as in a lab without namespaces; never on a network."
    tls_name: str = ""
    "Name of the service: the native protocol goes by TLS, and whoever is dialled has to prove this name."
    tls_ca: str = ""
    "With it: file with the certificates (PEM) of those who may sign others."
    tls_cert: str = ""
    "With it: file with the certificate, for this name, that is shown to others."
    tls_key: str = ""
    "With it: file with the key of that certificate, readable by its owner and group at most."
    log_format: str = "text"
    "text or json."

    def check(self) -> None:
        """Raise ConfigError for a value that no node can have."""
        parse_control(self.control)
        require(NAME.fullmatch(self.name) is not None, "name", NAME_RULE)
        check_port("port", self.port)
        require(1 <= self.workers <= _WORKERS_MAX, "workers", f"1 to {_WORKERS_MAX}")
        require(16 * MIB <= self.map_bytes <= 1 << 46, "map_bytes", "16 MiB to 64 TiB")
        require(1 <= self.tombstone_kept_s <= _YEAR_S, "tombstone_kept_s", "1 s to a year")
        require(1 <= self.blob_grace_s <= _YEAR_S, "blob_grace_s", "1 s to a year")
        require(1 <= self.scrub_every_s <= _YEAR_S, "scrub_every_s", "1 s to a year")
        require(1 <= self.lifecycle_day_s <= 24 * 3600, "lifecycle_day_s", "1 s to a day")
        check_rules(self.rules)
        check_tls(self.tls_name, (self.tls_ca, self.tls_cert, self.tls_key))
        check_announce(self.announce, self.bgp_as, self.bgp_neighbours)
        require(self.manage_routes or not self.announce, "announce", "empty without manage_routes")
        require(MIB <= self.scrub_bytes_per_s <= 1 << 40, "scrub_bytes_per_s", "1 MiB to 1 TiB")
        require(self.log_format in ("text", "json"), "log_format", "text or json")
