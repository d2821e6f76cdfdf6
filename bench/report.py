"""Figures of a run: medians, ratios pair by pair, as a table for people and lines of JSON.

A ratio is taken between two targets in the same round, and then the median over the
rounds: what disturbed the machine for a while disturbed both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, NamedTuple

from bench import machine
from bench.workloads import Measured

SCHEMA = "ssastore.bench/1"
OURS = "ssastore"


class Spread(NamedTuple):
    """A figure over the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One target in one round."""

    op: str
    target: str
    round: int
    measured: Measured
    server_us: float
    "CPU time of all the target's servers for one operation."
    others_percent: float
    "Share of all cores that was used by neither its servers nor its load generator: how noisy it was."

    @property
    def ops_per_s(self) -> float:
        return self.measured.ops / self.measured.seconds

    def line(self) -> str:
        """For the progress of a run."""
        return (
            f"{self.target:14} {self.ops_per_s:9.0f} ops/s  p99 {self.measured.p99_ms:8.2f} ms  "
            f"server {self.server_us:7.1f} us/op  others {self.others_percent:3.0f} %"
        )

    def as_json(self) -> dict[str, Any]:
        """Flat, as one line of the results."""
        return {
            "kind": "round",
            "op": self.op,
            "target": self.target,
            "round": self.round,
            "ops_per_s": round(self.ops_per_s, 1),
            "server_cpu_us_per_op": round(self.server_us, 2),
            "others_cpu_percent": round(self.others_percent, 1),
            **{name: round(value, 4) for name, value in asdict(self.measured).items()},
        }


Figure = Callable[[RoundResult], float]

FIGURES: dict[str, Figure] = {
    "ops_per_s": lambda result: result.ops_per_s,
    "p50_ms": lambda result: result.measured.p50_ms,
    "p99_ms": lambda result: result.measured.p99_ms,
    "p999_ms": lambda result: result.measured.p999_ms,
    "server_cpu_us_per_op": lambda result: result.server_us,
    "client_cpu_us_per_op": lambda result: result.measured.client_us,
    "others_cpu_percent": lambda result: result.others_percent,
}
_COMPARED = ("ops_per_s", "server_cpu_us_per_op", "client_cpu_us_per_op")

_COLUMNS = (
    ("ops/s", "ops_per_s", 23),
    ("p50 ms", "p50_ms", 8),
    ("p99 ms", "p99_ms", 8),
    ("p99.9 ms", "p999_ms", 10),
    ("server CPU us/op", "server_cpu_us_per_op", 25),
    ("client CPU us/op", "client_cpu_us_per_op", 18),
    ("others CPU %", "others_cpu_percent", 14),
)
"Heading, figure, width; where there is room, smallest and largest are shown too."
_WORKS = {"get": "GET", "put": "durable PUT of new names", "overwrite": "durable PUT over what is there"}
_NAME_WIDTH = 26
_SPREAD_WIDTH_MIN = 20


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest of some values."""
    return Spread(median(values), min(values), max(values))


def ratio(ours: Sequence[RoundResult], peer: Sequence[RoundResult], figure: Figure) -> Spread:
    """Ours over the peer's, taken in each round that both have."""
    theirs = {result.round: figure(result) for result in peer}
    pairs = [(figure(result), theirs[result.round]) for result in ours if result.round in theirs]
    # A server that used no whole tick of CPU time in a round has no ratio: nothing is above it.
    return spread([mine / other if other else float("inf") for mine, other in pairs])


@dataclass(slots=True)
class Report:
    """Everything a run found."""

    machine: dict[str, Any]
    workload: dict[str, Any]
    targets: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    rounds: list[RoundResult] = field(default_factory=list)

    def results(self, op: str) -> dict[str, list[RoundResult]]:
        """Rounds of one operation by target, ours first."""
        found = {
            target: [r for r in self.rounds if (r.op, r.target) == (op, target)] for target in self.targets
        }
        return {target: results for target, results in found.items() if results}

    @property
    def ops(self) -> list[str]:
        """Operations that were measured."""
        return list(dict.fromkeys(result.op for result in self.rounds))

    def ratios(self, op: str) -> dict[str, dict[str, Spread]]:
        """Peer -> figure -> ours over the peer's."""
        results = self.results(op)
        ours = results.pop(OURS, [])
        if not ours:
            return {}
        return {
            peer: {name: ratio(ours, theirs, FIGURES[name]) for name in _COMPARED}
            for peer, theirs in results.items()
        }

    # -- lines of JSON ------------------------------------------------------------------------------

    def json_lines(self) -> Iterator[str]:
        """One object a line: the run, its rounds, a summary of each target, the ratios."""
        yield json.dumps(
            {
                "schema": SCHEMA,
                "kind": "run",
                "machine": self.machine,
                "workload": self.workload,
                "targets": self.targets,
                "left_out": self.left_out,
            }
        )
        for result in self.rounds:
            yield json.dumps(result.as_json())
        for op in self.ops:
            for target, results in self.results(op).items():
                figures = {name: _rounded(_over(results, name)) for name in FIGURES}
                yield json.dumps({"kind": "summary", "op": op, "target": target, **figures})
            for peer, found in self.ratios(op).items():
                figures = {name: _rounded(value) for name, value in found.items()}
                yield json.dumps({"kind": "ratio", "op": op, "target": OURS, "peer": peer, **figures})

    # -- table --------------------------------------------------------------------------------------

    def table(self) -> str:
        """For people."""
        lines = machine.lines(self.machine)
        for target, about in self.targets.items():
            versions = ", ".join(f"{name} {value}" for name, value in about.items() if name != "about")
            lines.append(f"{target}: {about['about']} ({versions})")
        for op in self.ops:
            lines += ["", *self._section(op)]
        if self.left_out:
            lines += [
                "",
                f"left out: {len(self.left_out)} of {len(self.left_out) + len(self.targets)} targets",
            ]
            lines += [f"  {target}: {reason}" for target, reason in self.left_out.items()]
        return "\n".join(lines)

    def _section(self, op: str) -> Iterator[str]:
        work = self.workload
        yield (
            f"{_WORKS[op]}, {work['size_bytes']} bytes, {work['inflight']} in flight, one client process, "
            f"{work['rounds']} rounds of {work['seconds']:g} s: median (smallest to largest)"
        )
        yield " " * _NAME_WIDTH + "".join([f"{heading:>{width}}" for heading, _, width in _COLUMNS])
        for target, results in self.results(op).items():
            yield _row(target, {name: _over(results, name) for name in FIGURES})
        for peer, found in self.ratios(op).items():
            yield _row(f"{OURS} / {peer}", found, "x")


def _over(results: Sequence[RoundResult], name: str) -> Spread:
    return spread([FIGURES[name](result) for result in results])


def _rounded(value: Spread) -> dict[str, float]:
    return {name: round(number, 4) for name, number in value._asdict().items()}


def _row(name: str, figures: Mapping[str, Spread], unit: str = "") -> str:
    cells = [f"{_cell(figures.get(figure), width, unit):>{width}}" for _, figure, width in _COLUMNS]
    return (f"  {name:{_NAME_WIDTH - 2}}" + "".join(cells)).rstrip()


def _cell(value: Spread | None, width: int, unit: str) -> str:
    if value is None:
        return ""
    middle, low, high = (f"{number:.0f}" if number >= 1000 else f"{number:.3g}" for number in value)
    return f"{middle}{unit} ({low} to {high})" if width >= _SPREAD_WIDTH_MIN else middle + unit
