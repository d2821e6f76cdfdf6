"""A dashboard for Grafana, made of the names that are declared. Pure.

Counters of workers are the same at every gateway, so their rates are joined by ``max`` before they are added
up; those of gateways are added.  The form is Grafana's "JSON model" of a dashboard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssastore.metrics import declared as m
from ssastore.metrics.text import Metric

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24
_STAT_HEIGHT, _GRAPH_HEIGHT = 4, 8


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture."""

    title: str
    unit: str
    "As Grafana calls it."
    queries: tuple[tuple[str, str], ...]
    "PromQL, and what a series is called."
    help: str = ""
    is_stat: bool = False
    "One number, which is red above 0."


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


def _rate(metric: Metric, *labels: str) -> str:
    """Of workers, by some of the metric's labels."""
    return f"sum by ({', '.join(labels)})({_rate_of_worker(metric)})"


def _rate_of_worker(metric: Metric) -> str:
    return f"max by ({', '.join(metric.labels)})(rate({metric}[$__rate_interval]))"


def _of_worker(metric: Metric) -> str:
    return f"max by (node, worker)({metric})"


def _percentile(share: float) -> str:
    return f"histogram_quantile({share}, sum by (le)(rate({m.S3_DURATION}_bucket[$__rate_interval])))"


def _stat(title: str, expr: str, text: str) -> Panel:
    return Panel(title, "short", ((expr, ""),), text, is_stat=True)


_WORKER = "{{node}}/{{worker}}"

