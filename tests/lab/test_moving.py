"""A slice goes from one node to another on a real network, while clients read and write what is in it.

No call fails, the kernel's routes lead to the new owner, and what was written is there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssastore.keyspace import GROUP_BITS, GROUPS
from ssastore.rebalance import Move, MoveState, move_states, order_move, read_cluster
from tests.lab.shared import ask, module_lab, wait_until
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

COUNT = 400
PLANE = 1

LOAD = """
import asyncio, json, os, sys, time
from ssastore import AsyncClient
from ssastore.system import run

COUNT, STOP = int(sys.argv[1]), sys.argv[2]

async def work(number, bucket, found, written):
    turn = 0
    while not os.path.exists(STOP):
        turn += 1
        key, value = f"{number}-{turn}", b"%d" % turn * 50
        for name, call in (
            ("put", lambda: bucket.put(key, value)),
            ("get", lambda: bucket.get(key)),
            ("old", lambda: bucket.get(f"{turn % COUNT:04}")),
            ("create", lambda: bucket.put(f"new-{key}", value, if_none_match="*")),
            ("list", lambda: first(bucket)),
        ):
            began = time.monotonic()
            try:
                await call()
            except Exception as error:
                found["failed"].append(f"{name} {key}: {type(error).__name__} {error}")
            found["calls"] += 1
            found["slowest_ms"] = max(found["slowest_ms"], round(1000 * (time.monotonic() - began)))
        written[key] = value
        await asyncio.sleep(0.005)

async def first(bucket):
    async for _ in bucket.list():
        break

async def main():
    found = {"calls": 0, "failed": [], "slowest_ms": 0}
    written = {}
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket("moved", shards=1)
        for n in range(COUNT):
            await bucket.put(f"{n:04}", b"value %d" % n * 40)
        location = await bucket.locate("0000")
        print(json.dumps({"group": f"{location.group:03x}", "addresses": location.addresses}), flush=True)
        await asyncio.gather(*[work(n, bucket, found, written) for n in range(4)])
    async with AsyncClient.from_env() as client:
        bucket = client.bucket("moved")
        for key, value in written.items():
            try:
                is_there = await bucket.get(key) == value
            except Exception as error:
                is_there = False
                found["failed"].append(f"at the end {key}: {type(error).__name__} {error}")
            if not is_there:
                found["failed"].append(f"{key} is lost, or was not put")
    print(json.dumps(found), flush=True)

run(main())
"""

HELD = """
import asyncio, sys
from ssastore import AsyncClient
from ssastore.keyspace import iid_of
from ssastore.messages import Get, Kind
from ssastore.system import run

async def main(plane):
    async with AsyncClient.from_env() as client:
        place = (await client.objects.bucket("moved")).place
        held = 0
        for n in range(int(sys.argv[2])):
            key = b"%04d" % n
            iid = iid_of((await client.bucket("moved").locate(key.decode())).position, plane)
            header, _ = await client.pool.call(
                Get(iid, int(Kind.OBJECT), place.bucket, place.shards, key, True), iid
            )
            held += header[4] == 1
        print(held)

run(main(int(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "moving", "--nodes", "4", "--replicas", "3", "--workers", "1") as found:
        yield found


def owners(lab: RunningLab, group: int) -> tuple[str, ...]:
    return ask(lab, read_cluster).groups[group].owners


def leads_to(lab: RunningLab, host: str, address: str) -> str:
    """What a host does with packets for an address."""
    return lab.cli("exec", "--host", host, "--", "ip", "-6", "route", "get", address).stdout


def node_address(lab: RunningLab, node: str) -> str:
    return next(found.address for found in ask(lab, read_cluster).nodes if found.name == node)


def moves_of(lab: RunningLab, node: str) -> Any:
    return next(found for found in lab.status()["nodes"] if found["name"] == node)["workers"][0]["moves"]


def test_a_slice_moves_under_load_and_no_call_fails(
    lab: RunningLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = tmp_path / "stop"
    load_process = lab.start(PYTHON, "-c", LOAD, str(COUNT), str(stop))
    assert load_process.stdout is not None
    where = json.loads(load_process.stdout.readline())
    group = int(where["group"], 16)
    before = owners(lab, group)
    source = before[PLANE]
    (target,) = {"n1", "n2", "n3", "n4"} - set(before)
    move = Move(PLANE << GROUP_BITS | group, target)
    time.sleep(1)
    began = time.monotonic()
    ask(lab, lambda control: order_move(control, move.number, target))
    wait_until(
        lambda: ask(lab, lambda control: move_states(control, [move]))[move] is MoveState.DONE, "it moved", 60
    )
    took_s = time.monotonic() - began
    time.sleep(2)
    stop.touch()
    found = json.loads(load_process.communicate(timeout=60)[0])
    assert found["failed"] == [] and found["calls"] > 100
    after = owners(lab, group)
    assert after[PLANE] == target and set(after) == set(before) - {source} | {target}

    address = where["addresses"][PLANE]
    assert "local" in leads_to(lab, target, address)
    assert f"via {node_address(lab, target)}" in leads_to(lab, source, address), "it is not sent on"
    assert f"via {node_address(lab, target)}" in leads_to(lab, "router", address)
    # Asked at the address itself, by who has no other plane to ask: the new owner has all of it.
    assert lab.python(HELD, str(PLANE), str(COUNT)).split() == [str(COUNT)]
    assert moves_of(lab, target)["done"] == 1
    size = moves_of(lab, target)["bytes"]
    with capsys.disabled():
        print(f"\n  {found['calls']} calls, 0 failed, slowest {found['slowest_ms']} ms; ", end="")
        print(f"{size} bytes came, {took_s:.1f} s after the order ", end="")


def test_it_moves_back_and_what_is_left_elsewhere_is_known(lab: RunningLab) -> None:
    """The first owner takes it again: what it still has of it is overwritten, not believed."""
    group = next(record.group for record in ask(lab, read_cluster).groups if record.planes[PLANE].epoch > 1)
    (free,) = {"n1", "n2", "n3", "n4"} - set(owners(lab, group))
    move = Move(PLANE << GROUP_BITS | group % GROUPS, free)
    ask(lab, lambda control: order_move(control, move.number, free))
    wait_until(
        lambda: ask(lab, lambda control: move_states(control, [move]))[move] is MoveState.DONE, "it moved", 60
    )
    assert lab.python(HELD, str(PLANE), str(COUNT)).split() == [str(COUNT)]
