"""Nodes join a running lab, are ended as by a power cut, come back; and the lab starts again with them."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ssastore.control.embedded import EmbeddedControlStore
from ssastore.core.cluster import NodeRecord, node_key
from ssastore.core.planfile import decode_plan
from ssastore.env import Write
from ssastore.lab.members import ASK_PREFIX, Ask
from tests.labs import RunningLab, running_lab

pytestmark = pytest.mark.lab


def node_names(report: dict[str, Any]) -> list[str]:
    return [node["name"] for node in report["nodes"]]


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2 and done.stderr.startswith("ssastore: ")
    return done.stderr


def plans(lab: RunningLab, path: Path) -> None:
    """Of three nodes with one replica, and a fourth that has nothing yet."""
    shown = lab.cli("plan", "--out", str(path)).stdout
    assert "nothing is changed" in shown and "0.00 % -> 2" in shown
    plan = decode_plan(path.read_bytes())
    assert all(0.2 < node.loads[1] < 0.3 for node in plan.figures.nodes) and len(plan.figures.nodes) == 4
    assert "n4" in {change.target for change in plan.changes}
    assert lab.cli("plan", "--json").stdout == path.read_text()
    drained = decode_plan(lab.cli("plan", "--drain", "n1", "--json").stdout.encode())
    assert not [node for node in drained.figures.nodes if node.name == "n1" and node.loads[1]]
    assert lab.cli("plan", "--weight", "n4=3", "--json").stdout != path.read_text()
    for arguments, text in {
        ("--drain", "n9"): "the cluster has no node n9; it has n1, n2, n3, n4",
        ("--lost", "n1"): "n1 answers: it is not lost",
        ("--lost", "n1", "--accept-alive"): "fewer than 1 planes are left",
        ("--weight", "n4"): "'n4' is not NODE=N",
        ("--replicas", "2"): "replicas",
    }.items():
        done = lab.cli("plan", *arguments, check=False)
        assert done.returncode == 2 and text in done.stderr, (arguments, done.stderr)


def test_node_joins_and_is_still_there_after_a_restart(tmp_path: Path) -> None:
    """With the address that it had: a record in the control store names it."""
    addresses = []
    for is_first in (True, False):
        with running_lab(tmp_path, "joins", "--nodes", "3") as lab:
            if is_first:
                lab.cli("node", "add", "late", "--zone", "z9", "--weight", "3")
            report = lab.status()
            assert node_names(report) == ["late", "n1", "n2", "n3"] and report["ready"]
            shown = lab.cli("exec", "--host", "late", "--", "ip", "-6", "addr", "show", "eth0").stdout
            late = next(node for node in report["nodes"] if node["name"] == "late")
            assert f"{late['address']}/64" in shown and late["slices"] == 0
            addresses.append(late["address"])
    assert addresses[0] == addresses[1]


def test_node_is_ended_and_started_while_others_serve(tmp_path: Path) -> None:
    with running_lab(tmp_path, "ended", "--nodes", "4", "--replicas", "3") as lab:
        lab.cli("mb", "docs")
        lab.cli("node", "kill", "n2")
        report = lab.status()
        assert not report["ready"] and "n2" in report["reason"]
        assert "n2 is not running" in refused(lab.cli("node", "kill", "n2", check=False))
        lab.cli("put", "docs/a", __file__)
        lab.cli("node", "start", "n2")
        lab.cli("ready", "--wait", "30")
        assert lab.cli("get", "docs/a", "-").stdout == Path(__file__).read_text()
        assert "n2 is running" in refused(lab.cli("node", "start", "n2", check=False))


def test_what_the_lab_cannot_do_is_said(tmp_path: Path) -> None:
    with running_lab(tmp_path, "cannot", "--nodes", "3") as lab:
        for arguments, text in {
            ("add", "n1"): "the lab has a node n1",
            ("add", "client"): "no node can be called client",
            ("add", "gateway"): "no node can be called gateway",
            ("add", "gw"): "no node can be called gw",
            ("add", "router"): "no node can be called router",
            ("add", "etcd"): "no node can be called etcd",
            ("kill", "gateway"): "no node gateway",
            ("add", "bad/name"): "node name must be",
            ("add", "x", "--weight", "0"): "weight",
            ("add", "a-name-longer-than-any-interface"): "name",
            ("kill", "n9"): "no node n9",
            ("start", "gw"): "no node gw",
        }.items():
            assert text in refused(lab.cli("node", *arguments, check=False)), arguments
            assert node_names(lab.status()) == ["n1", "n2", "n3"]
        # A wish that failed stands in nobody's way.
        lab.cli("node", "add", "n4")
        plans(lab, tmp_path / "plan.json")
        assert "Missing option '--config'" in lab.cli("node", check=False).stderr


def write(lab: RunningLab, entries: dict[str, bytes | None]) -> None:
    """Straight into the lab's control store."""

    async def wait() -> None:
        control = EmbeddedControlStore(lab.data / "control.sock")
        await control.transact([], [Write(key, value) for key, value in entries.items()])
        await control.close()

    asyncio.run(wait())


def test_node_that_could_not_join_can_be_asked_for_again(tmp_path: Path) -> None:
    with running_lab(tmp_path, "again", "--nodes", "3") as lab:
        write(lab, {node_key("n5"): NodeRecord("n5", "2001:db8::5").encode()})
        assert "a node n5 already" in refused(lab.cli("node", "add", "n5", check=False))
        write(lab, {node_key("n5"): None})
        lab.cli("node", "add", "n5")
        assert node_names(lab.status()) == ["n1", "n2", "n3", "n5"]
        # What ends at once is no success.
        (lab.data / "nodes" / "n6").write_text("")
        assert "n6 ended while starting" in refused(lab.cli("node", "add", "n6", check=False))
        (lab.data / "nodes" / "n6").unlink()
        lab.cli("node", "start", "n6")
        assert "n6 is running" in refused(lab.cli("node", "start", "n6", check=False))


def test_wishes_of_an_earlier_life_are_not_done(tmp_path: Path) -> None:
    with running_lab(tmp_path, "life", "--nodes", "3") as lab:
        # Nobody waits for the answer, and an unreadable one comes first.
        write(lab, {ASK_PREFIX + "a": b"[]", ASK_PREFIX + "n1": Ask("start").encode()})
        lab.cli("node", "kill", "n2")
        lab.cli("node", "kill", "n1")
        lab.stop()
    with running_lab(tmp_path, "life", "--nodes", "3") as lab:
        assert lab.status()["ready"]
        lab.cli("node", "kill", "n1")
