"""One request, step by step: what the client sends where, and what nodes say they did for it.

The request has an id that asks nodes to tell (``core.requestid``), so a trace changes nothing for other
requests. What nodes say is read from the report of each worker that was called; parts of it that
other workers did on their behalf are there too, as every plane of a record is asked.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgpack

from ssastore.client import AsyncBucket, AsyncClient, Source
from ssastore.core.objects import Objects
from ssastore.core.requestid import REQUEST, name_of, new_id
from ssastore.errors import SsaStoreError
from ssastore.keyspace import address_of, iid_of, plane_of, slice16_of
from ssastore.messages import Message, Report, Status
from ssastore.system import SystemClock, SystemRandomness
from ssastore.transport.pool import Pool
from ssastore.wire import Body, Header

_CALLS_MAX = 1000
"Of a very large object the first; all of it would be no help."


class Watched:
    """A pool that notes what is asked of it. Implements ``core.caller.Caller``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._began = time.perf_counter()
        self.calls: list[dict[str, Any]] = []

    @property
    def deadline_ms(self) -> int:
        return self._pool.deadline_ms

    @property
    def replicas(self) -> int:
        return self._pool.replicas

    async def replica_count(self, position: int | None = None) -> int:
        return await self._pool.replica_count(position)

    async def is_silent(self, iid: int, within_ms: int) -> bool:
        return await self._pool.is_silent(iid, within_ms)

    def begin(
        self, message: Message, iid: int, body: Body = b""
    ) -> asyncio.Future[tuple[Header, Body]] | None:
        began = time.perf_counter()
        answer = self._pool.begin(message, iid, body)
        if answer is not None:
            answer.add_done_callback(lambda done: self._note(message, iid, began, _outcome(done)))
        return answer

    async def call(
        self, message: Message, iid: int, body: Body = b"", *, within_ms: int | None = None
    ) -> tuple[Header, Body]:
        began, outcome = time.perf_counter(), "cancelled"
        try:
            reply = await self._pool.call(message, iid, body, within_ms=within_ms)
            outcome = Status.OK.name
            return reply
        except SsaStoreError as error:
            outcome = type(error).__name__
            raise
        finally:
            self._note(message, iid, began, outcome)

    def _note(self, message: Message, iid: int, began: float, outcome: str) -> None:
        if len(self.calls) < _CALLS_MAX:
            self.calls.append(
                {
                    "at_us": round((began - self._began) * 1e6),
                    "took_us": round((time.perf_counter() - began) * 1e6),
                    "op": type(message).__name__,
                    **_place_of(iid),
                    "address": str(address_of(self._pool.service, iid)),
                    "outcome": outcome,
                }
            )


def _outcome(done: asyncio.Future[tuple[Header, Body]]) -> str:
    if done.cancelled():
        return "cancelled"
    if (error := done.exception()) is not None:
        return type(error).__name__
    return Status(done.result()[0][0]).name


def _place_of(iid: int) -> dict[str, Any]:
    return {"iid": f"{iid:016x}", "plane": plane_of(iid), "slice": f"{slice16_of(iid):04x}"}


async def follow(client: AsyncClient, bucket: str, key: str, data: Source | None = None) -> dict[str, Any]:
    """Read an object, or write it when there is ``data``, and tell how that went.

    Returns:
        ``id`` of the request; ``location``; ``connects``: a dial to each plane; ``calls``: what the client
        asked, by time; ``parts``: what workers did, each with ``node``, ``worker`` and microseconds;
        ``outcome``.  Times are in microseconds; those of calls are since the first.

    Raises:
        BucketNotFound, Unavailable: it could not even begin. Whatever else happens is the outcome.
    """
    upper = new_id(SystemRandomness(), is_told=True)
    await client.pool.replica_count()
    location = await client.bucket(bucket).locate(key)
    iids = [iid_of(location.position, plane) for plane in range(len(location.addresses))]
    connects = [await _connect(client.pool, iid) for iid in iids]
    watched = Watched(client.pool)
    handle = AsyncBucket(client, bucket, Objects(watched, SystemClock(), SystemRandomness()))
    caused_by = REQUEST.set(upper)
    began = time.perf_counter()
    try:
        outcome = await (_read(handle, key) if data is None else _write(handle, key, data))
    except SsaStoreError as error:
        outcome = f"{type(error).__name__}: {error}"
    finally:
        took_us = round((time.perf_counter() - began) * 1e6)
        REQUEST.reset(caused_by)
    called = [int(call["iid"], 16) for call in watched.calls]
    return {
        "schema": "ssastore.trace/1",
        "id": name_of(upper),
        "operation": "get" if data is None else "put",
        "location": location.as_json(),
        "connects": connects,
        "calls": sorted(watched.calls, key=lambda call: call["at_us"]),
        "parts": await _parts(client.pool, dict.fromkeys([*iids, *called]), name_of(upper)),
        "outcome": outcome,
        "took_us": took_us,
    }


async def _read(bucket: AsyncBucket, key: str) -> str:
    reader = await bucket.open(key)
    async for _ in reader:
        pass
    return f"{reader.size} bytes, ETag {reader.info.etag}"


async def _write(bucket: AsyncBucket, key: str, data: Source) -> str:
    info = await bucket.put(key, data)
    return f"durable: {info.size} bytes, ETag {info.etag}"


async def _connect(pool: Pool, iid: int) -> dict[str, Any]:
    """Dial a plane's address and ask who is there: routes, greeting and one answer."""
    began = time.perf_counter()
    report, who = await _report(pool, iid), "nobody answers"
    if report is not None:
        who = f"{report['node']}/{report['worker']}"
    took_us = round((time.perf_counter() - began) * 1e6)
    return {**_place_of(iid), "address": str(address_of(pool.service, iid)), "who": who, "took_us": took_us}


async def _report(pool: Pool, iid: int) -> dict[str, Any] | None:
    try:
        _, body = await pool.call(Report(iid), iid)
        found: dict[str, Any] = msgpack.unpackb(body, strict_map_key=False)
    except (SsaStoreError, OSError, ValueError):
        return None
    return found


async def _parts(pool: Pool, iids: dict[int, None], name: str) -> list[dict[str, Any]]:
    """What each worker behind these addresses says of the request, in the order of its own clock."""
    reports: dict[tuple[str, int], dict[str, Any]] = {}
    for iid in iids:
        if (report := await _report(pool, iid)) is not None:
            reports[report["node"], report["worker"]] = report
    found = [
        {
            "node": node,
            "worker": worker,
            "op": op,
            **_place_of(int(iid, 16)),
            "status": Status(status).name,
            "began_ms": began_ms,
            "took_us": took_us,
        }
        for (node, worker), report in sorted(reports.items())
        # Of a version without such reports there are none.
        for told, op, iid, status, began_ms, took_us in report.get("told", [])
        if told == name
    ]
    return sorted(found, key=lambda part: part["began_ms"])
