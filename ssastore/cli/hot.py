"""``plan --hot`` and ``--largest``: what the nodes say of their slices, and the move that evens it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssastore.core.cluster import Cluster
    from ssastore.core.cooling import Cooling, HeavySlice

_SAMPLES_MIN = 60
"Of the hottest node: with fewer the hottest slice is a matter of luck."


def hottest(cluster: Cluster, before: dict[str, Any], after: dict[str, Any], seconds: float) -> Cooling:
    """By calls a second between two reports. ConfigError: nobody can tell, or nothing is to be gained."""
    from ssastore.core.cooling import cool, heavy_slice
    from ssastore.errors import ConfigError

    earlier = _workers(before)
    loads: dict[str, float] = dict.fromkeys((node.name for node in cluster.nodes), 0.0)
    heavy: dict[str, list[HeavySlice]] = {name: [] for name in loads}
    samples = dict.fromkeys(loads, 0)
    for key, worker in _workers(after).items():
        heat, calls = worker["heat"], earlier.get(key, worker)["heat"]["calls"]
        rate = max(0, heat["calls"] - calls) / seconds
        loads[key[0]] += rate
        samples[key[0]] += heat["samples"]
        heavy[key[0]] += [heavy_slice(told, rate / max(1, heat["samples"])) for told in heat["slices"]]
    most = max(sorted(loads), key=lambda name: loads[name])
    if samples[most] < _SAMPLES_MIN:
        raise ConfigError(f"{most} has most calls, {loads[most]:.0f} a second: too few to tell where they go")
    return cool(cluster, loads, {name: sorted(found, key=lambda s: -s.load) for name, found in heavy.items()})


def largest(cluster: Cluster, report: dict[str, Any]) -> Cooling:
    """By bytes, as the last scrubs have read them. ConfigError: as of ``hottest``."""
    from ssastore.core.cooling import cool, heavy_slice
    from ssastore.errors import ConfigError

    loads: dict[str, float] = dict.fromkeys((node.name for node in cluster.nodes), 0.0)
    heavy: dict[str, list[HeavySlice]] = {name: [] for name in loads}
    for (name, _), worker in _workers(report).items():
        loads[name] += worker["used_bytes"]
        heavy[name] += [heavy_slice(told, 1.0) for told in worker["largest"]]
    if not any(heavy.values()):
        raise ConfigError("no worker has ended a scrub that found anything: ssastore scrub --wait")
    return cool(cluster, loads, {name: sorted(found, key=lambda s: -s.load) for name, found in heavy.items()})


def cores(before: dict[str, Any], after: dict[str, Any], seconds: float, node: str) -> float:
    """CPU time that a node's workers took between two reports, in cores."""
    earlier = _workers(before)
    used = [
        float(worker["cpu_s"] - earlier[key]["cpu_s"])
        for key, worker in _workers(after).items()
        if key[0] == node and key in earlier
    ]
    return sum(max(0.0, taken) for taken in used) / seconds


def watched(admin_port: int, seconds: float) -> tuple[dict[str, Any], dict[str, Any], float]:
    """Two reports, and the time between them. Raises Unavailable."""
    from ssastore.lab.status import fetch

    _, before = fetch(admin_port, "/status")
    began_s = time.monotonic()
    time.sleep(seconds)
    _, after = fetch(admin_port, "/status")
    return before, after, time.monotonic() - began_s


def _workers(report: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """All that own something. Unavailable: one of them does not answer."""
    from ssastore.errors import Unavailable

    found = {}
    for node in report["nodes"]:
        for worker in node["workers"]:
            if not worker["ok"] and node["slices"]:
                raise Unavailable(
                    f"{node['name']} worker {worker['worker']} does not answer: what has it to do?"
                )
            if worker["ok"] and not worker.get("idle"):
                found[node["name"], worker["worker"]] = worker
    return found
