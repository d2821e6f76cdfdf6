"""Nodes that are gone: who tells, and what is done about it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ssastore.core.guardian import FREE, RECOVERED
from ssastore.judge.verdicts import judge, read_history, share_of_success
from tests.faults import load_on, nodes_of
from tests.lab.shared import wait_until
from tests.labs import RunningLab, running_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(360)]

AFTER_S = 10
WAIT_S = 60


def node_of(lab: RunningLab, name: str) -> Any:
    return next(node for node in lab.status()["nodes"] if node["name"] == name)


def says(lab: RunningLab, name: str) -> str:
    found: str = node_of(lab, name).get("says", "")
    return found


def coordinator(lab: RunningLab) -> str:
    wait_until(lambda: bool(lab.status()["coordinator"]), "there is a coordinator", 30)
    found: str = lab.status()["coordinator"]
    return found


def test_what_a_dead_node_had_is_recovered_by_itself_whatever_happens_to_coordinators(tmp_path: Path) -> None:
    """Of five nodes the coordinator is killed for good, under load. The next one's supervisor is stopped just
    before the time has come, and goes on when a third one has ordered what is lost.

    No call fails, all slices vote, and none is with the dead node.
    """
    options = ("--nodes", "5", "--replicas", "3", "--workers", "1", f"--recover-after={AFTER_S}")
    with running_lab(tmp_path, "absent", *options) as lab, nodes_of(lab) as nodes:
        dead = coordinator(lab)
        assert lab.status()["ready"] and node_of(lab, dead)["alive"]
        with load_on(lab, tmp_path, name="absent") as load:
            nodes.kill(dead)
            wait_until(
                lambda: says(lab, dead) == f"recovered at other nodes after {AFTER_S} s", "it is missed", 40
            )
            assert not lab.status()["ready"] and f"{dead:8} absent since" in lab.cli("status").stdout
            stopped = coordinator(lab)
            assert stopped != dead
            supervisor = nodes.pids(stopped)[0]
            os.kill(supervisor, signal.SIGSTOP)
            wait_until(
                lambda: lab.status()["coordinator"] not in ("", stopped), "another one coordinates", 40
            )
            wait_until(lambda: says(lab, dead) in (RECOVERED, FREE), "it is ordered", 40)
            os.kill(supervisor, signal.SIGCONT)
            wait_until(lambda: node_of(lab, dead)["slices"] == 0, "all of it is begun at others", 2 * WAIT_S)
            wait_until(
                lambda: lab.cli("moves").stdout == "nothing is moving\n", "all is recovered", 2 * WAIT_S
            )
            wait_until(lambda: says(lab, dead) == FREE, "the coordinator is content", WAIT_S)
            assert coordinator(lab) not in (dead, stopped)
            found = load.stop()
        judged = judge(read_history(load.settings.history))
        report = lab.status()
        print(f"{judged.operations} operations, {found}")
        assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
        assert share_of_success(found) == 1.0, found
        others = [node for node in report["nodes"] if node["name"] != dead]
        assert sum(node["slices"] for node in others) == 3 * 4096
        assert not any(worker["silent"] for node in others for worker in node["workers"])

        # It owns nothing: nobody can ask it at an address, its lease alone tells.
        assert report["reason"] == f"no answer from {dead} worker 0"
        nodes.start(dead)
        lab.cli("ready", "--wait", "30")
        assert says(lab, dead) == "" and lab.cli("moves").stdout == "nothing is moving\n"


def test_a_node_without_its_first_worker_is_recovered_although_the_other_one_answers(tmp_path: Path) -> None:
    """The one that stands still is that which keeps the lease. What both have is rebuilt at others."""
    options = ("--nodes", "4", "--replicas", "3", "--workers", "2", f"--recover-after={AFTER_S}")
    with running_lab(tmp_path, "half", *options) as lab:
        half = next(name for name in ("n1", "n2") if name != coordinator(lab))
        stopped = lab.worker_pid(half)
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: says(lab, half) in (RECOVERED, FREE), "it is ordered", WAIT_S)
        wait_until(lambda: node_of(lab, half)["slices"] == 0, "all of it is begun at others", 2 * WAIT_S)
        wait_until(lambda: lab.cli("moves").stdout == "nothing is moving\n", "all is recovered", 2 * WAIT_S)
        others = [node for node in lab.status()["nodes"] if node["name"] != half]
        assert not any(worker["silent"] for node in others for worker in node["workers"])
        os.kill(stopped, signal.SIGCONT)
        lab.cli("ready", "--wait", "30")


def test_a_node_that_stands_still_and_comes_back_in_time_keeps_what_it_has(tmp_path: Path) -> None:
    """Its lease ends, and it gets another. Meanwhile two of four nodes are gone: nothing is recovered."""
    options = ("--nodes", "4", "--replicas", "3", "--workers", "1", f"--recover-after={AFTER_S}")
    with running_lab(tmp_path, "back", *options) as lab, nodes_of(lab) as nodes:
        first = coordinator(lab)
        one, other = [name for name in nodes.names if name != first][:2]
        before = {node["name"]: node["slices"] for node in lab.status()["nodes"]}
        for name in (one, other):
            nodes.signal(name, signal.SIGSTOP)
        refused = "not recovered by itself: 2 of 4 nodes are absent at once"
        wait_until(lambda: says(lab, one) == says(lab, other) == refused, "both are missed", 30)
        time.sleep(AFTER_S + 2)
        assert json.loads(lab.cli("moves", "--json").stdout)["moves"] == []
        for name in (one, other):
            nodes.signal(name, signal.SIGCONT)
        lab.cli("ready", "--wait", "30")
        wait_until(lambda: says(lab, one) == says(lab, other) == "", "both are back")
        assert before == {node["name"]: node["slices"] for node in lab.status()["nodes"]}