ROWS: tuple[Row, ...] = (
    Row(
        "Health",
        (
            _stat(
                "Groups without majority", f"max({m.GROUPS_LOST})", "They can be neither read nor written."
            ),
            _stat("Groups degraded", f"max({m.GROUPS_DEGRADED})", "They lack a plane."),
            _stat("Workers silent", f"count({_of_worker(m.WORKER_UP)} == 0) or vector(0)", "No answer."),
            _stat("Nodes absent", f"count(max by (node)({m.NODE_UP}) == 0) or vector(0)", "No lease."),
            _stat("Bad copies", f'sum(max by (node, worker)({m.BAD}{{where="here"}}))', "By scrubs."),
            _stat(
                "Control store away", f"1 - max({m.CONTROL_UP})", "1: reads and writes go on, nothing else."
            ),
        ),
    ),
    Row(
        "S3",
        (
            Panel(
                "Requests", "reqps", ((f"sum by (op)(rate({m.S3_REQUESTS}[$__rate_interval]))", "{{op}}"),)
            ),
            Panel(
                "Duration",
                "s",
                ((_percentile(0.5), "p50"), (_percentile(0.99), "p99"), (_percentile(0.999), "p99.9")),
                "From the headers of a request to the last byte of its answer.",
            ),
            Panel(
                "Errors", "reqps", ((f"sum by (error)(rate({m.S3_ERRORS}[$__rate_interval]))", "{{error}}"),)
            ),
            Panel(
                "Bytes",
                "Bps",
                (
                    (f"sum(rate({m.S3_RECEIVED}[$__rate_interval]))", "received"),
                    (f"sum(rate({m.S3_SENT}[$__rate_interval]))", "sent"),
                ),
            ),
            Panel(
                "Parts of large objects read",
                "ops",
                ((f"sum by (source)(rate({m.S3_BLOBS}[$__rate_interval]))", "{{source}}"),),
                "Kept in the gateway's memory, shared with another request's fetch, or fetched from a node.",
            ),
            Panel("Parts in memory", "bytes", ((f"sum by (instance)({m.S3_KEPT})", "{{instance}}"),)),
            Panel("In flight", "short", ((f"sum by (instance)({m.S3_IN_FLIGHT})", "{{instance}}"),)),
            Panel(
                "Connections by the front plane's rule",
                "cps",
                ((f"sum by (verdict)(rate({m.FRONT_CONNECTIONS}[$__rate_interval]))", "{{verdict}}"),),
            ),
        ),
    ),
    Row(
        "Workers",
        (
            Panel("Requests", "reqps", ((_rate(m.REQUESTS, "node", "worker"), _WORKER),)),
            Panel("Requests by kind", "reqps", ((_rate(m.REQUESTS, "op"), "{{op}}"),)),
            Panel("Answers other than OK", "reqps", ((_rate(m.REFUSALS, "status"), "{{status}}"),)),
            Panel("CPU", "percentunit", ((_rate(m.WORKER_CPU, "node", "worker"), _WORKER),)),
            Panel("Connections", "short", ((_of_worker(m.CONNECTIONS), _WORKER),)),
            Panel("Slices", "short", ((_of_worker(m.SLICES), _WORKER),)),
            Panel("Connections by the rule", "cps", ((_rate(m.VERDICTS, "verdict"), "{{verdict}}"),)),
            Panel(
                "Denied and broken connections",
                "cps",
                (
                    (_rate(m.DENIED, "node"), "{{node}} denied"),
                    (_rate(m.PEER_ERRORS, "node"), "{{node}} broken"),
                ),
            ),
        ),
    ),
    Row(
        "Store",
        (
            Panel("Stored", "bytes", ((_of_worker(m.STORED), _WORKER),)),
            Panel(
                "Map in use",
                "percentunit",
                ((f"max by (node, worker)({m.STORED} / {m.STORE_LIMIT})", _WORKER),),
            ),
            Panel("Disk free", "bytes", ((f"min by (node)({m.DISK_FREE})", "{{node}}"),)),
            Panel("Records", "short", ((_of_worker(m.RECORDS), _WORKER),)),
            Panel(
                "Time until a batch is durable",
                "s",
                ((f"{_rate_of_worker(m.LOG_SECONDS)} / {_rate_of_worker(m.LOG_WRITES)}", _WORKER),),
                "What every write waits for.",
            ),
            Panel(
                "Log",
                "short",
                ((_of_worker(m.LOGGED), _WORKER),),
                "Records that are not in LMDB yet: they would be read again at a start.",
            ),
            Panel(
                "Checkpoints and direct commits",
                "ops",
                (
                    (_rate(m.CHECKPOINTS, "node"), "{{node}} checkpoints"),
                    (_rate(m.DIRECT, "node"), "{{node}} direct"),
                ),
            ),
        ),
    ),
    Row(
        "Moves, recovery, scrub",
        (
            Panel(
                "Slices on their way",
                "short",
                ((f"sum({_of_worker(m.COMING)})", "coming"), (f"sum({_of_worker(m.GOING)})", "going")),
            ),
            Panel("Taken over", "Bps", ((_rate(m.TAKEN_BYTES, "node"), "{{node}}"),)),
            Panel(
                "Slices that do not vote",
                "short",
                ((_of_worker(m.SILENT), _WORKER), (_of_worker(m.TO_RECOVER), f"{_WORKER} to recover")),
            ),
            Panel("Rebuilt", "Bps", ((_rate(m.RECOVERED_BYTES, "node"), "{{node}}"),)),
            Panel("Repaired copies", "ops", ((_rate(m.REPAIRED, "node"), "{{node}}"),)),
            Panel(
                "Age of the last scrub",
                "s",
                ((f"max by (node, worker)(time() - ({m.SCRUBBED_AT} > 0))", _WORKER),),
            ),
        ),
    ),
    Row(
        "Gateways",
        (
            Panel("CPU", "percentunit", ((f"rate({m.CPU}[$__rate_interval])", "{{instance}}"),)),
            Panel("Resident memory", "bytes", ((str(m.RESIDENT), "{{instance}}"),)),
            Panel("Open files", "short", ((str(m.DESCRIPTORS), "{{instance}}"),)),
            Panel(
                "Share of the front plane",
                "percentunit",
                ((f"max by (gateway)({m.FRONT_SHARE})", "{{gateway}}"),),
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """For import in Grafana, 10 or later."""
    return {
        "title": "ssastore",
        "uid": "ssastore",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "tags": ["ssastore"],
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
            ]
        },
        "panels": list(_placed()),
    }


def _placed() -> Iterator[dict[str, Any]]:
    y = number = 0
    for row in ROWS:
        number += 1
        place = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "gridPos": place,
            "panels": [],
            "collapsed": False,
        }
        y += 1
        in_line = len(row.panels) if row.panels[0].is_stat else 3
        height = _STAT_HEIGHT if row.panels[0].is_stat else _GRAPH_HEIGHT
        for at, panel in enumerate(row.panels):
            number += 1
            width = _WIDTH // in_line
            place = {"x": at % in_line * width, "y": y + at // in_line * height, "w": width, "h": height}
            yield {"id": number, "gridPos": place, **_drawn(panel)}
        y += -(-len(row.panels) // in_line) * height


def _drawn(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
        for at, (expr, legend) in enumerate(panel.queries)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom"}}
    if panel.is_stat:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}}
        options = {"colorMode": "background", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return {
        "type": "stat" if panel.is_stat else "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def expressions() -> list[str]:
    """All queries of the dashboard."""
    return [expr for row in ROWS for panel in row.panels for expr, _ in panel.queries]
