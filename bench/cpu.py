"""CPU time of processes and all their descendants, from /proc.

Microseconds of server CPU for one operation is the figure that survives a noisy
machine: who shares the cores with us changes how long we wait, not how much we work
(apart from caches).

Counted: user and system time of every live process of the tree, and what those have
inherited from children that ended.  Not counted: what the kernel does in threads of
its own, such as writing pages back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError

TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
"Resolution of the figures: 10 ms on all common kernels, so measure for a second or more."


class ProcessTime(NamedTuple):
    """Of one process."""

    parent: int
    used_us: int


def parse_stat(text: str) -> ProcessTime:
    """The line of /proc/PID/stat."""
    # The second field is the program's name in parentheses, and may hold blanks and parentheses itself.
    fields = text[text.rindex(")") + 2 :].split()
    ticks = sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ProcessTime(int(fields[1]), ticks * TICK_US)


def processes() -> dict[int, ProcessTime]:
    """All processes that can be seen, by pid."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found[int(folder.name)] = parse_stat((folder / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended since the directory was read
    return found


def parse_machine_stat(text: str) -> int:
    """CPU time since the start of the machine, of everything that ran, in us: from /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, text.split()[1:9])
    return (user + nice + system + irq + softirq + steal) * TICK_US


def machine_us() -> int:
    """CPU time of the whole machine so far, in microseconds; what the hypervisor took counts too."""
    return parse_machine_stat(Path("/proc/stat").read_text())


def tree_of(roots: Iterable[int], known: Mapping[int, ProcessTime]) -> set[int]:
    """The pids ``roots`` and all their descendants."""
    children: dict[int, list[int]] = {}
    for pid, process in known.items():
        children.setdefault(process.parent, []).append(pid)
    tree: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in tree:
            tree.add(pid)
            waiting += children.get(pid, ())
    return tree


def tree_us(roots: Iterable[int]) -> int:
    """CPU time so far of ``roots`` and their descendants, in microseconds. Raises as ``by_process``."""
    return sum(by_process(roots).values())


def by_process(roots: Iterable[int]) -> dict[int, int]:
    """The same for each process, by its pid.

    Raises:
        BenchError: one of ``roots`` is gone, so that a difference of two calls would be wrong.
    """
    roots = list(roots)
    known = processes()
    if gone := [pid for pid in roots if pid not in known]:
        raise BenchError(f"server process {gone[0]} has ended")
    return {pid: known[pid].used_us for pid in tree_of(roots, known)}
