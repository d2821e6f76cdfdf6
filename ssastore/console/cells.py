"""What is told of each /80 besides its owner: how hot it is, and how long ago it was verified. Pure.

Four bits a cell, two cells a byte, the first one in the high bits:

    heat       0: no calls that are worth telling; 7: as many as the hottest /80, and half as many with each
               step below
    verified   0: never since its worker's start; 1: in the last minute; n: 2 ** (n - 1) minutes ago, about
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any

from ssastore.core.heat import cells_of

CELLS = 1 << 16
HEAT_TOP = 7
_COLDEST = 0.05
"Calls a second: what a slice has below that is chance."
_STEP_MAX = 15
Key = tuple[str, int]
"Node and worker."


class Heat:
    """Calls a second of every /80, from two reports that follow each other."""

    def __init__(self) -> None:
        self._calls: dict[Key, int] = {}
        self._at_s = 0.0
        self._rates: dict[int, float] = {}

    def take(self, report: Mapping[str, Any], now_s: float) -> None:
        """What nodes say now."""
        seconds, self._at_s = now_s - self._at_s, now_s
        before, self._calls = self._calls, {}
        rates: dict[int, float] = {}
        for key, worker in workers_of(report):
            heat = worker.get("heat")
            if heat is None:
                continue
            self._calls[key] = heat["calls"]
            calls = heat["calls"] - before.get(key, heat["calls"])
            if calls <= 0:
                continue
            each = calls / seconds / max(heat["samples"], 1)
            for cell, count in _cells(worker, "heat").items():
                rates[cell] = rates.get(cell, 0.0) + count * each
        self._rates = rates

    def describe(self) -> dict[str, Any]:
        """For a page; ``top``: calls a second of the hottest /80."""
        top = max(self._rates.values(), default=0.0)
        steps = {cell: _heat_step(rate, top) for cell, rate in self._rates.items()} if top > _COLDEST else {}
        return {"top": round(top, 2), "cells": packed(steps)}


def _heat_step(rate: float, top: float) -> int:
    if rate < _COLDEST:
        return 0
    step = HEAT_TOP
    while rate < top / 2 and step > 1:
        rate, step = 2 * rate, step - 1
    return step


def verified(report: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """For a page: how many slices were never verified, which one waits longest, and each /80's step."""
    steps: dict[int, int] = {}
    never, oldest_ms = 0, None
    for _, worker in workers_of(report):
        scrub = worker.get("scrub", {})
        never += scrub.get("unverified", 0)
        if (at_ms := scrub.get("oldest_ms")) is not None:
            oldest_ms = at_ms if oldest_ms is None else min(oldest_ms, at_ms)
        for cell, at_min in _cells(worker, "verified").items():
            ago_min = max(0, now_ms // 60_000 - at_min)
            steps[cell] = min(_STEP_MAX, 1 + ago_min.bit_length()) if at_min else 0
    return {"never": never, "oldest_ms": oldest_ms, "cells": packed(steps)}


def packed(steps: Mapping[int, int]) -> str:
    """Up to the last cell that has one, in base64."""
    found = bytearray((max(steps, default=-1) + 2) // 2)
    for cell, step in steps.items():
        found[cell >> 1] |= step if cell & 1 else step << 4
    return b64encode(found).decode()


def workers_of(report: Mapping[str, Any]) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    """All workers that answer."""
    for node in report["nodes"]:
        for worker in node["workers"]:
            if worker["ok"]:
                yield (node["name"], worker["worker"]), worker


def _cells(worker: Mapping[str, Any], name: str) -> dict[int, int]:
    """Of what a worker says by /80; a number that is none is left out."""
    found = cells_of(worker.get("bulk", {}).get(name, ""))
    return {cell: figure for cell, figure in found.items() if cell < CELLS}
