"""``workers``: how many processes share a node, and another number of them while the cluster runs."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import click

from ssastore.cli.control import with_control

if TYPE_CHECKING:
    from ssastore.env import ControlStore

T = TypeVar("T")

_POLL_S = 0.25


@click.group("workers")
def workers_command() -> None:
    """How many processes share a node, and another number of them."""


@workers_command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def show_command(context: str | None, as_json: bool) -> int:
    """The number of workers of each node, and slices that are on their way from one to another."""
    from ssastore.core.clusterreading import read_nodes
    from ssastore.core.reworking import worker_state

    async def look(control: ControlStore) -> dict[str, dict[str, int]]:
        found = {}
        for node in await read_nodes(control):
            state = await worker_state(control, node.name)
            found[node.name] = {"workers": state.wanted, "left": state.left}
        return found

    found = with_control(context, look)
    if as_json:
        print(json.dumps(found))
        return 0
    for name, state in found.items():
        left = f", {state['left']} slices are not at their worker yet" if state["left"] else ""
        print(f"{name}  {state['workers']}{left}")
    return 0


@workers_command.command("set")
@click.argument("workers", type=click.IntRange(1, 16))
@click.option("--node", "nodes", multiple=True, metavar="NODE", help="Only this node; repeats. Default: all.")
@click.option("--wait", "wait_s", type=click.FloatRange(1), default=600.0, show_default=True, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def set_command(
    context: str | None, workers: int, nodes: tuple[str, ...], wait_s: float, as_json: bool
) -> int:
    """Let nodes have WORKERS processes each, one node after the other, while the cluster serves.

    Each starts again by itself. Slices whose lane is another worker's then are rebuilt from the other
    replicas: three are needed. An interrupted command is given again, and goes on. Exit code 5 when a
    node is not done within --wait.
    """
    from ssastore.core.clusterreading import read_nodes

    names = nodes or tuple(node.name for node in with_control(context, read_nodes))
    took: dict[str, float] = {}
    for name in names:
        started = time.monotonic()
        with_control(context, partial(_change, node=name, workers=workers, wait_s=wait_s))
        took[name] = round(time.monotonic() - started, 1)
        if not as_json:
            print(f"{name} has {workers} workers, after {took[name]} s", flush=True)
    if as_json:
        print(json.dumps({"workers": workers, "seconds": took}))
    return 0


async def _change(control: ControlStore, *, node: str, workers: int, wait_s: float) -> None:
    """One node, from beginning to end.

    Raises:
        ConfigError: it cannot be done now, or somebody wants another number meanwhile.
        Unavailable: it is not done in time.
    """
    import asyncio

    from ssastore.core.reworking import order_workers, release, worker_state
    from ssastore.errors import ConfigError, Unavailable

    await order_workers(control, node, workers)
    deadline = asyncio.get_running_loop().time() + wait_s
    state = await worker_state(control, node)
    with click.progressbar(
        length=(most := state.left), label=f"{node}: slices", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        while state.left:
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"{state.left} slices of {node} are not at their worker after {wait_s:g} s")
            await asyncio.sleep(_POLL_S)
            state = await worker_state(control, node)
            if state.wanted != workers:
                raise ConfigError(f"{node} is being given {state.wanted} workers by another command")
            bar.update(max(0, most - state.left - bar.pos))
    await release(control, node)
