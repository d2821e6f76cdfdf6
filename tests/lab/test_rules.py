"""A lab whose rule is kept: clients follow it from epoch to epoch, and what an observer saw dies.

SSASTORE_SOAK_EPOCHS sets how many epochs clients follow (``make soak``: 100).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs import RunningLab, running_lab

EPOCHS = int(os.environ.get("SSASTORE_SOAK_EPOCHS", "8"))
HOP_S = 1

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180 + 3 * EPOCHS * HOP_S)]

FOLLOW = """
import asyncio, json, sys, time
from ipaddress import IPv6Address
from ssastore import AsyncClient

async def main(seconds, hop_s):
    dialled = []
    async with AsyncClient.from_env(use_hints=False) as client:
        dial = client.links._links.dial
        async def noting(address, port, protocol):
            dialled.append((time.time(), str(address), port))
            return await dial(address, port, protocol)
        client.links._links.dial = noting
        await client.create_bucket("ruled")
        bucket, begun, done = client.bucket("ruled"), time.time(), 0
        while time.time() - begun < seconds:
            await bucket.put(f"key {done}", b"x" * done)
            assert await bucket.get(f"key {done}") == b"x" * done
            done += 1
            await asyncio.sleep(0.02)
    verdicts = []
    for age, (at, address, port) in sorted((time.time() - seen[0], seen) for seen in dialled)[::5]:
        # One that is dead is closed as soon as the node comes to it, which may be busy.
        patience_s = 5 if time.time() - at > 2 * hop_s else 0.1
        try:
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(b"\\0\\0")
            await asyncio.wait_for(reader.read(1), patience_s)
            is_open = False
        except TimeoutError:
            is_open = True
        except OSError:
            is_open = False
        else:
            writer.close()
        verdicts.append(((time.time() - at) / hop_s, is_open))
    print(json.dumps({"done": done, "dialled": len(set(a for _, a, _ in dialled)), "replayed": verdicts}))

asyncio.run(main(float(sys.argv[1]), float(sys.argv[2])))
"""

STRAY = """
import asyncio
from ssastore import AsyncClient
from ssastore.errors import Unavailable

async def main():
    async with AsyncClient.from_env(rules="", deadline_ms=1000) as client:
        try:
            await client.create_bucket("stray")
        except Unavailable as error:
            print(error)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    rules = f"v=SSA1; replicas=3; data=content+source; hop={HOP_S}"
    options = ("--nodes", "3", "--replicas", "3", "--rules", rules)
    with running_lab(tmp_path_factory.mktemp("rules"), "rules", *options) as running:
        yield running


def test_clients_follow_every_epoch_and_observed_addresses_die(lab: RunningLab) -> None:
    told = json.loads(lab.python(FOLLOW, str(EPOCHS * HOP_S), str(HOP_S), timeout=100 + 2 * EPOCHS * HOP_S))
    print(f"{told['done']} puts and gets over {EPOCHS} epochs, {told['dialled']} addresses, 0 failed")
    assert told["done"] >= 10 * EPOCHS and told["dialled"] > EPOCHS
    old = [is_open for epochs, is_open in told["replayed"] if epochs > 2]
    new = [is_open for epochs, is_open in told["replayed"] if epochs < 0.9]
    assert len(old) > 10 and not any(old)
    assert new and all(new)


def test_who_does_not_keep_the_rule_gets_nothing(lab: RunningLab) -> None:
    assert "does not answer" in lab.python(STRAY)
    verdicts = [worker["verdicts"] for node in lab.status()["nodes"] for worker in node["workers"]]
    assert sum(found.get("tail", 0) for found in verdicts) >= 1
    assert all(found.get("kept", 0) for found in verdicts)


def test_gateway_and_commands_keep_it(lab: RunningLab, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    lab.cli("mb", "commands")
    lab.cli("put", "commands/a", str(tmp_path / "a"))
    assert lab.cli("get", "commands/a").stdout == "hello"
    assert lab.cli("ready", "--wait", "20").returncode == 0
    lab.cli("scrub", "--wait")


def test_while_a_rule_is_brought_in_it_is_only_counted(tmp_path: Path) -> None:
    """Whoever does not know it yet gets in; the counters say when nobody is left who does not."""
    options = ("--nodes", "1", "--replicas", "1", "--rules", "v=SSA1; data=content+source")
    with running_lab(tmp_path, "monitor", *options, "--node-setting", "rules_monitor=true") as lab:
        assert lab.python(STRAY) == ""
        verdicts = [worker["verdicts"] for worker in lab.status()["nodes"][0]["workers"]]
        assert sum(found.get("tail", 0) for found in verdicts) >= 1
        assert sum(found.get("kept", 0) for found in verdicts) >= 1
