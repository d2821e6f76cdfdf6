"""A cluster of one replica gets three, on a real network, while clients that were told one read and write.

The command dies in the middle and is given again; no call fails, no acknowledged write is lost, no client is
started again, and in the end the node that had the clients' group alone is not needed any more.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssastore.core.groups import ACTIVE
from ssastore.core.replicating import replica_state
from ssastore.keyspace import GROUPS
from ssastore.rebalance import read_cluster
from tests.lab.shared import ask, module_lab, s3_client, wait_until
from tests.lab.test_moving import COUNT, LOAD
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

OLD = """
import asyncio, os, sys
from ssastore import AsyncClient
from ssastore.system import run

async def main():
    url = os.environ["SSASTORE_URL"] + sys.argv[2]
    async with AsyncClient.from_url(url) as client:
        bucket = client.bucket("moved")
        for n in range(int(sys.argv[1])):
            assert await bucket.get(f"{n:04}") == b"value %d" % n * 40, n
        await bucket.put("large", bytes(range(256)) * 40_000)
        assert await bucket.get("large") == bytes(range(256)) * 40_000
        print((await bucket.locate("0000")).addresses, client.pool.replicas)

run(main())
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(
        tmp_path_factory,
        "widening",
        "--nodes",
        "3",
        "--replicas",
        "1",
        "--workers",
        "1",
        "--recover-after",
        "0",
    ) as found:
        yield found


def test_one_replica_becomes_three_under_load_and_no_call_fails(
    lab: RunningLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = tmp_path / "stop"
    load = lab.start(PYTHON, "-c", LOAD, str(COUNT), str(stop))
    assert load.stdout is not None
    group = int(json.loads(load.stdout.readline())["group"], 16)
    first = ask(lab, read_cluster).groups[group].owners[0]

    s3, body = s3_client(lab), bytes(range(256)) * 4000
    s3.put_object(Bucket="moved", Key="by the gateway", Body=body)

    # At full rate the new planes come as fast as they can: their addresses must be there before they count.
    lab.cli("moves", "--rate", "1G")
    # The command dies in the middle: what it ordered goes on, and a second one finds the rest.
    words = [PYTHON, "-m", "ssastore", "--context", lab.name, "replicas", "set", "3"]
    command = subprocess.Popen(words, env=lab.environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: ask(lab, replica_state).left < 2 * GROUPS - 100, "the first groups have two planes")
    command.send_signal(signal.SIGKILL)
    command.wait()
    began = time.monotonic()
    done = json.loads(lab.cli("replicas", "set", "3", "--json", timeout=240).stdout)
    took_s = time.monotonic() - began
    assert done["groups"] == {"3": GROUPS} and done["left"] == done["ordered"] == 0

    stop.touch()
    out, _ = load.communicate(timeout=60)
    said = json.loads(out.splitlines()[-1])
    with capsys.disabled():
        print(f"\none replica became three under load, in {took_s:.1f} s: {said}")
    assert said["failed"] == [] and said["calls"] > 100
    for record in ask(lab, read_cluster).groups:
        assert len(set(record.owners)) == 3 and all(found.state == ACTIVE for found in record.planes)
    assert lab.cli("replicas", "show").stdout.splitlines() == ["3 replicas", f"  {GROUPS} groups have 3"]
    refused = lab.cli("replicas", "set", "1", check=False)
    assert refused.returncode == 2 and "planes are only added" in refused.stderr

    # Who had everything alone is not needed any more, not even by a client that was told one of old.
    lab.cli("node", "kill", first)
    for named in ("", "?replicas=1"):
        assert lab.python(OLD, str(COUNT), named).split()[-1] == "3"
    assert s3.get_object(Bucket="moved", Key="by the gateway")["Body"].read() == body
    lab.cli("node", "start", first)
