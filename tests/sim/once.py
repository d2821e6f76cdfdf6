"""``python -m tests.sim.once SCENARIO SEED ...``: play each seed and print its digest."""

from __future__ import annotations

import sys

from ssastore.sim.runner import quiet
from ssastore.sim.scenarios import scenarios
from ssastore.sim.stage import play_seed


def main() -> None:
    scenario = scenarios()[sys.argv[1]]
    for seed in map(int, sys.argv[2:]):
        with quiet():
            played = play_seed(scenario, seed)
        print(seed, played.digest, played.steps, played.operations, played.messages, played.is_good)


if __name__ == "__main__":
    main()
