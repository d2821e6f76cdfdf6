"""``filter inject``, ``withdraw``, ``attack`` and ``show``: orders to a filter that runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
_REASONS = ("attack", "vulnerability", "injected", "suspect")
_DEFAULT_S = 600.0


def _for_option(function: F) -> F:
    return click.option(
        "--for",
        "for_s",
        type=float,
        default=_DEFAULT_S,
        show_default=True,
        metavar="SECONDS",
        help="When it ends by itself; a day at most.",
    )(function)


def _packets_options(function: F) -> F:
    to = click.option("--to", "is_to", is_flag=True, help="Packets to PREFIX, not from it.")
    port = click.option(
        "--port", type=click.IntRange(1, 65535), help="Only packets to this port, of TCP and UDP."
    )
    return to(port(function))


def _packets(prefix: str, port: int | None, is_to: bool) -> dict[str, Any]:
    return {"prefix": prefix, "port": port or 0, "side": "to" if is_to else "from"}


@click.command("inject")
@click.argument("interface")
@click.argument("prefix")
@_packets_options
@click.option(
    "--reason",
    type=click.Choice(_REASONS),
    default="injected",
    show_default=True,
    help="The counter; suspect: packets are possibly bad, with the other reasons they are rejected.",
)
@_for_option
def inject_command(
    interface: str, prefix: str, port: int | None, is_to: bool, reason: str, for_s: float
) -> None:
    """Reject packets from PREFIX at INTERFACE's filter, known flows too, or take them for possibly bad."""
    from ssastore.filter.desk import ask

    asked = _packets(prefix, port, is_to) | {"do": "inject", "reason": reason, "for_s": for_s}
    told = ask(interface, asked)
    click.echo(f"{told['reason']}: {told['order']}, for {told['for_s']:g} s")


@click.command("withdraw")
@click.argument("interface")
@click.argument("prefix")
@_packets_options
def withdraw_command(interface: str, prefix: str, port: int | None, is_to: bool) -> None:
    """End an order before its time."""
    from ssastore.filter.desk import ask

    told = ask(interface, _packets(prefix, port, is_to) | {"do": "withdraw"})
    click.echo(f"withdrawn: {told['order']}")


@click.command("attack")
@click.argument("interface")
@click.argument("state", type=click.Choice(["on", "off"]))
@_for_option
def attack_command(interface: str, state: str, for_s: float) -> None:
    """Say that there is an attack, or none: meanwhile clients that know no rule are possibly bad."""
    from ssastore.filter.desk import ask

    ask(interface, {"do": "attack", "on": state == "on", "for_s": for_s})
    click.echo(f"attack on, for {for_s:g} s" if state == "on" else "attack off")


@click.command("show")
@click.argument("interface")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def show_command(interface: str, as_json: bool) -> None:
    """Orders that stand, and counters."""
    import json

    from ssastore.filter.desk import ask

    told = ask(interface, {"do": "show"})
    if as_json:
        click.echo(json.dumps(told))
        return
    if told["attack_for_s"]:
        click.echo(f"attack on, for {told['attack_for_s']:g} s")
    for order in told["orders"]:
        click.echo(f"{order['reason']}: {order['order']}, for {order['for_s']:g} s")
    for name, count in told["counts"].items():
        if count:
            click.echo(f"{count:>12,}  {name}")
