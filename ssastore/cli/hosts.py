"""``ssastore init``, ``node join``, ``admit``, ``token``, ``protect``: a cluster on several hosts."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssastore.cli.forming import NODE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssastore.core.cluster import NodeRecord
    from ssastore.hosting.plan import Places

_TTL_H = 24.0
_SECONDS_AN_HOUR = 3600
_ttl = click.option(
    "--ttl",
    metavar="HOURS",
    type=click.FloatRange(0.01, 24 * 30),
    default=_TTL_H,
    show_default=True,
    help="How long a token may be used.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
_PATH = click.Path(path_type=Path, file_okay=False)


def _where(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where a host keeps its files."""
    settings = click.option(
        "--settings",
        type=_PATH,
        envvar="SSASTORE_SETTINGS",
        default="/etc/ssastore",
        show_default=True,
        help="Directory of this host's settings.",
    )
    data = click.option(
        "--data",
        type=_PATH,
        envvar="SSASTORE_DATA",
        default="/var/lib/ssastore",
        show_default=True,
        help="Directory of this host's data.",
    )
    return settings(data(command))


def _user(command: Callable[..., Any]) -> Callable[..., Any]:
    """As whom services run."""
    return click.option(
        "--user", help="As whom the services run, with systemd ssastore: it reads settings, and has the data."
    )(command)


def _places(settings: Path, data: Path) -> Places:
    from ssastore.hosting.plan import Places

    return Places(settings.absolute(), data.absolute())


@click.command("init")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True, type=NODE)
@click.option("--name", required=True, help="Name of the service: what certificates prove.")
@click.option("--service", metavar="PREFIX", required=True, help="The service /64, as 2001:db8:5a:1::/64.")
@click.option(
    "--replicas", type=click.IntRange(1), help="1, 3 or 5; by default 3 where there are as many nodes."
)
@click.option(
    "--set",
    "chosen",
    metavar="NAME=VALUE",
    multiple=True,
    help="A setting of every node, as announce=bgp; not what follows from the rest. Again for more.",
)
@_ttl
@_where
@_user
@_json
def init_command(
    nodes: tuple[NodeRecord, ...],
    name: str,
    service: str,
    replicas: int | None,
    chosen: tuple[str, ...],
    ttl: float,
    settings: Path,
    data: Path,
    user: str | None,
    as_json: bool,
) -> int:
    """Make a cluster on several hosts; this is the first of them.

    NODE is NAME=ADDRESS, with ,zone=NAME ,weight=N ,workers=N ,port=N as need be; the first one is this
    host's. Addresses are those of the hosts, outside of the service prefix. Made are secrets, an authority
    for TLS, settings of node, gateway and etcd, and for every other host a token. Nothing is started.
    """
    import os

    from ssastore.hosting.files import known_user, make_first
    from ssastore.hosting.plan import Site

    places = _places(settings, data)
    if user is not None:
        known_user(user)
    site = Site(
        name,
        service,
        replicas or (3 if len(nodes) >= 3 else 1),
        nodes,
        _settings(chosen),
        os.urandom(8).hex(),
    )
    _check_settings(site, places)
    make_first(site, places)
    tokens = {node.name: _token(places, node, ttl) for node in nodes[1:]}
    _give(places, user)
    if as_json:
        print(json.dumps({"host": nodes[0].name, "settings": str(places.settings), "tokens": tokens}))
        return 0
    print(
        f"{site.name}, {site.service}, {site.replicas} replicas on {', '.join(node.name for node in nodes)}"
    )
    print(f"this host is {nodes[0].name}: settings in {places.settings}, data in {places.data}; start it now")
    for other, token in tokens.items():
        print(f"on {other}, and start it then:\n  ssastore node join {token}")
    if tokens:
        print(f"each token works once, within {ttl:g} hours, while this host runs")
    return 0


@click.command("join")
@click.argument("token", metavar="TOKEN")
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="How long it is asked for, when the first host does not answer yet.",
)
@_where
@_user
def join_command(token: str, wait: float, settings: Path, data: Path, user: str | None) -> int:
    """Make this host one of a cluster, by a token of the cluster's first host. Start it then.

    TOKEN may be -, to be read from standard input.
    """
    from ssastore.hosting.files import known_user
    from ssastore.hosting.joining import join
    from ssastore.hosting.tokens import decode_token

    if user is not None:
        known_user(user)

    if token == "-":  # noqa: S105  # read from standard input, not a secret itself
        token = sys.stdin.readline()
    places = _places(settings, data)
    node = asyncio.run(join(decode_token(token), places, wait_s=wait))
    _give(places, user)
    print(f"this host is {node.name}, [{node.address}]: settings in {places.settings}, data in {places.data}")
    return 0


