"""Settings of a gateway."""

from __future__ import annotations

from dataclasses import dataclass

from ssastore.config.claims import (
    DOMAIN,
    NAME,
    NAME_RULE,
    check_announce,
    check_listen,
    check_rules,
    check_tls,
    require,
)
from ssastore.control.address import parse_control
from ssastore.core.cluster import WEIGHT_MAX
from ssastore.core.fields import is_node_address
from ssastore.limits import CALL_DEADLINE_MS, CALL_DEADLINE_MS_MAX, MIB


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """``ssastore gateway --config FILE``."""

    control: str
    "The control store: the path of its Unix socket, or `etcd://HOST:PORT[,HOST:PORT...][/PREFIX]`."
    secrets_file: str
    "JSON with cluster_secret, access_keys and wrapping_keys; for its owner alone, or root's and for a group."
    name: str = ""
    "Name of this gateway in the front plane; empty: it owns no part of it, and has no addresses there."
    address: str = ""
    "With a name: the address of this host, outside the service prefix, to which routers send its part."
    weight: int = 1
    "Share of the front plane, relative to other gateways."
    announce: str = ""
    "With a name, how routers hear of its part: `kernel` or `bgp`, as of nodes; empty: by others."
    bgp_as: int = 0
    'With `announce = "bgp"`: the autonomous system of this gateway.'
    bgp_neighbours: str = ""
    "And the routers that are told, as of nodes."
    s3_listen: str = "[::]:7482"
    "Address and port of the S3 interface; with a name all addresses, `[::]`."
    admin_listen: str = "[::1]:7481"
    "Address and port of health, status and metrics; empty for none."
    admin_token_file: str = ""
    "File of the console's admin token, made if need be; empty: `admin-token` beside the secrets file."
    region: str = "us-east-1"
    "Region that requests are signed for."
    s3_domain: str = ""
    "`s3.example.org` makes `BUCKET.s3.example.org` a bucket (virtual-host style); empty: path style alone."
    rules: str = ""
    "The published service record, as for nodes: it keeps the rule; with a name, who dials it has to as well."
    rules_monitor: bool = False
    "Connections that break the rule are counted and go on, as for nodes."
    deadline_ms: int = 10_000
    "Bound on one call to a node, retries included: S3 clients retry by themselves."
    cache_bytes: int = 64 * MIB
    "Memory for parts of large objects that are read again and again; 0 keeps none."
    tls_name: str = ""
    "Name of the service: the native protocol goes by TLS, and whoever is dialled has to prove this name."
    tls_ca: str = ""
    "With it: file with the certificates (PEM) of those who may sign others."
    tls_cert: str = ""
    "With it: file with the certificate, for this name, that is shown to others."
    tls_key: str = ""
    "With it: file with the key of that certificate, readable by its owner and group at most."
    s3_cert: str = ""
    "Certificate of the S3 interface (PEM, with those that signed it): it speaks HTTPS alone. Empty: HTTP."
    s3_key: str = ""
    "Its key, readable by its owner and group at most."
    log_format: str = "text"
    "text or json."

    def check(self) -> None:
        """Raise ConfigError for a value that no gateway can have."""
        parse_control(self.control)
        for name in ("s3_listen", "admin_listen"):
            if text := getattr(self, name):
                check_listen(name, text)
        if self.name:
            require(NAME.fullmatch(self.name) is not None, "name", NAME_RULE)
            require(
                is_node_address(self.address), "address", "a routable IPv6 address for a gateway with a name"
            )
            require(1 <= self.weight <= WEIGHT_MAX, "weight", f"1 to {WEIGHT_MAX}")
            require(self.s3_listen.startswith("[::]:"), "s3_listen", "[::]:PORT for a gateway with a name")
        check_announce(self.announce, self.bgp_as, self.bgp_neighbours)
        require(bool(self.name) or not self.announce, "announce", "empty without name")
        is_domain = not self.s3_domain or DOMAIN.fullmatch(self.s3_domain) is not None
        require(is_domain, "s3_domain", "a domain such as s3.example.org, without a port")
        check_rules(self.rules)
        check_tls(self.tls_name, (self.tls_ca, self.tls_cert, self.tls_key))
        require(bool(self.s3_cert) == bool(self.s3_key), "s3_key", "there with s3_cert, and only then")
        require(100 <= self.deadline_ms <= CALL_DEADLINE_MS_MAX, "deadline_ms", "100 to 60000")
        require(0 <= self.cache_bytes <= 1 << 40, "cache_bytes", "0 to 1 TiB")
        require(self.log_format in ("text", "json"), "log_format", "text or json")


assert CALL_DEADLINE_MS <= CALL_DEADLINE_MS_MAX
