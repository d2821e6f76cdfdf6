"""Health, status and metrics of a cluster, as a gateway sees it: JSON and Prometheus text over HTTP.

/livez             this process answers, by whichever name it is asked
/readyz            every worker of every node answers at an address of its own; one that has none has a lease.
                   With ?verbose a line for each check
/healthz/cluster   200 while every group has a majority of its planes, else 503. With ?without=NODE 412 when
                   that is so with the node alone
/status            what nodes say of themselves
/metrics           the gateway's counters, and those of all workers, for Prometheus (monitoring.md)
/scrub             POST, with the admin token: every worker begins a scrub pass; /status says how far it is

What answers for a method and path is a ``Handler`` in a table: ``admin_server`` joins tables, so that others
bring their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgpack
from aiohttp import web

from ssastore import __version__
from ssastore.core.blobcache import BlobCache
from ssastore.core.cluster import Cluster, NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.election import coordinator_of
from ssastore.core.front import UNITS
from ssastore.core.frontview import FrontView
from ssastore.core.majorities import Majorities, Planes, Worker, part_name
from ssastore.core.membership import Presence, read_presence
from ssastore.core.planner import owned_slices
from ssastore.env import ControlStore, Links, Randomness
from ssastore.errors import SsaStoreError
from ssastore.keyspace import ANY_TAIL, minimal_cover
from ssastore.messages import Report, StartScrub
from ssastore.metrics.page import metrics_page
from ssastore.metrics.requests import RequestCounts
from ssastore.metrics.text import CONTENT_TYPE
from ssastore.probing import ASK_MS, Prober, worker_iids
from ssastore.rules.verdict import Verdict
from ssastore.transport.connection import Identity

_LOST_NAMED = 16
"Groups without a majority that are named."


class _Owned:
    """What one node has by the records."""

    def __init__(self, record: NodeRecord, cluster: Cluster) -> None:
        slices, network = owned_slices(cluster.groups, record.name), cluster.record.network
        self.record = record
        self.slices = len(slices)
        self.prefixes = [str(piece.network(network)) for piece in minimal_cover(slices)]
        self.iids = worker_iids(cluster, record)
        "By worker, where it is asked."
        self.last_iids = {piece.lane % record.workers: piece.first | ANY_TAIL for piece in slices}
        "And where it is asked again: at the other end, because slices move from the first one on."


class _Layout:
    """What follows from the cluster's records alone: tens of milliseconds a node, so once for each change."""

    def __init__(self, view: ClusterView) -> None:
        cluster = view.cluster()
        self.changes = view.changes
        self.record = cluster.record
        self.nodes = {record.name: _Owned(record, cluster) for record in cluster.nodes}
        self.planes = Planes(cluster)


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
        self._known: _Layout | None = None

    async def close(self) -> None:
        """Close the connections."""
        await self._prober.close()

    def _layout(self) -> _Layout:
        if self._known is None or self._known.changes != self._view.changes:
            self._known = _Layout(self._view)
        return self._known

    async def report(self, *, is_full: bool = False) -> dict[str, Any]:
        """What every node says; ``ready`` is true when all workers answered as themselves.

        ``is_full``: with what they say of each slice and each route, as ``bulk`` of a worker.
        """
        layout = self._layout()
        (presence, coordinator), *nodes = await asyncio.gather(
            self._presence(), *[self._node(owned, is_full=is_full) for owned in layout.nodes.values()]
        )
        for node in nodes:
            _add_presence(node, presence)
            for worker in () if is_full else node["workers"]:
                worker.pop("bulk", None)
        missing = [f"{n['name']} worker {w['worker']}" for n in nodes for w in n["workers"] if not w["ok"]]
        record = layout.record
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

    def majorities(self, report: dict[str, Any]) -> Majorities:
        """Of all groups, by what every node says in ``report``."""
        planes = self._layout().planes
        return planes.majorities(planes.voters(silent_slices(report)))

    def health(self, report: dict[str, Any], without: str | None = None) -> tuple[int, dict[str, Any]]:
        """HTTP status and body of ``/healthz/cluster``, by what every node says in ``report``."""
        layout = self._layout()
        if without is not None and without not in layout.nodes:
            return 404, {"schema": "ssastore.health/1", "healthy": False, "reason": f"no node {without!r}"}
        voting = layout.planes.voters(silent_slices(report))
        found, code = layout.planes.majorities(voting), 503
        if without is not None and not found.lost:
            found, code = layout.planes.majorities({worker for worker in voting if worker[0] != without}), 412
        lost = [part_name(part) for part in found.lost]
        return 200 if not lost else code, {
            "schema": "ssastore.health/1",
            "healthy": not lost,
            "without": without,
            "groups": found.parts,
            "degraded": found.degraded,
            "lost": len(lost),
            "first_lost": lost[:_LOST_NAMED],
            "reason": f"{len(lost)} groups without a majority" if lost else "",
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
        layout = self._layout()
        wanted = [
            (name, index, iid)
            for name, owned in layout.nodes.items()
            for index, iid in sorted(owned.iids.items())
        ]
        begun = await asyncio.gather(*[self._begin_scrub(iid) for *_, iid in wanted])
        numbers = {f"{name} worker {at}": number for (name, at, _), number in zip(wanted, begun, strict=True)}
        return {
            "schema": "ssastore.scrub/1",
            "cluster_id": layout.record.cluster_id,
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

    async def _node(self, owned: _Owned, *, is_full: bool) -> dict[str, Any]:
        name = owned.record.name
        asked = await asyncio.gather(
            *[self._worker(name, index, owned.iids.get(index)) for index in range(owned.record.workers)]
        )
        for index, found in enumerate(asked):
            if "answered_by" in found:  # The slice may just have moved.
                asked[index] = await self._worker(name, index, owned.last_iids[index])
            elif is_full and not found["ok"] and index in owned.last_iids:
                # Where it should answer it does not; what is wrong there it may say elsewhere.
                again = await self._worker(name, index, owned.last_iids[index])
                asked[index] |= {"bulk": again["bulk"]} if again["ok"] else {}
        return {
            "name": name,
            "address": owned.record.address,
            "slices": owned.slices,
            "prefixes": owned.prefixes,
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
        if (found.get("node"), found.get("worker")) != (name, index):
            # Its figures are not this worker's.
            other = f"{found.get('node')} worker {found.get('worker')}"
            return {"worker": index, "ok": False, "answered_by": other, "error": f"{other} answered"}
        return {**_with_bulk(found), "ok": True}


def _with_bulk(found: dict[str, Any]) -> dict[str, Any]:
    """What a worker says, with what is long apart: most who ask for figures have no use for it."""
    bulk = {"routes": found.pop("routes", None)}
    for name, part in (("heat", "heat"), ("verified", "scrub")):
        bulk[name] = found.get(part, {}).pop("cells", "")
    return found | {"bulk": bulk}


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


def silent_slices(report: dict[str, Any]) -> dict[Worker, dict[str, int]]:
    """Of every worker that answers: how many of its slices do not vote, by state."""
    return {
        (node["name"], worker["worker"]): worker.get("silent", {})
        for node in report["nodes"]
        for worker in node["workers"]
        if worker["ok"]
    }


def front_report(view: FrontView) -> dict[str, Any]:
    """Who owns which part of the front plane; ``share`` is what routers send to a gateway, of 1."""
    front, network = view.front, view.record.network
    return {
        "epoch": front.epoch,
        "not_understood": dict(view.strange),
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

    s3: RequestCounts
    blobs: BlobCache
    verdicts: Callable[[], Mapping[Verdict, int]]
    "On connections, by the rule of the front plane."


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Routes = Mapping[tuple[str, str], Handler]
"By method and path; what answers GET answers HEAD, too. ANY for a method: all of the path and below it."
ANY = "*"


def admin_server(*tables: Routes) -> web.Server:
    """The protocol factory for ``loop.create_server``; a path is in one of the tables."""
    handlers: dict[tuple[str, str], Handler] = {}
    for table in tables:
        assert not handlers.keys() & table.keys(), "two handlers for one path"
        handlers |= table
    paths = {path for _, path in handlers}
    below = [(f"{path}/", handler) for (method, path), handler in handlers.items() if method == ANY]

    async def handle(http: web.BaseRequest) -> web.StreamResponse:
        method = "GET" if http.method == "HEAD" else http.method
        handler = handlers.get((method, http.path))
        if handler is None and below:
            handler = next((found for path, found in below if http.raw_path.startswith(path)), None)
        if handler is None:
            return web.Response(status=405 if http.path in paths else 404)
        return await handler(http)

    return web.Server(handle, access_log=None)


def status_routes(
    watch: ClusterWatch,
    counters: Counters,
    reads: Callable[[Handler], Handler],
    acts: Callable[[Handler], Handler],
) -> Routes:
    """Health, status and metrics.

    ``reads`` and ``acts`` make a handler one for those who may learn, or change, something.
    """

    async def livez(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"alive": True})

    async def readyz(http: web.BaseRequest) -> web.StreamResponse:
        report = await watch.report()
        status = 200 if report["ready"] else 503
        if "verbose" in http.query:
            return web.Response(text=verbose(report), status=status)
        return web.json_response(report, status=status)

    async def status(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(await watch.report() | {"gateway": counters.s3.describe()})

    async def cluster_health(http: web.BaseRequest) -> web.StreamResponse:
        code, said = watch.health(await watch.report(), http.query.get("without"))
        return web.json_response(said, status=code)

    async def metrics(_: web.BaseRequest) -> web.StreamResponse:
        report = await watch.report()
        text = metrics_page(
            __version__, counters.s3, counters.blobs, counters.verdicts(), report, watch.majorities(report)
        )
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def scrub(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(await watch.start_scrub())

    return {
        ("GET", "/livez"): livez,
        ("GET", "/readyz"): reads(readyz),
        ("GET", "/healthz/cluster"): reads(cluster_health),
        ("GET", "/status"): reads(status),
        ("GET", "/metrics"): reads(metrics),
        ("POST", "/scrub"): acts(scrub),
    }


def verbose(report: dict[str, Any]) -> str:
    """A line for each check of ``/readyz``, as other servers of clusters write them."""
    checks = [
        ("control store", "" if report["coordinator"] is not None else "does not answer in time"),
        *[
            (
                f"{node['name']} worker {worker['worker']}",
                "" if worker["ok"] else worker["error"],
            )
            for node in report["nodes"]
            for worker in node["workers"]
        ],
    ]
    lines = [f"[-] {name} failed: {why}" if why else f"[+] {name} ok" for name, why in checks]
    return "\n".join([*lines, f"readyz check {'passed' if report['ready'] else 'failed'}"]) + "\n"
