"""A node dies for good, and what it had is rebuilt at the others: nobody who works meanwhile notices.

Then it comes back with its old disk: it says of nothing that it is its own, and is a node like any new one.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ssastore.judge.verdicts import judge, read_history, share_of_success
from ssastore.limits import LEASE_MS
from tests.faults import load_on
from tests.lab.test_apply import CHECK, FILL, carry_out, slices_of
from tests.labs import RunningLab, running_lab

OBJECTS = int(os.environ.get("SSASTORE_SOAK_OBJECTS", "300"))
"Stored before anything dies, of 1 byte to 40 KiB."
IS_LONG = OBJECTS > 300
"Then the node that came back gets its share again."

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300 + OBJECTS // 10)]

LOST = "n2"


def routes_to(lab: RunningLab, node: str) -> list[str]:
    """The service's prefixes that the router sends to a node."""
    address = next(found["address"] for found in lab.status()["nodes"] if found["name"] == node)
    lines = lab.cli("exec", "--host", "router", "--", "ip", "-6", "route", "show", "table", "all").stdout
    return [line.split()[0] for line in lines.splitlines() if f"via {address} " in line]


def test_what_a_lost_node_had_is_rebuilt_under_load_and_its_ghost_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with running_lab(tmp_path, "lost", "--nodes", "5", "--replicas", "3", "--workers", "1") as lab:
        lab.python(FILL, str(OBJECTS))
        before = slices_of(lab)
        for command in (("plan", "--lost", LOST), ("apply", str(path))):
            lab.cli("plan", "--lost", LOST, "--accept-alive", "--out", str(path))
            alive = lab.cli(*command, check=False)
            assert alive.returncode == 2 and f"{LOST} answers: it is not lost" in alive.stderr
        assert slices_of(lab) == before
        with load_on(lab, tmp_path, name="lost") as load:
            lab.cli("node", "kill", LOST)
            began = time.monotonic()
            rebuilt = carry_out(lab, path, "--lost", LOST)
            took_s = time.monotonic() - began
            # Ended just now, it had a lease for a while: that is waited for.
            assert took_s > LEASE_MS / 3000
            after = slices_of(lab)
            assert routes_to(lab, LOST) == []
            lab.cli("node", "start", LOST)
            lab.cli("ready", "--wait", "30")
            time.sleep(2)
            found = load.stop()
        judged = judge(read_history(load.settings.history))
        print(f"{rebuilt} {took_s:.1f} s, {judged.operations} operations, {found}")
        assert rebuilt["done"] == rebuilt["moves"] == before[LOST] > 2000
        assert after[LOST] == 0 and sum(after.values()) == 3 * 4096
        assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
        assert share_of_success(found) == 1.0, found
        assert lab.python(CHECK, str(OBJECTS)).split() == ["0", str(OBJECTS)]
        owns = lab.cli("node", "remove", "n1", check=False)
        assert owns.returncode == 2 and "n1 owns" in owns.stderr
        lab.cli("node", "remove", LOST)
        assert LOST not in slices_of(lab)
        # With the disk that it had: what it drops of that takes nothing from what it gets.
        lab.cli("node", "add", LOST)
        assert slices_of(lab)[LOST] == 0
        if IS_LONG:
            joined = carry_out(lab, path)
            assert joined["done"] == joined["moves"] > 2000
            assert lab.python(CHECK, str(OBJECTS)).split() == ["0", str(OBJECTS)]
        assert json.loads(lab.cli("moves", "--json").stdout)["moves"] == []
