"""A node joins and gets its share, another gives all that it has away: nobody who works meanwhile notices."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ssastore.judge.verdicts import judge, read_history, share_of_success
from tests.faults import load_on
from tests.lab.outage import moves_around_an_outage
from tests.labs import RunningLab, running_lab

OBJECTS = int(os.environ.get("SSASTORE_SOAK_OBJECTS", "300"))
"Stored before anything moves, of 1 byte to 40 KiB."
IS_LONG = OBJECTS > 300
"Then another node is drained as well."

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300 + OBJECTS // 10)]

FILL = """
import sys
from ssastore import Client
with Client.from_env() as client:
    client.create_bucket("kept")
    bucket = client.bucket("kept")
    for number in range(int(sys.argv[1])):
        bucket.put(f"k{number}", bytes([number % 256]) * (1 + number * 997 % 40_000))
"""
CHECK = """
import sys
from ssastore import Client
with Client.from_env() as client:
    bucket = client.bucket("kept")
    wanted = {f"k{n}": bytes([n % 256]) * (1 + n * 997 % 40_000) for n in range(int(sys.argv[1]))}
    print(sum(bucket.get(key) != data for key, data in wanted.items()), len(list(bucket.list())))
"""


def slices_of(lab: RunningLab) -> dict[str, int]:
    return {node["name"]: node["slices"] for node in lab.status()["nodes"]}


def carry_out(lab: RunningLab, path: Path, *arguments: str) -> Any:
    lab.cli("plan", *arguments, "--out", str(path))
    return json.loads(lab.cli("apply", str(path), "--rate", "1G", "--json", timeout=250).stdout)


def test_slices_move_to_a_new_node_and_away_from_another_under_load(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with running_lab(tmp_path, "apply", "--nodes", "4", "--replicas", "3", "--workers", "1") as lab:
        lab.python(FILL, str(OBJECTS))
        with load_on(lab, tmp_path, name="moves") as load:
            lab.cli("node", "add", "n5")
            joined = carry_out(lab, path)
            after_join = slices_of(lab)
            first = path.read_text()
            drained = carry_out(lab, path, "--drain", "n2") if IS_LONG else None
            after_drain = slices_of(lab)
            found = load.stop()
        judged = judge(read_history(load.settings.history))
        print(f"{joined}, {drained}, {judged.operations} operations, {found}")
        assert joined["done"] == joined["moves"] > 2000
        assert min(after_join.values()) > 2200 and sum(after_join.values()) == 3 * 4096
        if drained is not None:
            assert drained["done"] == drained["moves"] > 2000
            assert after_drain.pop("n2") == 0 and min(after_drain.values()) > 2800
        assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
        assert share_of_success(found) == 1.0, found
        assert lab.python(CHECK, str(OBJECTS)).split() == ["0", str(OBJECTS)]
        assert lab.cli("moves").stdout == "nothing is moving\n"
        path.write_text(first.replace('"from": "n1"', '"from": "n3"'))
        stale = lab.cli("apply", str(path), check=False)
        assert stale.returncode == 2 and "plan again" in stale.stderr


def test_moves_go_on_after_the_embedded_control_store_stood_still(tmp_path: Path) -> None:
    """It is a part of the process that made the lab, which the data path does without."""
    with running_lab(tmp_path, "still", "--nodes", "4", "--replicas", "3", "--workers", "1") as lab:
        moves_around_an_outage(lab, tmp_path, lab.pid)
