"""``backup``: copies of the control store and of a node, to be kept elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ssastore.errors import ConfigError

if TYPE_CHECKING:
    from ssastore.core.controlcopy import ControlCopy
    from ssastore.env import ControlStore


@click.group("backup")
def backup_command() -> None:
    """Copy what a control store or a node holds while all of it runs, to be kept elsewhere."""


@backup_command.command("control")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="A new file, which only you can read."
)
@click.pass_obj
def control_command(context: str | None, out: Path) -> int:
    """Write all that the control store holds for good, of one moment: who owns what, nodes, settings.

    It holds no secrets, no orders, and no leases. `ssastore control rebuild` takes it, beside the directories
    of the nodes: alone it would be older than what these know.
    """
    from ssastore.cli.control import with_control
    from ssastore.config import write_private
    from ssastore.core.controlcopy import encode_backup, read_whole
    from ssastore.system import SystemClock

    if out.exists():
        raise ConfigError(f"{out} exists: a backup gets a file of its own")

    async def read(control: ControlStore) -> ControlCopy:
        return await read_whole(control, SystemClock().now_ms())

    copy = with_control(context, read)
    write_private(out, encode_backup(copy).decode())
    click.echo(f"{out}: {len(copy.items)} records of cluster {copy.cluster_id}")
    return 0


@backup_command.command("node")
@click.option("--config", metavar="FILE", required=True, help="Settings of the node; it may run or not.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="A new directory.")
def node_command(config: str, out: Path) -> int:
    """Copy a node's data of one moment for each worker, also while it runs.

    Put back as the node's data directory it votes for nothing: the node rebuilds itself from the other
    replicas, and fetches only what the copy lacks. With one replica, or if the others are lost as well:
    `ssastore recover --accept-data-loss`.
    """
    import signal

    from ssastore.backups import copy_node
    from ssastore.config import NodeConfig, load

    settings = load(config, NodeConfig)
    for number in (signal.SIGTERM, signal.SIGHUP):  # As Ctrl-C: what was copied so far goes away.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    made = copy_node(Path(settings.data_dir), out, settings.map_bytes)
    click.echo(f"{out}: {made.records} records of {made.workers} workers, {made.size / 2**20:.1f} MiB")
    return 0
