"""A copy of a node's directory, taken while the node runs or is stopped.

    node.json, control-copy.json    as they are
    worker-N/                       ``store.hotcopy``, which is no environment any more

Who restores it gets all the data and no votes: the node that was copied has gone on voting, and nobody can
tell what it said.  So it is rebuilt from the other replicas (docs/adr/0008), or an operator accepts what is
lost.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ssastore.config import write_private
from ssastore.core.boot import forget
from ssastore.errors import ConfigError
from ssastore.store.hotcopy import copy_store, open_copy, seal_copy, sync


@dataclass(frozen=True, slots=True)
class NodeBackup:
    """What was copied."""

    workers: int
    records: int
    size: int
    "Bytes that the copy takes on the disk."


async def copy_node(data_dir: Path, out: Path, map_bytes: int) -> NodeBackup:
    """Copy a node's directory to ``out``, which is there when all of it is, durably.

    Raises:
        ConfigError: ``data_dir`` is no node's directory, or ``out`` exists.
        DataDirError: a store is damaged or cannot be read.
        OSError: ``out`` cannot be written, or another file cannot be read.
    """
    if not (data_dir / "node.json").is_file():
        raise ConfigError(f"{data_dir} is no directory of a node: it holds no node.json")
    if out.exists():
        raise ConfigError(f"{out} exists: a backup gets a directory of its own")
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        workers = records = 0
        for source in sorted(data_dir.glob("worker-*")):
            target = part / source.name
            target.mkdir(mode=0o700)
            copy_store(source, target)
            store = open_copy(target, map_bytes)
            try:
                await forget(store)
                records += store.usage().records
            finally:
                await store.close()
            seal_copy(target)
            workers += 1
        for path in sorted(data_dir.glob("*.json")):
            write_private(part / path.name, path.read_text())
        size = sum(path.stat().st_blocks * 512 for path in part.rglob("*") if path.is_file())
        part.rename(out)
        sync(out.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return NodeBackup(workers, records, size)
