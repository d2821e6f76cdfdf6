"""A copy of a node's directory, taken while the node runs or is stopped.

    node.json, control-copy.json    as they are
    worker-N/                       ``store.hotcopy``, which is no environment any more

Nothing else is copied, whatever lies there: it may be a secret.  What the workers hold is fixed for all of
them before the first is copied: a large object has its record at one and its data at others, and who writes
it again meanwhile would leave a copy with the record and without the data.

Who restores it gets all the data and no votes: the node that was copied has gone on voting, and nobody can
tell what it said.  So it is rebuilt from the other replicas (docs/adr/0008), or an operator accepts what is
lost.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import signal
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from ssastore.config import write_private
from ssastore.core.boot import forget
from ssastore.errors import ConfigError, EnvironmentProblem, SsaStoreError
from ssastore.store.hotcopy import open_copy, release, seal_copy, snapshot, sync
from ssastore.system import die_with_parent

_FILES = ("node.json", "control-copy.json")


@dataclass(frozen=True, slots=True)
class NodeBackup:
    """What was copied."""

    workers: int
    records: int
    size: int
    "Bytes that the copy takes on the disk."


def copy_node(data_dir: Path, out: Path, map_bytes: int) -> NodeBackup:
    """Copy a node's directory to ``out``, which is there when all of it is, durably.

    By a process of its own, which is ended when we are interrupted: LMDB copies for hours, and hears no
    signal meanwhile.  Not with other threads.  Until it is whole it is ``out`` with ``.part`` at the end,
    which is left over only if we are killed.

    Raises:
        ConfigError: ``data_dir`` is no node's directory, or ``out`` exists, or lies in it.
        DataDirError: a store is damaged or cannot be read.
        EnvironmentProblem, OSError: ``out`` cannot be written, or another file cannot be read.
    """
    if not (data_dir / "node.json").is_file():
        raise ConfigError(f"{data_dir} is no directory of a node: it holds no node.json")
    if out.exists():
        raise ConfigError(f"{out} exists: a backup gets a directory of its own")
    if out.resolve().is_relative_to(data_dir.resolve()):
        raise ConfigError(f"{out} lies in the directory that is to be copied")
    part = out.with_name(f"{out.name}.part")
    try:
        part.mkdir(mode=0o700)
    except FileExistsError:
        raise ConfigError(
            f"{part} is there: another backup writes it, or was killed: then remove it"
        ) from None
    try:
        made = _apart(data_dir, part, map_bytes)
        part.rename(out)
        sync(out.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def _apart(data_dir: Path, part: Path, map_bytes: int) -> NodeBackup:
    """``_fill`` in a child."""
    context = multiprocessing.get_context("fork")
    receives, sends = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sends, data_dir, part, map_bytes))
    process.start()
    sends.close()
    answer: NodeBackup | Exception | None = None
    try:
        with suppress(EOFError):
            answer = receives.recv()
    finally:
        process.kill()
        process.join()
        if answer is None:
            for source in _stores(data_dir):
                release(source)
    if answer is None:
        raise EnvironmentProblem("the process that copies was killed")
    if isinstance(answer, Exception):
        raise answer
    return answer


def _child(sends: Connection, data_dir: Path, part: Path, map_bytes: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # Python's own would wait for the end of the copy.
    die_with_parent()
    try:
        sends.send(asyncio.run(_fill(data_dir, part, map_bytes)))
    except (SsaStoreError, OSError) as error:
        sends.send(error)


async def _fill(data_dir: Path, part: Path, map_bytes: int) -> NodeBackup:
    sources, records = _stores(data_dir), 0
    with ExitStack() as held:
        copies = []
        for source in sources:
            (part / source.name).mkdir(mode=0o700)
            copies.append(held.enter_context(snapshot(source, part / source.name)))
        for copy in copies:
            copy()
    for source in sources:
        target = part / source.name
        store = open_copy(target, map_bytes)
        try:
            await forget(store)
            records += store.usage().records
        finally:
            await store.close()
        seal_copy(target)
    for name in _FILES:
        with suppress(FileNotFoundError):
            write_private(part / name, (data_dir / name).read_text())
    size = sum(path.stat().st_blocks * 512 for path in part.rglob("*") if path.is_file())
    return NodeBackup(len(sources), records, size)


def _stores(data_dir: Path) -> list[Path]:
    found = data_dir.glob("worker-*")
    return sorted(path for path in found if path.name.removeprefix("worker-").isdecimal())
