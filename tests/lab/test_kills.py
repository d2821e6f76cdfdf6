"""A process of a real node gets SIGKILL while a slice moves: at the source, at the target, or where moves are
coordinated; in the middle of the copy, at moments of the short end of it, and right after it.

Every slice ends with one ACTIVE owner, the one that was ordered, no call of the clients fails and nothing
is lost. What happens at each single step is played in ``tests/sim/test_kill_matrix.py``: the steps from the
seal to the switch take a few milliseconds here, so they are hit by chance.  The long form
(``SSASTORE_SOAK_MATRIX=3``) plays each case three times; with ``-s`` it prints the table.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ssastore.core.groups import ACTIVE, MOVING, GroupRecord, group_key
from ssastore.core.numbers import group_of_slice, plane_of_slice, slice_number
from ssastore.core.settings import MoveSettings, change_move_settings
from ssastore.env import ControlStore
from ssastore.judge.verdicts import judge, read_history, share_of_success
from ssastore.limits import MIB
from ssastore.rebalance import Move, order_move, ordered_moves, read_cluster
from tests.faults import Nodes, load_on, nodes_of
from tests.lab.shared import ask, wait_until
from tests.labs import RunningLab, running_lab

TIMES = int(os.environ.get("SSASTORE_SOAK_MATRIX", "0"))
WHO = ("source", "target", "coordinator")
STEPS = ("copying", "ending", "finished")
SHORT = [("source", "copying"), ("target", "ending"), ("coordinator", "copying"), ("source", "finished")]
CASES = [(who, step) for step in STEPS for who in WHO for _ in range(TIMES)] or SHORT
SLOW, FAST = 1 * MIB, 1024 * MIB
PLANE = 1

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120 + 60 * len(CASES))]

FILL = """
import asyncio
from ssastore import AsyncClient
from ssastore.system import run

async def main():
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket("moved", shards=1)
        await asyncio.gather(*[bucket.put(f"{n:03}", bytes([n]) * 60_000) for n in range(50)])
        print((await bucket.locate("000")).group)

run(main())
"""
CHECK = """
import asyncio
from ssastore import AsyncClient
from ssastore.system import run

async def main():
    async with AsyncClient.from_env() as client:
        bucket = client.bucket("moved")
        print(sum([await bucket.get(f"{n:03}") == bytes([n]) * 60_000 for n in range(50)]))

run(main())
"""


async def record_of(control: ControlStore, group: int) -> GroupRecord:
    item = await control.get(group_key(group))
    assert item is not None
    return GroupRecord.decode(item.value)


async def until_state(control: ControlStore, move: Move, state: str, owner: str) -> None:
    """Until the plane is in a state at an owner. In the process of the test: commands would be too slow."""
    async with asyncio.timeout(60):
        while True:
            found = (await record_of(control, group_of_slice(move.number))).planes[
                plane_of_slice(move.number)
            ]
            if (found.state, found.owner) == (state, owner):
                return
            await asyncio.sleep(0.0005)


def play(lab: RunningLab, nodes: Nodes, group: int, who: str, step: str, turn: int) -> float:
    """One move with one kill; the seconds from the kill to its end."""
    owners = ask(lab, read_cluster).groups[group].owners
    source = owners[PLANE]
    (target,) = set(nodes.names) - set(owners)
    move = Move(slice_number(PLANE, group), target)
    wait_until(lambda: bool(lab.status()["coordinator"]), "there is a coordinator", 30)
    victim = {"source": source, "target": target, "coordinator": lab.status()["coordinator"]}[who]
    pids = nodes.pids(victim)

    async def until_step(control: ControlStore) -> None:
        rate = SLOW if step == "copying" else FAST
        await change_move_settings(control, lambda known: replace(known, bytes_per_s=rate))
        await asyncio.sleep(2.5)  # Workers look every two seconds.
        await order_move(control, move.number, target)
        if step == "finished":
            await until_state(control, move, ACTIVE, target)
        else:
            await until_state(control, move, MOVING, source)
            await asyncio.sleep(1.0 if step == "copying" else 0.02 * (turn % 5))
        if who != "coordinator":
            os.kill(pids[1], signal.SIGKILL)

    ask(lab, until_step)
    began = time.monotonic()
    if who == "coordinator":
        nodes.kill(victim)
        nodes.start(victim)
    # What is left of a slow one need not be slow.
    ask(lab, lambda control: change_move_settings(control, lambda known: MoveSettings(FAST)))
    ask(lab, lambda control: until_state(control, move, ACTIVE, target))
    took_s = time.monotonic() - began
    wait_until(lambda: not ask(lab, ordered_moves), "nothing is ordered any more")
    lab.cli("ready", "--wait", "30")
    return took_s


def test_a_move_ends_with_one_owner_whoever_is_killed(tmp_path: Path) -> None:
    options = ("--nodes", "4", "--replicas", "3", "--workers", "1")
    with running_lab(tmp_path, "kills", *options) as lab, nodes_of(lab) as nodes:
        group = int(lab.python(FILL))
        done: Counter[tuple[str, str]] = Counter()
        slowest: dict[tuple[str, str], float] = {}
        with load_on(lab, tmp_path, name="kills") as load:
            for turn, (who, step) in enumerate(CASES):
                took_s = play(lab, nodes, group, who, step, turn)
                done[who, step] += 1
                slowest[who, step] = max(took_s, slowest.get((who, step), 0.0))
            found = load.stop()
        judged = judge(read_history(load.settings.history))
        print(f"\n{'killed at':10}" + "".join(f"{who:>22}" for who in WHO))
        for step in STEPS:
            row = [f"{done[who, step]} (over after {slowest.get((who, step), 0):.1f} s)" for who in WHO]
            print(f"{step:10}" + "".join(f"{text:>22}" for text in row))
        print(f"{judged.operations} operations, {found}")
        assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
        assert share_of_success(found) == 1.0, found
        assert lab.python(CHECK).split() == ["50"]
        records = ask(lab, read_cluster).groups
        assert all(plane.state == ACTIVE for record in records for plane in record.planes)
        workers = [worker for node in lab.status()["nodes"] for worker in node["workers"]]
        assert sum(worker["slices"] for worker in workers) == 3 * 4096
        assert not any(worker["silent"] for worker in workers)
