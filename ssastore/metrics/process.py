"""What the kernel knows of this process, under the names that every exporter uses. Linux: /proc/self."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from ssastore.metrics.declared import CPU, DESCRIPTORS, DESCRIPTORS_MAX, RESIDENT, STARTED
from ssastore.metrics.text import Metric

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def _started_s() -> float:
    """When it was started, as the kernel notes it: proc(5), field 22 of stat, in ticks since boot."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    lines = Path("/proc/stat").read_text().splitlines()
    booted_s = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    return booted_s + ticks / _TICKS


def process_samples() -> Iterator[tuple[Metric, float]]:
    """Each with its value now."""
    times = os.times()
    yield CPU, round(times.user + times.system, 2)
    yield RESIDENT, int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    yield DESCRIPTORS, len(os.listdir("/proc/self/fd"))
    yield DESCRIPTORS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield STARTED, round(_started_s(), 2)
