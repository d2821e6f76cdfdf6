"""Three replicas on a real network: one of four nodes is killed, everything goes on, and it comes back.

The victim's supervisor and workers get SIGKILL while clients are connected to it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.shared import (
    files_of,
    is_alive,
    module_lab,
    parent_of,
    run_tool,
    tool_environment,
    wait_until,
    write_tree,
)
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1")
VICTIM = "n2"

USE = """
import asyncio, sys, time
from ssastore import AsyncClient, ObjectNotFound
from ssastore.system import run

async def main(what):
    async with AsyncClient.from_env() as client:
        bucket = client.bucket("native")
        if what == "before":
            bucket = await client.create_bucket("native")
            await asyncio.gather(*[bucket.put(f"{n:03}", b"old %d" % n) for n in range(60)])
            await bucket.put("large", bytes(range(256)) * 40_000)
        elif what == "during":
            assert await asyncio.gather(*[bucket.get(f"{n:03}") for n in range(60)]) == [
                b"old %d" % n for n in range(60)
            ]
            await asyncio.gather(*[bucket.put(f"{n:03}", b"new %d" % n) for n in range(20)])
            await asyncio.gather(*[bucket.delete(f"{n:03}") for n in range(20, 40)])
            await bucket.put("large", bytes(range(255, -1, -1)) * 40_000)
        if what != "before":
            expected = [f"{n:03}" for n in (*range(20), *range(40, 60))] + ["large"]
            assert [entry.key async for entry in bucket.list()] == expected
            for n in range(60):
                try:
                    found = await bucket.get(f"{n:03}")
                except ObjectNotFound:
                    found = b""
                wanted = b"new %d" if n < 20 else b"" if n < 40 else b"old %d"
                assert found == (wanted % n if wanted else b""), (n, found)
            assert await bucket.get("large") == bytes(range(255, -1, -1)) * 40_000
        print("done")

run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "replicas", *SHAPE) as found:
        yield found


def test_killed_node_stops_nobody_and_comes_back(lab: RunningLab, tmp_path: Path) -> None:
    environment = tool_environment(lab, tmp_path)
    aws = [PYTHON, "-m", "awscli", "s3"]
    tree = write_tree(tmp_path / "tree")
    assert lab.python(USE, "before").split() == ["done"]
    run_tool([*aws, "mb", "s3://tools"], environment)
    run_tool([*aws, "sync", "--quiet", str(tree), "s3://tools/before/"], environment)

    worker = lab.worker_pid(VICTIM)
    supervisor = parent_of(worker)
    for pid in (supervisor, worker):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker) and not is_alive(supervisor), "the node is dead")

    assert lab.python(USE, "during").split() == ["done"]
    run_tool([*aws, "sync", "--quiet", "s3://tools/before/", str(tmp_path / "before")], environment)
    assert files_of(tmp_path / "before") == files_of(tree)
    run_tool([*aws, "cp", "--quiet", "--recursive", str(tree), "s3://tools/during/"], environment)
    assert len(lab.cli("ls", "tools/during/").stdout.split()) > 0
    assert lab.cli("put", "tools/one", input="written without it").returncode == 0
    assert lab.cli("get", "tools/one").stdout == "written without it"
    health = {
        found["name"]: all("pid" in worker for worker in found["workers"]) for found in lab.status()["nodes"]
    }
    assert health == {name: name != VICTIM for name in ("n1", "n2", "n3", "n4")}

    lab.stop()
    ports = ["--s3-port", str(lab.s3_port), "--admin-port", str(lab.admin_port)]
    lab.cli("up", "--name", lab.name, "--data", str(lab.data), *SHAPE, *ports, "--detach")
    assert lab.python(USE, "after").split() == ["done"]
    environment = tool_environment(lab, tmp_path)
    run_tool([*aws, "sync", "--quiet", "s3://tools/during/", str(tmp_path / "during")], environment)
    assert files_of(tmp_path / "during") == files_of(tree)
    assert lab.cli("get", "tools/one").stdout == "written without it"


def test_three_replicas_are_the_default(lab: RunningLab) -> None:
    assert lab.status()["replicas"] == 3
    refused = lab.cli("up", "--nodes", "2", "--replicas", "3", "--name", "few", check=False)
    assert refused.returncode == 2 and "3 replicas need as many nodes" in refused.stderr
    refused = lab.cli("up", "--replicas", "2", "--name", "even", check=False)
    assert refused.returncode == 2 and "1, 3 or 5" in refused.stderr
