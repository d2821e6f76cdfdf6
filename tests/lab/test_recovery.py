"""A node that lost its state, on a real network: it notices, votes for nothing, and rebuilds itself.

Once its directory is wiped, once an older copy of it is put back. Afterwards every other node is killed
in turn, so what is read can only come from what was rebuilt and one more.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.shared import is_alive, module_lab, parent_of, wait_until
from tests.labs import RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1")
VICTIM = "n2"
COUNT = 60

USE = """
import asyncio, sys
from ssastore import AsyncClient
from ssastore.system import run

async def main(what, first):
    async with AsyncClient.from_env() as client:
        bucket = client.bucket("kept")
        if what == "write":
            if first == 0:
                bucket = await client.create_bucket("kept")
            await asyncio.gather(*[bucket.put(f"{n:03}", b"value %d" % n) for n in range(first, first + 60)])
            await bucket.put(f"large{first}", bytes(range(256)) * 40_000)
        else:
            for n in range(first + 60):
                assert await bucket.get(f"{n:03}") == b"value %d" % n
            for at in range(0, first + 60, 60):
                assert await bucket.get(f"large{at}") == bytes(range(256)) * 40_000
            assert len([e async for e in bucket.list()]) == first + 60 + (first + 60) // 60
        print("done")

run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "recovery", *SHAPE) as found:
        yield found


def start_again(lab: RunningLab) -> None:
    ports = ["--s3-port", str(lab.s3_port), "--admin-port", str(lab.admin_port)]
    lab.cli("up", "--name", lab.name, "--data", str(lab.data), *SHAPE, *ports, "--detach")


def victim(lab: RunningLab) -> Any:
    return next(node for node in lab.status()["nodes"] if node["name"] == VICTIM)["workers"][0]


def is_whole(lab: RunningLab) -> bool:
    workers = [worker for node in lab.status()["nodes"] for worker in node["workers"]]
    return all(worker.get("silent") == {} for worker in workers)


def log_of(lab: RunningLab) -> str:
    return (lab.data / "log" / f"{VICTIM}.log").read_text()


def use(lab: RunningLab, what: str, first: int) -> None:
    assert lab.python(USE, what, str(first)).split() == ["done"]


def read_with_each_other_node_killed(lab: RunningLab, first: int) -> None:
    """One node at a time. After the first one all are started again: what was rebuilt is on disks."""
    for name in ("n1", "n3", "n4"):
        worker = lab.worker_pid(name)
        supervisor = parent_of(worker)
        for pid in (supervisor, worker):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda pids=(worker, supervisor): not any(map(is_alive, pids)), "the node is dead")
        use(lab, "read", first)
        if name == "n1":
            lab.stop()
            start_again(lab)
        else:
            lab.cli("node", "start", name)
        wait_until(lambda: is_whole(lab), "all slices vote", 60)


def test_wiped_node_rebuilds_itself(lab: RunningLab) -> None:
    use(lab, "write", 0)
    env = victim(lab)["env"]
    lab.stop()
    shutil.rmtree(lab.data / "nodes" / VICTIM)
    start_again(lab)
    wait_until(lambda: is_whole(lab), "the node is rebuilt", 60)
    found = victim(lab)
    assert found["env"] != env and found["recovery"]["done"] == found["slices"]
    assert "slices.silent" in log_of(lab)
    read_with_each_other_node_killed(lab, 0)


def test_older_copy_is_quarantined_and_rebuilt(lab: RunningLab, tmp_path: Path) -> None:
    lab.stop()
    directory, copy = lab.data / "nodes" / VICTIM, tmp_path / "copy"
    shutil.copytree(directory, copy)
    start_again(lab)
    use(lab, "write", 60)
    env, boot = victim(lab)["env"], victim(lab)["boot"]
    lab.stop()
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)
    start_again(lab)
    wait_until(lambda: is_whole(lab), "the node is rebuilt", 60)
    found = victim(lab)
    assert found["env"] != env and found["boot"] == 1 and f"boot {boot}" in found["lost"]
    assert "environment.quarantined" in log_of(lab)
    done = lab.cli("recover", "--node", VICTIM, "--json")
    assert '"done": true' in done.stdout
    read_with_each_other_node_killed(lab, 60)
