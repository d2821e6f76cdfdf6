"""Health, status and metrics of a cluster, as a gateway sees it: JSON and Prometheus text over HTTP.

/livez     this process answers
/readyz    every worker of every node answers at an address of its own; one that has none has a lease
/status    the same with figures
/metrics   the gateway's counters
/scrub     POST: every worker begins a scrub pass; /status says how far it is
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgpack
from aiohttp import web

from ssastore.core.cluster import Cluster, NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.election import coordinator_of
from ssastore.core.front import UNITS
from ssastore.core.frontview import FrontView
from ssastore.core.membership import Presence, read_presence
from ssastore.core.planner import owned_slices
from ssastore.env import ControlStore, Links, Randomness
from ssastore.errors import SsaStoreError
from ssastore.keyspace import minimal_cover
from ssastore.messages import Report, StartScrub
from ssastore.probing import ASK_MS, Prober, worker_iids
from ssastore.rules.verdict import Verdict
from ssastore.transport.connection import Identity


class ClusterWatch:
    """Asks every worker of every node, each at a slice address that it should serve, and who has a lease."""

    def __init__(
        self,
        view: ClusterView,
        control: ControlStore,
        identity: Identity,
        links: Links,
        randomness: Randomness,
        front: FrontView,
    ) -> None:
        self._view = view
        self._control = control
        self._prober = Prober(view, identity, links, randomness)
        self._front = front

    async def close(self) -> None:
        """Close the connections."""
        await self._prober.close()

    async def report(self) -> dict[str, Any]:
        """What every node says; ``ready`` is true when all workers answered as themselves."""
        cluster = self._view.cluster()
        (presence, coordinator), *nodes = await asyncio.gather(
            self._presence(), *[self._node(node, cluster) for node in cluster.nodes]
        )
        for node in nodes:
            _add_presence(node, presence)
        missing = [f"{n['name']} worker {w['worker']}" for n in nodes for w in n["workers"] if not w["ok"]]
        record = cluster.record
        return {
            "schema": "ssastore.status/1",
            "ready": not missing,
            "reason": f"no answer from {', '.join(missing)}" if missing else "",
            "cluster_id": record.cluster_id,
            "service": record.service,
            "renumbering": None if record.other is None else asdict(record.other),
            "replicas": record.replicas,
            "coordinator": coordinator,
            "nodes": nodes,
            "front": front_report(self._front),
        }

    async def _presence(self) -> tuple[Presence | None, str | None]:
        """Who has a lease, and which node coordinates; None when the control store does not say: then nobody
        is missed for that."""
        try:
            async with asyncio.timeout(ASK_MS / 1000):
                return await read_presence(self._control), await coordinator_of(self._control)
        except (SsaStoreError, TimeoutError, OSError):
            return None, None

    async def start_scrub(self) -> dict[str, Any]:
        """Have every worker begin a scrub pass: its number at each, and who did not answer."""
        cluster = self._view.cluster()
        wanted = [
            (node.name, index, iid)
            for node in cluster.nodes
            for index, iid in sorted(worker_iids(cluster, node).items())
        ]
        begun = await asyncio.gather(*[self._begin_scrub(iid) for *_, iid in wanted])
        numbers = {f"{name} worker {at}": number for (name, at, _), number in zip(wanted, begun, strict=True)}
        return {
            "schema": "ssastore.scrub/1",
            "cluster_id": cluster.record.cluster_id,
            "passes": {worker: number for worker, number in numbers.items() if number},
            "silent": [worker for worker, number in numbers.items() if not number],
        }

    async def _begin_scrub(self, iid: int) -> int:
        """The number of the pass; 0 when the worker does not answer."""
        try:
            header, _ = await self._prober.ask(StartScrub(iid))
        except SsaStoreError:
            return 0
        number = header[2]
        return number if type(number) is int else 0

    async def _node(self, record: NodeRecord, cluster: Cluster) -> dict[str, Any]:
        name, network = record.name, cluster.record.network
        slices = owned_slices(cluster.groups, name)
        iids = worker_iids(cluster, record)
        asked = await asyncio.gather(
            *[self._worker(name, index, iids.get(index)) for index in range(record.workers)]
        )
        return {
            "name": name,
            "address": record.address,
            "slices": len(slices),
            "prefixes": [str(piece.network(network)) for piece in minimal_cover(slices)],
            "workers": asked,
        }

    async def _worker(self, name: str, index: int, iid: int | None) -> dict[str, Any]:
        if iid is None:
            return {"worker": index, "ok": True, "idle": True}
        try:
            _, body = await self._prober.ask(Report(iid))
            found = msgpack.unpackb(body, strict_map_key=False)
        except SsaStoreError as error:
            return {"worker": index, "ok": False, "error": str(error)}
        is_itself = found.get("node") == name and found.get("worker") == index
        return {**found, "ok": is_itself}


def _add_presence(node: dict[str, Any], presence: Presence | None) -> None:
    """To what a node says of itself; who owns nothing has no address to be asked at, so its lease decides."""
    name = node["name"]
    node["alive"] = None if presence is None else name in presence.alive
    if presence is None:
        return
    if (alive := presence.alive.get(name)) is not None:
        node["since_ms"] = alive.since_ms
        return
    if (absent := presence.absent.get(name)) is not None:
        node |= {"since_ms": absent.since_ms, "says": absent.says}
    for worker in node["workers"]:
        if worker.get("idle"):
            worker |= {"ok": False, "error": "no sign of life"}


def front_report(view: FrontView) -> dict[str, Any]:
    """Who owns which part of the front plane; ``share`` is what routers send to a gateway, of 1."""
    front, network = view.front, view.record.network
    return {
        "epoch": front.epoch,
        "gateways": [
            {
                "name": name,
                "address": gate.address,
                "weight": gate.weight,
                "leaves": gate.leaves,
                "share": round(
                    sum(arc.end - arc.first for arc in front.arcs if arc.owner == name) / UNITS, 4
                ),
                "gives": sum(arc.owner == name and bool(arc.target) for arc in front.arcs),
                "takes": sum(arc.target == name for arc in front.arcs),
                "prefixes": [str(piece.network(network)) for piece in front.slices_of(name)],
            }
            for name, gate in sorted(view.gates.items())
        ],
    }


@dataclass(frozen=True, slots=True)
class Counters:
    """What a gateway counts."""

    requests: Callable[[], Mapping[tuple[str, int], int]]
    "By operation and HTTP status."
    verdicts: Callable[[], Mapping[Verdict, int]]
    "On connections, by the rule of the front plane."


def admin_server(watch: ClusterWatch, counters: Counters) -> web.Server:
    """The protocol factory for ``loop.create_server``."""

    async def handle(http: web.BaseRequest) -> web.StreamResponse:
        if (http.method, http.path) == ("POST", "/scrub"):
            return web.json_response(await watch.start_scrub())
        if http.method not in ("GET", "HEAD"):
            return web.Response(status=405)
        if http.path == "/livez":
            return web.json_response({"alive": True})
        if http.path in ("/readyz", "/status"):
            report = await watch.report()
            is_refused = http.path == "/readyz" and not report["ready"]
            return web.json_response(report, status=503 if is_refused else 200)
        if http.path == "/metrics":
            return web.Response(text=_metrics(counters), content_type="text/plain")
        return web.Response(status=404)

    return web.Server(handle, access_log=None)


def _metrics(counters: Counters) -> str:
    lines = [
        "# HELP ssastore_s3_requests_total S3 requests answered, by operation and HTTP status.",
        "# TYPE ssastore_s3_requests_total counter",
    ]
    for (name, status), count in sorted(counters.requests().items()):
        lines.append(f'ssastore_s3_requests_total{{op="{name}",code="{status}"}} {count}')
    lines += [
        "# HELP ssastore_front_connections_total Connections by the verdict of the front plane's rule.",
        "# TYPE ssastore_front_connections_total counter",
    ]
    for verdict, count in sorted(counters.verdicts().items()):
        lines.append(f'ssastore_front_connections_total{{verdict="{verdict}"}} {count}')
    return "\n".join(lines) + "\n"
