"""Records by name: the address is computed, the request sent there. Coroutines on a Caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import msgpack

from ssastore.core.approach import PLANE_BUDGET_MS, Approach
from ssastore.core.birth import UNKNOWN_BIRTH
from ssastore.core.caller import Caller
from ssastore.core.counts import Counts
from ssastore.core.found import Found, found_of
from ssastore.core.listing import Page, Row, merge_planes
from ssastore.core.metadata import Metadata
from ssastore.core.place import expected_position
from ssastore.core.quorum import (
    agreed_at_once,
    agreed_read,
    every_plane,
    gather_majority,
    gather_reachable,
    is_answered,
    is_late,
)
from ssastore.env import Randomness
from ssastore.errors import (
    BadFrame,
    InvalidKey,
    ObjectNotFound,
    OutcomeUnknown,
    OutOfStep,
    PreconditionFailed,
    Recounted,
    SsaStoreError,
    Unavailable,
)
from ssastore.keyspace import TAIL_BITS, iid_of, shard_locator
from ssastore.limits import KEY_BYTES_MAX, RETRY_CAP_MS
from ssastore.messages import OP_ID_BYTES, Condition, Delete, Get, Kind, Put, Read, Scan, Shut
from ssastore.wire import Body, Header

T = TypeVar("T")

ANY_TAIL = 0x7FFFFFFF
"Of an IID that stands for its slice or shard: all ones but for the first bit, which nothing reserves."


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket as far as addresses go: its id, and its shard count (0: hashed)."""

    bucket: int
    shards: int


_Told = tuple[bool, bytes, bytes]
"A page as a plane sends it: truncated, last key, rows."


@dataclass(frozen=True, slots=True)
class When:
    """Precondition of a write."""

    condition: int = Condition.NONE
    etag: str = ""


ALWAYS = When()
IF_ABSENT = When(Condition.IF_ABSENT)


class Once(NamedTuple):
    """What makes one operation of several attempts: the store applies it once.

    ``attempt`` counts from 1; ``born_ms`` is the operation's birth, the same in all of them, or
    ``core.birth.not_after`` a time.  Without one a first attempt gets its birth when it is sent.
    """

    op_id: bytes
    attempt: int = 1
    born_ms: int = UNKNOWN_BIRTH


def when(if_match: str | None, if_none_match: str | None) -> When:
    """The precondition of the two arguments that every write takes.

    Raises:
        InvalidKey: never; ValueError for a combination that no store can mean.
    """
    if if_none_match is not None:
        if if_none_match != "*" or if_match is not None:
            raise ValueError('a write takes if_none_match="*" or if_match=ETAG, not both')
        return IF_ABSENT
    if if_match is None:
        return ALWAYS
    return When(Condition.IF_PRESENT) if if_match == "*" else When(Condition.IF_ETAG, if_match)


def _second(answer: tuple[object, int]) -> int:
    """The cfg that an answer was given under."""
    return answer[1]


def key_bytes(key: str) -> bytes:
    """A key as it is stored.

    Raises:
        InvalidKey: empty, above KEY_BYTES_MAX, with a NUL, or not encodable as UTF-8.
    """
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise InvalidKey("a key must be encodable as UTF-8") from None
    if not 0 < len(encoded) <= KEY_BYTES_MAX:
        raise InvalidKey(f"a key has 1 to {KEY_BYTES_MAX} bytes of UTF-8, got {len(encoded)}")
    if b"\0" in encoded:
        raise InvalidKey("a key cannot hold a NUL character")
    return encoded


def position_of_part(place: Place, part: int) -> int:
    """A position in a shard, or in a group of a hashed bucket, for requests that are for all of it."""
    locator = shard_locator(place.bucket, part) if place.shards else part << 16
    return locator << TAIL_BITS | ANY_TAIL


def last_of(fields: Sequence[Any], locator: int) -> int:
    """The last locator that a reply about a hashed bucket's slice speaks of. Raises BadFrame."""
    if len(fields) != 1 or type(fields[0]) is not int or not locator <= fields[0] < 1 << 28:
        raise BadFrame("a reply about a slice does not say how far that goes")
    return fields[0]


