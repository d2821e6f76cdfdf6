"""Figures of a run: medians, ratios pair by pair, as a table for people and lines of JSON.

A ratio is taken between two targets in the same round, and then the median over the
rounds: what disturbed the machine for a while disturbed both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from math import isnan, nan
from statistics import median
from typing import Any, NamedTuple

from bench import calibrate, machine
from ssastore.load import Measured, Op

SCHEMA = "ssastore.bench/3"


OURS = "ssastore"
"Names of our own targets begin with it."


class Spread(NamedTuple):
    """A figure over the rounds."""

    median: float
    low: float
    high: float


class Case(NamedTuple):
    """What is done: everything that is the same for all targets of a comparison."""

    protocol: str
    op: Op
    size: int
    "Bytes of a value."
    inflight: int
    "Callers that were asked for."

    @property
    def label(self) -> str:
        """In a few words."""
        return f"{self.protocol} {self.op} {bytes_text(self.size)} x{self.inflight}"


def bytes_text(count: int) -> str:
    """4 KiB, 1 MiB, 100 B."""
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} B"


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One target in one round."""

    case: Case
    target: str
    round: int
    measured: Measured
    server_us: float
    "CPU time of all the target's servers for one operation; NaN where they are not known."
    others_percent: float
    "Share of all cores that was used by neither its servers nor its load generator: how noisy it was."
    loop: calibrate.Loop
    "What the fixed work took beside the round."
    memory_mib: float
    "What its servers had in RAM after the round; NaN likewise."
    busiest_percent: float
    "CPU time of that process of its servers that had most, over the time: at 100 it can do no more."

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
            **self.case._asdict(),
            "target": self.target,
            "round": self.round,
            "ops_per_s": round(self.ops_per_s, 1),
            "server_cpu_us_per_op": _json(self.server_us),
            "others_cpu_percent": _json(self.others_percent),
            "loop_us": round(self.loop.us),
            "memory_mib": _json(self.memory_mib),
            "busiest_percent": _json(self.busiest_percent),
            **{
                name: round(value, 4)
                for name, value in asdict(self.measured).items()
                if name not in _FAILURES
            },
        }


_FAILURES = ("failed", "reason")
"There are none: a round with one ends the run."

Figure = Callable[[RoundResult], float]

FIGURES: dict[str, Figure] = {
    "ops_per_s": lambda result: result.ops_per_s,
    "p50_ms": lambda result: result.measured.p50_ms,
    "p99_ms": lambda result: result.measured.p99_ms,
    "p999_ms": lambda result: result.measured.p999_ms,
    "server_cpu_us_per_op": lambda result: result.server_us,
    "client_cpu_us_per_op": lambda result: result.measured.client_us,
    "server_nominal_us_per_op": lambda result: result.loop.nominal(result.server_us),
    "client_nominal_us_per_op": lambda result: result.loop.nominal(result.measured.client_us),
    "others_cpu_percent": lambda result: result.others_percent,
    "loop_us": lambda result: result.loop.us,
    "memory_mib": lambda result: result.memory_mib,
    "busiest_percent": lambda result: result.busiest_percent,
}
_COMPARED = ("ops_per_s", "server_cpu_us_per_op", "client_cpu_us_per_op")

