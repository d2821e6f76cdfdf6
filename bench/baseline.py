"""What a run is compared with: summaries of earlier runs of the same workload, and how far those lay apart.

A file holds the lines ``run`` and ``summary`` of several runs.  The figures that are watched are
CPU time for an operation as the calibration loop measures it (``calibrate.py``); what is seen on the
wall clock depends on who else is on the machine, and is only shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.errors import BenchError
from bench.report import SCHEMA, Case

WATCHED = {"server_nominal_us_per_op": "server", "client_nominal_us_per_op": "client"}
"Figure, and what the table calls it."

TOLERANCE_MIN = 0.15
"Medians of runs of the same commit lay so far apart on average, on a machine with neighbours."

SPREADS = 1.5
"How many times what the baseline's own runs lay apart a figure may be worse."

_SAME = ("sizes_bytes", "inflight", "seconds", "loop")
"Of the workload: figures of another one are no baseline."


class Key(NamedTuple):
    """What a figure is of."""

    case: Case
    target: str
    figure: str


class Verdict(NamedTuple):
    """One figure beside its baseline."""

    key: Key
    now: float
    base: float
    "Median of the baseline's runs."
    tolerance: float
    "How much more than that is not a loss yet; 0.1 is 10 %."

    @property
    def ratio(self) -> float:
        return self.now / self.base

    @property
    def is_lost(self) -> bool:
        return self.ratio > 1 + self.tolerance

    @property
    def is_won(self) -> bool:
        """So much better that the baseline should be written anew, or it would hide the next loss."""
        return self.ratio < 1 / (1 + self.tolerance)


class Baseline:
    """The runs of a file."""

    def __init__(self, lines: Iterable[dict[str, Any]]) -> None:
        """Raises BenchError for lines that are not of this schema, or of runs that differ in workload."""
        self.runs: list[dict[str, Any]] = []
        self._values: dict[Key, list[float]] = {}
        for line in lines:
            if line.get("kind") == "run":
                self._take_run(line)
            elif line.get("kind") == "summary" and self.runs:
                for key, value in figures_of(line):
                    self._values.setdefault(key, []).append(value)
            else:
                raise BenchError(f"no line of a baseline: {str(line)[:80]}")
        if not self._values:
            raise BenchError("there is nothing in it")

    def _take_run(self, line: dict[str, Any]) -> None:
        if line.get("schema") != SCHEMA:
            raise BenchError(f"its schema is {line.get('schema')}, and ours {SCHEMA}")
        self.runs.append(line)
        self.check(line)

    def check(self, run: dict[str, Any]) -> None:
        """Raises BenchError when a run had another workload."""
        ours, theirs = (shown(one["workload"]) for one in (self.runs[0], run))
        if ours != theirs:
            raise BenchError(f"its workload is {ours}, and not {theirs}")

    def compare(self, lines: Sequence[dict[str, Any]]) -> list[Verdict]:
        """A run's lines beside it.

        Raises:
            BenchError: another workload, or a figure is only on one side.
        """
        self.check(lines[0])
        now = {key: value for line in lines[1:] for key, value in figures_of(line)}
        if differing := now.keys() ^ self._values.keys():
            first = min(differing)
            side = "the baseline" if first in now else "this run"
            raise BenchError(f"{side} has no {first.figure} of {first.target}, {first.case.label}")
        return [self._verdict(key, value) for key, value in now.items()]

    def _verdict(self, key: Key, now: float) -> Verdict:
        known = self._values[key]
        base = median(known)
        apart = (max(known) - min(known)) / base
        return Verdict(key, now, base, max(TOLERANCE_MIN, SPREADS * apart))


def shown(workload: dict[str, Any]) -> str:
    """Those parts of a workload that make figures comparable; as they are after a file, too."""
    return json.dumps({name: workload.get(name) for name in _SAME})


def figures_of(line: dict[str, Any]) -> Iterable[tuple[Key, float]]:
    """The watched figures of a summary."""
    case = Case(*[line[name] for name in Case._fields])
    for figure in WATCHED:
        yield Key(case, line["target"], figure), line[figure]["median"]


def read(path: Path) -> Baseline:
    """Raises BenchError: there is none, or not one that fits."""
    try:
        return Baseline(json.loads(line) for line in path.read_text().splitlines())
    except FileNotFoundError:
        raise BenchError(f"there is no {path}; make bench-baseline writes one") from None
    except (BenchError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path}: {error}; make bench-baseline writes another one") from None


def write(path: Path, runs: Iterable[Sequence[dict[str, Any]]], *, append: bool = False) -> None:
    """Write the lines of some runs."""
    path.parent.mkdir(exist_ok=True)
    text = "".join(f"{json.dumps(line)}\n" for run in runs for line in run)
    with open(path, "a" if append else "w") as file:
        file.write(text)


def table(verdicts: Sequence[Verdict]) -> str:
    """For people: nominal microseconds of an operation, by case and target."""
    lines = [f"{'CPU us/op, nominal':40}{'of':>8}{'baseline':>10}{'now':>10}{'ratio':>8}{'bound':>8}"]
    for one in verdicts:
        what = f"{one.key.case.label}  {one.key.target}"
        word = "  LOST" if one.is_lost else "  won" if one.is_won else ""
        lines.append(
            f"{what:40}{WATCHED[one.key.figure]:>8}{one.base:10.1f}{one.now:10.1f}"
            f"{one.ratio:8.2f}{1 + one.tolerance:8.2f}{word}"
        )
    return "\n".join(lines)
