"""Copies that were taken under load, and all that they are for: the control store gone, and a node's disk.

docs/how-to/backup.md, command by command.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ssastore.core.controlcopy import decode_backup
from ssastore.lab.status import fetch
from ssastore.rebalance import read_cluster
from ssastore.traces import COPY_NAME
from tests.lab.shared import ask, wait_until
from tests.labs import RunningLab, running_lab, start_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(200)]

VICTIM = "n1"

USE = """
import asyncio, sys
from ssastore import AsyncClient
from ssastore.system import run

async def main(what, first, end):
    async with AsyncClient.from_env() as client:
        bucket = client.bucket("kept")
        if what == "write":
            if first == 0:
                bucket = await client.create_bucket("kept")
                await bucket.put("large", bytes(range(256)) * 20_000)
            for n in range(first, end):
                await bucket.put(f"{n:04}", b"value %d" % n)
        else:
            for n in range(first, end):
                assert await bucket.get(f"{n:04}") == b"value %d" % n, n
            assert await bucket.get("large") == bytes(range(256)) * 20_000
        print("done")

run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def use(lab: RunningLab, what: str, first: int, end: int) -> None:
    assert lab.python(USE, what, str(first), str(end)).split() == ["done"]


@contextmanager
def meanwhile(lab: RunningLab, first: int, end: int) -> Iterator[None]:
    """With a client that writes."""
    failed: list[BaseException] = []

    def write() -> None:
        try:
            use(lab, "write", first, end)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
    assert not failed, failed


def back_up(lab: RunningLab, out: Path) -> None:
    """The control store and the victim, while they are used."""
    lab.cli("backup", "control", "--out", str(out / "control"))
    config = str(lab.data / "config" / f"{VICTIM}.toml")
    done = lab.cli("backup", "node", "--config", config, "--out", str(out / VICTIM))
    assert "records of 1 workers" in done.stdout


def put_back(lab: RunningLab, copy: Path) -> None:
    directory = lab.data / "nodes" / VICTIM
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)


def workers(lab: RunningLab) -> list[Any]:
    """Asked without a process for each look."""
    _, report = fetch(lab.admin_port, "/status")
    return [worker for node in report["nodes"] for worker in node["workers"]]


def is_whole(lab: RunningLab) -> bool:
    return all(worker.get("silent") == {} for worker in workers(lab))


def test_a_lost_control_store_and_a_lost_disk_come_back(tmp_path: Path) -> None:
    """The nodes' own copies of it are gone as well, so only the backup is left."""
    shape = ("--nodes", "3", "--replicas", "3", "--workers", "1")
    with running_lab(tmp_path, "backup", *shape) as lab:
        use(lab, "write", 0, 50)
        out = tmp_path / "out"
        out.mkdir()
        with meanwhile(lab, 50, 400):
            back_up(lab, out)
        assert (out / "control").stat().st_mode & 0o777 == 0o600
        secrets = json.loads((lab.data / "secrets.json").read_text())
        held = (out / "control").read_text()
        assert not any(secret in held for secret in secrets["access_keys"].values())
        assert secrets["cluster_secret"] not in held
        before, env = ask(lab, read_cluster), workers(lab)[0]["env"]
        assert decode_backup(held.encode()).cluster_id == before.record.cluster_id
        lab.stop()
        for path in (*lab.data.glob("control*"), *lab.data.glob(f"nodes/*/{COPY_NAME}")):
            path.unlink()
        rebuild = ["control", "rebuild", str(out / "control"), "--data", str(lab.data), "--json"]
        found = json.loads(lab.cli(*rebuild, "--write").stdout)
        assert found["taken"] == {"backup": 4096} and not found["missing"] and not found["doubtful"]
        put_back(lab, out / VICTIM)
        lab = start_lab(tmp_path, "backup", *shape)
        wait_until(lambda: is_whole(lab), "the node is rebuilt", 60)
        after = ask(lab, read_cluster)
        assert after.record == before.record and after.nodes == before.nodes
        assert workers(lab)[0]["env"] != env, "what was copied votes no more"
        use(lab, "read", 0, 400)


def test_with_one_replica_a_copy_serves_when_its_loss_is_accepted(tmp_path: Path) -> None:
    shape = ("--nodes", "1", "--replicas", "1", "--workers", "1")
    with running_lab(tmp_path, "backupone", *shape) as lab:
        use(lab, "write", 0, 50)
        back_up(lab, tmp_path)
        lab.stop()
        put_back(lab, tmp_path / VICTIM)
        lab = start_lab(tmp_path, "backupone", *shape)
        assert workers(lab)[0]["silent"], "it serves nothing by itself"
        lab.cli("recover", "--node", VICTIM, "--accept-data-loss")
        wait_until(lambda: is_whole(lab), "it serves what the copy holds", 30)
        use(lab, "read", 0, 50)
