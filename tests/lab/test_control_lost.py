"""The control store is deleted, and made anew from the nodes' directories: all data, and each slice once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ssastore.config import open_control
from ssastore.core.cluster import Cluster
from ssastore.lab.status import fetch
from ssastore.rebalance import read_cluster
from ssastore.traces import COPY_NAME
from tests.etcds import running_etcd
from tests.lab.shared import ask, processes_with, wait_until
from tests.lab.test_apply import CHECK, FILL, carry_out, slices_of
from tests.labs import RunningLab, running_lab, start_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1")
OBJECTS = 300
LAG_S = 15


def lose_control(lab: RunningLab) -> None:
    for path in lab.data.glob("control*"):
        path.unlink()


def rebuild(lab: RunningLab, *options: str, code: int = 0) -> Any:
    done = lab.cli("control", "rebuild", "--data", str(lab.data), "--json", *options, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def is_copied(lab: RunningLab, text: str) -> bool:
    return all(text in path.read_text() for path in lab.data.glob(f"nodes/*/{COPY_NAME}"))


def slices_now(lab: RunningLab, name: str) -> int:
    _, report = fetch(lab.admin_port, "/status")
    return next(int(node["slices"]) for node in report["nodes"] if node["name"] == name)


def test_a_control_store_that_was_deleted_is_made_anew(tmp_path: Path) -> None:
    """Twice: all had been quiet, then in the middle of moves, with everything killed."""
    plan = tmp_path / "plan.json"
    with running_lab(tmp_path, "rebuilt", *SHAPE) as lab:
        lab.python(FILL, str(OBJECTS))
        lab.cli("node", "add", "n5")
        assert carry_out(lab, plan)["done"] > 2000
        lab.cli("split", "a3f")
        before = ask(lab, read_cluster)
        wait_until(lambda: is_copied(lab, "0a3f8/81"), "all nodes have copied the last change", LAG_S)
        lab.stop()
        lose_control(lab)
        found = rebuild(lab)
        assert found["nodes"] == ["n1", "n2", "n3", "n4", "n5"] and found["groups"] == 4096
        assert not (
            found["missing"] or found["doubtful"] or found["unclear"] or (lab.data / "control").exists()
        )
        text = lab.cli("control", "rebuild", "--data", str(lab.data)).stdout
        assert "nodes: n1, n2, n3, n4, n5" in text and "nothing is written: --write does it" in text
        rebuild(lab, "--write")
        again = lab.cli("control", "rebuild", "--data", str(lab.data), "--write", check=False)
        assert again.returncode == 2 and "holds a cluster already" in again.stderr

        lab = start_lab(tmp_path, "rebuilt", *SHAPE)
        assert ask(lab, read_cluster) == before
        assert lab.python(CHECK, str(OBJECTS)).split() == ["0", str(OBJECTS)]

        lab.cli("plan", "--drain", "n5", "--out", str(plan))
        had = slices_of(lab)["n5"]
        lab.cli("apply", str(plan), "--no-wait")
        # Asked without a process for each look: the drain may be over before one has started.
        wait_until(lambda: 0 < slices_now(lab, "n5") < had, "a part of it has moved", 60)
        os.kill(lab.pid, signal.SIGKILL)
        wait_until(lambda: not processes_with(str(lab.data)), "all of it is dead", 20)
        lose_control(lab)
        found = rebuild(lab, "--write")
        print({name: len(found[name]) for name in ("raised", "doubtful")})
        assert not found["unclear"]
        lab = start_lab(tmp_path, "rebuilt", *SHAPE)
        wait_until(lambda: not silent(lab), "what was in doubt is rebuilt", 60)
        cluster = ask(lab, read_cluster)
        assert sum(slices_of(lab).values()) == sum(len(record.slices()) for record in cluster.groups)
        assert lab.python(CHECK, str(OBJECTS)).split() == ["0", str(OBJECTS)]
        assert json.loads(lab.cli("moves", "--json").stdout)["moves"] == []
        assert carry_out(lab, plan, "--drain", "n5")["done"] > 0
        scrubbed = json.loads(lab.cli("scrub", "--wait", "--json", check=False).stdout)
        assert scrubbed["health"] == "healthy", scrubbed
        assert lab.python(CHECK, str(OBJECTS)).split() == ["0", str(OBJECTS)]
        lab.stop()
        into_a_fresh_etcd(lab, tmp_path, expected=cluster)


def into_a_fresh_etcd(lab: RunningLab, directory: Path, expected: Cluster) -> None:
    """By way of files, as from several hosts."""
    files = []
    for path in sorted(lab.data.glob("nodes/*/node.json")):
        files.append(str(directory / f"{path.parent.name}.trace"))
        Path(files[-1]).write_text(lab.cli("control", "trace", str(path.parent)).stdout)
    with running_etcd(directory) as etcd:
        control = f"etcd://127.0.0.1:{etcd.port}"
        lab.cli(
            "control",
            "rebuild",
            *files,
            "--into",
            control,
            "--write",
            "--config",
            str(lab.data / "config" / "n1.toml"),
        )

        async def read() -> Cluster:
            store = open_control(control, str(lab.data / "secrets.json"))
            try:
                return await read_cluster(store)
            finally:
                await store.close()

        found = asyncio.run(read())
        assert found.record == expected.record and found.nodes == expected.nodes


def silent(lab: RunningLab) -> bool:
    workers = [
        worker for node in lab.status()["nodes"] for worker in node["workers"] if not worker.get("idle")
    ]
    return any(not worker["ok"] or worker["silent"] for worker in workers)
