"""The slice with most calls is found by command, and a piece of it moved to a node that has less to do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ssastore.core.planfile import decode_plan
from ssastore.keyspace import slice_of
from ssastore.rebalance import read_cluster
from tests.lab.shared import ask
from tests.labs import PYTHON, RunningLab, running_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

GROUP = 0xA3F
COUNTED_S = 4

HEAT = """
import asyncio
from ssastore import AsyncClient
from ssastore.core.place import expected_position
from ssastore.keyspace import group_of
from ssastore.system import run

async def main():
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket("hot", shards=0)
        number = (await client.objects.bucket("hot")).place.bucket
        names = (f"k{at}" for at in range(1_000_000))
        hot = []
        while len(hot) < 40:
            name = next(names)
            if group_of(expected_position(number, 0, name.encode())) == 0xA3F:
                hot.append(name)
        others = [next(names) for _ in range(200)]
        for name in hot:
            await bucket.put(name, bytes(60_000))
        for name in others:
            await bucket.put(name, b"x")
        print("ready", flush=True)

        async def work(at):
            while True:
                for name in hot[at % 4 :: 4]:
                    await bucket.get(name)
                await bucket.get(others[at % len(others)])
                at += 4

        await asyncio.gather(*[work(at) for at in range(4)])

run(main())
"""


@contextmanager
def heated(lab: RunningLab) -> Iterator[None]:
    """Somebody reads 40 objects of one group all the time, and others now and then."""
    process = lab.start(PYTHON, "-c", HEAT)
    try:
        assert process.stdout is not None and process.stdout.readline().strip() == "ready"
        yield
    finally:
        process.kill()
        process.communicate()


def rates(lab: RunningLab) -> dict[str, float]:
    """Calls a second of each node."""
    counts = []
    for _ in range(2):
        found = {
            node["name"]: sum(worker["heat"]["calls"] for worker in node["workers"])
            for node in lab.status()["nodes"]
        }
        counts.append((time.monotonic(), found))
        time.sleep(COUNTED_S * (len(counts) < 2))
    (began_s, before), (ended_s, after) = counts
    return {name: (after[name] - before[name]) / (ended_s - began_s) for name in after}


def test_the_hottest_slice_is_cut_and_a_piece_of_it_moved(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with running_lab(tmp_path, "hot", "--nodes", "4", "--replicas", "3", "--workers", "1") as lab:
        quiet = lab.cli("plan", "--hot", "--over", "1", check=False)
        assert quiet.returncode == 2 and "too few to tell" in quiet.stderr
        with heated(lab):
            time.sleep(5)
            before = rates(lab)
            shown = lab.cli("plan", "--hot", "--over", str(COUNTED_S), "--out", str(path)).stdout
            said = re.search(r"^(\w+) has most to do, (\d+) calls/s and ([\d.]+) cores of CPU$", shown, re.M)
            assert said is not None, shown
            source = said[1]
            # Two planes answer most of the reads: which of their nodes has a little more is chance.
            assert before[source] > 0.7 * max(before.values()) and float(said[3]) > 0
            assert int(said[2]) > 0
            (change,) = decode_plan(path.read_bytes()).changes
            target = change.target
            assert change.source == source and before[target] < before[source] / 2
            assert change.piece.group == GROUP and change.piece.depth > slice_of(0, GROUP).depth
            applied = json.loads(lab.cli("apply", str(path), "--json", timeout=60).stdout)
            assert applied["done"] == applied["moves"] == 1
            time.sleep(2)
            after = rates(lab)
        print(f"{shown}\n{before}\n{after}")
        shares = [found[source] / sum(found.values()) for found in (before, after)]
        gained = [found[target] / sum(found.values()) for found in (before, after)]
        assert shares[1] < shares[0] * 0.85 and gained[1] > gained[0] + 0.05
        parts = ask(lab, read_cluster).groups[GROUP].views()
        assert any(view.planes[change.piece.plane].owner == target for view in parts) and len(parts) > 1

        lab.cli("scrub", "--wait")
        shown = lab.cli("plan", "--largest", "--out", str(path)).stdout
        assert re.search(r"^\w+ stores most, [\d.]+ MiB$", shown, re.M), shown
        assert {change.piece.group for change in decode_plan(path.read_bytes()).changes} == {GROUP}
        both = lab.cli("plan", "--hot", "--largest", check=False)
        assert both.returncode == 2 and "plans of their own" in both.stderr
