"""``recover``: what an operator says about slices whose state is lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ssastore.lab.context import Context
    from ssastore.rebalance import RecoverOrder

_POLL_S = 0.2


@click.command("recover")
@click.option("--node", required=True, help="The node whose slices are to be recovered.")
@click.option(
    "--accept-data-loss",
    is_flag=True,
    help="Go on with the replicas that answer, even none: what only the others held is lost.",
)
@click.option(
    "--rebuild",
    is_flag=True,
    help="Do not trust what the node holds, although nothing is known against it; copy all of it anew.",
)
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds to wait."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def recover_command(
    context: str | None, node: str, accept_data_loss: bool, rebuild: bool, wait_s: float, as_json: bool
) -> int:
    """Let a node rebuild slices whose state it lost, from the other replicas.

    A node that was wiped, or restored from a copy, does so by itself; this is for what it waits for.
    Exit code 5 when it is not done within --wait; the order stays and is carried out as soon as it can be.
    """
    import asyncio
    import socket

    from ssastore.cli.lab import silence
    from ssastore.control.address import parse_control
    from ssastore.errors import Unavailable
    from ssastore.lab.context import find
    from ssastore.lab.status import AdminLink
    from ssastore.rebalance import RecoverOrder

    found = find(context)
    order = RecoverOrder(accept_data_loss, rebuild)
    # Made here, so that it reaches the localhost outside of the lab.
    link = AdminLink(found.admin_port, socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    if parse_control(found.control) is not None:
        found.enter()
    is_done = asyncio.run(_order(found, node, order, wait_s))
    _, report = link.get("/status")
    link.close()
    workers: list[Any] = next((known["workers"] for known in report["nodes"] if known["name"] == node), [])
    if as_json:
        keys = ("worker", "env", "boot", "lost", "silent", "recovery")
        shown = [{key: worker[key] for key in keys if key in worker} for worker in workers]
        print(json.dumps({"node": node, "done": is_done, "workers": shown}))
    else:
        for worker in workers:
            print("\n".join(silence(worker)) or f"{node}/{worker['worker']}: all slices vote")
    if not is_done:
        raise Unavailable(f"node {node} is not recovered after {wait_s:g} s; it goes on")
    return 0


async def _order(found: Context, node: str, order: RecoverOrder, wait_s: float) -> bool:
    """Give the order and wait; whether it was carried out."""
    import asyncio

    from ssastore.config import open_control
    from ssastore.rebalance import order_recovery

    control = open_control(found.control, found.secrets_file)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    try:
        names = await order_recovery(control, node, order)
        while loop.time() < deadline:
            left = [name for name in names if await control.get(name) is not None]
            if not left:
                return True
            await asyncio.sleep(_POLL_S)
        return False
    finally:
        await control.close()
