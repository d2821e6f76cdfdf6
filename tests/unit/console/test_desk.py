"""The console over HTTP: its files, what it says to whom, and what it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession

from ssastore.admin import admin_server
from ssastore.console.desk import Console, condensed
from ssastore.console.files import Files
from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.frontview import FrontView
from ssastore.core.locate import Location, locate_object
from ssastore.core.moving import begin_move
from ssastore.core.place import Place
from ssastore.errors import BucketNotFound
from ssastore.keyspace import service_network
from ssastore.rebalance import form_cluster
from ssastore.recent import Recent
from ssastore.system import SystemClock
from tests.cluster import SERVICE
from tests.direct import SeededRandomness

WORKER = {
    "worker": 0,
    "ok": True,
    "silent": {},
    "records": 3,
    "used_bytes": 10,
    "limit_bytes": 100,
    "moves": {"coming": 1, "going": 2, "bytes": 5, "waiting": "", "paused": False},
    "scrub": {
        "health": "healthy",
        "left": {"here": 0, "elsewhere": 0},
        "repaired": 0,
        "pass": None,
        "last": {"ended_ms": 7},
    },
}
NODE = {"name": "n1", "address": "fd00::1", "slices": 1, "prefixes": ["p"] * 30, "workers": [WORKER]}


class Desk:
    """Four nodes with three replicas, and the console of their gateway."""

    def __init__(self, url: str, session: ClientSession, view: ClusterView, recent: Recent) -> None:
        self.view, self.recent = view, recent
        self._url, self._session = url, session

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> ClientResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._session.request(method, self._url + path, headers=named)
        await answer.read()
        return answer

    async def state(self, known: dict[str, Any] | None = None) -> dict[str, Any]:
        names = ("instance", "version", "mark")
        query = "" if known is None else "?" + "&".join(f"{name}={known[name]}" for name in names)
        found: dict[str, Any] = await (await self.get(f"/console/state{query}")).json()
        return found


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    control, service = MemoryControlStore(), service_network(SERVICE)
    nodes = [NodeRecord(f"n{at}", f"fd00::{at}") for at in (1, 2, 3, 4)]
    await form_cluster(control, service, 3, nodes, now_ms=1, random_bytes=SeededRandomness().bytes)
    view, recent = ClusterView(control), Recent()
    await view.load()

    async def report() -> dict[str, Any]:
        return {"coordinator": "n1", "nodes": [NODE]}

    async def locate(bucket: str, key: str) -> Location:
        if bucket != "photos":
            raise BucketNotFound(bucket)
        return locate_object(service, Place(7, 16), key.encode(), 3)

    clock, randomness = SystemClock(), SeededRandomness()
    console = Console(view, FrontView(control, view), report, locate, recent, clock, randomness)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(admin_server(console.routes()), "127.0.0.1", 0)
    async with ClientSession() as session:
        yield Desk(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", session, view, recent)
    server.close()


async def test_every_file_of_the_page_is_served_as_what_it_is(desk: Desk) -> None:
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "/": "text/html"}
    paths = Files().paths
    assert {"/", "/console/main.js", "/console/style.css"} <= set(paths)
    page = await (await desk.get("/")).text()
    for path in paths:
        answer = await desk.get(path)
        assert (answer.status, answer.content_type) == (200, kinds[path.rpartition(".")[2]])
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        text = await answer.text()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    assert 'style="' not in page and "<script>" not in page


async def test_a_file_that_the_page_has_is_not_sent_again(desk: Desk) -> None:
    tag = (await desk.get("/")).headers["ETag"]
    again = await desk.get("/", If_None_Match=tag)
    assert (again.status, await again.read()) == (304, b"")
    assert (await desk.get("/", If_None_Match='"other"')).status == 200
    assert (await desk.get("/", method="HEAD")).status == 200


@pytest.mark.parametrize(
    ("path", "method", "code"),
    [
        ("/console/", "GET", 404),
        ("/console/../desk.py", "GET", 404),
        ("/console/%2e%2e/desk.py", "GET", 404),
        ("/console//etc/passwd", "GET", 404),
        ("/console/index.html", "GET", 404),
        ("/", "POST", 405),
        ("/console/state", "DELETE", 405),
    ],
)
async def test_there_is_no_other_path(desk: Desk, path: str, method: str, code: int) -> None:
    assert (await desk.get(path, method=method)).status == code


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost:7481", 200),
        ("127.0.0.1", 200),
        ("[::1]:7481", 200),
        ("lab.localhost:1", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:7481", 403),
        ("192.0.2.1:7481", 403),
    ],
)
async def test_a_name_that_somebody_points_here_reads_nothing(desk: Desk, host: str, code: int) -> None:
    answer = await desk.get("/console/state", Host=host)
    assert answer.status == code
    assert code == 200 or "ssh -L" in await answer.text()


async def test_the_state_is_told_once_and_then_what_is_new(desk: Desk) -> None:
    whole = await desk.state()
    assert whole["is_whole"] and sum(run[1] for run in whole["runs"]) == 3 * 4096
    assert whole["names"] == ["n1", "n2", "n3", "n4"]
    nothing = await desk.state(whole)
    assert not nothing["is_whole"] and nothing["runs"] == nothing["marks"] == []
    record = desk.view.groups[9]
    target = next(name for name in whole["names"] if name not in record.owners)
    desk.view.groups[9] = begin_move(record, 0, target, 5, dict.fromkeys(whole["names"], ""))
    desk.view.changes += 1
    moved = await desk.state(nothing)
    assert [run for run in moved["runs"] if run[0] == 9] == [
        [9, 1, whole["names"].index(record.owners[0]), 1, whole["names"].index(target)]
    ]
    assert [mark[1:] for mark in moved["marks"]] == [["begun", record.owners[0], target, 1]]
    stranger = await desk.state(moved | {"instance": "of-another-process"})
    assert stranger["is_whole"] and sum(run[1] for run in stranger["runs"]) == 3 * 4096


async def test_nodes_are_asked_while_somebody_looks(desk: Desk) -> None:
    assert (await desk.state())["report"] is None
    await asyncio.sleep(0)
    told = (await desk.state())["report"]
    assert (told["coordinator"], told["nodes"]) == ("n1", [condensed(NODE)])


async def test_a_key_is_explained_without_reading_it(desk: Desk) -> None:
    answer = await desk.get("/console/explain?path=photos/cat.jpg")
    found = await answer.json()
    assert answer.status == 200
    assert [plane["owner"] for plane in found["planes"]] == list(
        desk.view.groups[int(found["group"], 16)].owners
    )
    assert [plane["slice"] for plane in found["planes"]] == found["slices"]
    assert (await desk.get("/console/explain?path=other/cat.jpg")).status == 404
    assert (await desk.get("/console/explain?path=photos")).status == 400


def test_a_worker_that_does_not_answer_has_verified_nothing() -> None:
    node = condensed(NODE | {"workers": [WORKER, {"worker": 1, "ok": False, "error": "no route"}]})
    assert [scrub["health"] for scrub in node["scrub"]] == ["healthy", "no answer"]
    assert (node["workers"], node["silent"]) == ([True, False], ["no route"])
    assert (node["records"], node["coming"], len(node["prefixes"]), node["prefixes_left"]) == (3, 1, 24, 6)
