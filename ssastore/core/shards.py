"""All of a shard, or of a group of a hashed bucket: its pages, whether anything is there, whether it is shut.

Coroutines on a Caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Any, Protocol, TypeVar

import msgpack

from ssastore.core.approach import PLANE_BUDGET_MS, Approach
from ssastore.core.caller import Caller
from ssastore.core.counts import Counts
from ssastore.core.found import Found
from ssastore.core.listing import Page, Row, merge_planes
from ssastore.core.metadata import listed
from ssastore.core.place import Place
from ssastore.core.quorum import every_plane, gather_majority, gather_reachable
from ssastore.errors import BadFrame, ObjectNotFound, OutOfStep, Unavailable
from ssastore.keyspace import ANY_TAIL, TAIL_BITS, iid_of, shard_locator
from ssastore.limits import RETRY_CAP_MS
from ssastore.messages import Count, Kind, Scan, Shut

T = TypeVar("T")


_Told = tuple[bool, bytes, bytes]
"A page as a plane sends it: truncated, last key, rows."


class GetRecord(Protocol):
    """``Registers.get``."""

    async def __call__(self, place: Place, kind: Kind, key: bytes, *, head_only: bool) -> Found: ...


def _second(answer: tuple[object, int]) -> int:
    """The cfg that an answer was given under."""
    return answer[1]


def position_of_part(place: Place, part: int) -> int:
    """A position in a shard, or in a group of a hashed bucket, for requests that are for all of it."""
    locator = shard_locator(place.bucket, part) if place.shards else part << 16
    return locator << TAIL_BITS | ANY_TAIL


def last_of(fields: Sequence[Any], locator: int) -> int:
    """The last locator that a reply about a hashed bucket's slice speaks of. Raises BadFrame."""
    if len(fields) != 1 or type(fields[0]) is not int or not locator <= fields[0] < 1 << 28:
        raise BadFrame("a reply about a slice does not say how far that goes")
    return fields[0]


