"""Settings of a node and of a gateway: one TOML file each, checked in full before anything starts.

A wrong setting is a ConfigError that names file, line and what would be right.
Secrets are never in the file: it names files that only their owner can read.
"""

from ssastore.config.claims import parse_listen
from ssastore.config.files import write_private
from ssastore.config.gatewaysettings import GatewayConfig
from ssastore.config.keys import (
    add_wrapping_key,
    exchange_cluster_secret,
    load_rules,
    load_secrets,
    load_wrapping_keys,
    make_secrets,
    use_wrapping_key,
    watch_secrets,
    write_secrets,
)
from ssastore.config.loading import load
from ssastore.config.nodesettings import NodeConfig
from ssastore.config.opening import open_control
from ssastore.config.tlsfiles import load_s3_tls, load_tls

__all__ = [
    "GatewayConfig",
    "NodeConfig",
    "add_wrapping_key",
    "exchange_cluster_secret",
    "load",
    "load_rules",
    "load_s3_tls",
    "load_secrets",
    "load_tls",
    "load_wrapping_keys",
    "make_secrets",
    "open_control",
    "parse_listen",
    "use_wrapping_key",
    "watch_secrets",
    "write_private",
    "write_secrets",
]
