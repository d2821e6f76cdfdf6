"""``control form``, ``join``, ``leave``: the hosts of a cluster that is no lab, in its control store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ssastore.core.cluster import NodeRecord
    from ssastore.env import ControlStore

_AGAIN_S = 0.5
_REPLICAS = 3
_NUMBERS = ("port", "weight", "workers")
_config = click.option(
    "--config", metavar="FILE", required=True, help="Settings of a node: they name the control store."
)


class Node(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A node as it is written: NAME=ADDRESS, and what else is known of it, with commas."""

    name = "node"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> NodeRecord:
        from ssastore.core.cluster import NodeRecord
        from ssastore.errors import ConfigError

        first, *more = str(value).split(",")
        name, _, address = first.partition("=")
        fields: dict[str, Any] = {}
        for text in more:
            key, _, found = text.partition("=")
            is_known = key in ("zone", *_NUMBERS) and key not in fields and found != ""
            if not is_known or (key in _NUMBERS and not found.isdecimal()):
                self.fail(f"{text!r} is none of zone=NAME, weight=N, workers=N, port=N, or is there twice")
            fields[key] = int(found) if key in _NUMBERS else found
        try:
            return NodeRecord(name, address, **fields)
        except ConfigError as error:
            self.fail(f"{value!r}: {error}; it is written as NAME=ADDRESS, as n1=2001:db8:99::11,zone=a")


NODE = Node()


@click.command("form")
@click.argument("nodes", metavar="NODE...", nargs=-1, type=NODE)
@_config
@click.option("--service", metavar="PREFIX", help="The service /64, as 2001:db8:5a:1::/64.")
@click.option("--replicas", type=click.IntRange(1), help="1, 3 or 5; by default 3.")
@click.option("--site", metavar="FILE", help="site.json of `ssastore init`, instead of all that.")
@click.option(
    "--wait", metavar="SECONDS", type=float, default=0.0, help="Try so long, while the store does not answer."
)
def form_command(
    nodes: tuple[NodeRecord, ...],
    config: str,
    service: str | None,
    replicas: int | None,
    site: str | None,
    wait: float,
) -> int:
    """Form a cluster of these nodes in an empty control store; then start them.

    NODE is NAME=ADDRESS, with ,zone=NAME ,weight=N ,workers=N ,port=N as need be. Addresses are those of the
    hosts, outside of the service prefix. A cluster that is there is left as it is, whatever became of it
    since: the command can be run at every start. One that was not finished is finished.
    """
    from ssastore.keyspace import service_network

    if site is not None:
        if nodes or service or replicas:
            raise click.UsageError("--site says nodes, service and replicas: give it alone, or these.")
        nodes, service, replicas = _of_site(site)
    if not nodes or not service:
        raise click.UsageError("Needs NODE... and --service, or --site.")
    try:
        network = service_network(service)
    except ValueError as error:
        raise click.UsageError(f"--service: {error}") from None

    async def form(control: ControlStore) -> str:
        from ssastore.core.cluster import CLUSTER_KEY, FORMING_KEY
        from ssastore.rebalance import form_cluster, read_cluster
        from ssastore.system import SystemClock, SystemRandomness

        if await control.get(CLUSTER_KEY) is not None and await control.get(FORMING_KEY) is None:
            cluster = await read_cluster(control)
            found, names = cluster.record, [node.name for node in cluster.nodes]
            return f"there is a cluster: {found.cluster_id}, {found.service}, nodes {', '.join(names)}"
        made = await form_cluster(
            control,
            network,
            replicas or _REPLICAS,
            nodes,
            now_ms=SystemClock().now_ms(),
            random_bytes=SystemRandomness().bytes,
        )
        return f"formed: {made.cluster_id}, {made.service}, {made.replicas} replicas on {len(nodes)} nodes"

    print(_with_store(config, form, wait))
    return 0


@click.command("join")
@click.argument("node", metavar="NODE", type=NODE)
@_config
def join_command(node: NodeRecord, config: str) -> int:
    """Let one more node into the cluster: NODE as for `form`. Then start it; `plan` gives it its share.

    The same again changes nothing.
    """

    async def join(control: ControlStore) -> str:
        from ssastore.rebalance import add_node

        await add_node(control, node)
        return f"{node.name} is a node of the cluster, and owns nothing until a plan is applied"

    print(_with_store(config, join))
    return 0


@click.command("leave")
@click.argument("name", metavar="NAME")
@_config
def leave_command(name: str, config: str) -> int:
    """Take a node that owns nothing out of the cluster; `plan --drain` or `plan --lost` is before that."""

    async def leave(control: ControlStore) -> str:
        from ssastore.rebalance import remove_node

        await remove_node(control, name)
        return f"{name} is no node of the cluster any more: stop it, if it runs"

    print(_with_store(config, leave))
    return 0


def _of_site(path: str) -> tuple[tuple[NodeRecord, ...], str, int]:
    from ssastore.config.files import read_small
    from ssastore.hosting.plan import decode_site

    site = decode_site(read_small(path))
    return site.nodes, site.service, site.replicas


def _with_store(config: str, work: Callable[[ControlStore], Awaitable[str]], wait_s: float = 0.0) -> str:
    """Do something with the control store that a file of settings names; again, while it does not answer."""
    import asyncio

    from ssastore.config import NodeConfig, load, open_control
    from ssastore.errors import TryLater

    settings = load(config, NodeConfig)

    async def run() -> str:
        control = open_control(settings.control, settings.secrets_file)
        deadline = asyncio.get_running_loop().time() + wait_s
        try:
            while True:
                try:
                    return await work(control)
                except TryLater:
                    if asyncio.get_running_loop().time() >= deadline:
                        raise
                await asyncio.sleep(_AGAIN_S)
        finally:
            await control.close()

    return asyncio.run(run())
