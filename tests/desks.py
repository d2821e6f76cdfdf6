"""The console of a gateway whose nodes are made up: over real HTTP, with the clock of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http.cookies import Morsel
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse, ClientSession, web

from ssastore.admin import admin_server
from ssastore.console.actions import Actions
from ssastore.console.desk import Console
from ssastore.console.door import Door
from ssastore.console.objects import Objects
from ssastore.console.token import TokenFile, login_code, make_token, read_token
from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.frontview import FrontView
from ssastore.core.locate import Location, locate_object
from ssastore.core.place import Place
from ssastore.errors import BucketNotFound
from ssastore.keyspace import service_network
from ssastore.rebalance import form_cluster
from ssastore.recent import Recent
from tests.cluster import SERVICE
from tests.direct import SeededRandomness, StillClock

WORKER: dict[str, Any] = {
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
NODE: dict[str, Any] = {
    "name": "n1",
    "address": "fd00::1",
    "slices": 1,
    "prefixes": ["p"] * 30,
    "workers": [WORKER],
}
PAGE = {"X-Ssastore-Console": "1"}
"What the console's own page sends with everything that changes something."


class Desk:
    """Four nodes with three replicas, and the console of their gateway."""

    def __init__(self, url: str, session: ClientSession, door: Door, path: Path) -> None:
        self.url, self.door, self.token_file = url, door, path
        self._session = session
        self.control = MemoryControlStore()
        self.view = ClusterView(self.control)
        self.recent = Recent()
        self.clock = StillClock()
        self.randomness = SeededRandomness()
        self.scrubs = 0
        self.lent: Callable[[str], str | None] = lambda key_id: None

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> ClientResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._session.request(method, self.url + path, headers=named)
        await answer.read()
        return answer

    async def post(
        self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """As the page does, unless other headers are given."""
        found = PAGE if headers is None else headers
        async with self._session.post(self.url + path, json=body, headers=found) as answer:
            return answer.status, await answer.json()

    async def state(self, known: dict[str, Any] | None = None) -> dict[str, Any]:
        names = ("instance", "version", "mark")
        query = "" if known is None else "?" + "&".join(f"{name}={known[name]}" for name in names)
        found: dict[str, Any] = await (await self.get(f"/console/state{query}")).json()
        return found

    def code(self) -> str:
        """A login code that is good now."""
        return login_code(read_token(self.token_file), self.clock.now_ms(), self.randomness)

    def cookies(self) -> list[Morsel[str]]:
        """What a browser has of this gateway."""
        return list(self._session.cookie_jar)

    async def login_answer(self) -> ClientResponse:
        """The whole answer to a login."""
        body = {"code": self.code()}
        return await self._session.post(f"{self.url}/console/login", json=body, headers=PAGE)

    def leave(self) -> None:
        """Forget the cookies, as another browser has none."""
        self._session.cookie_jar.clear()

    # -- what the cluster says -----------------------------------------------------------------------

    async def report(self) -> dict[str, Any]:
        return {"coordinator": "n1", "nodes": [NODE]}

    async def status(self, _: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(await self.report())

    async def start_scrub(self) -> dict[str, Any]:
        self.scrubs += 1
        return {"passes": {"n1 worker 0": 1}, "silent": ["n2 worker 0"]}

    async def handle_below(
        self, http: web.BaseRequest, below: str, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        return web.Response(text=f"{http.method} {http.raw_path.removeprefix(below)}", headers=headers)

    async def locate(self, bucket: str, key: str) -> Location:
        if bucket != "photos":
            raise BucketNotFound(bucket)
        return locate_object(service_network(SERVICE), Place(7, 16), key.encode(), 3)


@asynccontextmanager
async def running_desk(directory: Path) -> AsyncIterator[Desk]:
    """One that answers until the end."""
    path = directory / "admin-token"
    make_token(path, SeededRandomness())
    async with ClientSession() as session:
        clock, randomness = StillClock(), SeededRandomness()
        door = Door(TokenFile(path), clock, randomness)
        desk = Desk("", session, door, path)
        desk.clock, desk.randomness = clock, randomness
        nodes = [NodeRecord(f"n{at}", f"fd00::{at}") for at in (1, 2, 3, 4)]
        await form_cluster(
            desk.control, service_network(SERVICE), 3, nodes, now_ms=1, random_bytes=randomness.bytes
        )
        await desk.view.load()
        actions = Actions(desk.control, desk.report, desk.start_scrub)
        console = Console(
            desk.view,
            FrontView(desk.control, desk.view),
            desk.report,
            desk.locate,
            desk.recent,
            clock,
            randomness,
            door,
            actions,
            Objects(desk, door, "us-east-1", randomness),
        )
        loop = asyncio.get_running_loop()
        status = {("GET", "/status"): door.reads(desk.status)}
        server = await loop.create_server(admin_server(status, console.routes()), "127.0.0.1", 0)
        desk.url = f"http://localhost:{server.sockets[0].getsockname()[1]}"
        yield desk
        server.close()
