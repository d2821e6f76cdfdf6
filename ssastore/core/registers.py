"""Records by name: the address is computed, the request sent there. Coroutines on a Caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from ssastore.core.approach import PLANE_BUDGET_MS, Approach
from ssastore.core.birth import UNKNOWN_BIRTH
from ssastore.core.caller import Caller
from ssastore.core.counts import Counts
from ssastore.core.found import Found, found_of
from ssastore.core.metadata import Metadata
from ssastore.core.place import Place, expected_position
from ssastore.core.quorum import (
    agreed_at_once,
    agreed_read,
    is_answered,
    is_late,
)
from ssastore.core.shards import Shards
from ssastore.core.sharedreads import SharedReads
from ssastore.env import Randomness
from ssastore.errors import (
    InvalidKey,
    ObjectNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    QuotaExceeded,
    Recounted,
    SsaStoreError,
)
from ssastore.keyspace import iid_of
from ssastore.limits import KEY_BYTES_MAX
from ssastore.messages import OP_ID_BYTES, Condition, Delete, Get, Kind, Put, Read
from ssastore.wire import Body, Header

T = TypeVar("T")


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
        self._reads: SharedReads[Found] = SharedReads()
        self.shards = Shards(caller, self._approach, self._counts, self.get)

    async def get(self, place: Place, kind: Kind, key: bytes, *, head_only: bool = False) -> Found:
        """Raises ObjectNotFound, Unavailable."""
        found = await self.state(place, kind, key, head_only=head_only)
        if not found.is_live:
            raise ObjectNotFound("no such object")
        return found

    async def state(self, place: Place, kind: Kind, key: bytes, *, head_only: bool = False) -> Found:
        """As ``get``, and that there is nothing is a state as well: its stamp serves as a condition."""
        name = key, kind, place.bucket, place.shards, head_only
        reads = self._reads
        if reads.begin(name):
            try:
                return await self._state(place, kind, key, head_only)
            finally:
                reads.end(name)
        return await reads.next(name, partial(self._state, place, kind, key, head_only))

    async def _state(self, place: Place, kind: Kind, key: bytes, head_only: bool) -> Found:
        position = expected_position(place.bucket, place.shards, key)
        replicas = self._counts.now(position) or await self._counts.at(position)
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
        return await self._counts.counted(position, partial(self._write, message, position, data))

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
        except (PreconditionFailed, ObjectNotFound, QuotaExceeded):
            raise  # By one who looked for the earlier attempts, too.
        except SsaStoreError as error:
            # Said of this attempt; an earlier one may have been taken all the same.
            raise OutcomeUnknown(str(error)) from None
