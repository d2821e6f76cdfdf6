"""One seed, one run: in every process, whatever its string hashes and memory addresses are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ssastore.sim.workload import run_seed
from tests.sim.once import PLAN

ROOT = Path(__file__).parents[2]
SEEDS = ("4", "11")


def start(hash_seed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sim.once", *SEEDS],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    processes = [start(hash_seed) for hash_seed in ("0", "1", "random")]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert outputs[0] == outputs[1] == outputs[2]
    digests = [line.split()[1] for line in outputs[0].splitlines()]
    assert len(set(digests)) == len(SEEDS)
    # Here, where other tests have run before, it is the same again.
    assert run_seed(int(SEEDS[0]), PLAN).digest == digests[0]
