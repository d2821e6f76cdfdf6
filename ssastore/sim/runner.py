"""Many seeds: over several processes, counted, and told apart by what went wrong.

    exit code   0    every seed held
               10    safety: somebody was told what cannot be, or it could not be decided
               11    liveness: something was not done in time
               12    a seed ended with an error of our own

The worst of a run decides, in the order safety, error, liveness.
"""

from __future__ import annotations

import gc
import logging
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from time import process_time  # noqa: TID251  # how fast it is, decides nothing

from ssastore.sim.scenarios import scenarios
from ssastore.sim.stage import Played, play_seed
from ssastore.system import die_with_parent

EXIT_SAFETY, EXIT_LIVENESS, EXIT_ERROR = 10, 11, 12

_BLOCK = 8
"Seeds that a process is given at once, at most."


@contextmanager
def quiet() -> Iterator[None]:
    """Connections break all the time in a simulation; production's log would be of nothing else."""
    log = logging.getLogger("ssastore")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def play_block(scenario: str, first: int, end: int) -> list[Played]:
    """Seeds ``first`` to ``end - 1``, in this process."""
    found = scenarios()[scenario]
    played = []
    with quiet(), collected_between_seeds() as collect:
        for seed in range(first, end):
            started_s = process_time()
            played.append(play_seed(found, seed))
            collect()
            played[-1].cpu_s = process_time() - started_s
    return played


@contextmanager
def collected_between_seeds() -> Iterator[Callable[[], None]]:
    """Cycles are collected when the caller says that a seed is over, never in the middle.

    A run leaves its tasks and their loop in cycles.  After each seed, not after some: to collect costs half
    as much then, and the next seed gets memory that is still in the processor's caches.  What it leaves
    alive (the program, layouts of clusters) is frozen, or each collection would look at all of it again:
    5,000 objects of a seed among 180,000.  Nothing is thawed: that is such a look, and blocks are short.
    """
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield _collect
    finally:
        if was_collecting:
            gc.enable()


def _collect() -> None:
    gc.collect()
    gc.freeze()


def play_seeds(scenario: str, first: int, count: int, jobs: int = 1) -> Iterator[Played]:
    """Seeds from ``first`` on, in order."""
    size = min(_BLOCK, -(-count // jobs))
    blocks = [(at, min(at + size, first + count)) for at in range(first, first + count, size)]
    if jobs == 1:
        for block in blocks:
            yield from play_block(scenario, *block)
        return
    with seed_processes(jobs) as pool:
        waiting = [pool.submit(play_block, scenario, *block) for block in blocks]
        try:
            for future in waiting:
                yield from future.result()
        finally:
            for future in waiting:
                future.cancel()


def seed_processes(jobs: int) -> ProcessPoolExecutor:
    """Processes that play seeds.

    Not by fork: a child would inherit whatever the parent's threads and traps happened to hold.
    """
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=die_with_parent)


@dataclass(slots=True)
class Summary:
    """What all seeds of one run came to."""

    scenario: str
    first: int
    seeds: int = 0
    violations: int = 0
    "Seeds with one; so are the next three."
    undecided: int = 0
    stuck: int = 0
    crashes: int = 0
    steps: int = 0
    operations: int = 0
    messages: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    red: list[int] = field(default_factory=list)

    def add(self, played: Played) -> None:
        """One more seed."""
        self.seeds += 1
        self.violations += bool(played.violations)
        self.undecided += bool(played.undecided)
        self.stuck += bool(played.stuck)
        self.crashes += bool(played.crash)
        self.steps += played.steps
        self.operations += played.operations
        self.messages += played.messages
        self.virtual_s += played.virtual_s
        self.cpu_s += played.cpu_s
        self.outcomes += played.outcomes
        self.faults += played.faults
        if not played.is_good:
            self.red.append(played.seed)

    @property
    def exit_code(self) -> int:
        """See the module."""
        if self.violations or self.undecided:
            return EXIT_SAFETY
        if self.crashes:
            return EXIT_ERROR
        return EXIT_LIVENESS if self.stuck else 0

    def line(self, elapsed_s: float, jobs: int) -> str:
        """The last line of a run."""
        return (
            f"sim {self.scenario}: {self.seeds} seeds ({self.first} to {self.first + self.seeds - 1}), "
            f"{self.violations} violations, {self.undecided} undecided, {self.stuck} liveness failures, "
            f"{self.crashes} errors; {self.seeds / max(elapsed_s, 1e-9):.1f} seeds/s in {jobs} process"
            f"{'es' if jobs > 1 else ''} ({self.seeds / max(self.cpu_s, 1e-9):.1f} a CPU second), "
            f"{self.operations} operations, {self.messages} messages, "
            f"{sum(self.faults.values())} faults"
        )


def commit() -> str:
    """What was run: the commit of this checkout, or the version of this installation."""
    checkout = Path(__file__).parents[2]
    if (checkout / ".git").exists():
        asked = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0:
            return asked.stdout.strip()
    return version("ssastore")


def replay_line(played: Played) -> str:
    """What repeats a seed, to be pasted."""
    return f"ssastore sim --scenario {played.scenario} --first-seed {played.seed} --seeds 1    # {commit()}"


def tell(played: Played) -> str:
    """All about a seed that did not hold."""
    lines = [f"seed {played.seed} of {played.scenario}:"]
    lines += [f"violation: {text}" for text in played.violations]
    lines += [f"undecided: {text}" for text in played.undecided]
    lines += [f"not done: {text}" for text in played.stuck]
    lines += [f"error: {played.crash}"] if played.crash else []
    return "\n".join([*lines, f"replay: {replay_line(played)}"])
