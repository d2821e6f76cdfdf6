"""``python -m tests.sim.once SEED ...``: run the workload once for each seed and print its digest."""

from __future__ import annotations

import logging
import sys

from ssastore.sim.workload import Plan, run_seed

PLAN = Plan(keys=10)


def main() -> None:
    logging.disable(logging.CRITICAL)
    for argument in sys.argv[1:]:
        run = run_seed(int(argument), PLAN)
        operations = sum(map(len, run.histories.values()))
        print(f"{run.seed} {run.digest} {run.steps} {operations} {len(run.red())}")


if __name__ == "__main__":
    main()
