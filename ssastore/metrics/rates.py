"""What happened between two status reports: rates, percentiles, and how full everything is. Pure."""

from __future__ import annotations

from typing import Any

from ssastore.metrics.histogram import quantile

Report = dict[str, Any]
Worker = tuple[str, int]
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def workers_by_name(report: Report) -> dict[Worker, dict[str, Any]]:
    """All workers, whether they answer or not."""
    return {(node["name"], found["worker"]): found for node in report["nodes"] for found in node["workers"]}


def has_figures(worker: dict[str, Any]) -> bool:
    """Whether it answered, and had something to be asked for."""
    return bool(worker["ok"]) and not worker.get("idle")


def rates(before: Report, after: Report, seconds: float) -> dict[str, Any]:
    """For ``ssastore top``: of the gateway that was asked, and of every worker.

    Who did not answer at both times, or began anew in between, has no rates.
    """
    earlier = workers_by_name(before)
    return {
        "schema": "ssastore.top/1",
        "seconds": round(seconds, 3),
        "ready": after["ready"],
        "coordinator": after["coordinator"],
        "gateway": _of_gateway(before.get("gateway"), after["gateway"], seconds),
        "workers": [
            {"node": name, "worker": at, **_of_worker(earlier.get((name, at)), found, seconds)}
            for (name, at), found in workers_by_name(after).items()
        ],
    }


def _of_gateway(before: Report | None, after: Report, seconds: float) -> dict[str, Any]:
    if before is None or before["requests"] > after["requests"]:
        before = None
    rises = {
        f"{name}_per_s": None if before is None else (after[name] - before[name]) / seconds
        for name in ("requests", "failures", "received_bytes", "sent_bytes")
    }
    counts = after["durations"]
    if before is not None:
        counts = [now - then for then, now in zip(before["durations"], counts, strict=True)]
    return {
        **rises,
        "in_flight": after["in_flight"],
        **{name: quantile(counts, share) for name, share in SHARES.items()},
    }


def _of_worker(before: Report | None, after: Report, seconds: float) -> dict[str, Any]:
    if not has_figures(after):
        return {"ok": after["ok"], "idle": bool(after.get("idle")), "error": after.get("error", "")}
    moves, log = after["moves"], after.get("log")
    found: dict[str, Any] = {
        "ok": True,
        "idle": False,
        "slices": after["slices"],
        "silent": sum(after["silent"].values()),
        "connections": after["connections"],
        "records": after["records"],
        "stored_bytes": after["used_bytes"],
        "full": after["used_bytes"] / after["limit_bytes"],
        "coming": moves["coming"],
        "going": moves["going"],
        "to_recover": after["recovery"]["left"],
        "bad_copies": after["scrub"]["left"]["here"],
        "health": after["scrub"]["health"],
        **dict.fromkeys(("requests_per_s", "cpu", "taken_bytes_per_s", "log_write_s")),
    }
    if before is None or not has_figures(before) or before["uptime_s"] > after["uptime_s"]:
        return found
    found["requests_per_s"] = _risen(
        sum(before["requests"].values()), sum(after["requests"].values()), seconds
    )
    found["cpu"] = _risen(before["cpu_s"], after["cpu_s"], seconds)
    found["taken_bytes_per_s"] = _risen(before["moves"]["bytes"], moves["bytes"], seconds)
    if log and before.get("log") and (writes := log["writes"] - before["log"]["writes"]) > 0:
        found["log_write_s"] = (log["write_s"] - before["log"]["write_s"]) / writes
    return found


def _risen(before: float, after: float, seconds: float) -> float:
    return (after - before) / seconds
