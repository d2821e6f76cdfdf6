"""``ssastore node`` and ``ssastore gateway``: what an operator runs on each machine, or beside a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ssastore.cli.control import with_control
from ssastore.cli.hosts import admit_command, join_command, protect_command, token_command

if TYPE_CHECKING:
    from ssastore.lab.members import Ask

_PATIENCE_S = 30.0
_S3_PORT = 7482
_FILE = click.Path()
"Whether it can be read is said by the one who reads it, with the exit code of configuration."


@click.group("node", invoke_without_command=True)
@click.option("--config", "config_path", type=_FILE, help="TOML file of this node.")
@click.pass_context
def node_command(ctx: click.Context, config_path: str | None) -> int:
    """Run a storage node until SIGTERM: ssastore node --config FILE.

    The file names the node, its control store, data directory and secrets file; every setting is
    described in docs/reference/operations.md.

    Of the commands below add, kill, start and remove are for the nodes of a running lab, and join, admit,
    token and protect for hosts of a cluster that `ssastore init` made.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    if config_path is None:
        raise click.UsageError(
            "Missing option '--config', or one of: add, kill, start, remove, join, admit, token, protect.",
            ctx,
        )
    from ssastore.node import main

    return main(config_path)


for _command in (join_command, admit_command, token_command, protect_command):
    node_command.add_command(_command)


def _ask(context: str | None, name: str, wish: Ask) -> int:
    from ssastore.lab.context import find_lab
    from ssastore.lab.members import ask

    with_control(find_lab(context), lambda control: ask(control, name, wish, _PATIENCE_S))
    return 0


@node_command.command("add")
@click.argument("name")
@click.option("--zone", default="", help="Fault domain.")
@click.option("--weight", type=int, default=1, show_default=True, help="Share, relative to other nodes.")
@click.pass_obj
def add_command(context: str | None, name: str, zone: str, weight: int) -> int:
    """Start one more node in the lab. It owns nothing until a plan gives it something."""
    from ssastore.lab.members import ADD, Ask

    return _ask(context, name, Ask(ADD, zone, weight))


@node_command.command("kill")
@click.argument("name")
@click.pass_obj
def kill_command(context: str | None, name: str) -> int:
    """End all processes of a node of the lab at once, as a power cut of its host would."""
    from ssastore.lab.members import KILL, Ask

    return _ask(context, name, Ask(KILL))


@node_command.command("start")
@click.argument("name")
@click.pass_obj
def start_command(context: str | None, name: str) -> int:
    """Start a node of the lab that was ended."""
    from ssastore.lab.members import START, Ask

    return _ask(context, name, Ask(START))


@node_command.command("remove")
@click.argument("name")
@click.pass_obj
def remove_command(context: str | None, name: str) -> int:
    """Take a node that owns nothing out of the lab and its cluster.

    What it owns is moved away before with `ssastore plan --drain NAME`, or, when it is gone for good,
    rebuilt with `ssastore plan --lost NAME`. It can be added again; what its disk holds counts for nothing.
    """
    from ssastore.lab.members import REMOVE, Ask

    return _ask(context, name, Ask(REMOVE))


@click.command("gateway")
@click.argument("service", required=False, metavar="[ssa://HOST]")
@click.option("--config", "config_path", type=_FILE, help="TOML file of this gateway.")
@click.option("--listen", metavar="HOST[:PORT]", help="Serve programs of this machine there: localhost.")
@click.option("--region", default="us-east-1", show_default=True, help="With --listen: what is signed for.")
@click.option("--s3-fd", type=int, hidden=True, help="Listening socket handed down, instead of s3_listen.")
@click.option("--admin-fd", type=int, hidden=True, help="Listening socket handed down, for admin_listen.")
@click.option("--simulated", is_flag=True, hidden=True, help="Every node is a port of ::1.")
@click.pass_obj
def gateway_command(
    context: str | None,
    service: str | None,
    config_path: str | None,
    listen: str | None,
    region: str,
    s3_fd: int | None,
    admin_fd: int | None,
    simulated: bool,
) -> int:
    """Run an S3 gateway until SIGTERM: a cluster's own, or one beside the programs that use it.

    \b
      ssastore gateway --config FILE                   knows the cluster by its control store
      ssastore gateway --listen localhost [ssa://NAME] is a client: from it to each object's node is one hop

    The second has the service and access key of SSASTORE_URL, SSASTORE_ACCESS_KEY and SSASTORE_SECRET_KEY, or
    of a lab; programs sign with the same key.
    """
    if (config_path is None) == (listen is None):
        raise click.UsageError("Needs one of --config and --listen.")
    if listen is not None:
        return _beside_programs(context, service, listen, region)
    if service is not None:
        raise click.UsageError("The control store of --config says where the service is.")
    from ssastore.gateway import main

    assert config_path is not None
    return main(config_path, s3_fd, admin_fd, is_simulated=simulated)


def _beside_programs(context: str | None, service: str | None, listen: str, region: str) -> int:
    from ssastore.cli.objects import run_with_client
    from ssastore.client import AsyncClient
    from ssastore.localgateway import serve
    from ssastore.s3.serving import listening
    from ssastore.system import run

    has_port = ":" in listen.rpartition("]")[2]
    # Before a lab is entered: it serves the localhost outside.
    with listening(listen if has_port else f"{listen}:{_S3_PORT}") as listener:
        if service is None:
            return run_with_client(context, lambda client: serve(client, listener, region))

        async def main() -> int:
            async with AsyncClient.from_url(service) as client:
                return await serve(client, listener, region)

        return run(main())
