"""What a status report says, as samples: of the cluster, its nodes and their workers.

The report is what ``admin.ClusterWatch`` makes of the answers to one Report a worker: a scrape costs a node
what ``ssastore status`` does, and a request nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ssastore.core.majorities import Majorities
from ssastore.messages import REQUESTS, Status
from ssastore.metrics import declared as m
from ssastore.metrics.text import Metric

Sample = tuple[Metric, float, tuple[object, ...]]
"Metric, value, values of its labels."

_HEALTHY = "healthy"

_FIGURES: tuple[tuple[Metric, Callable[[dict[str, Any]], float]], ...] = (
    (m.WORKER_UPTIME, lambda w: w["uptime_s"]),
    (m.WORKER_CPU, lambda w: w["cpu_s"]),
    (m.SLICES, lambda w: w["slices"]),
    (m.SILENT, lambda w: sum(w["silent"].values())),
    (m.CONNECTIONS, lambda w: w["connections"]),
    (m.ACCEPTED, lambda w: w["accepted"]),
    (m.DENIED, lambda w: w["denied"]),
    (m.PEER_ERRORS, lambda w: w["peer_errors"]),
    (m.RECORDS, lambda w: w["records"]),
    (m.STORED, lambda w: w["used_bytes"]),
    (m.STORE_LIMIT, lambda w: w["limit_bytes"]),
    (m.DISK_FREE, lambda w: w["disk_free_bytes"]),
    (m.LOGGED, lambda w: w["log"]["records"]),
    (m.LOG_WRITES, lambda w: w["log"]["writes"]),
    (m.LOG_SECONDS, lambda w: w["log"]["write_s"]),
    (m.CHECKPOINTS, lambda w: w["log"]["checkpoints"]),
    (m.DIRECT, lambda w: w["log"]["direct"]),
    (m.COMING, lambda w: w["moves"]["coming"]),
    (m.GOING, lambda w: w["moves"]["going"]),
    (m.TAKEN, lambda w: w["moves"]["done"]),
    (m.TAKEN_BYTES, lambda w: w["moves"]["bytes"]),
    (m.PAUSED, lambda w: w["moves"]["paused"]),
    (m.TO_RECOVER, lambda w: w["recovery"]["left"]),
    (m.RECOVERED, lambda w: w["recovery"]["done"]),
    (m.RECOVERED_BYTES, lambda w: w["recovery"]["bytes"]),
    (m.REPAIRED, lambda w: w["scrub"]["repaired"]),
    (m.UNREPAIRED, lambda w: w["scrub"]["not_repaired"]),
    (m.SCRUBBING, lambda w: w["scrub"]["pass"] is not None),
    (m.SCRUBBED_AT, lambda w: w["scrub"]["last"]["ended_ms"] / 1000 if w["scrub"]["last"] else 0),
    (m.SCRUB_HEALTHY, lambda w: w["scrub"]["health"] == _HEALTHY),
)
"What is a number of the worker's. One of another version may lack it: then there is no such sample."

_COUNTS: tuple[tuple[Metric, Callable[[dict[str, Any]], dict[Any, int]], Callable[[Any], str]], ...] = (
    (m.REQUESTS, lambda w: w["requests"], lambda kind: REQUESTS[int(kind)].__name__),
    (m.REFUSALS, lambda w: w["refusals"], lambda status: Status(int(status)).name),
    (m.VERDICTS, lambda w: w["verdicts"], str),
    (m.BAD, lambda w: {where: w["scrub"]["left"][where] for where in ("here", "elsewhere")}, str),
)
"Metric, its counts, and what a key is called."


def cluster_samples(report: dict[str, Any], found: Majorities) -> Iterator[Sample]:
    """Of the cluster as a whole, then of each node."""
    coordinator = report["coordinator"]
    yield m.CONTROL_UP, coordinator is not None, ()
    if coordinator is not None:
        yield m.COORDINATED, bool(coordinator), ()
    yield m.REPLICAS, report["replicas"], ()
    yield m.GROUPS, found.parts, ()
    yield m.GROUPS_LOST, len(found.lost), ()
    yield m.GROUPS_DEGRADED, found.degraded, ()
    for gate in report["front"]["gateways"]:
        yield m.FRONT_SHARE, gate["share"], (gate["name"],)
    for node in report["nodes"]:
        if node["alive"] is not None:
            yield m.NODE_UP, node["alive"], (node["name"],)
        yield m.NODE_SLICES, node["slices"], (node["name"],)
        for worker in node["workers"]:
            yield from _of_worker(node["name"], worker)


def _of_worker(node: str, worker: dict[str, Any]) -> Iterator[Sample]:
    labels = (node, worker["worker"])
    yield m.WORKER_UP, worker["ok"], labels
    if not worker["ok"] or worker.get("idle"):
        return  # Of who owns nothing nothing is known but its lease.
    for metric, figure in _FIGURES:
        try:
            yield metric, figure(worker), labels
        except (KeyError, TypeError):
            continue
    for metric, counts, named in _COUNTS:
        try:
            samples = [(metric, count, (*labels, named(key))) for key, count in counts(worker).items()]
        except (KeyError, TypeError, ValueError):
            continue
        yield from samples