class Registers:
    """Reads and writes of records.

    A write goes to the proposer at plane 0, or at the next plane when that cannot be reached.  A
    read asks a majority of planes itself: when they agree, what they say is chosen.
    """

    def __init__(self, caller: Caller, randomness: Randomness) -> None:
        self._caller = caller
        self._randomness = randomness
        self._approach = Approach(caller)
        self._counts = Counts(caller)

    async def get(self, place: Place, kind: Kind, key: bytes, *, head_only: bool = False) -> Found:
        """Raises ObjectNotFound, Unavailable."""
        found = await self.state(place, kind, key, head_only=head_only)
        if not found.is_live:
            raise ObjectNotFound("no such object")
        return found

    async def state(self, place: Place, kind: Kind, key: bytes, *, head_only: bool = False) -> Found:
        """As ``get``, and that there is nothing is a state as well: its stamp serves as a condition."""
        position = expected_position(place.bucket, place.shards, key)
        replicas = await self._counts.at(position)
        try:
            return await self._get(place, kind, key, position, replicas, head_only=head_only)
        except Recounted as error:
            return await self._counts.again(
                position,
                error,
                lambda right: self._get(place, kind, key, position, right, head_only=head_only),
            )

    async def _get(
        self, place: Place, kind: Kind, key: bytes, position: int, replicas: int, *, head_only: bool
    ) -> Found:
        if replicas == 1:
            message = Get(position, int(kind), place.bucket, place.shards, key, head_only, 1)
            return found_of(await self._caller.call(message, position))

        planes = self._approach.in_order(position, replicas)
        reply = await self._get_at_once(place, kind, key, position, planes, head_only=head_only)
        if reply is not None:
            return found_of(reply)
        async with self._approach.reach.limit(position, replicas):
            return await self._get_agreed(place, kind, key, position, planes, head_only=head_only)

    async def _get_at_once(
        self, place: Place, kind: Kind, key: bytes, position: int, planes: list[int], *, head_only: bool
    ) -> tuple[Header, Body] | None:
        """What a majority agrees on, when it is connected and answers soon; else who did not comes last."""
        asked: list[asyncio.Future[tuple[Header, Body]]] = []
        iids = [iid_of(position, plane) for plane in planes[: len(planes) // 2 + 1]]
        for iid in iids:
            part_only = head_only or bool(asked)
            wanted = Get(iid, int(kind), place.bucket, place.shards, key, part_only, len(planes))
            future = self._caller.begin(wanted, iid)
            if future is None:
                for other in asked:
                    other.cancel()
                return None
            asked.append(future)
        reply = await agreed_at_once(asked)
        late = [plane for plane, future in zip(planes, asked, strict=False) if is_late(future)]
        planes.sort(key=late.__contains__)
        for iid, future in zip(iids, asked, strict=True):
            if is_late(future):
                self._approach.failed(iid)
            elif is_answered(future):
                self._approach.answered(iid)
        return reply

    async def _get_agreed(
        self, place: Place, kind: Kind, key: bytes, position: int, planes: Sequence[int], *, head_only: bool
    ) -> Found:
        replicas = len(planes)

        def ask(turn: int, full: bool) -> Awaitable[tuple[Header, Body]]:
            iid = iid_of(position, planes[turn])
            wanted = Get(iid, int(kind), place.bucket, place.shards, key, head_only or not full, replicas)
            return self._approach.ask(wanted, PLANE_BUDGET_MS)

        reply = await agreed_read(ask, replicas)
        if reply is None:
            read = Read(0, int(kind), place.bucket, place.shards, key, head_only)
            reply = await self._approach.propose(read, position, b"", replicas)
        return found_of(reply)

    async def put(
        self,
        place: Place,
        kind: Kind,
        key: bytes,
        metadata: Metadata,
        data: Body = b"",
        *,
        condition: When = ALWAYS,
        once: Once | None = None,
    ) -> int:
        """Write a record; the time it was given, in ms since the epoch.

        Raises PreconditionFailed, ObjectNotFound (if_match on nothing), BucketNotFound, StoreFull,
        OutcomeUnknown.
        """
        once = once or Once(self._randomness.bytes(OP_ID_BYTES))
        message = Put(
            0,
            int(kind),
            place.bucket,
            place.shards,
            key,
            once.op_id,
            int(condition.condition),
            condition.etag,
            once.attempt,
            once.born_ms,
            metadata.encode(),
        )
        position = expected_position(place.bucket, place.shards, key)
        header, _ = await self._write_counted(message, position, data)
        modified_ms: int = header[2]
        return modified_ms

    async def delete(
        self,
        place: Place,
        kind: Kind,
        key: bytes,
        *,
        condition: When = ALWAYS,
        once: Once | None = None,
    ) -> bool:
        """Delete a record; whether there was one. Raises as ``put``."""
        return (await self.bury(place, kind, key, condition=condition, once=once))[1]

    async def bury(
        self,
        place: Place,
        kind: Kind,
        key: bytes,
        *,
        condition: When = ALWAYS,
        once: Once | None = None,
    ) -> tuple[int, bool]:
        """As ``delete``; also the time since when there is nothing."""
        once = once or Once(self._randomness.bytes(OP_ID_BYTES))
        message = Delete(
            0,
            int(kind),
            place.bucket,
            place.shards,
            key,
            once.op_id,
            int(condition.condition),
            condition.etag,
            once.attempt,
            once.born_ms,
        )
        position = expected_position(place.bucket, place.shards, key)
        header, _ = await self._write_counted(message, position, b"")
        return header[2], bool(header[3])

    async def _write_counted(self, message: Put | Delete, position: int, data: Body) -> tuple[Header, Body]:
        return await self._counted(position, partial(self._write, message, position, data))

    def _write(
        self, message: Put | Delete, position: int, data: Body, replicas: int
    ) -> Awaitable[tuple[Header, Body]]:
        if replicas > 1:
            return self._approach.propose(message, position, data, replicas)
        message.iid = position
        if message.attempt > 1:
            return self._write_again(message, position, data)
        return self._caller.call(message, position, data)

    async def _write_again(self, message: Put | Delete, position: int, data: Body) -> tuple[Header, Body]:
        """A repeated call, to the only plane that there is."""
        try:
            return await self._caller.call(message, position, data)
        except (PreconditionFailed, ObjectNotFound):
            raise  # By one who looked for the earlier attempts, too.
        except SsaStoreError as error:
            # Said of this attempt; an earlier one may have been taken all the same.
            raise OutcomeUnknown(str(error)) from None

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
        return await self._counted(position, work)

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
            holds_any=lambda common: self._holds_any(place, kind, shard, common),
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

    async def _holds_any(self, place: Place, kind: Kind, shard: int, prefix: bytes) -> bool:
        """Whether any key of a shard starts with ``prefix``."""
        after = b""
        while True:
            page = await self.page(place, kind, shard, prefix=prefix, after=after, limit=8)
            if page.rows or not page.truncated:
                return bool(page.rows)
            after = page.last

    async def _row(self, place: Place, kind: Kind, key: bytes) -> Row | None:
        """The agreed row of a key on which planes differ; None when there is no object."""
        try:
            found = await self.get(place, kind, key, head_only=True)
        except ObjectNotFound:
            return None
        row: Row = [key, found.modified_ms, found.metadata.etag, found.metadata.size]
        return [*row, found.metadata.version.name] if found.metadata.version else row

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

        return await self._counted(position, holds)

    async def _counted(self, position: int, work: Callable[[int], Awaitable[T]]) -> T:
        """Do something with the number of planes that a group has."""
        try:
            return await work(await self._counts.at(position))
        except Recounted as error:
            return await self._counts.again(position, error, work)

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
            answers = await self._counted(locator << TAIL_BITS, partial(gather, locator))
            if any(found for _, (found, _, _) in answers):
                return True
            locator = 1 + min(last for _, (_, _, last) in answers)
        return False

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
            answers = await self._counted(locator << TAIL_BITS, partial(tell, locator))
            # A group may be split: what all of the majority have done counts.
            locator = 1 + min(last for _, last in answers)


def _page_of(told: _Told) -> Page:
    is_truncated, last, body = told
    return Page(msgpack.unpackb(body, max_ext_len=0, max_map_len=0), is_truncated, last)
