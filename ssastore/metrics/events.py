"""What has changed between two status reports, as events with a name and fields. Pure.

A report is asked for every second or so: what begins and ends between two of them is not seen, but for the
counters, which tell that it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ssastore.metrics.rates import Report, Worker, has_figures, workers_by_name

QUIET_S = 10.0
"Without a slice on its way: so much later it is said that all have moved."

Event = dict[str, Any]
"``event`` is its name, in the past tense as in logs; the rest are its fields."


def began(report: Report) -> Event:
    """The first one: who is there."""
    return {
        "event": "watch.began",
        "ready": report["ready"],
        "coordinator": report["coordinator"],
        "nodes": [node["name"] for node in report["nodes"]],
    }


def events(before: Report, after: Report) -> Iterator[Event]:
    """In the order of nodes and workers."""
    yield from _of_cluster(before, after)
    nodes = {node["name"]: node for node in before["nodes"]}
    for node in after["nodes"]:
        if (known := nodes.pop(node["name"], None)) is None:
            yield {"event": "node.added", "node": node["name"]}
        elif known["alive"] is not node["alive"] and None not in (known["alive"], node["alive"]):
            yield {"event": "node.up" if node["alive"] else "node.down", "node": node["name"]}
    for name in nodes:
        yield {"event": "node.removed", "node": name}
    earlier = workers_by_name(before)
    for worker, found in workers_by_name(after).items():
        if (was := earlier.get(worker)) is not None:
            yield from _of_worker(worker, was, found)


def _of_cluster(before: Report, after: Report) -> Iterator[Event]:
    if before["coordinator"] != after["coordinator"]:
        yield {"event": "coordinator.changed", "node": after["coordinator"]}
    for name in ("service", "replicas"):
        if before[name] != after[name]:
            yield {"event": f"{name}.changed", name: after[name]}


class Moves:
    """When slices begin to move, and when they have: between two batches none is on its way for a moment."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._moved_s = 0.0
        self._taken = 0

    def note(self, before: Report, after: Report, now_s: float) -> Iterator[Event]:
        """Two reports, and the time of the second, in seconds on any clock that only goes on."""
        earlier = workers_by_name(before)
        taken = sum(
            max(0, found["moves"]["done"] - was["moves"]["done"])
            for worker, found in workers_by_name(after).items()
            if (was := earlier.get(worker)) is not None and has_figures(was) and has_figures(found)
        )
        coming = _slices_moving(after)
        self._taken += taken
        if taken or coming:
            self._moved_s = now_s
            if self._began_s is None:
                self._began_s = now_s
                yield {"event": "moves.began", "slices": coming}
        elif self._began_s is not None and after["ready"] and now_s - self._moved_s >= QUIET_S:
            seconds = round(self._moved_s - self._began_s, 1)
            yield {"event": "moves.ended", "slices": self._taken, "seconds": seconds}
            self._began_s, self._taken = None, 0


def _slices_moving(report: Report) -> int:
    found = workers_by_name(report).values()
    return sum(worker["moves"]["coming"] for worker in found if has_figures(worker))


def _of_worker(worker: Worker, before: Report, after: Report) -> Iterator[Event]:
    who = {"node": worker[0], "worker": worker[1]}
    if before["ok"] != after["ok"]:
        yield {"event": "worker.answered"} | who if after["ok"] else {
            "event": "worker.silent", **who, "reason": after.get("error", "")
        }  # fmt: skip
    if not (has_figures(before) and has_figures(after)):
        return
    if after["uptime_s"] < before["uptime_s"]:
        yield {"event": "worker.started", **who}
        return
    silent, still_silent = sum(before["silent"].values()), sum(after["silent"].values())
    if silent != still_silent:
        yield {"event": "slices.silent", **who, "slices": still_silent, "states": after["silent"]}
    if (taken := after["moves"]["done"] - before["moves"]["done"]) > 0:
        yield {"event": "slices.taken", **who, "slices": taken}
    if before["moves"]["paused"] != after["moves"]["paused"]:
        yield {"event": "moves.paused" if after["moves"]["paused"] else "moves.resumed", **who}
    if (rebuilt := after["recovery"]["done"] - before["recovery"]["done"]) > 0:
        yield {"event": "slices.rebuilt", **who, "slices": rebuilt, "left": after["recovery"]["left"]}
    yield from _of_scrub(who, before["scrub"], after["scrub"])


def _of_scrub(who: dict[str, Any], before: Report, after: Report) -> Iterator[Event]:
    bad, still_bad = before["left"]["here"], after["left"]["here"]
    if still_bad > bad:
        yield {"event": "scrub.found", **who, "bad_copies": still_bad}
    elif bad and not still_bad:
        yield {"event": "scrub.mended", **who}
    if (repaired := after["repaired"] - before["repaired"]) > 0:
        yield {"event": "copies.repaired", **who, "copies": repaired}
    last, newest = before["last"], after["last"]
    if newest and (last is None or newest["number"] > last["number"]):
        yield {"event": "scrub.ended", **who, "health": after["health"], "records": newest["records"]}
