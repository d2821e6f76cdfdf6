"""What ``ssastore up`` was asked for, and the directory that a lab of that shape lives in.

A directory is taken for a lab's when it holds ``lab.json``, which is written last: a start that was cut short
is finished by the next one, and a directory of something else is left alone.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path

from ssastore.config import make_secrets, write_private
from ssastore.control.address import parse_control
from ssastore.core.settings import RecoverySettings
from ssastore.errors import ConfigError, DataDirError
from ssastore.keyspace import REPLICAS_ALLOWED, service_network
from ssastore.lab.birdconfig import find_bird
from ssastore.lab.etcd import find_etcd
from ssastore.rules.record import record_from_text

EMBEDDED = "embedded"
ETCD = "etcd"

BRIDGE, BGP, BGP_BUILT_IN, TWO_SITES = "bridge", "bgp", "bgp-built-in", "two-sites"
TIERS, FILTER = "tiers", "filter"

ONE_LINK = "one"

_OURS = {"lab.json", "secrets.json", "lost+found"}
"What a data directory may hold before it is one: lab.json is written last."


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What ``ssastore up`` was asked for."""

    nodes: int
    replicas: int
    workers: int
    data_dir: str | None
    s3_port: int
    admin_port: int
    name: str
    service: str | None
    simulate: bool
    control: str = EMBEDDED
    "EMBEDDED, ETCD (one that the lab starts), or where a given etcd is, as in the nodes' settings."
    node_settings: tuple[str, ...] = ()
    "NAME=VALUE of the nodes' files, beside those that the lab sets itself."
    rules: str = ""
    "The service record that nodes, gateway and clients keep; see ``NodeConfig``."
    s3_domain: str = ""
    "See ``GatewayConfig``."
    gateways: int = 1
    "Of S3; the first one serves the localhost of the machine as well."
    topology: str = BRIDGE
    "How hosts hang together, and how the router hears of slices."
    recover_after: int | None = None
    "Seconds until what a node had that is gone is recovered at others; 0: never; None: as it is."

    def extra_settings(self) -> dict[str, object]:
        """Raises ConfigError: not NAME=VALUE. What names and values are right, the node says."""
        settings: dict[str, object] = {}
        for text in self.node_settings:
            name, is_one, value = text.partition("=")
            if not (name.isidentifier() and is_one):
                raise ConfigError(f"--node-setting is NAME=VALUE, got {text!r}")
            try:
                settings[name] = json.loads(value)
            except ValueError:
                settings[name] = value
        return settings


def check_options(options: UpOptions) -> None:
    """Raises ConfigError for what cannot be started."""
    if options.replicas not in REPLICAS_ALLOWED:
        raise ConfigError(f"--replicas is 1, 3 or 5, got {options.replicas}")
    options.extra_settings()
    if options.rules:
        record_from_text(options.rules)
    if options.recover_after is not None:
        RecoverySettings(options.recover_after)
    _check_control(options)
    _check_topology(options)
    if options.nodes < options.replicas:
        raise ConfigError(f"{options.replicas} replicas need as many nodes, got {options.nodes}")
    if options.service is not None:
        try:
            service_network(options.service)
        except ValueError as error:
            raise ConfigError(f"--service: {error}") from None


def _check_control(options: UpOptions) -> None:
    if options.control == ETCD:
        find_etcd()
    elif options.control != EMBEDDED:
        if parse_control(options.control) is None:
            raise ConfigError(
                f"--control is {EMBEDDED}, {ETCD}, or etcd://HOST:PORT, got {options.control!r}"
            )
        if not options.simulate:
            raise ConfigError(
                "--control: the hosts of a lab reach nothing outside of it; let it start an etcd of its own "
                f"with --control {ETCD}, or do without hosts with --simulate"
            )


def _check_topology(options: UpOptions) -> None:
    if options.topology == BRIDGE:
        return
    if options.simulate:
        raise ConfigError(f"--topology {options.topology} needs real hosts, which --simulate does without")
    if options.topology == TWO_SITES and options.replicas == 1:
        raise ConfigError("--topology two-sites: with one replica nothing outlives a site; give --replicas 3")
    if options.topology != FILTER:
        find_bird()
    elif os.geteuid() != 0:
        raise ConfigError(
            "--topology filter needs root: the kernel takes no XDP and tc programs from a user namespace"
        )


def open_data_dir(path: str | None) -> AbstractContextManager[str]:
    """The directory of a lab's data; one that is gone at the end when none was named."""
    if path is not None:
        return nullcontext(path)
    return tempfile.TemporaryDirectory(prefix="ssastore-", ignore_cleanup_errors=True)


def prepare_data_dir(directory: Path, options: UpOptions) -> str:
    """Make the lab's directory, or check that it is one of this shape; the service prefix it was made with.

    That one names the lab's link, and with it the addresses of its nodes, for ever. Where the service is now
    only the control store says.

    Raises:
        DataDirError: it cannot be used, holds something else, or a lab of another shape.
    """
    marker = directory / "lab.json"
    try:
        str(directory).encode()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not marker.exists():
            _make_lab(directory, marker, options)
        shape = json.loads(marker.read_bytes())
        service = str(service_network(shape["service"]))
        _check_shape(directory, shape, options)
        for part in ("config", "log", "nodes"):
            (directory / part).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DataDirError(f"{directory}: {error.strerror}") from None
    except UnicodeEncodeError:
        raise DataDirError(f"{directory!a}: the path must be UTF-8, as the nodes' settings are") from None
    except (ValueError, KeyError, TypeError):
        raise DataDirError(f"{marker} is not what ssastore up writes") from None
    return service


def _check_shape(directory: Path, shape: dict[str, object], options: UpOptions) -> None:
    asked: dict[str, object] = {"nodes": options.nodes, "replicas": options.replicas}
    asked |= {"workers": options.workers, "control": options.control, "links": _links(options)}
    # Labs that were made before there was a choice have no word for it.
    shape = {"control": EMBEDDED, "links": ONE_LINK} | shape
    for what, wanted in asked.items():
        if shape.get(what) != wanted:
            raise DataDirError(
                f"{directory} holds a lab with {what}={shape.get(what)}, asked for {wanted}; "
                "start it with the same, or with another --data"
            )


def _links(options: UpOptions) -> str:
    """On other links nodes have other addresses; for the rest the topology may change from start to start."""
    return options.topology if options.topology in (TWO_SITES, TIERS) else ONE_LINK


def _make_lab(directory: Path, marker: Path, options: UpOptions) -> None:
    """Write secrets and shape of a new lab."""
    names = sorted(path.name for path in directory.iterdir())
    if foreign := [name for name in names if name not in _OURS and not name.startswith(".")]:
        raise DataDirError(f"{directory} holds {foreign[0]} and no lab: give --data a directory of its own")
    service = str(service_network(options.service)) if options.service else _random_service()
    if not (directory / "secrets.json").exists():
        make_secrets(str(directory / "secrets.json"))
    shape: dict[str, object] = {"service": service, "nodes": options.nodes, "replicas": options.replicas}
    shape |= {"workers": options.workers, "control": options.control, "links": _links(options)}
    write_private(marker, json.dumps(shape))


def _random_service() -> str:
    """A /64 of a random unique local prefix (RFC 4193), another for every lab."""
    prefix = 0xFD << 120 | int.from_bytes(os.urandom(5), "big") << 80 | 1 << 64
    return str(IPv6Network((prefix, 64)))