class Shards:
    """Requests that are for many records at once."""

    def __init__(self, caller: Caller, approach: Approach, counts: Counts, get: GetRecord) -> None:
        """``get`` reads one record, for those on which planes differ."""
        self._caller = caller
        self._approach = approach
        self._counts = counts
        self._get = get

    async def page(
        self,
        place: Place,
        kind: Kind,
        shard: int,
        *,
        prefix: bytes = b"",
        after: bytes = b"",
        delimiter: bytes = b"",
        limit: int,
        is_thorough: bool = False,
    ) -> Page:
        """One page of a shard of an indexed bucket (``core.listing``), agreed by a majority.

        ``is_thorough`` asks all planes that can be reached: those that lag behind are brought up to date.
        """
        wanted = Scan(
            0, int(kind), place.bucket, place.shards, shard, prefix, after, delimiter, max(1, limit), False
        )
        position = position_of_part(place, shard)
        work = partial(self._page, place, wanted, position, is_thorough=is_thorough)
        return await self._counts.counted(position, work)

    async def _page(
        self, place: Place, wanted: Scan, position: int, replicas: int, *, is_thorough: bool
    ) -> Page:
        kind, shard, prefix = Kind(wanted.kind), wanted.shard, wanted.prefix
        planes = self._approach.in_order(position, replicas)

        async def ask(turn: int) -> tuple[_Told, int]:
            message = replace(
                wanted, iid=iid_of(position, planes[turn]), with_witness=replicas > 1, replicas=replicas
            )
            within_ms = None if replicas == 1 else PLANE_BUDGET_MS
            header, body = await self._approach.ask(message, within_ms)
            return (bool(header[2]), header[3], bytes(body)), header[4]

        if replicas == 1:
            return _page_of((await ask(0))[0])
        gather = gather_reachable if is_thorough else gather_majority
        async with self._approach.reach.limit(position, replicas):
            answers = await self._persist(lambda: gather(ask, replicas, cfg_of=_second))
        # Mostly all say the same, byte for byte: then there is one page to read, and nothing to compare.
        told = dict.fromkeys(said for _, (said, _) in answers)
        return await merge_planes(
            [_page_of(said) for said in told],
            prefix,
            wanted.delimiter,
            resolve=lambda key: self._row(place, kind, key),
            holds_any=lambda common: self._holds_any(place, kind, shard, common, wanted.after),
        )

    async def _persist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Try what needs a majority until the deadline: nodes that restart are back soon."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._caller.deadline_ms / 1000
        while True:
            try:
                return await work()
            except (Unavailable, OutOfStep):
                if loop.time() + RETRY_CAP_MS / 1000 >= deadline:
                    raise
            await asyncio.sleep(RETRY_CAP_MS / 1000)

    async def _holds_any(self, place: Place, kind: Kind, shard: int, prefix: bytes, after: bytes) -> bool:
        """Whether any key of a shard above ``after`` starts with ``prefix``."""
        while True:
            page = await self.page(place, kind, shard, prefix=prefix, after=after, limit=8)
            if page.rows or not page.truncated:
                return bool(page.rows)
            after = page.last

    async def _row(self, place: Place, kind: Kind, key: bytes) -> Row | None:
        """The agreed row of a key on which planes differ; None when there is no object."""
        try:
            found = await self._get(place, kind, key, head_only=True)
        except ObjectNotFound:
            return None
        return [key, found.modified_ms, *listed(found.metadata)]

    async def is_replicated(self) -> bool:
        """Whether planes can differ."""
        return self._counts.is_mixed or (self._caller.replicas or await self._caller.replica_count()) > 1

    async def shard_holds(self, place: Place, kind: Kind, shard: int) -> bool:
        """Whether any of a majority of planes holds a live record in a shard of a shut bucket.

        The agreed state cannot be asked for: to find it out may take a write, and the bucket takes none.
        """
        position = position_of_part(place, shard)

        async def ask(plane: int, replicas: int) -> tuple[bool, int]:
            iid, after = iid_of(position, plane), b""
            wanted = Scan(iid, int(kind), place.bucket, place.shards, shard, b"", after, b"", 1, False)
            while True:
                message = replace(wanted, after=after, replicas=replicas)
                header, body = await self._caller.call(message, iid)
                rows = msgpack.unpackb(body, max_ext_len=0, max_map_len=0)
                if rows or not header[2]:
                    return bool(rows), header[4]
                after = header[3]

        async def holds(replicas: int) -> bool:
            answers = await gather_majority(partial(ask, replicas=replicas), replicas, cfg_of=_second)
            return any(found for _, (found, _) in answers)

        return await self._counts.counted(position, holds)

    async def slice_holds(self, place: Place, kind: Kind, group: int) -> bool:
        """Whether any of a majority of planes holds a live record of a hashed bucket in a group."""

        async def ask(plane: int, locator: int, replicas: int) -> tuple[bool, int, int]:
            iid = iid_of(locator << TAIL_BITS | ANY_TAIL, plane)
            message = Scan(iid, int(kind), place.bucket, 0, 0, b"", b"", b"", 1, False, replicas)
            header, _ = await self._caller.call(message, iid)
            return bool(header[2]), header[3], last_of(header[4:], locator)

        async def gather(locator: int, replicas: int) -> list[tuple[int, tuple[bool, int, int]]]:
            one = partial(ask, locator=locator, replicas=replicas)
            return await gather_majority(one, replicas, cfg_of=itemgetter(1))

        locator, end = group << 16, (group + 1) << 16
        while locator < end:
            answers = await self._counts.counted(locator << TAIL_BITS, partial(gather, locator))
            if any(found for _, (found, _, _) in answers):
                return True
            locator = 1 + min(last for _, (_, _, last) in answers)
        return False

    async def count(self, place: Place, shard: int) -> tuple[int, int]:
        """Bytes and objects that a shard of a bucket with a quota holds, counted if need be.

        Raises Unavailable when that is not done before the deadline.
        """
        position = position_of_part(place, shard)
        message = Count(0, place.bucket, place.shards, shard)

        async def ask(replicas: int) -> tuple[int, int, bool]:
            if replicas == 1:
                header, _ = await self._caller.call(replace(message, iid=position), position)
            else:
                header, _ = await self._approach.propose(message, position, b"", replicas)
            if tuple(map(type, header[2:])) != (int, int, bool):
                raise BadFrame("a reply to Count has other fields")
            return header[2], header[3], header[4]

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._caller.deadline_ms / 1000
        while loop.time() < deadline:
            size, objects, is_done = await self._counts.counted(position, ask)
            if is_done:
                return size, objects
            await asyncio.sleep(RETRY_CAP_MS / 1000)
        raise Unavailable("a shard was not counted in time, for the quota of its bucket")

    async def shut(self, place: Place, part: int, attempt: int, *, shut: bool) -> None:
        """Refuse (or take again) writes in one shard, or in one group of a hashed bucket.

        Raises PreconditionFailed when a later deletion, with a higher ``attempt``, was there before.
        """
        shard = part if place.shards else 0

        async def ask(plane: int, locator: int, replicas: int) -> tuple[int, int]:
            iid = iid_of(locator << TAIL_BITS | ANY_TAIL, plane)
            header, _ = await self._caller.call(
                Shut(iid, place.bucket, place.shards, shard, attempt, shut, replicas), iid
            )
            return header[2], last_of(header[3:], locator)

        async def tell(locator: int, replicas: int) -> list[tuple[int, int]]:
            one = partial(ask, locator=locator, replicas=replicas)
            return await every_plane(one, replicas, cfg_of=itemgetter(0))

        locator = position_of_part(place, part) >> TAIL_BITS
        end = locator + 1 if place.shards else (part + 1) << 16
        while locator < end:
            answers = await self._counts.counted(locator << TAIL_BITS, partial(tell, locator))
            # A group may be split: what all of the majority have done counts.
            locator = 1 + min(last for _, last in answers)


def _page_of(told: _Told) -> Page:
    is_truncated, last, body = told
    return Page(msgpack.unpackb(body, max_ext_len=0, max_map_len=0), is_truncated, last)
