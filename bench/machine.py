"""Where figures come from: hardware, kernel, commit, versions. Part of every report."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs"}


def commit() -> str:
    """The commit that runs, with ``+changes`` when files differ from it; ``unknown`` outside git."""
    found = _git("rev-parse", "--short=12", "HEAD")
    if found is None:
        return "unknown"
    return found + ("+changes" if _git("status", "--porcelain") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=30
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def field_of(text: str, name: str) -> str:
    """The first ``name : value`` line's value, as in /proc/cpuinfo; ``unknown`` when there is none."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return "unknown"


def file_system_of(path: Path, mounts: str) -> str:
    """Type of the file system that holds ``path``, from the text of /proc/mounts."""
    found, longest = "unknown", -1
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split()
        if path.is_relative_to(point) and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def is_in_memory(file_system: str) -> bool:
    """Whether a sync to such a file system costs nothing and keeps nothing."""
    return file_system in _MEMORY_FILE_SYSTEMS


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def describe(directory: Path) -> dict[str, Any]:
    """Machine and software; ``directory`` is where the servers keep their data."""
    memory_kib = field_of(Path("/proc/meminfo").read_text(), "MemTotal").split()[0]
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "cpu": field_of(Path("/proc/cpuinfo").read_text(), "model name"),
        "cores": os.cpu_count(),
        "memory_mib": int(memory_kib) // 1024 if memory_kib.isdigit() else None,
        "kernel": platform.release(),
        "file_system": file_system_of(directory.resolve(), Path("/proc/mounts").read_text()),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "uvloop": _version_of("uvloop"),
    }


def lines(machine: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    found = [
        f"{machine['started']}  commit {machine['commit']}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']} MiB, "
        f"Linux {machine['kernel']}, data on {machine['file_system']}, "
        f"load average {machine['load_average']} at the start",
        f"Python {machine['python']}, uvloop {machine['uvloop']}",
    ]
    if is_in_memory(machine["file_system"]):
        found.append("WARNING: the data is in memory, so nothing here is durable; choose a disk with --data")
    return found
