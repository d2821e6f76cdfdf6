"""What a lab says that it stores, what there is room for, and when that is full."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from ssastore.core.usage import USAGE_KEY, UsageHistory, UsageNote
from ssastore.env import ControlStore, Write
from ssastore.limits import DISK_RESERVE_BYTES, GIB, USAGE_EVERY_MS
from tests.lab.shared import ask
from tests.labs import RunningLab, running_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

OBJECTS, BYTES = 40, 50_000
DAYS = 9

FILL = f"""
from ssastore import Client
with Client.from_env() as client:
    bucket = client.create_bucket("kept")
    for number in range({OBJECTS + 1}):
        bucket.put(f"k{{number}}", bytes([number]) * {BYTES})
    bucket.delete("k0")
"""


def df(lab: RunningLab) -> Any:
    return json.loads(lab.cli("df", "--json").stdout)


async def note_growth(control: ControlStore) -> None:
    """As if a GiB of users' data had come every day, three times on the disks."""
    first_ms = time.time_ns() // 1_000_000 - DAYS * 24 * USAGE_EVERY_MS
    notes = [
        UsageNote(first_ms + hour * USAGE_EVERY_MS, 3 * hour * GIB // 24, 3) for hour in range(24 * DAYS + 1)
    ]
    await control.transact([], [Write(USAGE_KEY, UsageHistory(tuple(notes)).encode())])


def test_what_is_stored_and_how_long_there_is_room_for_more(tmp_path: Path) -> None:
    with running_lab(tmp_path, "df", "--nodes", "3", "--replicas", "3", "--workers", "2") as lab:
        lab.python(FILL)
        lab.cli("scrub", "--wait")
        found = df(lab)
        assert found["objects"] == OBJECTS and found["replicas"] == 3
        stored = found["usable"]["used_bytes"]
        assert OBJECTS * BYTES < stored < 2 * (OBJECTS + 1) * BYTES
        assert [node["objects"] for node in found["nodes"]] == [OBJECTS] * 3, "each has a copy of all"
        assert all(stored / 2 < node["used_bytes"] < 2 * stored for node in found["nodes"])
        # Every node has all data, so what fits a node's emptier half twice fits the cluster.
        frees = [node["free_bytes"] for node in found["nodes"]]
        assert 0 < found["usable"]["free_bytes"] <= min(frees) + DISK_RESERVE_BYTES
        assert found["growth"] is found["full_in_days"] is None
        text = lab.cli("df").stdout
        assert f"{OBJECTS} objects, " in text and "no forecast: it needs notes of a day" in text

        ask(lab, note_growth)
        found = df(lab)
        assert found["growth"]["bytes_per_day"] == pytest.approx(GIB, rel=1e-6)
        assert found["full_in_days"] == pytest.approx(found["usable"]["free_bytes"] / GIB, rel=1e-6)
        said = re.search(
            r"full in about (\d+) days at the growth of the last 9 days, 1.0 GiB a day", lab.cli("df").stdout
        )
        # Other programs write to this disk as well.
        assert said is not None and int(said[1]) == pytest.approx(found["full_in_days"], abs=2)

        lab.cli("node", "kill", "n2")
        found = df(lab)
        assert found["usable"] is found["full_in_days"] is None and found["growth"] is not None
        assert "n2                 2  does not answer" in lab.cli("df").stdout
