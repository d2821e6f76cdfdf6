"""Heat and age of verification by /80, as a page is told."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from ssastore.console.cells import HEAT_TOP, Heat, packed, verified
from ssastore.core.heat import cells_of, pack_cells
from ssastore.core.verified import Verified

MINUTE_MS = 60_000


def steps(text: str) -> dict[int, int]:
    found = [step for byte in b64decode(text) for step in (byte >> 4, byte & 15)]
    return {cell: step for cell, step in enumerate(found) if step}


def report(calls: int, cells: dict[int, int], *, ok: bool = True) -> dict[str, Any]:
    heat = {"calls": calls, "samples": sum(cells.values())}
    worker = {"worker": 0, "ok": ok, "heat": heat, "bulk": {"heat": pack_cells(cells)}}
    return {"nodes": [{"name": "n1", "workers": [worker]}]}


def test_cells_are_packed_and_unpacked() -> None:
    figures = {0: 1, 7: 2**32 - 1, 0xFFFF: 3}
    assert cells_of(pack_cells(figures)) == figures
    assert steps(packed({0: 1, 5: 15, 0x2FFF: 7})) == {0: 1, 5: 15, 0x2FFF: 7}
    assert packed({}) == ""


def test_heat_is_calls_a_second_between_two_reports() -> None:
    heat = Heat()
    heat.take(report(1000, {1: 32, 2: 16, 3: 15, 4: 1}), 100.0)
    assert heat.describe() == {"top": 0.0, "cells": ""}  # Nobody knows since when.
    heat.take(report(1640, {1: 32, 2: 16, 3: 15, 4: 1}), 110.0)
    told = heat.describe()
    assert told["top"] == 32.0
    assert steps(told["cells"]) == {1: HEAT_TOP, 2: HEAT_TOP, 3: HEAT_TOP - 1, 4: HEAT_TOP - 4}
    heat.take(report(1640, {1: 32, 2: 16, 3: 15, 4: 1}), 120.0)
    assert heat.describe()["cells"] == ""


def test_a_worker_that_is_silent_or_has_begun_again_is_cold() -> None:
    heat = Heat()
    heat.take(report(1000, {1: 4}), 1.0)
    heat.take(report(2000, {1: 4}, ok=False), 2.0)
    assert heat.describe()["cells"] == ""
    heat.take(report(10, {1: 4}), 3.0)
    assert heat.describe()["cells"] == ""


def test_a_slice_is_verified_when_nothing_of_it_is_in_doubt_any_more() -> None:
    known = Verified()
    known.begin()
    known.add(7, 10 * MINUTE_MS)
    known.doubt(8)
    known.doubt(9)
    known.settle({9}, 12 * MINUTE_MS)
    told = known.describe(frozenset({7, 8, 9, 10}))
    assert (told["unverified"], told["oldest_ms"]) == (2, 10 * MINUTE_MS)
    assert cells_of(told["cells"]) == {7: 10, 8: 12, 9: 0, 10: 0}
    known.begin()
    known.settle((), 13 * MINUTE_MS)
    assert known.describe(frozenset({9}))["unverified"] == 1
    # What went away and came back was somewhere else meanwhile.
    assert known.describe(frozenset({7}))["unverified"] == 1


def test_a_page_is_told_how_long_ago_about() -> None:
    def worker(name: str, at: dict[int, int], oldest_ms: int | None, never: int) -> dict[str, Any]:
        scrub = {"unverified": never, "oldest_ms": oldest_ms}
        found = {"worker": 0, "ok": True, "scrub": scrub, "bulk": {"verified": pack_cells(at)}}
        return {"name": name, "workers": [found]}

    now_min = 1000
    nodes = [
        worker("n1", {0: 1000, 1: 999, 2: 997, 3: 0}, 997 * MINUTE_MS, 1),
        worker("n2", {5: 1}, MINUTE_MS, 0),
    ]
    told = verified({"nodes": nodes}, now_min * MINUTE_MS)
    assert (told["never"], told["oldest_ms"]) == (1, MINUTE_MS)
    assert steps(told["cells"]) == {0: 1, 1: 2, 2: 3, 5: 11}
