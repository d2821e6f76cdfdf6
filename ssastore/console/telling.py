"""What a page is told of the nodes' own reports: figures, routes, heat, what was verified. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssastore.console.cells import Heat, verified
from ssastore.console.truth import Truth, Wanted
from ssastore.core.clusterview import ClusterView

_PREFIXES_TOLD = 24
"Of one node; the rest is a number."


class Teller:
    """Of one gateway: some of it is about what has changed since the last time."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._heat = Heat()
        self._wanted, self._truth = Wanted(), Truth()

    def tell(self, report: Mapping[str, Any], now_ms: int, now_s: float) -> dict[str, Any]:
        """``report``: the full one of ``admin.ClusterWatch``. ``now_s``: of a clock that only goes on."""
        view, nodes = self._view, {node["name"]: node for node in report["nodes"]}
        self._heat.take(report, now_s)
        wanted = self._wanted.of(sorted(view.nodes), view.groups, view.record.networks)

        def seen(name: str) -> tuple[bool, Mapping[str, Any] | None]:
            workers = nodes[name]["workers"] if name in nodes else []
            bulk = workers[0].get("bulk") if workers else None
            return (bulk is not None, bulk["routes"] if bulk else None)

        return {
            "coordinator": report["coordinator"],
            "nodes": [condensed(node) for node in report["nodes"]],
            "network": self._truth.look(wanted, seen, now_ms),
            "heat": self._heat.describe(),
            "verified": verified(report, now_ms),
        }


def condensed(node: Mapping[str, Any]) -> dict[str, Any]:
    """Of a node in a status report what the page shows."""
    workers = node["workers"]
    prefixes = node["prefixes"]

    def total(name: str, part: str = "") -> int:
        return sum((worker.get(part, {}) if part else worker).get(name, 0) for worker in workers)

    return {
        "name": node["name"],
        "address": node["address"],
        "slices": node["slices"],
        "prefixes": prefixes[:_PREFIXES_TOLD],
        "prefixes_left": max(0, len(prefixes) - _PREFIXES_TOLD),
        "alive": node.get("alive"),
        "says": node.get("says", ""),
        "workers": [bool(worker["ok"]) for worker in workers],
        "silent": sorted({worker.get("error", "another answers") for worker in workers if not worker["ok"]}),
        "not_voting": sum(sum(worker.get("silent", {}).values()) for worker in workers),
        "records": total("records"),
        "used_bytes": total("used_bytes"),
        "limit_bytes": total("limit_bytes"),
        "connections": total("connections"),
        "cpu_s": round(total("cpu_s"), 2),
        "coming": total("coming", "moves"),
        "going": total("going", "moves"),
        "moved_bytes": total("bytes", "moves"),
        "waiting": sorted({found for worker in workers if (found := worker.get("moves", {}).get("waiting"))}),
        "paused": any(worker.get("moves", {}).get("paused") for worker in workers),
        "scrub": [_scrub(worker) for worker in workers if not worker.get("idle")],
    }


def _scrub(worker: Mapping[str, Any]) -> dict[str, Any]:
    """A worker that does not answer has verified nothing."""
    found = worker.get("scrub")
    if found is None:
        return {"health": "no answer", "left": 0, "repaired": 0, "share": None, "ended_ms": None}
    under_way, last = found["pass"], found["last"]
    return {
        "health": found["health"],
        "left": found["left"]["here"] + found["left"]["elsewhere"],
        "repaired": found["repaired"],
        "share": None if under_way is None else under_way["slices_done"] / max(1, under_way["slices"]),
        "ended_ms": None if last is None else last["ended_ms"],
    }
