"""Nodes of a lab of three replicas are killed and paused while clients work: nothing may show but time.

CI runs a few seconds of each; `make soak` the long form (docs/explanation/testing.md).
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssastore.judge.verdicts import judge, read_history, share_of_success
from tests.faults import Nodes, load_on, nodes_of
from tests.lab.shared import module_lab
from tests.labs import RunningLab

SOAK_S = float(os.environ.get("SSASTORE_SOAK_S", "12"))
"How long nodes are killed."
KILL_EVERY_S = 5.0 if SOAK_S > 30 else 3.0
PAUSES_S = [float(text) for text in os.environ.get("SSASTORE_SOAK_PAUSES_S", "1 5").split()]
DOWN_S = 0.5

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240 + 3 * SOAK_S + 3 * sum(PAUSES_S))]

SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "crashes", *SHAPE) as found:
        yield found


@pytest.fixture(scope="module")
def nodes(lab: RunningLab) -> Iterator[Nodes]:
    with nodes_of(lab) as found:
        yield found


def test_killing_one_node_at_a_time_shows_nobody_anything(
    lab: RunningLab, nodes: Nodes, tmp_path: Path
) -> None:
    """Supervisor and workers get SIGKILL and are started again half a second later."""
    draw = random.Random(1)
    kills = 0
    with load_on(lab, tmp_path, name="kills") as load:
        end = time.monotonic() + SOAK_S
        while time.monotonic() < end:
            began = time.monotonic()
            victim = draw.choice(nodes.names)
            nodes.kill(victim)
            time.sleep(DOWN_S)
            nodes.start(victim)
            kills += 1
            time.sleep(max(0.0, KILL_EVERY_S - (time.monotonic() - began)))
        found = load.stop()
    judged = judge(read_history(load.settings.history))
    print(f"{kills} kills, {judged.keys} keys, {judged.operations} operations, {found}")
    assert kills >= SOAK_S // KILL_EVERY_S
    assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
    assert share_of_success(found) >= 0.999, found


@pytest.mark.parametrize("pause_s", PAUSES_S)
def test_paused_node_stops_nobody(lab: RunningLab, nodes: Nodes, tmp_path: Path, pause_s: float) -> None:
    """SIGSTOP: its connections stay open and nothing comes; then it goes on with what is long decided."""
    victim = "n3"
    with load_on(lab, tmp_path, name=f"pause{pause_s:g}") as load:
        time.sleep(1)
        nodes.signal(victim, signal.SIGSTOP)
        time.sleep(pause_s)
        nodes.signal(victim, signal.SIGCONT)
        time.sleep(2)
        found = load.stop()
    judged = judge(read_history(load.settings.history))
    print(f"paused {pause_s} s: {judged.keys} keys, {judged.operations} operations, {found}")
    assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
    assert share_of_success(found) >= 0.999, found


def test_all_nodes_killed_at_once_come_back_with_everything(
    lab: RunningLab, nodes: Nodes, tmp_path: Path
) -> None:
    """Within 100 ms, and started again in random order."""
    order = list(nodes.names)
    random.Random(2).shuffle(order)
    with load_on(lab, tmp_path, name="all") as load:
        time.sleep(2)
        victims = {name: nodes.pids(name) for name in nodes.names}
        began = time.monotonic()
        for pid in itertools.chain.from_iterable(victims.values()):
            os.kill(pid, signal.SIGKILL)
        took_s = time.monotonic() - began
        for name in nodes.names:
            nodes.kill(name)
        for name in order:
            nodes.start(name)
        started = time.monotonic()
        lab.cli("ready", "--wait", "15")
        serving_s = time.monotonic() - started
        time.sleep(1)
        found = load.stop()
    judged = judge(read_history(load.settings.history))
    print(
        f"killed in {took_s:.3f} s, serving after {serving_s:.1f} s, {judged.operations} operations, {found}"
    )
    assert took_s < 0.1 and serving_s < 15
    assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
