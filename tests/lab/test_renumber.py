"""A cluster gets another service /64 on a real network, while a native client and an S3 client work.

One node is down when it begins and comes back later, and the command is killed on the way.  No call fails,
nothing is lost, nobody is started again; the routes of both prefixes are seen, and those of the former one
are gone in the end.  Then a lab with that data starts again.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest

from ssastore.core.cluster import CLOSING, OPENING, ClusterRecord
from ssastore.core.clusterreading import read_record
from ssastore.lab.demo import kernel_routes
from tests.lab.shared import ask, covers, module_lab, s3_client, wait_until
from tests.labs import PYTHON, RunningLab, start_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

NEW, THIRD = "2001:db8:77:5::/64", "2001:db8:77:6::/64"
SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1", "--recover-after", "0")

LOAD = """
import asyncio, json, os, sys
from ssastore import AsyncClient
from ssastore.system import run

async def work(number, client, bucket, found):
    turn, etag, written = 0, None, []
    while not os.path.exists(sys.argv[1]):
        turn += 1
        key, value = f"{number}-{turn}", b"%d" % turn * 50
        try:
            await bucket.put(key, value)
            written.append((key, value))
            assert await bucket.get(key) == value, "read something else"
            await bucket.put(f"new-{key}", value, if_none_match="*")
            # Only if nothing was lost since: each write of the counter names the one before.
            condition = {"if_match": etag} if etag else {"if_none_match": "*"}
            etag = (await bucket.put(f"count-{number}", b"%d" % turn, **condition)).etag
        except Exception as error:
            found["failed"].append(f"{key} at {client.service}: {type(error).__name__} {error}")
            etag = (await bucket.head(f"count-{number}")).etag
        found["calls"] += 4
        found["prefixes"][str(client.service)] = True
        await asyncio.sleep(0.02)
    for key, value in written:
        if await bucket.get(key) != value:
            found["failed"].append(f"{key} is lost")
    if await bucket.get(f"count-{number}") != b"%d" % turn:
        found["failed"].append(f"the last count of {number} is lost")

async def main():
    found = {"calls": 0, "failed": [], "prefixes": {}}
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket("load")
        print("begun", flush=True)
        await asyncio.gather(*[work(number, client, bucket, found) for number in range(2)])
    print(json.dumps(found), flush=True)

run(main())
"""

ONCE = """
import asyncio, sys
from ssastore import AsyncClient
from ssastore.system import run

async def main():
    async with AsyncClient.from_url(sys.argv[1], deadline_ms=3000) as client:
        bucket = client.bucket("load")
        try:
            await bucket.put("once", b"value")
            for _ in range(100):
                assert await bucket.get("once") == b"value"
                await asyncio.sleep(0.01)
        except Exception as error:
            print(type(error).__name__, error)
        print(client.service)

