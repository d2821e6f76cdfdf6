"""Where the data is: file system, room, and what it costs to make something durable there."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from ssastore.doctor.findings import Finding, State, good

_WRITES = 30
_BLOCK = bytes(4096)
_HONEST_US = 15.0
"A synced write of 4 KiB that is quicker has most likely not reached a medium: a rule of thumb."
_SLOW_US = 20_000.0
_MEMORY = frozenset(("tmpfs", "ramfs", "devtmpfs"))
_REMOTE = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"))
_GIB = 1 << 30


def look_at_file_system(directory: Path, mounts: Path = Path("/proc/self/mounts")) -> Finding:
    """What kind of file system the data is on."""
    return judge_file_system(directory, file_system_of(directory, mounts.read_text()))


def file_system_of(directory: Path, mounts: str) -> str:
    """Kind of the mount that a directory is in, as /proc/self/mounts has it."""
    best, kind = -1, "unknown"
    for line in mounts.splitlines():
        _, at, found, *_ = line.split()
        point = Path(at.encode().decode("unicode_escape"))
        if directory.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), found
    return kind


def judge_file_system(directory: Path, kind: str) -> Finding:
    """A disk of this machine: LMDB maps its file, and locks it."""
    if kind in _MEMORY:
        return Finding(
            "file system",
            State.BAD,
            f"{directory} is on {kind}: memory",
            "a disk of this machine",
            "another data_dir",
        )
    if kind in _REMOTE:
        return Finding(
            "file system",
            State.BAD,
            f"{directory} is on {kind}: elsewhere",
            "a disk of this machine",
            "another data_dir",
        )
    return good("file system", f"{directory} is on {kind}")


def look_at_room(directory: Path) -> Finding:
    """What is free where the data is."""
    return judge_room(shutil.disk_usage(directory).free)


def judge_room(free_bytes: int) -> Finding:
    """A worker needs 1 GiB to begin with."""
    found = f"{free_bytes / _GIB:.1f} GiB free"
    if free_bytes < _GIB:
        return Finding(
            "room", State.WARN, found, "1 GiB or more for each worker", "a larger disk, or another data_dir"
        )
    return good("room", found)


def look_at_flush(directory: Path) -> Finding:
    """Write a few blocks durably, and see how long that takes."""
    times_us = []
    with tempfile.TemporaryFile(dir=directory) as file:
        descriptor = file.fileno()
        for number in range(_WRITES):
            begun = time.perf_counter()
            os.pwrite(descriptor, _BLOCK, number % 2 * len(_BLOCK))
            os.fdatasync(descriptor)
            times_us.append((time.perf_counter() - begun) * 1e6)
    return judge_flush(statistics.median(times_us))


def judge_flush(median_us: float) -> Finding:
    """Of the time of a write of 4 KiB and fdatasync(2): too quick is no disk, and too slow is no fun."""
    found = f"a durable 4 KiB takes {median_us:,.0f} us"
    if median_us < _HONEST_US:
        return Finding(
            "flush",
            State.WARN,
            f"{found}: nothing is that quick",
            "a disk that writes when it is told to",
            "hdparm -W0 DEVICE, or barriers (no nobarrier in /proc/mounts); of a virtual machine, cache=none",
        )
    if median_us > _SLOW_US:
        return Finding("flush", State.WARN, found, "below 20 ms: every PUT waits for one", "a faster disk")
    return good("flush", found)
