"""How many seeds each planted fault takes to be seen: one mutant after the other, in several processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ssastore.sim.mutants import harmless, mutants, planted
from ssastore.sim.runner import collected_between_seeds, quiet, seed_processes
from ssastore.sim.scenarios import scenarios
from ssastore.sim.stage import Played, play_seed

SEEDS_MAX = 5000
"For a common mutant; a rare one breaks one schedule in some thousands and needs about ten times as many."

HARMLESS_SEEDS = 60


@dataclass(frozen=True, slots=True)
class Caught:
    """What became of one mutant. ``seeds``: how many were played."""

    name: str
    is_caught: bool
    is_harmless: bool
    is_rare: bool
    seeds: int
    judge: str
    "Who saw it first: an invariant, the checker of histories, liveness."
    text: str

    @property
    def is_as_it_should(self) -> bool:
        """A harmless one stays unseen, a rare one may take longer than anybody waits."""
        return self.is_caught != self.is_harmless or (self.is_rare and not self.is_harmless)

    def line(self) -> str:
        """For a table."""
        if self.is_harmless:
            found = "seen, although it breaks nothing" if self.is_caught else "green, as it must be"
        elif self.is_caught:
            found = f"seen by {self.judge}"
        else:
            found = "not seen yet (rare)" if self.is_rare else "NOT SEEN"
        return f"{self.name:30} {self.seeds:6} seeds  {found}"


def hunt(name: str, first: int = 0, seeds_max: int = SEEDS_MAX) -> Caught:
    """Play seeds until one is red."""
    is_harmless = name in harmless()
    mutant = (harmless() if is_harmless else mutants())[name]
    scenario = scenarios()[mutant.scenario]
    limit = min(seeds_max, HARMLESS_SEEDS) if is_harmless else seeds_max
    with quiet(), planted(mutant), collected_between_seeds() as collect:
        for seed in range(first, first + limit):
            played = play_seed(scenario, seed)
            if not played.is_good:
                judge, text = _judge(played)
                return Caught(name, True, is_harmless, mutant.is_rare, seed - first + 1, judge, text)
            collect()
    return Caught(name, False, is_harmless, mutant.is_rare, limit, "", "")


def hunt_all(names: list[str], first: int, seeds_max: int, jobs: int) -> Iterator[Caught]:
    """All of them, in the order of ``names``."""
    with seed_processes(jobs) as pool:
        for future in [pool.submit(hunt, name, first, seeds_max) for name in names]:
            yield future.result()


def _judge(played: Played) -> tuple[str, str]:
    if played.violations:
        text = played.violations[0]
        return (text.split(":")[0] if text.startswith("I") else "the checker"), text
    if played.undecided:
        return "the checker, undecided", played.undecided[0]
    return ("liveness", played.stuck[0]) if played.stuck else ("an error", played.crash)
