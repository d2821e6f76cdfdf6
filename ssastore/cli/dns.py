"""``dns``: a service's name, as name servers are told of it and as clients see it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ipaddress import IPv6Address

    from ssastore.naming.answer import Whereabouts

_FORMATS = ("knot", "bind", "nsd", "powerdns", "generic")

_record = click.option(
    "--record",
    default="v=SSA1",
    show_default=True,
    metavar="TEXT",
    help="The service record: port, replicas, rules (docs/reference/rules.md).",
)
_ttl = click.option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(1, 3600),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="How long the answer may be kept.",
)
_holes = click.option("--hole", "holes", multiple=True, metavar="PREFIX", help="A part that nobody serves.")
_addresses = click.option(
    "--aaaa",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="A gateway, for whoever asks for no prefix.",
)
_front = click.option(
    "--front",
    type=click.IntRange(0, 16),
    default=0,
    show_default=True,
    metavar="COUNT",
    help="So many addresses of the front plane as AAAA, for whoever asks for no prefix (front.md).",
)


@click.group("dns")
def dns_command() -> None:
    """The name of a service in DNS: APL for its prefixes, TXT for its rules."""


def _whereabouts(prefixes: tuple[str, ...], holes: tuple[str, ...], record: str, ttl_s: int) -> Whereabouts:
    from ipaddress import IPv6Network

    from ssastore.errors import ConfigError
    from ssastore.keyspace import service_network
    from ssastore.naming.answer import Whereabouts
    from ssastore.rules.record import record_from_text

    try:
        sites = tuple(service_network(prefix) for prefix in prefixes)
        left_out = tuple(IPv6Network(hole) for hole in holes)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if set(sites) & set(left_out):
        raise ConfigError("a hole leaves nothing of its prefix: leave the prefix out")
    if outside := [hole for hole in left_out if not any(hole.subnet_of(site) for site in sites)]:
        raise ConfigError(f"{outside[0]} is in none of the prefixes")
    return Whereabouts(sites, left_out, record_from_text(record), ttl_s)


def _parsed(addresses: tuple[str, ...]) -> list[IPv6Address]:
    from ipaddress import IPv6Address

    from ssastore.errors import ConfigError

    try:
        parsed = [IPv6Address(address) for address in addresses]
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if local := [address for address in parsed if address.is_link_local or address.is_multicast]:
        raise ConfigError(f"{local[0]}: nobody elsewhere can reach that address")
    return parsed


@dns_command.command("zone")
@click.argument("name")
@click.argument("prefixes", nargs=-1, required=True, metavar="PREFIX...")
@_record
@_holes
@_addresses
@_front
@_ttl
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    default="bind",
    show_default=True,
    help="generic: APL by its number, for editors of zones that do not know the type.",
)
def zone_command(
    name: str,
    prefixes: tuple[str, ...],
    record: str,
    holes: tuple[str, ...],
    addresses: tuple[str, ...],
    front: int,
    ttl_s: int,
    form: str,
) -> None:
    """Print the lines that tell a name server of service NAME at these /64s, the nearest first."""
    from dataclasses import replace

    from ssastore.naming.zone import front_addresses, zone_lines

    where = _whereabouts(prefixes, holes, record, ttl_s)
    if form == "generic":
        # Who cannot write APL may have clients behind resolvers that cannot pass it on.
        where = replace(where, record=replace(where.record, prefixes=where.sites))
    for line in zone_lines(
        name,
        where.sites,
        holes=where.holes,
        record=where.record,
        # Where nothing is drawn anew for each answer, those in the middle.
        addresses=_parsed(addresses) + front_addresses(where.sites, front, lambda bound: bound // 2),
        ttl_s=ttl_s,
        form=form,
    ):
        click.echo(line)


@dns_command.command("check")
@click.argument("name")
@click.option(
    "--server", metavar="ADDRESS", envvar="SSASTORE_NAME_SERVER", help="ADDRESS or [ADDRESS]:PORT to ask."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def check_command(name: str, server: str | None, as_json: bool) -> None:
    """Look NAME up as a client does, and show each step."""
    from ssastore.errors import SsaStoreError
    from ssastore.naming.resolve import Story, look_up, name_server_from

    story = Story()
    try:
        where = asyncio.run(look_up(name, server=name_server_from(server) if server else None, story=story))
    except SsaStoreError:
        if not as_json:
            _echo(story.lines)
        raise
    if as_json:
        click.echo(
            json.dumps(
                {
                    "step": where.step,
                    "prefixes": [str(site) for site in where.sites],
                    "holes": [str(hole) for hole in where.holes],
                    "record": str(where.record),
                    "ttl_s": where.ttl_s,
                    "asked": story.lines,
                }
            )
        )
        return
    _echo(story.lines)
    click.echo(f"found by  {where.step.upper()}, for {where.ttl_s} s")
    for site in where.sites:
        click.echo(f"service   {site}")
    for hole in where.holes:
        click.echo(f"without   {hole}")
    click.echo(f"record    {where.record}")


def _echo(lines: list[str]) -> None:
    for line in lines:
        click.echo(f"asked     {line}")


@dns_command.command("serve")
@click.argument("name")
@click.argument("prefixes", nargs=-1, required=True, metavar="PREFIX...")
@_record
@_holes
@_addresses
@_front
@_ttl
@click.option("--listen", default="::1", show_default=True, metavar="ADDRESS", help="Where to answer.")
@click.option("--port", type=click.IntRange(0, 65535), default=5353, show_default=True, help="UDP and TCP.")
def serve_command(
    name: str,
    prefixes: tuple[str, ...],
    record: str,
    holes: tuple[str, ...],
    addresses: tuple[str, ...],
    front: int,
    ttl_s: int,
    listen: str,
    port: int,
) -> None:
    """Answer for service NAME: a small name server for labs, until interrupted."""
    where, gateways = _whereabouts(prefixes, holes, record, ttl_s), _parsed(addresses)

    async def serve() -> None:
        from ssastore.naming.responder import Responder, zone_of

        responder = Responder(zone_of(name, where, gateways, front=front))
        await responder.start(listen, port)
        click.echo(f"answers for {name} at [{listen}]:{responder.port}")
        try:
            await asyncio.Event().wait()
        finally:
            await responder.close()

    asyncio.run(serve())
