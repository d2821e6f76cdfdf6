"""Nodes whose disk or map is full: puts are refused with a clear answer, everything else goes on.

The data of a node is moved to a small tmpfs, in a mount namespace of the node's own.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ssastore.judge.verdicts import judge, read_history, share_of_success
from ssastore.limits import DISK_RESERVE_BYTES, MIB
from ssastore.messages import Status
from tests.faults import Nodes, load_on, nodes_of
from tests.lab.shared import module_lab, s3_client, wait_until
from tests.labs import PYTHON, RunningLab, running_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

ROOM_MIB = 40
"Of a tmpfs, beside what the store keeps free: a log of two files, and some data."
BUCKET = "full"
BODY = bytes(60_000)


class SmallDisk:
    """A node that runs on a tmpfs, until it is given more space."""

    def __init__(self, lab: RunningLab, nodes: Nodes, name: str) -> None:
        nodes.kill(name)
        data = shlex.quote(str(lab.data / "nodes" / name))
        size = ROOM_MIB + DISK_RESERVE_BYTES // MIB
        node = shlex.join([PYTHON, "-m", "ssastore", "node", "--config", nodes.config(name)])
        script = (
            f"mkdir {data}.kept && cp -a --sparse=always {data}/. {data}.kept/ && "
            f"mount -t tmpfs -o size={size}m tmpfs {data} && cp -a --sparse=always {data}.kept/. {data}/ && "
            f"chmod 700 {data} && ({node} &) && read more && "
            f"mount -o remount,size={4 * size}m {data} && read end"
        )
        self._process = lab.start("unshare", "--mount", "sh", "-c", script, host=name)

    def grow(self) -> None:
        """Four times the space, while the node runs."""
        self._tell("more")

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """The shell ends; its namespace goes with the node."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait(10)


@contextmanager
def small_disk(lab: RunningLab, nodes: Nodes, name: str) -> Iterator[SmallDisk]:
    disk = SmallDisk(lab, nodes, name)
    try:
        lab.cli("ready", "--wait", "20")
        yield disk
    finally:
        nodes.kill(name)
        disk.close()


def with_small_map(lab: RunningLab, nodes: Nodes, name: str) -> None:
    """Start a node again with the smallest map that its settings take."""
    nodes.kill(name)
    config = Path(nodes.config(name))
    config.write_text(config.read_text() + f"map_bytes = {16 * MIB}\n")
    nodes.start(name)
    lab.cli("ready", "--wait", "20")


def put(client: Any, key: str) -> int:
    """Status of a put of 60 kB."""
    try:
        client.put_object(Bucket=BUCKET, Key=key, Body=BODY)
        return 200
    except ClientError as error:
        status: int = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return status


def fill(client: Any) -> list[str]:
    """Put until it is refused; the keys that are there."""
    keys: list[str] = []
    for number in range(5000):
        status = put(client, f"k{number:05}")
        if status != 200:
            assert status == 507, status
            return keys
        keys.append(f"k{number:05}")
    raise AssertionError("it never got full")


@pytest.mark.parametrize("what", ["disk", "map"])
def test_only_node_that_is_full_refuses_puts_and_nothing_else(tmp_path: Path, what: str) -> None:
    with (
        running_lab(tmp_path, f"full-{what}", "--nodes", "1", "--workers", "1") as lab,
        nodes_of(lab) as nodes,
    ):
        client = s3_client(lab, retries={"total_max_attempts": 1})
        client.create_bucket(Bucket=BUCKET)
        if what == "map":
            with_small_map(lab, nodes, "n1")
            use_full_node(client, lambda keys: [client.delete_object(Bucket=BUCKET, Key=k) for k in keys])
        else:
            with small_disk(lab, nodes, "n1") as disk:
                use_full_node(client, lambda keys: disk.grow())
        assert "worker.died" not in (lab.data / "log" / "n1.log").read_text()


def use_full_node(client: Any, make_room: Any) -> None:
    """Fill it, see what works, make room, and see that puts work again within 5 s."""
    keys = fill(client)
    assert len(keys) > 20
    for _ in range(20):
        assert put(client, "more") == 507
    for key in keys[:100]:
        assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == BODY
    listed = client.list_objects_v2(Bucket=BUCKET, MaxKeys=1000)["KeyCount"]
    assert listed == min(1000, len(keys))
    for key in keys[:10]:
        client.delete_object(Bucket=BUCKET, Key=key)
    make_room(keys[10 : len(keys) // 2])
    began = time.monotonic()
    wait_until(lambda: put(client, "again") == 200, "puts work again", 5)
    print(f"{len(keys)} keys until full, puts again after {time.monotonic() - began:.2f} s")
    assert client.get_object(Bucket=BUCKET, Key="again")["Body"].read() == BODY
    assert client.get_object(Bucket=BUCKET, Key=keys[-1])["Body"].read() == BODY


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    shape = ("--nodes", "4", "--replicas", "3", "--workers", "1")
    with module_lab(tmp_path_factory, "full-replicas", *shape) as found:
        yield found


def refused_as_full(lab: RunningLab, name: str) -> int:
    """How often a node has said that it is full."""
    node = next(found for found in lab.status()["nodes"] if found["name"] == name)
    return sum(
        count
        for worker in node["workers"]
        for status, count in worker["refusals"].items()
        if int(status) == Status.FULL
    )


def test_one_full_node_of_three_replicas_stops_nobody(replicas: RunningLab, tmp_path: Path) -> None:
    lab = replicas
    client = s3_client(lab, retries={"total_max_attempts": 1})
    client.create_bucket(Bucket=BUCKET)
    with nodes_of(lab) as nodes, small_disk(lab, nodes, "n2") as disk:
        keys = 0
        while not refused_as_full(lab, "n2"):
            for _ in range(100):
                assert put(client, f"k{keys:05}") == 200
                keys += 1
            assert keys < 5000
        with load_on(lab, tmp_path, name="full") as load:
            time.sleep(4)
            found = load.stop()
        judged = judge(read_history(load.settings.history))
        assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
        assert share_of_success(found) >= 0.999, found
        assert refused_as_full(lab, "n2") > 0
        for number in range(0, keys, 50):
            assert client.get_object(Bucket=BUCKET, Key=f"k{number:05}")["Body"].read() == BODY
        disk.grow()
        wait_until(lambda: takes_again(lab, client), "the node takes puts again", 15)
        print(f"{keys} keys until full, {found}")


def takes_again(lab: RunningLab, client: Any) -> bool:
    before = refused_as_full(lab, "n2")
    assert all(put(client, f"again-{number}") == 200 for number in range(20))
    return refused_as_full(lab, "n2") == before
