"""Slices move while the process of the control store stands still: on a lab of any control store."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from ssastore.judge.verdicts import judge, read_history, share_of_success
from tests.faults import load_on
from tests.lab.shared import wait_until
from tests.labs import RunningLab

AWAY_S = float(os.environ.get("SSASTORE_SOAK_CONTROL_S", "6"))
"More than its clients wait."


def node_of(lab: RunningLab, name: str) -> Any:
    return next(node for node in lab.status()["nodes"] if node["name"] == name)


def moves_around_an_outage(lab: RunningLab, directory: Path, pid: int) -> None:
    """A node joins and gets its share under load; meanwhile the process stands still, so calls to it hang.

    No call of the clients fails, no slice moves meanwhile, all have their new owner in the end, and no
    node is missed.
    """
    plan = directory / "plan.json"
    lab.cli("node", "add", "n5")
    lab.cli("plan", "--out", str(plan))
    with load_on(lab, directory, name="moves") as load:
        lab.cli("apply", str(plan), "--rate", "1G", "--no-wait")
        wait_until(lambda: node_of(lab, "n5")["slices"] > 100, "slices move")
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(1)
            before = node_of(lab, "n5")["slices"]
            time.sleep(AWAY_S - 1)
            assert node_of(lab, "n5")["slices"] == before
            assert "absent" not in lab.cli("status").stdout
        finally:
            os.kill(pid, signal.SIGCONT)
        began = time.monotonic()
        done = json.loads(lab.cli("apply", str(plan), "--json", timeout=90).stdout)
        took_s = time.monotonic() - began
        lab.cli("ready", "--wait", "30")
        found = load.stop()
    judged = judge(read_history(load.settings.history))
    print(f"{done}, {before} of them before, {took_s:.1f} s after; {judged.operations} operations, {found}")
    assert done["done"] == done["moves"] > before
    assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
    assert share_of_success(found) == 1.0, found
    assert not any(node["says"] for node in lab.status()["nodes"] if "says" in node)
