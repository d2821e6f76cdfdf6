"""The etcd of a lab: one member on a host of its own, for a lab that is to be like several machines.

A site runs three members on three machines, and gives each of its nodes the endpoints of all.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ssastore.config import write_private
from ssastore.errors import ConfigError

COMMAND = "etcd"
CLIENT_PORT = 2379
PEER_PORT = 2380


def find_etcd() -> str:
    """Its path. Raises ConfigError: it is not installed."""
    found = shutil.which(COMMAND)
    if found is None:
        raise ConfigError("--control etcd: there is no etcd here; Debian's package of it is etcd-server")
    return found


def etcd_command(directory: Path, host: str, *, client_port: int, peer_port: int) -> list[str]:
    """The command that runs it, with its data and settings in a lab's directory.

    Args:
        directory: of the lab.
        host: IPv6 address that it is reached at.
        client_port: for the nodes.
        peer_port: for other members, of which there are none.
    """
    client, peer = f"http://[{host}]:{client_port}", f"http://[{host}]:{peer_port}"
    settings: dict[str, object] = {
        "name": COMMAND,
        "data-dir": str(directory / COMMAND),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"{COMMAND}={peer}",
        # Without it every revision is kept, and nodes write a few keys every 5 s.
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
        # A file that does not say so switches it off, though the command's default is on.
        "enable-grpc-gateway": True,
        "logger": "zap",
    }
    path = directory / "config" / "etcd.yaml"
    write_private(path, json.dumps(settings, indent=1))  # JSON is YAML too.
    return [find_etcd(), "--config-file", str(path)]
