"""Every scenario, with the seeds that ever failed and with fresh ones."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ssastore.sim.runner import Summary, play_seeds, tell
from ssastore.sim.scenarios import scenarios
from ssastore.sim.stage import play_seed
from ssastore.sim.swarm import FAULTS, Swarm
from tests.shares import cores

CORPUS = Path(__file__).parent / "regressions.txt"
FRESH = {
    "safety": 240,
    "large": 10,
    "liveness": 50,
    "duel": 4,
    "quiet": 6,
    "cost": 1,
    "fight": 16,
    "forget": 12,
    "recovery": 5,
    "versions": 24,
    "change": 12,
    "quota": 10,
    "quotacost": 1,
    "hot": 20,
}
"Seeds that nobody has run before, of each scenario; others, which take seconds each, get OTHERS."
OTHERS = 3


def corpus() -> list[tuple[str, int]]:
    lines = [line.split() for line in CORPUS.read_text().splitlines() if line and not line.startswith("#")]
    return [(line[0], int(line[1])) for line in lines]


@pytest.fixture(scope="module")
def first_seed() -> int:
    """Fresh in every run; a failure prints the line that repeats it."""
    return int(os.environ.get("SIM_FIRST_SEED", time.time_ns() // 1_000_000_000))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", list(scenarios()))
def test_fresh_seeds_hold(name: str, first_seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    count = FRESH.get(name, OTHERS)
    jobs = cores() if count > 1 else 1
    started = time.perf_counter()
    summary, red = Summary(name, first_seed), []
    for played in play_seeds(name, first_seed, count, jobs):
        summary.add(played)
        red += [] if played.is_good else [tell(played)]
    assert not red, "\n\n".join(red[:5])
    with capsys.disabled():
        print(f"\n  {summary.line(time.perf_counter() - started, jobs)} ", end="")
    if name == "safety":
        assert set(summary.faults) == set(FAULTS), "every kind of fault falls into a few hundred seeds"
        assert summary.outcomes["unknown"] and summary.outcomes["unavailable"]


@pytest.mark.parametrize(("name", "seed"), corpus())
def test_what_ever_failed_holds(name: str, seed: int) -> None:
    played = play_seed(scenarios()[name], seed)
    assert played.is_good, tell(played)


@pytest.mark.parametrize("replicas", [1, 5])
def test_safety_holds_with_other_replica_counts(replicas: int) -> None:
    scenario = replace(scenarios()["safety"], replicas=replicas)
    outcomes: Counter[str] = Counter()
    for seed in range(40):
        played = play_seed(scenario, seed)
        assert played.is_good, tell(played)
        outcomes += played.outcomes
    assert outcomes["done"] > 200


def test_a_run_can_be_stopped_on_the_way() -> None:
    played = play_seed(scenarios()["safety"], 3, until_ms=500, is_told=True)
    assert played.is_good and played.virtual_s < 1
    assert "route" in played.story or "bytes" in played.story


def test_faults_fall_into_a_run_although_it_is_short() -> None:
    """A seed has some 80 calls; a run without a fault in it would say little."""
    happened = [sum(play_seed(scenarios()["safety"], seed).faults.values()) for seed in range(20)]
    assert sum(count > 0 for count in happened) >= 15


def test_without_faults_nothing_is_unknown() -> None:
    played = play_seed(scenarios()["safety"], 1, swarm=Swarm())
    assert played.is_good
    assert set(played.outcomes) <= {"done", "absent", "condition failed"}
