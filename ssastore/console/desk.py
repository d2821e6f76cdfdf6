"""The console over HTTP: its state and its questions. What changes something is in ``actions``.

/                   the page                                                          for everybody
/console/NAME       its scripts and styles                                            for everybody
/console/login      POST: a session (``door``)                                        for everybody
/console/logout     POST: its end                                                     for everybody
/console/state      who owns what, moves, nodes, latency; with what the page has, only what is new
/console/explain    ?path=BUCKET/KEY: from the name to the nodes, step by step
/console/past       ?back=SECONDS: what requests took, up to a day ago, coarser than in the state
/console/s3         all of the S3 interface, signed as everywhere (``objects``)
/console/key        POST: a key for it                                                for who has logged in
/console/act        POST: what is to be done (``actions``)                            for who has logged in
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from ssastore import __version__
from ssastore.console.actions import Actions
from ssastore.console.door import Door
from ssastore.console.files import Files, Handler, json_answer
from ssastore.console.objects import BELOW, Objects
from ssastore.console.ownership import STATES, Ownership
from ssastore.console.story import Story
from ssastore.console.telling import Teller
from ssastore.core.clusterview import ClusterView
from ssastore.core.frontview import FrontView
from ssastore.core.groups import GroupRecord
from ssastore.core.locate import Location
from ssastore.core.numbers import numbered_slice, slice_name, slice_number
from ssastore.env import Clock, Randomness, spawn
from ssastore.errors import SsaStoreError
from ssastore.keyspace import TAIL_BITS, iid_of
from ssastore.recent import SECONDS, Recent

_DAY_S = 24 * 3600
_ASK_EVERY_S = 2.0
"Nodes are asked at most so often, and only while somebody looks."
_MOVES_EVERY = 5
"Of the times that nodes are asked, when the control store is asked what is ordered to move."
Locate = Callable[[str, str], Awaitable[Location]]
"From bucket and key. Raises SsaStoreError."


class Console:
    """What a gateway knows, for people. ``run`` it, so that what happens while nobody looks is noted too."""

    def __init__(
        self,
        view: ClusterView,
        front: FrontView,
        report: Callable[[], Awaitable[dict[str, Any]]],
        locate: Locate,
        recent: Recent,
        clock: Clock,
        randomness: Randomness,
        door: Door,
        actions: Actions,
        objects: Objects,
    ) -> None:
        self._door, self._actions, self._objects = door, actions, objects
        self._view, self._front = view, front
        self._report, self._locate = report, locate
        self._recent, self._clock = recent, clock
        self._files = Files()
        self._ownership = Ownership()
        self._instance = randomness.bytes(8).hex()
        self._changes = -1
        self._story = Story()
        self._teller = Teller(view)
        self._asked: asyncio.Task[None] | None = None
        self._asked_at_s = float("-inf")
        self._told: dict[str, Any] = {"number": 0, "at_ms": 0, "nodes": [], "moves": None}

    async def run(self) -> None:
        """Look every second, for ever."""
        while True:
            self._look()
            self._recent.rows(time.perf_counter(), 1 << 62)
            await asyncio.sleep(1)

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What answers, by method and path: there is no path but these."""

        async def file(http: web.BaseRequest) -> web.Response:
            return self._files.answer(http)

        async def state(http: web.BaseRequest) -> web.Response:
            may_act = self._door.session(http) is not None
            return json_answer(self.state(http.query) | {"may_act": may_act})

        async def explain(http: web.BaseRequest) -> web.Response:
            return await self._explain(http.query.get("path", ""))

        async def past(http: web.BaseRequest) -> web.Response:
            return json_answer(self._past(http.query.get("back")))

        door = self._door
        return {
            **{("GET", path): file for path in self._files.paths},
            ("POST", "/console/login"): door.log_in,
            ("POST", "/console/logout"): door.log_out,
            ("GET", "/console/state"): door.looks(state),
            ("GET", "/console/explain"): door.looks(explain),
            ("GET", "/console/past"): door.looks(past),
            ("POST", "/console/act"): door.acts(self._actions.act),
            ("POST", "/console/key"): door.acts(self._objects.key),
            ("*", BELOW): door.looks(self._objects.handle),
        }

    # -- the state ----------------------------------------------------------------------------------

    def state(self, known: Mapping[str, str]) -> dict[str, Any]:
        """What is new for a page that has ``known``: instance, version, second, mark and report of before."""
        self._look()
        self._ask_nodes()
        is_whole = known.get("instance") != self._instance
        numbers = {
            name: 0 if is_whole else _number(known.get(name)) for name in ("version", "mark", "report")
        }
        now_s = time.perf_counter()
        second = int(now_s) - SECONDS if is_whole else _number(known.get("second"))
        record, told = self._view.record, self._told
        return {
            "schema": "ssastore.console/1",
            "software": __version__,
            "instance": self._instance,
            "is_whole": is_whole,
            "version": self._ownership.version,
            "service": record.service,
            "cluster_id": record.cluster_id,
            "replicas": record.replicas,
            "region": self._objects.region,
            "now_ms": self._clock.now_ms(),
            "now_s": now_s,
            "states": STATES,
            **self._ownership.since(numbers["version"]),
            "front": self._front_parts(),
            "names": self._ownership.names,
            "marks": self._story.since(numbers["mark"]),
            "mark": self._story.number,
            "seconds": self._recent.rows(now_s, second),
            "report": told if told["number"] != numbers["report"] else None,
        }

    def _look(self) -> None:
        if self._view.changes == self._changes:
            return
        self._changes = self._view.changes
        now_ms = self._clock.now_ms()
        for name in sorted(self._view.nodes):
            self._ownership.place_of(name)
        self._story.add(now_ms, self._ownership.take(self._view.groups))

    def _front_parts(self) -> list[list[int]]:
        """What the gateways own, as parts; their names are told from nodes' by what stands before them."""
        return [
            [piece.first >> TAIL_BITS, piece.depth, self._ownership.place_of(f"gateway {name}"), 0, -1]
            for name in sorted(self._view_gates())
            for piece in self._front.front.slices_of(name)
        ]

    def _view_gates(self) -> set[str]:
        return {*self._front.gates, *self._front.front.names()}

    def _ask_nodes(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._asked is None and now_s - self._asked_at_s >= _ASK_EVERY_S:
            self._asked_at_s = now_s
            self._asked = spawn("ask nodes for the console", self._ask())

    async def _ask(self) -> None:
        number = self._told["number"] + 1
        try:
            report = await self._report()
            moves = self._told["moves"]
            if moves is None or number % _MOVES_EVERY == 0:
                moves = await self._actions.moves(report)
        finally:
            self._asked = None
        now_ms, now_s = self._clock.now_ms(), asyncio.get_running_loop().time()
        told = self._teller.tell(report, now_ms, now_s)
        self._told = {"number": number, "at_ms": now_ms, "moves": moves, **told}

    # -- questions ----------------------------------------------------------------------------------

    def _past(self, back: str | None) -> dict[str, Any]:
        """What requests took in the last ``back`` seconds, and the moves meanwhile, coarsely."""
        back_s, now_s, now_ms = min(_number(back), _DAY_S), time.perf_counter(), self._clock.now_ms()
        step_s, rows = self._recent.past(now_s, back_s)
        marks = self._story.by_minute(now_ms - back_s * 1000)
        return {"step": step_s, "rows": rows, "marks": marks, "now_s": now_s, "now_ms": now_ms}

    async def _explain(self, path: str) -> web.Response:
        bucket, _, key = path.removeprefix("s3://").removeprefix("/").partition("/")
        if not bucket or not key:
            return json_answer({"error": "write BUCKET/KEY, like photos/cat.jpg"}, status=400)
        began = time.perf_counter()
        try:
            location = await self._locate(bucket, key)
        except SsaStoreError as error:
            return json_answer({"error": str(error)}, status=404)
        except ValueError as error:
            return json_answer({"error": str(error)}, status=400)
        took_us = round((time.perf_counter() - began) * 1e6)
        record = self._view.groups[location.group]
        planes = [_owner_at(record, location.position, plane) for plane in range(len(location.addresses))]
        return json_answer({**location.as_json(), "bucket": bucket, "took_us": took_us, "planes": planes})


def _owner_at(record: GroupRecord, position: int, plane: int) -> dict[str, Any]:
    """Who answers for a position in a plane, and the slice that is looked up by the longest prefix."""
    for part in record.parts:
        number = slice_number(plane, part.part)
        if iid_of(position, plane) in numbered_slice(number) and plane < len(part.planes):
            found = part.planes[plane]
            return {
                "slice": slice_name(number),
                "owner": found.owner,
                "state": found.state,
                "target": found.target,
            }
    return {"slice": "", "owner": "", "state": "", "target": ""}


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 16 else 0
