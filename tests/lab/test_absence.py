"""Nodes that are gone: who tells, and what is done about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.shared import wait_until
from tests.labs import RunningLab, running_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


def node_of(lab: RunningLab, name: str) -> Any:
    return next(node for node in lab.status()["nodes"] if node["name"] == name)


def test_a_node_that_owns_nothing_is_missed_when_it_dies(tmp_path: Path) -> None:
    """It has no address at which anybody could miss it: its lease ends."""
    with running_lab(tmp_path, "missed", "--nodes", "1", "--workers", "1") as lab:
        lab.cli("node", "add", "n2")
        assert lab.status()["ready"] and node_of(lab, "n2")["alive"] and node_of(lab, "n2")["slices"] == 0
        lab.cli("node", "kill", "n2")
        wait_until(lambda: not lab.status()["ready"], "n2 is missed", 20)
        report = lab.status()
        assert report["reason"] == "no answer from n2 worker 0" and not node_of(lab, "n2")["alive"]
        assert node_of(lab, "n1")["alive"]
        assert "no sign of life" in lab.cli("status").stdout
        lab.cli("node", "start", "n2")
        lab.cli("ready", "--wait", "20")
