"""How many bytes moves have to copy, and how long that takes at least. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ssastore.core.numbers import group_of_slice, lane_of_slice, numbered_slice
from ssastore.keyspace import SLICE_BITS


class Estimate(NamedTuple):
    """What is left to be copied."""

    bytes: int
    seconds: float
    "Of the worker that takes longest, at its rate and with what each slice costs besides."


def estimate(
    slices: Iterable[tuple[int, str]],
    sizes: Mapping[int, int],
    workers: Mapping[str, int],
    bytes_per_s: int,
    slice_s: float = 0.0,
) -> Estimate:
    """Of slices, by number, that go to a node each.

    Args:
        sizes: bytes of one plane of a group, by group; one that is not there counts as empty.
        workers: worker processes by node name.
        bytes_per_s: of one worker.
        slice_s: seconds that a slice costs its worker besides.
    """
    copied: Counter[tuple[str, int]] = Counter()
    counts: Counter[tuple[str, int]] = Counter()
    for number, target in slices:
        size = sizes.get(group_of_slice(number), 0) >> (numbered_slice(number).depth - SLICE_BITS)
        worker = target, lane_of_slice(number) % workers.get(target, 1)
        copied[worker] += size
        counts[worker] += 1
    seconds = [size / bytes_per_s + counts[worker] * slice_s for worker, size in copied.items()]
    return Estimate(copied.total(), max(seconds, default=0.0))
