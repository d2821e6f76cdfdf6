"""Kill -9 of workers under load: nothing acknowledged is lost, and every lane still finds its worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.labs import PYTHON, running_lab

KILLS = int(os.environ.get("SSASTORE_TEST_KILLS", "10"))
KILLS_S = 30 + 5 * KILLS
"A kill waits until the worker before it is back, which takes seconds on a busy machine."
"`make kills` asks for 50; supervised restarts slow down by themselves, so that takes two minutes."

LOAD = """
import asyncio, json, sys
from ssastore import AsyncClient, SsaStoreError
from ssastore.system import run

async def main(path):
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket("kills", shards=0)
        done = {}
        failed = 0
        stop = asyncio.Event()

        async def write(worker):
            nonlocal failed
            round = 0
            while not stop.is_set():
                round += 1
                key = f"{worker}-{round % 40}"
                value = f"{key}:{round}".encode() * 50
                try:
                    await bucket.put(key, value)
                    done[key] = round
                except SsaStoreError as error:
                    failed += 1
                    done.pop(key, None)

        async def watch():
            while not await asyncio.to_thread(lambda: open(path).read().strip()):
                await asyncio.sleep(0.05)
            stop.set()

        await asyncio.gather(watch(), *[write(n) for n in range(16)])
        lost = []
        for key, round in done.items():
            if await bucket.get(key) != f"{key}:{round}".encode() * 50:
                lost.append(key)
        print(json.dumps({"acknowledged": len(done), "failed": failed, "lost": lost,
                          "puts": sum(done.values()), "dials": client.pool.dial_count}))

run(main(sys.argv[1]))
"""

LANES = """
import json, socket, sys
from ipaddress import IPv6Network
service = IPv6Network(sys.argv[1])
# One connection to an address of each lane of the node's first sixteen groups.
print(json.dumps([str(service[(lane << 48) + 0x7fffffff]) for lane in range(16)]))
for lane in range(16):
    socket.create_connection((str(service[(lane << 48) + 0x7fffffff]), 7480), 5).close()
"""


@pytest.mark.lab
@pytest.mark.timeout(KILLS_S + 90)
def test_fifty_kills_lose_nothing_and_lanes_stay_steered(tmp_path: Path, inside: object) -> None:
    """Two workers on one node; one of them is killed every 0.3 s while 16 writers work.

    Method: the writers note what was acknowledged and read it all back at the end.  Then one address
    of every lane is dialled and the accept logs must show it at the worker with ``lane % 2``.
    """
    with running_lab(tmp_path, "kills", "--nodes", "1", "--workers", "2") as lab:
        flag = tmp_path / "stop"
        flag.write_text("")
        command = [
            PYTHON,
            "-m",
            "ssastore",
            "--context",
            lab.name,
            "exec",
            "--",
            PYTHON,
            "-c",
            LOAD,
            str(flag),
        ]
        load = subprocess.Popen(command, env=lab.environment, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        killed = 0
        deadline = time.monotonic() + KILLS_S
        while killed < KILLS and time.monotonic() < deadline:
            victims = [w["pid"] for w in lab.status()["nodes"][0]["workers"] if w["ok"]]
            if victims:
                os.kill(victims[killed % len(victims)], signal.SIGKILL)
                killed += 1
            time.sleep(0.2)
        flag.write_text("stop")
        output, _ = load.communicate(timeout=60)
        assert load.returncode == 0
        found = json.loads(output)
        assert killed == KILLS
        assert found["lost"] == []
        assert found["acknowledged"] > 100, found
        lab.cli("ready", "--wait", "20")
        dialled = json.loads(lab.python(LANES, lab.status()["service"]).splitlines()[0])
        workers = lab.status()["nodes"][0]["workers"]
        for lane, address in enumerate(dialled):
            assert address in workers[lane % 2]["accept_log"], f"lane {lane:x} did not reach its worker"
            assert address not in workers[1 - lane % 2]["accept_log"]
        print(found)
