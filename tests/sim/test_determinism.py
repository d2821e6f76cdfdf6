"""One seed, one run: in every process, whatever its string hashes and memory addresses are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssastore.sim.scenarios import scenarios
from ssastore.sim.stage import play_seed

ROOT = Path(__file__).parents[2]
SEEDS = ("4", "11", "19", "23")


def start(scenario: str, hash_seed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sim.once", scenario, *SEEDS],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("scenario", ["safety", "liveness"])
def test_a_seed_gives_the_same_run_in_every_process(scenario: str) -> None:
    """Five nodes, three replicas, all faults."""
    processes = [start(scenario, hash_seed) for hash_seed in ("0", "1", "random")]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert outputs[0] == outputs[1] == outputs[2]
    digests = [line.split()[1] for line in outputs[0].splitlines()]
    assert len(set(digests)) == len(SEEDS)
    # Here, where other tests have run before, it is the same again.
    assert play_seed(scenarios()[scenario], int(SEEDS[0])).digest == digests[0]
