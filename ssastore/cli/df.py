"""``df``: what is stored, what there is room for, and when that is full."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ssastore.cli.control import with_control
from ssastore.cli.sizes import size

if TYPE_CHECKING:
    from ssastore.core.cluster import Cluster
    from ssastore.core.usage import Growth, Usable, UsageHistory
    from ssastore.env import ControlStore

_DAYS_MAX = 3650
"Beyond that a forecast says nothing."


@click.command("df")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def df_command(context: str | None, as_json: bool) -> int:
    """Bytes and objects of every node, what users can still store, and when the cluster is full.

    Of nodes every copy counts, of the cluster each byte and object once. It is full when the first worker
    or disk is. The forecast is a line through what the coordinator has noted every hour of the last two
    weeks; there is none before the notes are of a day. Objects are those of each worker's last scrub.
    """
    from ssastore.core.usage import USAGE_KEY, UsageHistory, growth_of
    from ssastore.lab.context import find
    from ssastore.lab.status import fetch
    from ssastore.rebalance import read_cluster

    found = find(context)
    _, report = fetch(found.admin_port, "/status")

    async def read(control: ControlStore) -> tuple[Cluster, UsageHistory]:
        return await read_cluster(control), UsageHistory.of(await control.get(USAGE_KEY))

    cluster, history = with_control(found, read)
    nodes = [_node(node) for node in report["nodes"]]
    room, growth = _usable(report, cluster), growth_of(history)
    full_in_days = None
    if room is not None and growth is not None and growth.bytes_per_day > 0:
        full_in_days = room.free_bytes / growth.bytes_per_day
    shown = {
        "replicas": cluster.record.replicas,
        "nodes": nodes,
        "objects": _objects(nodes, cluster),
        "usable": None if room is None else room._asdict(),
        "growth": None if growth is None else growth._asdict(),
        "full_in_days": full_in_days,
    }
    if as_json:
        print(json.dumps(shown))
        return 0
    print(
        f"{'node':12} {'workers':>7} {'objects':>10} {'records':>10} {'stored':>10} {'free':>10} {'full':>7}"
    )
    for node in nodes:
        print(_row(node))
    print(_cluster_line(shown, room))
    print(_forecast(history, growth, full_in_days))
    return 0


def _node(node: dict[str, Any]) -> dict[str, Any]:
    """The figures of all workers of a node that own something; None where one does not tell, or none does."""
    workers = [worker for worker in node["workers"] if not worker.get("idle")]
    is_told = bool(workers) and all(worker["ok"] for worker in workers)
    lasts = [worker["scrub"]["last"] for worker in workers] if is_told else []
    is_scrubbed = is_told and all(last is not None for last in lasts)
    figures: dict[str, Any] = dict.fromkeys(("records", "used_bytes", "free_bytes", "objects"))
    if is_told:
        figures["records"] = sum(worker["records"] for worker in workers)
        figures["used_bytes"] = sum(worker["used_bytes"] for worker in workers)
        figures["free_bytes"] = _free(workers)
    if is_scrubbed:
        figures["objects"] = sum(last["objects"] for last in lasts)
    return {
        "name": node["name"],
        "workers": len(node["workers"]),
        "owns_nothing": node["slices"] == 0,
        **figures,
    }


def _free(workers: list[dict[str, Any]]) -> int:
    """What a node can still take: its workers have maps of their own, and one disk."""
    from ssastore.limits import DISK_RESERVE_BYTES

    maps = sum(max(0, worker["limit_bytes"] - worker["used_bytes"]) for worker in workers)
    disk = min(worker["disk_free_bytes"] for worker in workers) - DISK_RESERVE_BYTES
    free: int = max(0, min(maps, disk))
    return free


def _usable(report: dict[str, Any], cluster: Cluster) -> Usable | None:
    """Of the cluster; None when a worker that owns something does not answer."""
    from ssastore.core.usage import Fill, shares_of, usable

    fills = {
        (node["name"], worker["worker"]): Fill(
            worker["used_bytes"], worker["limit_bytes"], worker["disk_free_bytes"]
        )
        for node in report["nodes"]
        for worker in node["workers"]
        if worker["ok"] and not worker.get("idle")
    }
    shares = shares_of(cluster)
    return usable(fills, shares) if shares.keys() <= fills.keys() else None


def _objects(nodes: list[dict[str, Any]], cluster: Cluster) -> int | None:
    """Each counted once, as many copies as there are; None when a node that owns something does not tell."""
    found = [node["objects"] for node in nodes if not node["owns_nothing"]]
    planes = sum(len(record.planes) for record in cluster.groups)
    return None if None in found else round(sum(found) * len(cluster.groups) / planes)


def _row(node: dict[str, Any]) -> str:
    name, used, free = f"{node['name']:12} {node['workers']:7}", node["used_bytes"], node["free_bytes"]
    if used is None:
        return f"{name}  {'owns nothing' if node['owns_nothing'] else 'does not answer'}"
    objects = "-" if node["objects"] is None else node["objects"]
    share = f"{100 * used / max(1, used + free):.1f} %"
    return f"{name} {objects:>10} {node['records']:>10} {size(used):>10} {size(free):>10} {share:>7}"


def _cluster_line(shown: dict[str, Any], room: Usable | None) -> str:
    if room is None:
        return "cluster: not all workers answer, so nobody can tell what there is room for"
    objects = "" if shown["objects"] is None else f"{shown['objects']} objects, "
    until = f"; then {room.first_full} is full" if room.first_full else ""
    return (
        f"cluster, with {shown['replicas']} replicas: {objects}{size(room.used_bytes)} stored, "
        f"room for {size(room.free_bytes)} more{until}"
    )


def _forecast(history: UsageHistory, growth: Growth | None, full_in_days: float | None) -> str:
    if growth is None:
        return f"no forecast: it needs notes of a day at least, and there are {len(history.notes)} so far"
    since = f"the growth of the last {growth.days:.0f} days, {size(growth.bytes_per_day)} a day"
    if full_in_days is None or full_in_days > _DAYS_MAX:
        return f"not full within ten years at {since} ({growth.notes} notes of the coordinator)"
    return f"full in about {full_in_days:.0f} days at {since} ({growth.notes} notes of the coordinator)"
