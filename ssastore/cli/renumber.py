"""``renumber``: another service /64 for a cluster that runs."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from ssastore.cli.control import with_control
from ssastore.limits import RENUMBER_TTL_S, RENUMBER_TTL_S_MAX

if TYPE_CHECKING:
    from ipaddress import IPv6Network

    from ssastore.core.cluster import ClusterRecord
    from ssastore.env import ControlStore

_POLL_S = 0.25


@click.command("renumber")
@click.argument("prefix", metavar="[PREFIX/64]", required=False)
@click.option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(0, RENUMBER_TTL_S_MAX),
    metavar="SECONDS",
    help=f"How long the former prefix stays after the switch. Default: {RENUMBER_TTL_S}.",
)
@click.option(
    "--wait/--no-wait", "is_waiting", default=True, help="Wait until the former prefix is withdrawn."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def renumber_command(
    context: str | None, prefix: str | None, ttl_s: int | None, is_waiting: bool, as_json: bool
) -> int:
    """Let the running cluster be at another service PREFIX, or show where it is and goes.

    Nothing moves: nodes answer at both prefixes, clients that are connected and gateways go to the new one by
    themselves when every node answers there, and the former one is withdrawn after --ttl. Until then the same
    command with the former prefix turns back. Interrupting the wait stops nothing; given again, it waits
    again, and --ttl counts from then on.
    """
    from ssastore.core.clusterreading import read_record
    from ssastore.core.renumbering import order_renumbering
    from ssastore.errors import ConfigError
    from ssastore.keyspace import service_network
    from ssastore.lab.context import find

    started = time.monotonic()
    if prefix is None:
        if ttl_s is not None:
            raise click.UsageError("--ttl is for a prefix: renumber PREFIX/64 --ttl SECONDS")
        record = with_control(context, read_record)
    else:
        try:
            wanted = service_network(prefix)
        except ValueError as error:
            raise ConfigError(f"renumber: {error}") from None
        lab = find(context)
        if lab.is_simulated:
            raise ConfigError(
                f"the network of lab {lab.name!r} is simulated: nobody there has an address in its prefix"
            )
        record = with_control(lab, lambda control: order_renumbering(control, wanted, ttl_s))
        if is_waiting and record.other is not None:
            record = with_control(lab, lambda control: _follow(control, wanted, is_shown=not as_json))
    other = None if record.other is None else asdict(record.other)
    if as_json:
        shown = {"service": record.service, "serial": record.serial, "renumbering": other}
        print(json.dumps(shown | {"seconds": round(time.monotonic() - started, 1)}))
    else:
        print(f"the service is at {record.service}" + ("" if other is None else f"; {renumbering(other)}"))
    return 0


def renumbering(other: Mapping[str, Any]) -> str:
    """What the other prefix is there for, in words."""
    waits_for = ", ".join(other["waits_for"])
    if other["phase"] == "opening":
        waits = f", waits for {waits_for} to answer there" if waits_for else ""
        return f"it goes to {other['service']}{waits}"
    if waits_for:
        return f"the former {other['service']} waits for {waits_for}, which still tells it to clients"
    return f"the former {other['service']} stays for {other['left_s']} s"


async def _follow(control: ControlStore, wanted: IPv6Network, *, is_shown: bool) -> ClusterRecord:
    """Until there is one prefix. A line for each step, and for what holds it up.

    Raises:
        ConfigError: that is another one.
        Unavailable: the control store does not answer.
    """
    from ssastore.core.clusterreading import read_record
    from ssastore.errors import ConfigError

    said: object = None
    while (other := (record := await read_record(control)).other) is not None:
        step = replace(other, left_s=0)
        if is_shown and step != said:
            print(
                f"the service is at {record.service}; {renumbering(asdict(other))}",
                file=sys.stderr,
                flush=True,
            )
        said = step
        await asyncio.sleep(_POLL_S)
    if record.network != wanted:
        raise ConfigError(f"somebody turned back meanwhile: the service is at {record.service}")
    return record
