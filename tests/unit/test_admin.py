"""The admin interface by HTTP: health of the process, of all workers, and of all groups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import msgpack
import pytest
from aiohttp import ClientSession, web

from ssastore.admin import ClusterWatch, Counters, Handler, admin_server, status_routes
from ssastore.control.memory import MemoryControlStore
from ssastore.core.blobcache import BlobCache
from ssastore.core.cluster import NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.frontview import FrontView
from ssastore.core.membership import alive_key
from ssastore.env import Write
from ssastore.errors import Unavailable
from ssastore.keyspace import service_network
from ssastore.messages import Report
from ssastore.metrics.requests import RequestCounts
from ssastore.rebalance import form_cluster
from ssastore.rules.verdict import Verdict
from ssastore.transport.connection import Identity
from tests.cluster import CREDENTIALS, SERVICE
from tests.direct import SeededRandomness


class Silence:
    """Links that lead nowhere."""

    async def dial(self, *_: Any) -> Any:
        raise OSError(101, "Network is unreachable")


class Watch(ClusterWatch):
    """Workers that answer, or do not, without a network."""

    def __init__(self, view: ClusterView, control: MemoryControlStore) -> None:
        identity = Identity("node", "gateway", CREDENTIALS.cluster_secret)
        super().__init__(view, control, identity, Silence(), SeededRandomness(), FrontView(control, view))
        self.answers: dict[str, Mapping[str, Any]] = {}

    async def _worker(self, name: str, index: int, iid: int | None) -> dict[str, Any]:
        if name not in self.answers:
            return {"worker": index, "ok": False, "error": "no answer"}
        return {"worker": index, "ok": True, "silent": {}, **self.answers[name]}


class Admin:
    """Three nodes with three replicas, and the interface in front of them."""

    def __init__(self, url: str, session: ClientSession, watch: Watch) -> None:
        self.watch = watch
        self.may_read = True
        self._url, self._session = url, session

    async def get(self, path: str, *, method: str = "GET") -> tuple[int, Any]:
        async with self._session.request(method, self._url + path) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.text()


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    control = MemoryControlStore()
    nodes = [NodeRecord(f"n{at}", f"fd00::{at}") for at in (1, 2, 3)]
    await form_cluster(
        control, service_network(SERVICE), 3, nodes, now_ms=1, random_bytes=SeededRandomness().bytes
    )
    await control.transact([], [Write(alive_key(node.name), b"{}") for node in nodes])
    view = ClusterView(control)
    await view.load()
    watch = Watch(view, control)
    watch.answers = {key: {} for key in ("n1", "n2", "n3")}
    counts = RequestCounts()
    counts.answered("GetObject", 200)
    counters = Counters(counts, BlobCache(), lambda: {Verdict.KEPT: 2})
    made: list[Admin] = []

    def reads(handler: Handler) -> Handler:
        async def guarded(http: web.BaseRequest) -> web.StreamResponse:
            return await handler(http) if made[0].may_read else web.Response(status=403)

        return guarded

    server = await asyncio.get_running_loop().create_server(
        admin_server(status_routes(watch, counters, reads, lambda handler: handler)), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    async with ClientSession() as session:
        made.append(Admin(f"http://127.0.0.1:{port}", session, watch))
        yield made[0]
    server.close()
    await watch.close()


async def test_a_process_that_answers_is_alive(admin: Admin) -> None:
    admin.watch.answers = {}
    assert await admin.get("/livez") == (200, {"alive": True})
    assert (await admin.get("/livez", method="HEAD"))[0] == 200


async def test_all_that_tells_of_nodes_is_for_those_who_may_read(admin: Admin) -> None:
    """Whether the process lives is told to everybody."""
    admin.may_read = False
    for path in ("/readyz", "/healthz/cluster", "/status", "/metrics"):
        assert (await admin.get(path))[0] == 403, path
    assert (await admin.get("/livez"))[0] == 200


async def test_ready_takes_every_worker_and_says_each_check(admin: Admin) -> None:
    code, text = await admin.get("/readyz?verbose")
    assert code == 200
    assert text.splitlines() == [
        "[+] control store ok",
        *[f"[+] n{at} worker 0 ok" for at in (1, 2, 3)],
        "readyz check passed",
    ]
    del admin.watch.answers["n2"]
    code, text = await admin.get("/readyz?verbose")
    assert code == 503
    assert "[-] n2 worker 0 failed: no answer" in text and text.endswith("readyz check failed\n")
    code, report = await admin.get("/readyz")
    assert (code, report["reason"]) == (503, "no answer from n2 worker 0")


@pytest.mark.parametrize(("gone_to", "code"), [("first", 200), ("both", 503)])
async def test_who_just_gave_its_first_slice_away_is_asked_at_another(
    admin: Admin, monkeypatch: pytest.MonkeyPatch, gone_to: str, code: int
) -> None:
    nodes = admin.watch._layout().nodes
    names = {iid: name for name, owned in nodes.items() for iid in owned.iids.values()}
    asked: list[int] = []

    async def ask(message: Report) -> tuple[list[Any], bytes]:
        name = names.get(message.iid, "n2")
        if name == "n2":
            asked.append(message.iid)
            name = "n3" if gone_to == "both" or len(asked) == 1 else name
        return [], msgpack.packb({"node": name, "worker": 0, "silent": {}, "records": 7})

    monkeypatch.setattr(admin.watch, "_worker", partial(ClusterWatch._worker, admin.watch))
    monkeypatch.setattr(admin.watch._prober, "ask", ask)
    found, report = await admin.get("/readyz")
    assert found == code
    assert len(asked) == 2 and asked[0] < asked[1]
    worker = report["nodes"][1]["workers"][0]
    # What the other one has is nothing of this one's.
    assert worker.get("records") == (7 if code == 200 else None)
    assert worker.get("error") == (None if code == 200 else "n3 worker 0 answered")


async def test_a_control_store_that_is_away_fails_its_check(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Any) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr("ssastore.admin.read_presence", away)
    code, text = await admin.get("/readyz?verbose")
    # Nobody is missed for it: reads and writes go on.
    assert code == 200 and "[-] control store failed: does not answer in time" in text


@pytest.mark.parametrize(
    ("silent", "without", "code"),
    [
        ((), "", 200),
        (("n1",), "", 200),
        (("n1", "n3"), "", 503),
        ((), "n2", 200),
        (("n1",), "n2", 412),
        (("n1",), "n1", 200),
        (("n1", "n3"), "n2", 503),
        ((), "n9", 404),
    ],
)
async def test_cluster_health_is_majorities(
    admin: Admin, silent: tuple[str, ...], without: str, code: int
) -> None:
    for name in silent:
        del admin.watch.answers[name]
    found, said = await admin.get("/healthz/cluster" + (f"?without={without}" if without else ""))
    assert (found, said["healthy"]) == (code, code == 200)
    if code in (412, 503):
        assert said["lost"] == 4096 and said["first_lost"][:2] == ["000", "001"]


async def test_a_node_with_slices_that_do_not_vote_is_needed_by_nobody(admin: Admin) -> None:
    admin.watch.answers["n1"] = {"silent": {"QUARANTINED": 4096}}
    assert (await admin.get("/healthz/cluster"))[1]["degraded"] == 4096
    assert (await admin.get("/healthz/cluster?without=n2"))[0] == 412


async def test_what_nobody_answers_for(admin: Admin) -> None:
    assert (await admin.get("/nothing"))[0] == 404
    assert (await admin.get("/status", method="POST"))[0] == 405
    assert (await admin.get("/scrub"))[0] == 405


def test_two_handlers_for_one_path_are_refused() -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    table = {("GET", "/livez"): handler}
    with pytest.raises(AssertionError):
        admin_server(table, table)


async def test_who_does_not_answer_where_it_should_may_say_elsewhere_what_its_kernel_has(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = admin.watch._layout().nodes
    first = nodes["n2"].iids[0]

    async def ask(message: Report) -> tuple[list[Any], bytes]:
        if message.iid == first:
            raise Unavailable("no route")
        name = next(
            name for name, owned in nodes.items() if message.iid in (owned.iids[0], owned.last_iids[0])
        )
        routes: dict[str, list[str]] = {"accepted": [], "sent_on": []}
        return [], msgpack.packb({"node": name, "worker": 0, "silent": {}, "routes": routes})

    monkeypatch.setattr(admin.watch, "_worker", partial(ClusterWatch._worker, admin.watch))
    monkeypatch.setattr(admin.watch._prober, "ask", ask)
    full = {node["name"]: node["workers"][0] for node in (await admin.watch.report(is_full=True))["nodes"]}
    assert not full["n2"]["ok"] and full["n2"]["bulk"]["routes"] == {"accepted": [], "sent_on": []}
    assert full["n1"]["ok"] and full["n1"]["bulk"]["heat"] == ""
    _, plain = await admin.get("/status")
    assert not any("bulk" in node["workers"][0] for node in plain["nodes"])
