"""``ssastore node`` and ``ssastore gateway``: what an operator runs on each machine."""

from __future__ import annotations

import click

_FILE = click.Path()
"Whether it can be read is said by the one who reads it, with the exit code of configuration."


@click.command("node")
@click.option("--config", "config_path", type=_FILE, required=True, help="TOML file of this node.")
def node_command(config_path: str) -> int:
    """Run a storage node until SIGTERM.

    The file names the node, its control store, data directory and secrets file; every setting is
    described in docs/operations.md.
    """
    from ssastore.node import main

    return main(config_path)


@click.command("gateway")
@click.option("--config", "config_path", type=_FILE, required=True, help="TOML file of this gateway.")
@click.option("--s3-fd", type=int, hidden=True, help="Listening socket handed down, instead of s3_listen.")
@click.option("--admin-fd", type=int, hidden=True, help="Listening socket handed down, for admin_listen.")
@click.option("--simulated", is_flag=True, hidden=True, help="Every node is a port of ::1.")
def gateway_command(config_path: str, s3_fd: int | None, admin_fd: int | None, simulated: bool) -> int:
    """Run an S3 gateway until SIGTERM."""
    from ssastore.gateway import main

    return main(config_path, s3_fd, admin_fd, is_simulated=simulated)