_COLUMNS = (
    ("ops/s", "ops_per_s", 23),
    ("p50 ms", "p50_ms", 8),
    ("p99 ms", "p99_ms", 8),
    ("p99.9 ms", "p999_ms", 10),
    ("server CPU us/op", "server_cpu_us_per_op", 25),
    ("client CPU us/op", "client_cpu_us_per_op", 18),
    ("busiest %", "busiest_percent", 11),
    ("memory MiB", "memory_mib", 12),
    ("others CPU %", "others_cpu_percent", 14),
    ("written", "written", 9),
)
"Heading, figure, width; where there is room, smallest and largest are shown too."
WORKS = {
    "get": "GET",
    "one": "GET, all of one key",
    "list": "a page of 1,000 keys",
    "hot": "GET, a few keys far more often than others (Zipf)",
    "put": "durable PUT of new names",
    "overwrite": "durable PUT over what is there",
    "mixed": "7 GETs and 3 durable PUTs over what is there, of 10",
}
PROTOCOLS = {"native": "native", "s3": "S3"}
_NAME_WIDTH = 34
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
    written: dict[tuple[Case, str], float] = field(default_factory=dict)
    "By a target's servers for a byte of the values that were put, in all rounds of a case."

    def results(self, case: Case) -> dict[str, list[RoundResult]]:
        """Rounds of one case by target, in the order of the targets."""
        found = {
            target: [r for r in self.rounds if (r.case, r.target) == (case, target)]
            for target in self.targets
        }
        return {target: results for target, results in found.items() if results}

    @property
    def cases(self) -> list[Case]:
        """What was measured."""
        return list(dict.fromkeys(result.case for result in self.rounds))

    def ratios(self, case: Case) -> dict[tuple[str, str], dict[str, Spread]]:
        """(one of ours, a peer or another one of ours) -> figure -> the first over the second."""
        results = self.results(case)
        ours = [target for target in results if target.startswith(OURS)]
        pairs = [(one, peer) for one in ours for peer in results if peer not in ours]
        pairs += [(one, other) for one, other in pairwise(ours)]
        return {
            (one, peer): {name: ratio(results[one], results[peer], FIGURES[name]) for name in _COMPARED}
            for one, peer in pairs
        }

    # -- lines of JSON ------------------------------------------------------------------------------

    def json_lines(self) -> Iterator[str]:
        """One object a line: the run, a summary of each target, its rounds, the ratios."""
        yield from map(json.dumps, self.short())
        for result in self.rounds:
            yield json.dumps(result.as_json())
        for case in self.cases:
            about = case._asdict()
            for (target, peer), found in self.ratios(case).items():
                figures = {name: _rounded(value) for name, value in found.items()}
                yield json.dumps({"kind": "ratio", **about, "target": target, "peer": peer, **figures})

    def short(self) -> Iterator[dict[str, Any]]:
        """The run and the summaries: what a baseline keeps."""
        yield {
            "schema": SCHEMA,
            "kind": "run",
            "machine": self.machine,
            "workload": self.workload,
            "targets": self.targets,
            "left_out": self.left_out,
        }
        for case in self.cases:
            for target, results in self.results(case).items():
                figures = {name: _rounded(_over(results, name)) for name in FIGURES}
                more = {"written_bytes_per_byte": _json(self.written.get((case, target), nan))}
                yield {"kind": "summary", **case._asdict(), "target": target, **figures, **more}

    # -- table --------------------------------------------------------------------------------------

    def table(self) -> str:
        """For people."""
        lines = machine.lines(self.machine)
        if self.rounds:
            loop = spread([result.loop.us / 1000 for result in self.rounds])
            lines.append(f"calibration loop {loop.median:.0f} ms ({loop.low:.0f} to {loop.high:.0f})")
        for target, about in self.targets.items():
            versions = ", ".join(f"{name} {value}" for name, value in about.items() if name != "about")
            lines.append(f"{target}: {about['about']} ({versions})")
        for case in self.cases:
            lines += ["", *self._section(case)]
        if self.left_out:
            lines += [
                "",
                f"left out: {len(self.left_out)} of {len(self.left_out) + len(self.targets)} targets",
            ]
            lines += [f"  {target}: {reason}" for target, reason in self.left_out.items()]
        return "\n".join(lines)

    def _section(self, case: Case) -> Iterator[str]:
        work = self.workload
        yield (
            f"{PROTOCOLS[case.protocol]} {WORKS[case.op]}, {bytes_text(case.size)}, {case.inflight} in "
            f"flight, one client process, {work['rounds']} rounds of {work['seconds']:g} s: median (smallest "
            "to largest)"
        )
        yield " " * _NAME_WIDTH + "".join([f"{heading:>{width}}" for heading, _, width in _COLUMNS])
        for target, results in self.results(case).items():
            figures = {name: _over(results, name) for name in FIGURES}
            written = self.written.get((case, target))
            if written is not None:
                figures["written"] = Spread(written, written, written)
            yield _row(target, figures)
        for (target, peer), found in self.ratios(case).items():
            yield _row(f"{target} / {peer}", found, "x")


def _over(results: Sequence[RoundResult], name: str) -> Spread:
    return spread([FIGURES[name](result) for result in results])


def _rounded(value: Spread) -> dict[str, float | None]:
    return {name: _json(number) for name, number in value._asdict().items()}


def _json(value: float) -> float | None:
    """JSON has no NaN."""
    return None if isnan(value) else round(value, 4)


def _row(name: str, figures: Mapping[str, Spread], unit: str = "") -> str:
    cells = [f"{_cell(figures.get(figure), width, unit):>{width}}" for _, figure, width in _COLUMNS]
    return (f"  {name:{_NAME_WIDTH - 2}}" + "".join(cells)).rstrip()


def _cell(value: Spread | None, width: int, unit: str) -> str:
    if value is None or isnan(value.median):
        return ""
    middle, low, high = (f"{number:.0f}" if number >= 1000 else f"{number:.3g}" for number in value)
    return f"{middle}{unit} ({low} to {high})" if width >= _SPREAD_WIDTH_MIN else middle + unit