@click.command("admit")
@_where
def admit_command(settings: Path, data: Path) -> int:
    """Admit hosts that come with a token, until none is left that could be used. On the first host."""
    from ssastore.hosting.admitting import serve
    from ssastore.hosting.plan import ADMIT_PORT
    from ssastore.observe import configure_logging

    configure_logging("admission")
    return asyncio.run(serve(_places(settings, data), ADMIT_PORT))


@click.command("token")
@click.argument("node", metavar="NODE", type=NODE)
@_ttl
@_where
@_json
def token_command(node: NodeRecord, ttl: float, settings: Path, data: Path, as_json: bool) -> int:
    """Make a token for one more host, or another one for a host that could not use its own.

    Run it on the first host; it prints the command to run on the other one. A token works once. NODE is
    NAME=ADDRESS, as n4=2001:db8:99::14, with ,zone=NAME ,weight=N ,workers=N ,port=N as need be. A node that
    the cluster was not formed with owns nothing at first: `ssastore plan` and `apply` give it its share.
    """
    token = _token(_places(settings, data), node, ttl)
    print(json.dumps({"token": token}) if as_json else f"ssastore node join {token}")
    return 0


@click.command("protect")
@click.option("--user", required=True, help="As whom the services run, with systemd ssastore.")
@_where
def protect_command(user: str, settings: Path, data: Path) -> int:
    """Make the files of a host root's, which the services' user reads, as `init --user` does.

    For a host on which an earlier version gave them to that user. Run it as root; nothing has to be started
    again. What the services must not read, the authority's key and the tokens, is root's alone.
    """
    from ssastore.hosting.files import read_site

    places = _places(settings, data)
    read_site(places)
    _give(places, user)
    print(f"{places.settings} is protected: {user} reads it, and writes nothing there")
    return 0


def _give(places: Places, user: str | None) -> None:
    if user is None:
        return
    from ssastore.console.token import make_token
    from ssastore.hosting.files import give_to
    from ssastore.system import SystemRandomness

    give_to(places, user)
    if not places.admin_token.exists():  # The gateway could not make it there.
        make_token(places.admin_token, SystemRandomness(), like=str(places.secrets))


def _token(places: Places, node: NodeRecord, ttl_h: float) -> str:
    from ssastore.authority import read_certificates
    from ssastore.errors import ConfigError
    from ssastore.hosting.files import read_site, token_book
    from ssastore.hosting.plan import ADMIT_PORT
    from ssastore.hosting.tokens import Token, TokenBook

    site = read_site(places)
    known = next((found for found in site.nodes if found.name == node.name), node)
    if known != node:
        raise ConfigError(f"{node.name} is [{known.address}] in this site, and not what is said now")
    if not (places.tls / "ca.key").exists():
        raise ConfigError("tokens are made on the first host, which has the authority's key")
    path = places.tls / "ca.pem"
    ca = read_certificates(path.read_bytes(), str(path))[0]
    secret = TokenBook(token_book(places)).issue(node, ttl_s=ttl_h * _SECONDS_AN_HOUR)
    return Token(site.nodes[0].address, ADMIT_PORT, site.name, ca.fingerprint, secret).encode()


def _settings(chosen: tuple[str, ...]) -> dict[str, Any]:
    from ssastore.errors import ConfigError

    settings: dict[str, Any] = {}
    for text in chosen:
        name, is_one, value = text.partition("=")
        if not (name.isidentifier() and is_one):
            raise ConfigError(f"--set is NAME=VALUE, got {text!r}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _check_settings(site: Any, places: Places) -> None:
    """Before anything is written: what no node can have would only show when the first one starts."""
    from tempfile import TemporaryDirectory

    from ssastore.config import NodeConfig, load
    from ssastore.errors import ConfigError
    from ssastore.hosting.plan import node_settings, toml

    with TemporaryDirectory() as directory:
        path = Path(directory) / "node.toml"
        path.write_text(toml(node_settings(site, site.nodes[0], places)), encoding="utf-8")
        try:
            load(str(path), NodeConfig)
        except ConfigError as error:
            raise ConfigError(f"--set: {str(error).removeprefix(str(path))}") from None