run(main())
"""


class S3Load:
    """boto3 through the gateway, without its retries."""

    def __init__(self, lab: RunningLab) -> None:
        self._client = s3_client(lab, retries={"total_max_attempts": 1})
        self._stop = threading.Event()
        self.failed: list[str] = []
        self.written: list[str] = []
        self._client.create_bucket(Bucket="s3load")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        turn = 0
        while not self._stop.wait(0.03):
            turn += 1
            key = f"{turn:05}"
            try:
                self._client.put_object(Bucket="s3load", Key=key, Body=key.encode(), IfNoneMatch="*")
                self.written.append(key)
                self._check(key)
            except Exception as error:
                self.failed.append(f"{key}: {error}")

    def _check(self, key: str) -> None:
        body = self._client.get_object(Bucket="s3load", Key=key)["Body"].read()
        assert body == key.encode(), f"{key} is {body!r}"

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        for key in self.written:
            self._check(key)


@contextmanager
def s3_load(lab: RunningLab) -> Iterator[S3Load]:
    load = S3Load(lab)
    try:
        yield load
    finally:
        load.end()


@contextmanager
def native_load(lab: RunningLab, stop: Path) -> Iterator[dict[str, Any]]:
    """What it has seen is there at the end."""
    said: dict[str, Any] = {}
    load = lab.start(PYTHON, "-c", LOAD, str(stop))
    assert load.stdout is not None and load.stdout.readline() == "begun\n"
    try:
        yield said
    finally:
        stop.touch()
        out, _ = load.communicate(timeout=60)
        said |= json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "renumber", *SHAPE) as found:
        yield found


def record_of(lab: RunningLab) -> ClusterRecord:
    return ask(lab, read_record)


def phase_of(lab: RunningLab) -> str:
    other = record_of(lab).other
    return "" if other is None else other.phase


def seen_by(pid: int, service: str) -> int:
    """Routes inside a service prefix, but for the whole, on the host that a process is on."""
    table = Path(f"/proc/{pid}/net/ipv6_route").read_text()
    return len([route for route in kernel_routes(table, IPv6Network(service)) if route[0].prefixlen > 64])


def has_gateways_part(lab: RunningLab) -> bool:
    """Whether the gateway has its part of the front plane."""
    return any(gate["prefixes"] for gate in lab.status()["front"]["gateways"])


def url_of(service: str) -> str:
    return f"ssa://[{service.removesuffix('/64')}]:7480/"


def begin(lab: RunningLab, *words: str) -> subprocess.Popen[str]:
    command = [PYTHON, "-m", "ssastore", "--context", lab.name, "renumber", *words]
    return subprocess.Popen(command, env=lab.environment, stderr=subprocess.DEVNULL, text=True)


def test_a_cluster_is_renumbered_under_load_and_no_call_fails(
    lab: RunningLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = record_of(lab).service
    router, n1 = lab.pid, lab.worker_pid("n1")
    # A lab is ready before its gateway has a part of the front plane, and the router a route for it.
    wait_until(
        lambda: has_gateways_part(lab) and seen_by(router, old) == len(covers(lab)),
        "the router leads to all nodes and to the gateway",
    )
    before = {pid: seen_by(pid, old) for pid in (router, n1)}
    assert all(before.values()) and not seen_by(router, NEW)
    with native_load(lab, tmp_path / "stop") as said, s3_load(lab) as s3:
        # A node is down: the others answer at both prefixes, and nobody is told of the new one yet.
        lab.cli("node", "kill", "n4")
        command = begin(lab, NEW, "--ttl", "60")
        wait_until(lambda: getattr(record_of(lab).other, "waits_for", ()) == ("n4",), "it waits for n4")
        command.send_signal(signal.SIGKILL)
        command.wait()
        assert record_of(lab).service == old and phase_of(lab) == OPENING
        for pid, routes in before.items():
            assert seen_by(pid, NEW) == seen_by(pid, old) == routes
        assert f"it goes to {NEW}, waits for n4 to answer there" in lab.cli("status").stdout
        third = lab.cli("renumber", THIRD, check=False)
        assert third.returncode == 2 and f"on its way from {old} to {NEW}" in third.stderr

        # It comes back: now clients go, and who begins with the former prefix does as well.
        lab.cli("node", "start", "n4")
        wait_until(lambda: phase_of(lab) == CLOSING, "the switch", 60)
        assert record_of(lab).service == NEW
        n4 = lab.worker_pid("n4")
        before[n4] = seen_by(n4, old)
        assert seen_by(n4, NEW) == before[n4] > 0
        assert lab.python(ONCE, url_of(old)) == f"{NEW}\n"

        # Turned back while both are there, and forth again.
        lab.cli("renumber", old, "--no-wait")
        wait_until(lambda: record_of(lab).service == old, "it is back")
        lab.cli("renumber", NEW, "--no-wait")
        wait_until(lambda: record_of(lab).service == NEW, "it is there again")

        # The command is given again, with another time; in the end the former prefix is gone.
        done = json.loads(lab.cli("renumber", NEW, "--ttl", "3", "--json").stdout)
        assert done["service"] == NEW and done["renumbering"] is None and done["seconds"] >= 3
        wait_until(lambda: not any(seen_by(pid, old) for pid in before), "the former routes go")
        assert {pid: seen_by(pid, NEW) for pid in before} == before

    with capsys.disabled():
        print(f"\nrenumbered, back and forth under load: {said}, by S3 {len(s3.written)} objects")
    assert said["failed"] == s3.failed == [] and said["calls"] > 100 and len(s3.written) > 20
    assert set(said["prefixes"]) == {old, NEW}
    gone = lab.python(ONCE, url_of(old))
    assert f"nothing of {old} was reached: is that the service prefix of the cluster still?" in gone


def test_the_prefix_of_the_nodes_themselves_is_refused(lab: RunningLab) -> None:
    status: Any = lab.status()
    link = status["nodes"][0]["address"].rpartition("::")[0] + "::/64"
    refused = lab.cli("renumber", link, check=False)
    assert refused.returncode == 2 and f"lies inside the service {link}" in refused.stderr
    assert lab.cli("renumber", NEW).stdout == f"the service is at {NEW}\n"


def test_a_lab_with_that_data_starts_again_where_the_service_is_now(lab: RunningLab, tmp_path: Path) -> None:
    old = json.loads((lab.data / "lab.json").read_text())["service"]
    lab.stop()
    refused = lab.cli("up", "--data", str(lab.data), *SHAPE, "--service", old, check=False)
    assert refused.returncode == 3 and f"the service prefix {NEW}" in refused.stderr
    again = start_lab(lab.data.parent, lab.name, *SHAPE, "--service", NEW)
    try:
        assert again.status()["service"] == NEW
        assert (
            again.cli("exec", "--", "printenv", "SSASTORE_URL").stdout.strip() == f"{url_of(NEW)}?replicas=3"
        )
        assert again.python(ONCE, url_of(NEW)) == f"{NEW}\n"
        assert not seen_by(again.pid, old) and not seen_by(again.worker_pid("n1"), old)
        # A gateway that nobody asks anything meanwhile follows as well.
        again.cli("renumber", THIRD, "--ttl", "0")
        assert s3_client(again).get_object(Bucket="s3load", Key="00001")["Body"].read() == b"00001"
        assert again.status()["service"] == THIRD
    finally:
        again.stop()
