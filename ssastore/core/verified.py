"""When each slice was last verified: all of it read, compared with every other plane, and good. Pure.

Since the worker's start: nobody else vouches for what was before.  A slice with entries in doubt is verified
when, at the end of the pass, none of them is in doubt any more.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ssastore.core.heat import pack_cells
from ssastore.core.numbers import numbered_slice
from ssastore.keyspace import IID_BITS, SLICE_BITS

_MINUTE_MS = 60_000


class Verified:
    """Of one worker."""

    def __init__(self) -> None:
        self._at_ms: dict[int, int] = {}
        self._unsure: set[int] = set()

    def begin(self) -> None:
        """A pass begins."""
        self._unsure = set()

    def add(self, number: int, now_ms: int) -> None:
        """A slice is good."""
        self._at_ms[number] = now_ms

    def doubt(self, number: int) -> None:
        """All of a slice was read and compared, and something of it has to be looked at again."""
        self._unsure.add(number)

    def settle(self, doubted: Collection[int], now_ms: int) -> None:
        """The pass ends: of the slices in doubt, ``doubted`` still are."""
        self._at_ms.update(dict.fromkeys(self._unsure.difference(doubted), now_ms))

    def describe(self, owned: Collection[int]) -> dict[str, Any]:
        """How many slices were never verified, and when the one was that waits longest.

        ``cells``: by /80 (``heat.pack_cells``) the minute since 1970, of its parts the first; 0: never.
        """
        self._at_ms = {number: at for number, at in self._at_ms.items() if number in owned}
        cells: dict[int, int] = {}
        for number in owned:
            at_min = self._at_ms.get(number, 0) // _MINUTE_MS
            cell = numbered_slice(number).first >> (IID_BITS - SLICE_BITS)
            cells[cell] = min(at_min, cells.get(cell, at_min))
        return {
            "unverified": len(owned) - len(self._at_ms),
            "oldest_ms": min(self._at_ms.values(), default=None),
            "cells": pack_cells(cells),
        }
