"""Moves that are slowed down, paused and resumed, by command."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ssastore.limits import MOVE_SLICE_S
from tests.lab.shared import wait_until
from tests.labs import RunningLab, running_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

MIB = 1 << 20
STORED = 60
"MiB in as many objects. A fifth goes to the new node: some ten seconds at the slowest rate."

FILL = """
import sys
from ssastore import Client
with Client.from_env() as client:
    bucket = client.create_bucket("kept")
    for number in range(int(sys.argv[1])):
        bucket.put(f"k{number}", bytes([number]) * 2**20)
"""
CHECK = """
import sys
from ssastore import Client
with Client.from_env() as client:
    bucket = client.bucket("kept")
    print(sum(bucket.get(f"k{n}") == bytes([n]) * 2**20 for n in range(int(sys.argv[1]))))
"""


def moves(lab: RunningLab, *options: str) -> Any:
    return json.loads(lab.cli("moves", "--json", *options).stdout)


def taken(lab: RunningLab) -> int:
    """Bytes that the new node's worker has taken, if anybody knows."""
    node = next(node for node in lab.status()["nodes"] if node["name"] == "n5")
    found: int = node["workers"][0].get("moves", {}).get("bytes", 0)
    return found


def test_moves_are_slowed_down_paused_and_resumed(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    with running_lab(tmp_path, "paused", "--nodes", "4", "--workers", "1") as lab:
        lab.python(FILL, str(STORED))
        lab.cli("node", "add", "n5")
        shown = lab.cli("plan", "--out", str(plan)).stdout
        assert "MiB to copy" in shown and "s at a gentle pace" in shown

        assert json.loads(lab.cli("pause", "--json").stdout) == {"paused": True, "left": 0, "moving": 0}
        ordered = lab.cli("apply", str(plan), "--no-wait", "--rate", "1M").stdout
        assert "at 1 MiB/s a worker; moves are paused" in ordered
        time.sleep(3)
        found = moves(lab)
        assert found["paused"] and found["bytes_per_s"] == MIB
        assert {move["state"] for move in found["moves"]} == {"PLANNED"}
        assert STORED / 10 * MIB < found["bytes"] < STORED / 2 * MIB
        # Besides its bytes each slice takes its time.
        slices_s = len(found["moves"]) * MOVE_SLICE_S
        assert found["bytes"] <= (found["eta_s"] + 1) * MIB <= found["bytes"] + (slices_s + 2) * MIB
        assert "moves are paused" in lab.cli("moves").stdout

        lab.cli("resume")
        began = time.monotonic()
        wait_until(lambda: "COPYING" in lab.cli("moves").stdout, "something is copied")
        paused = json.loads(lab.cli("pause", "--json").stdout)
        took_s, copied = time.monotonic() - began, taken(lab)
        assert paused["moving"] == 0 and paused["left"] > 0
        assert copied < MIB * took_s + 5 * MIB
        time.sleep(3)
        assert len(moves(lab)["moves"]) == paused["left"]

        assert moves(lab, "--rate", "1G")["bytes_per_s"] == 1 << 30
        lab.cli("resume")
        done = json.loads(lab.cli("apply", str(plan), "--json").stdout)
        assert done["done"] == done["moves"] > 500 and done["bytes_per_s"] == 1 << 30
        assert lab.cli("moves").stdout == "nothing is moving\n"
        assert lab.python(CHECK, str(STORED)).split() == [str(STORED)]
        print(f"{copied / MIB:.1f} MiB in {took_s:.1f} s, of {found['bytes'] / MIB:.1f} MiB")
