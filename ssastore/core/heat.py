"""Where the calls of one worker go, in short: which slices are hot, and where in them. Pure.

Every 16th request is remembered by its locator, the last 4096 of them.  That is a count, a test and now and
then a store to an array for each request, and no clock; what a slice's share of the calls is, and of the CPU
time with them, is found when somebody asks.  A locator is a /96: as fine as a slice can be cut.

The same form tells where the bytes are, by what a scrub has read (``Weights``).
"""

from __future__ import annotations

import struct
from array import array
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from ssastore.core.numbers import numbered_slice
from ssastore.keyspace import LOCATOR_BITS, SLICE_BITS, SLICE_DEPTH_MAX, TAIL_BITS

SAMPLE_EVERY = 16
SAMPLES = 4096
SLICES_TOLD = 4
"The hottest ones: a plan takes one of them."
_LEAF_SHARE = 0.05
"Down to what part of its slice a piece is told apart."

assert SAMPLE_EVERY & (SAMPLE_EVERY - 1) == SAMPLES & (SAMPLES - 1) == 0, "masks are cheap"


class Heat:
    """Of one worker."""

    __slots__ = ("_samples", "calls")

    def __init__(self) -> None:
        self.calls = 0
        "Since the start."
        self._samples = array("Q", bytes(8 * SAMPLES))

    def note(self, iid: int) -> None:
        """A request has come for an IID."""
        self.calls = calls = self.calls + 1
        if not calls & (SAMPLE_EVERY - 1):
            self._samples[calls // SAMPLE_EVERY & (SAMPLES - 1)] = iid >> TAIL_BITS

    def describe(self, slice_at: Callable[[int], int]) -> dict[str, Any]:
        """Figures for a report: calls, and of the hottest slices how many samples fell where.

        Args:
            slice_at: the number of the slice that an IID is in.
        """
        taken = min(self.calls // SAMPLE_EVERY, SAMPLES)
        # The place of sample 0 is filled by the last one of a round.
        places = range(1, taken + 1) if taken < SAMPLES else range(SAMPLES)
        found = Counter(self._samples[at] for at in places)
        cells = Counter[int]()
        for locator, count in found.items():
            cells[locator >> (LOCATOR_BITS - SLICE_BITS)] += count
        return {
            "calls": self.calls,
            "samples": taken,
            "slices": hottest(found, slice_at),
            "cells": pack_cells(cells),
        }


def pack_cells(figures: Mapping[int, int]) -> str:
    """A figure for each of some /80: number and figure, 32 bits each, big-endian; in base64.

    Text, as gateways of earlier versions pass on in JSON whatever a worker says.
    """
    packed = struct.pack(f">{2 * len(figures)}I", *chain.from_iterable(figures.items()))
    return b64encode(packed).decode()


def cells_of(text: str) -> dict[int, int]:
    """Inverse of ``pack_cells``. ValueError: it is none."""
    packed = b64decode(text, validate=True)
    if len(packed) % 8:
        raise ValueError(f"{len(packed)} bytes are no cells")
    found = iter(struct.unpack(f">{len(packed) // 4}I", packed))
    return dict(zip(found, found, strict=True))


def hottest(weights: Mapping[int, int], slice_at: Callable[[int], int]) -> list[Any]:
    """Of weights by locator the heaviest slices: number, weight, and pieces: first locator, depth, weight."""
    by_slice: dict[int, Counter[int]] = {}
    for locator, weight in weights.items():
        by_slice.setdefault(slice_at(locator << TAIL_BITS), Counter())[locator] += weight
    totals = {number: found.total() for number, found in by_slice.items()}
    first = sorted(totals, key=lambda number: (-totals[number], number))[:SLICES_TOLD]
    return [[number, totals[number], pieces_of(number, by_slice[number])] for number in first]


def pieces_of(number: int, weights: Mapping[int, int]) -> list[Any]:
    """A slice cut until every piece is light, or as fine as can be: those that hold anything, in order."""
    whole = numbered_slice(number)
    least = _LEAF_SHARE * sum(weights.values())
    leaves: list[Any] = []

    def cut(first: int, depth: int, inside: list[tuple[int, int]]) -> None:
        weight = sum(weight for _, weight in inside)
        if weight <= least or depth == SLICE_DEPTH_MAX:
            leaves.extend([[first, depth, weight]] if weight else [])
            return
        middle = first + (1 << (LOCATOR_BITS - depth - 1))
        cut(first, depth + 1, [found for found in inside if found[0] < middle])
        cut(middle, depth + 1, [found for found in inside if found[0] >= middle])

    cut(whole.first >> TAIL_BITS, whole.depth, sorted(weights.items()))
    return leaves


class Weights:
    """Bytes by locator while a scrub goes through slices: only those of the heaviest are kept."""

    def __init__(self) -> None:
        self._kept: dict[int, dict[int, int]] = {}

    def add(self, number: int, weights: Mapping[int, int]) -> None:
        """What one slice holds."""
        if not weights:
            return
        self._kept[number] = dict(weights)
        if len(self._kept) > SLICES_TOLD:
            del self._kept[min(self._kept, key=lambda known: (sum(self._kept[known].values()), -known))]

    def describe(self) -> list[Any]:
        """As ``hottest``."""
        totals = {number: sum(weights.values()) for number, weights in self._kept.items()}
        order: Iterable[int] = sorted(totals, key=lambda number: (-totals[number], number))
        return [[number, totals[number], pieces_of(number, self._kept[number])] for number in order]
