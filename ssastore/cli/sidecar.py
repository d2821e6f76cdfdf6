"""``sidecar``: a local port for programs that know nothing of rules."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv6Network

    from ssastore.sidecar import Sites
    from ssastore.transport.ruled import RuledLinks


@click.command("sidecar")
@click.argument("target", metavar="NAME:PORT|[PREFIX]:PORT")
@click.option(
    "--listen", default="127.0.0.1:9000", show_default=True, metavar="ADDRESS:PORT", help="Local port."
)
@click.option(
    "--rules",
    envvar="SSASTORE_RULES",
    default="",
    metavar="TEXT",
    help="The service record, where TARGET is a prefix: 'v=SSA1; front=source; hop=30'.",
)
@click.option(
    "--server",
    metavar="ADDRESS",
    envvar="SSASTORE_NAME_SERVER",
    default="",
    help="Name server to ask.",
)
def sidecar_command(target: str, listen: str, rules: str, server: str) -> int:
    """Let programs reach a service's front plane by its rule.

    They connect to the local port; each connection goes to an address that the rule allows this host.
    For a keyed rule SSASTORE_RULE_TOKEN or SSASTORE_RULE_TOKEN_FILE has the token of this /64.
    """
    from ssastore.client import secret_from
    from ssastore.config import parse_listen
    from ssastore.errors import ConfigError
    from ssastore.rules.hashes import token_from_text
    from ssastore.rules.record import ServiceRecord, record_from_text
    from ssastore.sidecar import Sidecar
    from ssastore.system import SystemClock, SystemRandomness
    from ssastore.transport.ruled import RuledLinks
    from ssastore.transport.tcp import TcpLinks

    host, port = parse_target(target)
    record = record_from_text(rules) if rules else ServiceRecord()
    if record.front.needs_name:
        raise ConfigError(f"a sidecar has no name of an object to follow: rule {record.front}")
    token = secret_from(os.environ, "SSASTORE_RULE_TOKEN")
    links = RuledLinks(
        TcpLinks(),
        record,
        SystemClock(),
        SystemRandomness(),
        token=token_from_text(token) if token else b"",
    )
    local_host, local_port = parse_listen(listen)

    async def serve() -> None:
        sidecar = Sidecar(sites_of(host, links, server), port, links)
        listening = await sidecar.listen(local_host, local_port)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        print(f"{listen} goes to {target} by rule {links.record.front}", flush=True)
        await stopped.wait()
        listening.close()
        await sidecar.close()

    asyncio.run(serve())
    return 0


def parse_target(target: str) -> tuple[str, int]:
    """(name or prefix, port). Raises ConfigError."""
    from ssastore.errors import ConfigError

    host, colon, port = target.rpartition(":")
    is_port = colon and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536
    if not is_port or not host:
        raise ConfigError(f"TARGET is NAME:PORT or [PREFIX]:PORT, got {target!r}")
    return host, int(port)


def sites_of(host: str, links: RuledLinks, server: str) -> Sites:
    """Where the service is: the prefix, or what its name says, looked up again when that is too old."""
    from ssastore.client import finder, is_name
    from ssastore.errors import ConfigError
    from ssastore.keyspace import service_network
    from ssastore.transport.lookup import Found, Lookup

    sites: Sequence[IPv6Network] = ()
    if not is_name(host):
        try:
            sites = (service_network(f"{host.strip('[]')}/64"),)
        except ValueError as error:
            raise ConfigError(f"TARGET: {error}") from None

    async def found(where: Found) -> None:
        nonlocal sites
        sites = where.services

    lookup = Lookup(finder(host, 0, server, links), found) if is_name(host) else None

    async def current() -> Sequence[IPv6Network]:
        if lookup is not None:
            await lookup.refresh()
        return sites

    return current
