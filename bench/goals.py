"""What is wanted of the figures, and which of it was found: the first table of docs/explanation/speed.md.

Most goals are ratios to a peer in the same run.  Those of S3 are microseconds of CPU for an operation, over
all server processes: of two virtual cores as slow as ours, so a faster machine reaches them more easily.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.growth import OPS
from bench.report import Case
from ssastore.load import MIB, Op

_GROWTH_MAX = 1.5
_GROWTH_TIMES = 3000
"As many objects as that are to cost no more than so many times as much."

Row = dict[str, Any]
Goals = list[tuple[str, str, str, str, str]]
"What, wanted, found, reached, in which run."


def number(value: float | None) -> str:
    """Three digits, thousands by commas; a gap for what was not measured."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def case_of(row: Row) -> Case:
    """What a summary or a ratio is of."""
    return Case(*[row[name] for name in Case._fields])


@dataclass(frozen=True, slots=True)
class Ratio:
    """At least so many times what a peer does in the same run."""

    text: str
    case: Case
    ours: str
    peer: str
    figure: str
    least: float
    is_inverse: bool = False
    "Of what is better when it is less."

    @property
    def wanted(self) -> str:
        return f"at least {self.least:g}"

    def found(self, rows: list[Row]) -> Iterator[tuple[bool, str]]:
        """Is it reached, and the median with its spread, of each result that tells it."""
        for row in rows:
            if row["kind"] != "ratio" or case_of(row) != self.case:
                continue
            if (row["target"], row["peer"]) == (self.ours, self.peer):
                middle, low, high = (row[self.figure][part] for part in ("median", "low", "high"))
                if self.is_inverse:
                    middle, low, high = 1 / middle, 1 / high, 1 / low
                yield middle >= self.least, f"{number(middle)} ({number(low)} to {number(high)})"


@dataclass(frozen=True, slots=True)
class Cost:
    """At most so many microseconds of server CPU for one operation."""

    text: str
    case: Case
    ours: str
    most: float

    @property
    def wanted(self) -> str:
        return f"at most {number(self.most)} us"

    def found(self, rows: list[Row]) -> Iterator[tuple[bool, str]]:
        """As Ratio.found."""
        for row in rows:
            if row["kind"] == "summary" and case_of(row) == self.case and row["target"] == self.ours:
                middle, low, high = (row["server_cpu_us_per_op"][part] for part in ("median", "low", "high"))
                yield middle <= self.most, f"{number(middle)} ({number(low)} to {number(high)})"


_GET, _PUT = (Case("native", op, 4096, 64) for op in ("get", "put"))
_S3_COSTS: tuple[tuple[Op, int, str, float, float | None], ...] = (
    ("get", 4096, "S3 GET of 4 KiB", 120, 180),
    ("get", MIB, "S3 GET of 1 MiB", 1000, None),
    ("put", 4096, "S3 durable PUT of 4 KiB", 300, 700),
    ("put", MIB, "S3 durable PUT of 1 MiB", 3500, 9000),
)


def _times(what: str, case: Case, peer: str, least: float, least_r3: float) -> Iterator[Ratio]:
    about = {"redis": "Redis Cluster", "redis-always": "Redis with `appendfsync always`"}[peer]
    yield Ratio(f"{what}: ops/s over those of {about}", case, "ssastore", peer, "ops_per_s", least)
    yield Ratio(f"{what}, R=3: the same", case, "ssastore R=3", peer, "ops_per_s", least_r3)


def _costs() -> Iterator[Cost]:
    for op, size, text, most, most_r3 in _S3_COSTS:
        case = Case("s3", op, size, 64)
        yield Cost(text, case, "ssastore S3", most)
        if most_r3:
            yield Cost(f"{text}, R=3", case, "ssastore S3 R=3", most_r3)


GOALS: tuple[Ratio | Cost, ...] = (
    *_times("native GET of 4 KiB", _GET, "redis", 4.0, 2.5),
    *_times("native durable PUT of 4 KiB", _PUT, "redis-always", 4.0, 1.5),
    *_costs(),
    Ratio(
        "S3 GET of 1 MiB: bytes for a second of server CPU over those of nginx",
        Case("s3", "get", MIB, 64),
        "ssastore S3",
        "nginx",
        "server_cpu_us_per_op",
        0.5,
        is_inverse=True,
    ),
)


def goals(runs: dict[str, list[Row]], growths: dict[str, list[Row]]) -> Goals:
    """Every goal, for every run that tells whether it is reached."""
    rows = [
        (goal.text, goal.wanted, text, _yes(is_reached), name)
        for goal in GOALS
        for name, kept in runs.items()
        for is_reached, text in goal.found(kept)
    ]
    for name, (growth, *_) in growths.items():
        first, last = growth["points"][0], growth["points"][-1]
        if last["objects"] < _GROWTH_TIMES * first["objects"]:
            continue
        for op in OPS:
            ratio = last["server_us"][op] / first["server_us"][op]
            what = "an entry of a page" if op == "list" else f"`{op}`"
            text = f"CPU of {what} at {last['objects']:,} objects over that at {first['objects']:,}"
            rows.append((text, f"at most {_GROWTH_MAX}", number(ratio), _yes(ratio <= _GROWTH_MAX), name))
    return rows


def _yes(is_reached: bool) -> str:
    return "yes" if is_reached else "**no**"
