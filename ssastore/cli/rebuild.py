"""``control``: a cluster that is formed, and a control store that was lost and is made anew."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssastore.cli.forming import form_command, join_command, leave_command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ssastore.core.controlcopy import ControlCopy
    from ssastore.core.rebuilding import Rebuilt, Trace
    from ssastore.env import ControlStore

_SHOWN = 10


@click.group("control")
def control_command() -> None:
    """Form a cluster in a control store, let nodes join and leave it; make one anew that was lost."""


control_command.add_command(form_command)
control_command.add_command(join_command)
control_command.add_command(leave_command)


@control_command.command("trace")
@click.argument("data_dir", metavar="DATA_DIR", type=click.Path(path_type=Path))
def trace_command(data_dir: Path) -> int:
    """Print what a stopped node has left of its cluster, for `rebuild` on another host."""
    from ssastore.traces import encode_trace, read_trace

    sys.stdout.write(encode_trace(asyncio.run(read_trace(data_dir))).decode() + "\n")
    return 0


@control_command.command("rebuild")
@click.argument("sources", metavar="SOURCE...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), help="A lab's directory: all of its nodes, its control store."
)
@click.option("--into", metavar="CONTROL", help="etcd://..., or the file of an embedded control store.")
@click.option("--config", metavar="FILE", help="Settings of a node: they say how an etcd is opened.")
@click.option("--write", "is_writing", is_flag=True, help="Write it; without, only what was found is shown.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def rebuild_command(
    sources: tuple[Path, ...],
    data: Path | None,
    into: str | None,
    config: str | None,
    is_writing: bool,
    as_json: bool,
) -> int:
    """Show what the control store held by all that nodes know, and write it into an empty one.

    SOURCE is the data directory of a node, a file from `trace`, or one from `ssastore backup control`. Stop
    all nodes first: one that goes on meanwhile may vote for what is given to another. Orders are forgotten.
    Nothing is written while the owner of any slice is unclear. A backup counts only for what no node has a
    later record of, and only with the directories of all nodes.
    """
    from ssastore.config import NodeConfig, load
    from ssastore.core.rebuilding import rebuild
    from ssastore.errors import ConfigError

    settings = load(config, NodeConfig) if config is not None else None
    if data is not None:
        sources = (*sources, *sorted(path.parent for path in data.glob("nodes/*/node.json")))
        into = into or str(data / "control")
    if not sources:
        raise click.UsageError("name directories of nodes, files from `trace`, or a lab with --data")
    if is_writing and not into:
        raise click.UsageError("--write needs --into")
    made = rebuild(*asyncio.run(_read(sources)))
    if as_json:
        print(json.dumps(_shown(made)))
    else:
        _show(made)
    if made.unclear:
        raise ConfigError(f"{len(made.unclear)} groups are unclear; nothing is written")
    if is_writing:
        assert into is not None
        asyncio.run(_write(into, settings.secrets_file if settings else "", made))
    if not as_json:
        print(f"written to {into}; start the nodes" if is_writing else "nothing is written: --write does it")
    return 0


async def _read(sources: Sequence[Path]) -> tuple[list[Trace], list[ControlCopy]]:
    from ssastore.core.controlcopy import decode_backup, is_backup
    from ssastore.traces import decode_trace, read_trace

    traces, backups = [], []
    for source in sources:
        if source.is_dir():
            traces.append(await read_trace(source))
        elif is_backup(content := source.read_bytes()):
            backups.append(decode_backup(content))
        else:
            traces.append(decode_trace(content))
    return traces, backups


async def _write(into: str, secrets_file: str, made: Rebuilt) -> None:
    from ssastore.core.rebuilding import write_rebuilt

    async with _opened(into, secrets_file) as control:
        await write_rebuilt(control, made.items)


@asynccontextmanager
async def _opened(into: str, secrets_file: str) -> AsyncIterator[ControlStore]:
    """A client of an etcd; or of the embedded store in a file that nobody serves, served for the moment."""
    from tempfile import TemporaryDirectory

    from ssastore.config import open_control
    from ssastore.control.address import parse_control
    from ssastore.control.embedded import EmbeddedControlServer, EmbeddedControlStore

    if parse_control(into) is not None:
        control = open_control(into, secrets_file)
        try:
            yield control
        finally:
            await control.close()
        return
    with TemporaryDirectory(prefix="ssa-") as directory:
        socket = Path(directory) / "control.sock"
        server = await EmbeddedControlServer.start(Path(into), socket)
        embedded = EmbeddedControlStore(socket)
        try:
            yield embedded
        finally:
            await embedded.close()
            await server.close()


def _shown(made: Rebuilt) -> dict[str, Any]:
    return {
        "nodes": made.nodes,
        "missing": made.missing,
        "groups": made.groups,
        "taken": made.taken,
        "raised": made.raised,
        "doubtful": made.doubtful,
        "unclear": made.unclear,
    }


def _show(made: Rebuilt) -> None:
    print(f"nodes: {', '.join(made.nodes)}")
    if made.missing:
        print(f"no traces of: {', '.join(made.missing)}; what they have is taken as the others noted it")
    for who, count in made.taken.items():
        print(f"copy of {who}: latest record of {count} groups")
    print(f"{made.groups} groups, of {len(made.raised)} of which disks know more than the copies")
    if made.doubtful:
        print(f"to be rebuilt from the other replicas: {_some(made.doubtful)}")
    for group, why in list(made.unclear.items())[:_SHOWN]:
        print(f"unclear: group {group}: {why}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
