"""``replicas``: how many there are of everything, and more of them while the cluster runs."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ssastore.cli.control import with_control

if TYPE_CHECKING:
    from ssastore.core.replicating import Replicas
    from ssastore.env import ControlStore

T = TypeVar("T")

_POLL_S = 0.25


@click.group("replicas")
def replicas_command() -> None:
    """How many replicas there are, and more of them."""


@replicas_command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def show_command(context: str | None, as_json: bool) -> int:
    """How many replicas the cluster is to have, and how many groups have so many."""
    from ssastore.core.replicating import replica_state

    state = with_control(context, replica_state)
    if as_json:
        print(json.dumps(_as_json(state)))
        return 0
    print(f"{state.wanted} replicas")
    for planes, count in state.groups.items():
        print(f"  {count} groups have {planes}")
    if state.left:
        print(f"  {state.left} slices are not there yet, {state.ordered} of them ordered")
    return 0


@replicas_command.command("set")
@click.argument("replicas", type=click.IntRange(1))
@click.option("--wait/--no-wait", "is_waiting", default=True, help="Show progress until all of it is done.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def set_command(context: str | None, replicas: int, is_waiting: bool, as_json: bool) -> int:
    """Let the running cluster have REPLICAS of everything: 3 instead of 1, 5 instead of 3.

    Groups get their new planes one after the other; clients go on, and learn of it by themselves. Needs
    as many nodes as replicas. Interrupting the wait stops nothing; the same command shows the progress
    again, and goes on with whatever was not ordered.
    """
    from ssastore.core.replicating import order_replicas

    started = time.monotonic()
    ordered = with_control(context, lambda control: order_replicas(control, replicas))
    if not as_json:
        print(f"{ordered} slices are ordered to be made")
    state = with_control(context, lambda control: _follow(control, is_waiting, is_shown=not as_json))
    took_s = round(time.monotonic() - started, 1)
    if as_json:
        print(json.dumps({"made_for": ordered, "seconds": took_s, **_as_json(state)}))
    elif is_waiting:
        print(f"{sum(state.groups.values())} groups have {state.wanted} replicas, after {took_s} s")
    return 0


async def _follow(control: ControlStore, is_waiting: bool, *, is_shown: bool) -> Replicas:
    """Wait until every group has its planes, if that is wanted; how far it is."""
    import asyncio

    from ssastore.core.replicating import replica_state

    state = await replica_state(control)
    length = state.left
    with click.progressbar(
        length=length, label="slices", file=sys.stderr, hidden=not (is_shown and sys.stderr.isatty())
    ) as bar:
        while is_waiting and (state.left or state.ordered):
            await asyncio.sleep(_POLL_S)
            state = await replica_state(control)
            bar.update(max(0, length - state.left - bar.pos))
    return state


def _as_json(state: Replicas) -> dict[str, Any]:
    return {
        "replicas": state.wanted,
        "groups": {str(planes): count for planes, count in state.groups.items()},
        "left": state.left,
        "ordered": state.ordered,
    }
