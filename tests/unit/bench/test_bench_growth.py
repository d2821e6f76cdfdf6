"""The table of a growth, and what is asked for in its rounds."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from bench.growth import OPS, Point, Result

MACHINE: dict[str, Any] = {
    "started": "2026-01-02T03:04:05Z",
    "commit": "0123456789ab",
    "cpu": "Some CPU",
    "cores": 2,
    "memory_mib": 1024,
    "kernel": "6.1",
    "file_system": "ext4",
    "load_average": 0.1,
    "python": "3.11.7",
    "uvloop": "0.21",
}


def point(objects: int, us: float) -> Point:
    figures: dict[str, float] = dict.fromkeys(OPS, us)
    rates: dict[str, float] = dict.fromkeys(OPS, 1000.0)
    return Point(objects, 5000, 80, figures, figures, rates, figures, 100, 90, 1300, 1.5, 2.5, 30)


def test_table_shows_each_count_and_how_much_dearer_the_last_is() -> None:
    result = Result(MACHINE, 1, 1, 1024, 9000, [point(1_000, 20), point(3_000_000, 30)], 1_500_000, 100, 50)
    table = result.table()
    assert "3,000,000" in table
    assert "commit 0123456789ab" in table
    rows = {line[:28].strip(): line[28:].split() for line in table.splitlines() if len(line) > 28}
    assert rows["get, server us"] == ["20.0", "30.0"]
    assert rows["entries / s"] == ["1,000,000", "1,000,000"], "a page has a thousand"
    assert "to a new node: 1,500,000 records, 15,000/s, 50.0 us each" in table
    assert table.endswith("over that at 1,000: get 1.50, overwrite 1.50, put 1.50")
    assert json.loads(json.dumps(asdict(result)))["points"][1]["objects"] == 3_000_000
