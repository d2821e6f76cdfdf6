"""``sites``: the prefixes at which a cluster answers, one for each site."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ssastore.cli.control import with_control

if TYPE_CHECKING:
    from ssastore.core.cluster import ClusterRecord


@click.group("sites")
def sites_command() -> None:
    """The prefixes at which the cluster answers, one for each site."""


@sites_command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def show_command(context: str | None, as_json: bool) -> int:
    """All prefixes, the first one first."""
    from ssastore.core.clusterreading import read_record

    return _print(with_control(context, read_record), as_json)


@sites_command.command("set")
@click.argument("prefixes", nargs=-1, metavar="[PREFIX/64]...")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def set_command(context: str | None, prefixes: tuple[str, ...], as_json: bool) -> int:
    """Answer at these beside the first prefix, and at no others; none: at the first alone.

    Nothing moves: nodes accept what they own in all of them. Routes to them, and the name in DNS, are
    yours to set first (docs/how-to/bgp.md, docs/how-to/naming.md).
    """
    from ssastore.core.sites import order_sites
    from ssastore.errors import ConfigError
    from ssastore.keyspace import service_network

    try:
        further = [service_network(prefix) for prefix in prefixes]
    except ValueError as error:
        raise ConfigError(f"sites: {error}") from None
    return _print(with_control(context, lambda control: order_sites(control, further)), as_json)


def _print(record: ClusterRecord, as_json: bool) -> int:
    services = [str(service) for service in record.networks]
    print(json.dumps({"sites": services}) if as_json else "\n".join(services))
    return 0
