"""Nodes get another number of workers on a real network, one after the other, while clients read and write.

One of them is killed in the middle, with all its processes, and started again. No call fails, nothing
that was acknowledged is lost, and every worker has its lanes in the end.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssastore.core.reworking import worker_state
from ssastore.rebalance import read_cluster
from tests.lab.shared import ask, module_lab, wait_until
from tests.lab.test_moving import COUNT, HELD, LOAD
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

NODES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(
        tmp_path_factory, "reworking", "--nodes", "3", "--replicas", "3", "--workers", "1"
    ) as found:
        yield found


def test_workers_are_changed_under_load_and_no_call_fails(
    lab: RunningLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = tmp_path / "stop"
    load = lab.start(PYTHON, "-c", LOAD, str(COUNT), str(stop))
    assert load.stdout is not None
    load.stdout.readline()

    began = time.monotonic()
    words = [PYTHON, "-m", "ssastore", "--context", lab.name, "workers", "set", "2", "--json"]
    command = subprocess.Popen(words, env=lab.environment, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: _is_under_way(lab), "n2 rebuilds what its second worker gets", 120)
    lab.cli("node", "kill", "n2")
    lab.cli("node", "start", "n2")
    out, _ = command.communicate(timeout=200)
    took_s = time.monotonic() - began
    assert command.returncode == 0 and json.loads(out)["workers"] == 2

    stop.touch()
    said = json.loads(load.communicate(timeout=60)[0].splitlines()[-1])
    with capsys.disabled():
        print(f"\nthree nodes of one worker had two, in {took_s:.1f} s: {said}")
    assert said["failed"] == [] and said["calls"] > 100
    assert [node.workers for node in ask(lab, read_cluster).nodes] == [2, 2, 2]
    for node in lab.status()["nodes"]:
        slices = [worker["slices"] for worker in node["workers"]]
        assert len(slices) == 2 and abs(slices[0] - slices[1]) < 16
    for plane in range(3):
        assert int(lab.python(HELD, str(plane), str(COUNT))) == COUNT
    shown = json.loads(lab.cli("workers", "show", "--json").stdout)
    assert shown == {name: {"workers": 2, "left": 0} for name in NODES}


def test_back_to_one_worker(lab: RunningLab) -> None:
    """What the second worker had is the first one's again, and its directory is gone."""
    lab.cli("workers", "set", "1", "--node", "n1", timeout=200)
    assert int(lab.python(HELD, "0", str(COUNT))) == COUNT
    directory = lab.data / "nodes" / "n1"
    wait_until(lambda: not (directory / "worker-1").exists(), "the directory goes", 60)
    assert (directory / "worker-0").is_dir()


def _is_under_way(lab: RunningLab) -> bool:
    state = ask(lab, lambda control: worker_state(control, "n2"))
    return state.wanted == 2 and 0 < state.left < 1024
