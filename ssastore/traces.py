"""What a node has left of its cluster: how it comes into its directory, and how it is read from there.

    control-copy.json    ``core.controlcopy``, written by the supervisor some seconds after every change
    worker-N/            the environments, each with its standings

A trace can be written to a file, so that those of several hosts come together in one place.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

from ssastore.config import write_private
from ssastore.core.boot import read_environment
from ssastore.core.clusterview import ClusterView
from ssastore.core.controlcopy import ControlCopy, read_copy
from ssastore.core.fields import decode_fields, encode_fields
from ssastore.core.marks import Watermark, read_marks
from ssastore.core.rebuilding import Disk, Trace
from ssastore.core.standing import Standing, read_standings
from ssastore.env import Clock, ControlStore
from ssastore.errors import ConfigError, DataDirError, SsaStoreError
from ssastore.limits import CONTROL_COPY_EVERY_MS, CONTROL_COPY_LOOK_MS
from ssastore.store.lmdb import LmdbStore

log = logging.getLogger(__name__)

COPY_NAME = "control-copy.json"


class CopyKeeper:
    """Keeps a node's copy of the control store. ``view`` is followed by the caller."""

    def __init__(self, view: ClusterView, control: ControlStore, data_dir: str, clock: Clock) -> None:
        self._view = view
        self._control = control
        self._path = Path(data_dir) / COPY_NAME
        self._clock = clock
        self._seen = -1
        self._items: Any = None

    async def run(self) -> None:
        """For ever: soon after a change of the layout, and now and then for what is not followed."""
        rounds = CONTROL_COPY_EVERY_MS // CONTROL_COPY_LOOK_MS
        at = 0
        while True:
            if at % rounds == 0 or self._view.changes != self._seen:
                try:
                    await self.keep()
                except (SsaStoreError, OSError) as error:
                    log.warning("control.not_copied", extra={"reason": str(error)})
            at += 1
            await asyncio.sleep(CONTROL_COPY_LOOK_MS / 1000)

    async def keep(self) -> None:
        """Write a copy, unless it would be the one that is there. Raises SsaStoreError, OSError."""
        changes = self._view.changes
        copy = await read_copy(self._view, self._control, self._clock.now_ms())
        if copy.items != self._items:
            await asyncio.to_thread(write_private, self._path, copy.encode().decode())
            self._items = copy.items
        self._seen = changes


async def read_trace(data_dir: Path) -> Trace:
    """What a node that is stopped has left.

    Raises:
        DataDirError: it runs, or its directory is damaged.
        ConfigError: it is no node's directory, or its copy of the control store cannot be read.
    """
    try:
        identity = json.loads((data_dir / "node.json").read_bytes())
        node, noted = str(identity["node"]), str(identity["cluster_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{data_dir} is no directory of a node: {error}") from None
    try:
        copy = ControlCopy.decode((data_dir / COPY_NAME).read_bytes())
    except FileNotFoundError:
        copy = None
    except OSError as error:
        raise ConfigError(f"{data_dir / COPY_NAME}: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(
            f"{data_dir / COPY_NAME}: {error}; without it, a backup can take its place"
        ) from None
    disks = [await _read_disk(path, node) for path in sorted(data_dir.glob("worker-*")) if path.is_dir()]
    return Trace(node, copy, tuple(disk for disk in disks if disk is not None), noted)


async def _read_disk(path: Path, node: str) -> Disk | None:
    """None: it has never been started."""
    store = LmdbStore.open(path)
    try:
        with store.read() as txn:
            env_id, mark = read_environment(txn)
            if not env_id:
                return None
            number = path.name.removeprefix("worker-")
            if not number.isdecimal():
                raise DataDirError(f"{path} is no worker's directory")
            return Disk(node, int(number), env_id, mark, read_standings(txn), read_marks(txn))
    finally:
        await store.close()


def encode_trace(trace: Trace) -> bytes:
    """For a file."""
    disks = [
        {
            "worker": disk.worker,
            "env": disk.env_id,
            "mark": list(disk.mark),
            "standings": [[number, *standing] for number, standing in sorted(disk.standings.items())],
            "told": [[env_id, *mark] for env_id, mark in sorted(disk.told.items())],
        }
        for disk in trace.disks
    ]
    copy = trace.copy.encode().decode() if trace.copy is not None else None
    fields = {"node": trace.node, "cluster": trace.cluster_id, "copy": copy, "disks": disks}
    return encode_fields(fields, 2)


def decode_trace(value: bytes) -> Trace:
    """Inverse of ``encode_trace``. ConfigError: it is none."""
    first = {"node", "copy", "disks"}
    found = decode_fields(value, "trace of a node", first, first | {"cluster"})
    try:
        node, copy = str(found["node"]), found["copy"]
        known = ControlCopy.decode(copy.encode()) if copy is not None else None
        disks = tuple(_decode_disk(node, disk) for disk in found["disks"])
        return Trace(node, known, disks, str(found.get("cluster", "")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"no trace of a node: {error}") from error


def _decode_disk(node: str, found: Any) -> Disk:
    return Disk(
        node,
        int(found["worker"]),
        int(found["env"]),
        Watermark(*map(int, found["mark"])),
        {int(number): Standing(*map(int, rest)) for number, *rest in found["standings"]},
        {int(env_id): Watermark(*map(int, rest)) for env_id, *rest in found["told"]},
    )
