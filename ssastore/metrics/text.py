"""Metrics as Prometheus reads them: the text format 0.0.4, and the rules for names. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ssastore.metrics.histogram import BOUNDS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = re.compile(r"(ssastore|process)_[a-z][a-z0-9_]*")
_LABEL = re.compile(r"[a-z][a-z_]*")
_UNITS = ("", "seconds", "bytes", "ratio")
"Base units; what is counted has none."


class Kind(StrEnum):
    """What may be made of the samples of a metric."""

    COUNTER = "counter"
    "Only rises, but for a start of the process that counts."
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One name on the page."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""

    def __str__(self) -> str:
        """As a query names it."""
        return self.name

    def __post_init__(self) -> None:
        assert _NAME.fullmatch(self.name), self.name
        assert self.unit in _UNITS and all(map(_LABEL.fullmatch, self.labels)), self.name
        base = self.name.removesuffix("_total")
        assert (base != self.name) == (self.kind is Kind.COUNTER), f"{self.name}: only a counter is a total"
        has_unit = any(base.endswith(f"_{unit}") for unit in _UNITS if unit)
        assert base.endswith(f"_{self.unit}") if self.unit else not has_unit, f"{self.name}: unit {self.unit}"


class Page:
    """One scrape. Every declared metric has its head, with samples or without."""

    def __init__(self, declared: Iterable[Metric]) -> None:
        self._rows: dict[Metric, list[str]] = {metric: [] for metric in declared}

    def add(self, metric: Metric, value: float, *labels: object) -> None:
        """A sample; ``labels`` are the values of the metric's, in order."""
        self._rows[metric].append(f"{metric.name}{_braces(metric, labels)} {number(value)}")

    def add_histogram(self, metric: Metric, found: Histogram, *labels: object) -> None:
        """All samples of a histogram."""
        assert metric.kind is Kind.HISTOGRAM, metric.name
        rows, below = self._rows[metric], 0
        for bound, count in zip((*BOUNDS, math.inf), found.counts, strict=True):
            below += count
            le = f'le="{number(bound)}"'
            rows.append(f"{metric.name}_bucket{_braces(metric, labels, le)} {below}")
        rows.append(f"{metric.name}_sum{_braces(metric, labels)} {number(found.seconds)}")
        rows.append(f"{metric.name}_count{_braces(metric, labels)} {below}")

    def text(self) -> str:
        """The page."""
        lines: list[str] = []
        for metric, rows in self._rows.items():
            lines.append(f"# HELP {metric.name} {_escaped(metric.help)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += rows
        return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """A sample's value."""
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1 << 53 else repr(float(value))


def _braces(metric: Metric, values: tuple[object, ...], *more: str) -> str:
    pairs = [f'{label}="{_quoted(str(value))}"' for label, value in zip(metric.labels, values, strict=True)]
    pairs += more
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
