"""What a target's processes hold and write, from /proc: memory, bytes for the disk, open files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.cpu import processes, tree_of
from bench.machine import field_of

KIB_A_MIB = 1024


def parse_pss_kib(text: str) -> int:
    """Of /proc/PID/smaps_rollup: memory in RAM; of what several processes share each has a part."""
    return int(field_of(text, "Pss").split()[0])


def parse_written(text: str) -> int:
    """Of /proc/PID/io: bytes that the process made the kernel send to a disk, now or later."""
    return int(field_of(text, "write_bytes"))


def _sum(roots: Iterable[int], name: str, parse: Callable[[str], int]) -> int:
    total = 0
    for pid in tree_of(roots, processes()):
        try:
            total += parse(Path(f"/proc/{pid}/{name}").read_text())
        except (FileNotFoundError, ProcessLookupError, ValueError):
            continue  # ended meanwhile; what is just ending has no memory, and its file no such line
    return total


def memory_mib(roots: Iterable[int]) -> float:
    """What ``roots`` and their descendants have in RAM, pages of mapped files among it."""
    return _sum(roots, "smaps_rollup", parse_pss_kib) / KIB_A_MIB


def written_bytes(roots: Iterable[int]) -> int:
    """What they have written so far; a page that is written again before it reaches the disk counts once."""
    return _sum(roots, "io", parse_written)


def open_files(roots: Iterable[int]) -> int:
    """How many descriptors they have open."""
    count = 0
    for pid in tree_of(roots, processes()):
        try:
            count += len(os.listdir(f"/proc/{pid}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return count
