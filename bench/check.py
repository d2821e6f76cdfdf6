"""``python -m bench.check``: has an operation become dearer than it was? Two minutes.

    python -m bench.check              compare with the baseline of this form and this Python
    python -m bench.check --write      three runs are the new baseline
    python -m bench.check --add        one run more for it, at another hour

Compared is CPU time by the calibration loop beside it.  Exit code 1 when a figure is lost by more than its
bound, 2 when nothing could be compared.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from bench import baseline
from bench.errors import BenchError
from bench.machine import lines
from bench.run import Comparison, Options, run, say
from bench.targets.s3 import S3Ssastore
from bench.targets.ssastore import Ssastore
from ssastore.form import is_compiled

FOLDER = Path(__file__).with_name("baselines")
DATA = Path(__file__).with_name("results")

OPTIONS = Options(
    seconds=1.0, rounds=7, inflight=(64,), sizes=(4096,), only=frozenset(), data=DATA, pin=False
)
"Seven short rounds have a better median than two long ones; a round is still a hundred ticks of CPU time."

RUNS = 3
"Of a new baseline: how far they lie apart is part of it."


def plan() -> list[Comparison]:
    """What is watched: reads, new names and overwrites, alone, replicated, and by S3."""
    ours, replicated, by_s3 = Ssastore(), Ssastore(replicas=3), S3Ssastore()
    return [
        *(Comparison("native", op, [ours, replicated]) for op in ("get", "put", "overwrite")),
        *(Comparison("s3", op, [by_s3]) for op in ("get", "put")),
    ]


def default_path() -> Path:
    """The baseline of what runs here: machine code is not compared with sources, nor Python with another."""
    kind = "compiled" if is_compiled() else "pure"
    return FOLDER / f"{kind}-python{sys.version_info.major}.{sys.version_info.minor}.jsonl"


def measured() -> list[dict[str, Any]]:
    """One run: its line, and the summaries. Raises BenchError."""
    report = run(OPTIONS, plan())
    if report.left_out:
        name, reason = next(iter(report.left_out.items()))
        raise BenchError(f"{name}: {reason}")
    return list(report.short())


def compared(path: Path) -> int:
    """Measure and compare; the exit code. Raises BenchError."""
    known = baseline.read(path)
    found = measured()
    verdicts = known.compare(found)
    for title, one in (("baseline", known.runs[-1]), ("now", found[0])):
        print(f"{title}: " + "\n    ".join(lines(one["machine"])[:2]))
    if known.runs[-1]["machine"]["cpu"] != found[0]["machine"]["cpu"]:
        print("the CPU is another one: what Python and what the kernel take has another proportion there")
    print(f"\n{baseline.table(verdicts)}")
    lost = [one for one in verdicts if one.is_lost]
    if any(one.is_won for one in verdicts) and not lost:
        print("\nwhat is won can be lost again unseen: make bench-baseline")
    return 1 if lost else 0


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.check", description=(__doc__ or "").splitlines()[0]
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--write", action="store_true", help=f"{RUNS} runs are the new baseline")
    kind.add_argument("--add", action="store_true", help="one run more for the baseline")
    parser.add_argument("--baseline", type=Path, default=default_path(), metavar="FILE")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        if options.add:
            known, found = baseline.read(options.baseline), measured()
            known.compare(found)
            baseline.write(options.baseline, [found], append=True)
        elif options.write:
            baseline.write(options.baseline, [measured() for _ in range(RUNS)])
        else:
            return compared(options.baseline)
    except BenchError as error:
        say(f"bench: {error}")
        return 2
    say(f"baseline: {options.baseline}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
