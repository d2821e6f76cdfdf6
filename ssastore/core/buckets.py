"""Buckets: records of the system bucket, cached by clients, and the protocol that deletes them.

A bucket's record is all that is read before an object's first access.  Its id is
drawn at random, so a bucket that is created again never meets its old objects; a
write with an id that is shut is refused, and the caller reads the record again.

Deletion: the record goes to ``deleting`` with the next attempt number; writes are
shut in every shard; all shards are scanned.  A live object found reopens them all,
else the record goes.  Whoever finds ``deleting`` may run the same steps again,
under a number of his own: from then on the earlier deletion can neither reopen a
shard nor change the record, so none is open while it is believed to be shut.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from blake3 import blake3

from ssastore.core.listing import Page, Row, merge_shards
from ssastore.core.metadata import Metadata
from ssastore.core.place import Place
from ssastore.core.quota import quota_key
from ssastore.core.readahead import read_rows
from ssastore.core.registers import IF_ABSENT, Registers, When
from ssastore.core.suspects import PROBE_EVERY_S
from ssastore.env import Clock, Randomness, spawn
from ssastore.errors import (
    BucketAlreadyExists,
    BucketBeingDeleted,
    BucketNotEmpty,
    BucketNotFound,
    CorruptObject,
    InvalidBucketName,
    ObjectNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    RequestError,
    SsaStoreError,
    TryLater,
    VersionKept,
)
from ssastore.keyspace import GROUPS
from ssastore.limits import BUCKET_RECORD_BYTES_MAX, CONFIG_AGE_MS, SHARDS_DEFAULT, SHARDS_MAX
from ssastore.messages import Condition, Kind

SYSTEM = Place(bucket=0, shards=16)
"The system bucket: built in, indexed."

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IPV4_LIKE = re.compile(r"\d+\.\d+\.\d+\.\d+")
_LAGGING_TRIES = 3
_PARTS_AT_ONCE = 64
_CHANGE_TRIES = 10
_REFRESH_WAIT_S = 0.5
_REFRESH_AGAIN_MS = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket's record."""

    name: str
    place: Place
    created_ms: int
    state: str
    etag: str
    attempts: int = 0
    "Deletions that were begun."
    owner: str = ""
    "The user who made it."
    config: dict[str, Any] = field(default_factory=dict)
    "What was set for the bucket, by the name of S3's sub-resource: ``versioning``, ``cors``, ``tagging`` ..."

    @property
    def is_indexed(self) -> bool:
        return self.place.shards > 0

    @property
    def versioning(self) -> str:
        """Whether it makes versions: "Enabled", "Suspended", or empty when that was never set."""
        return str(self.config.get("versioning", ""))


def check_bucket_name(name: str) -> None:
    """Raise InvalidBucketName unless the S3 rules allow the name."""
    if (
        not _NAME.fullmatch(name)
        or ".." in name
        or _IPV4_LIKE.fullmatch(name)
        or name.startswith("xn--")
        or name.endswith(("-s3alias", "--ol-s3"))
    ):
        raise InvalidBucketName(
            f"{name[:80]!r} is no bucket name: 3 to 63 of a-z, 0-9, dot and hyphen, "
            "beginning and ending with a letter or digit"
        )


def _kinds(bucket: Bucket) -> tuple[Kind, ...]:
    """Of the records that keep a bucket from being empty."""
    return (Kind.OBJECT, Kind.VERSION) if bucket.versioning else (Kind.OBJECT,)


def _record_key(name: str) -> bytes:
    return b"bucket/" + name.encode()


def _encode(bucket: Bucket) -> tuple[Metadata, bytes]:
    fields: dict[str, Any] = {
        "id": f"{bucket.place.bucket:016x}",
        "shards": bucket.place.shards,
        "created_ms": bucket.created_ms,
        "state": bucket.state,
        "attempts": bucket.attempts,
        "owner": bucket.owner,
        "config": bucket.config,
    }
    data = json.dumps(fields).encode()
    if len(data) > BUCKET_RECORD_BYTES_MAX:
        raise RequestError(f"all that is set for a bucket is above {BUCKET_RECORD_BYTES_MAX} bytes")
    return Metadata(blake3(data).hexdigest(length=16), len(data)), data


def _decode(name: str, etag: str, data: bytes) -> Bucket:
    try:
        fields = json.loads(data)
        place = Place(int(fields["id"], 16), int(fields["shards"]))
        return Bucket(
            name,
            place,
            int(fields["created_ms"]),
            str(fields["state"]),
            etag,
            int(fields.get("attempts", 0)),
            str(fields.get("owner", "")),
            dict(fields.get("config", {})),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptObject(f"the record of bucket {name!r} is not one") from error


_FIRST: ContextVar[dict[str, Bucket] | None] = ContextVar("ssastore_buckets_first", default=None)


def hold_to_buckets(*, is_wanted: bool) -> None:
    """Let the task from here on meet no other bucket of a name than the first one that it meets.

    For who decides by a bucket's owner and settings, and acts afterwards: another bucket that has been made
    in its place raises TryLater, and the next try decides anew.
    """
    _FIRST.set({} if is_wanted else None)


def _held(bucket: Bucket) -> Bucket:
    """The bucket. Raises TryLater: see ``hold_to_buckets``."""
    first = _FIRST.get()
    if first is not None:
        known = first.setdefault(bucket.name, bucket)
        if known.place != bucket.place and (known.owner, known.config) != (bucket.owner, bucket.config):
            raise TryLater(f"bucket {bucket.name!r} was made again")
    return bucket


class Buckets:
    """Bucket records, with a cache that is dropped when a request shows that it is old."""

    def __init__(self, registers: Registers, clock: Clock, randomness: Randomness) -> None:
        self._registers = registers
        self._clock = clock
        self._randomness = randomness
        self._cache: dict[str, Bucket] = {}
        self._read_ms: dict[str, int] = {}
        self._refreshing: dict[str, asyncio.Task[None]] = {}

    async def read(self, name: str) -> Bucket:
        """The bucket's record, from the store. Raises BucketNotFound, InvalidBucketName."""
        return _held(await self._fresh(name))

    async def _fresh(self, name: str) -> Bucket:
        check_bucket_name(name)
        try:
            found = await self._registers.get(SYSTEM, Kind.OBJECT, _record_key(name))
        except ObjectNotFound:
            self._cache.pop(name, None)
            raise BucketNotFound(f"no bucket {name!r}") from None
        # What is cached goes only now: while the record cannot be read, the objects still can.
        self._cache.pop(name, None)
        bucket = _decode(name, found.metadata.etag, bytes(found.data))
        if bucket.state != "active":
            raise BucketBeingDeleted(f"bucket {name!r} is being deleted")
        self._keep(bucket)
        return bucket

    def _keep(self, bucket: Bucket) -> None:
        self._cache[bucket.name] = bucket
        self._read_ms[bucket.name] = self._clock.now_ms()

    def cached(self, name: str) -> Bucket | None:
        """The record as last read, if it was."""
        return self._cache.get(name)

    async def current(self, name: str) -> Bucket:
        """The record as it was some CONFIG_AGE_MS ago at most, for what is set for the bucket.

        While the record cannot be read, what was read last counts: a policy must not lapse because a node
        does not answer.  Nobody waits for that node then, but one request now and then, and that for a
        moment only: objects are elsewhere.  Raises as ``read``.
        """
        known = self._cache.get(name)
        if known is None:
            return await self.read(name)
        age_ms = self._clock.now_ms() - self._read_ms.get(name, 0)
        if 0 <= age_ms < CONFIG_AGE_MS or name in self._refreshing:
            return _held(known)
        task = self._refreshing[name] = spawn("read the bucket again", self._refresh(name))
        await asyncio.wait([task], timeout=_REFRESH_WAIT_S)
        if not task.done():
            return _held(known)
        fresh = self._cache.get(name)
        return _held(fresh) if fresh else await self.read(name)

    async def _refresh(self, name: str) -> None:
        """Read a record again; that it cannot be read is noticed again in a second."""
        try:
            await self._fresh(name)
        except SsaStoreError:
            self._read_ms[name] = self._clock.now_ms() - CONFIG_AGE_MS + _REFRESH_AGAIN_MS
        finally:
            del self._refreshing[name]

    async def configure(self, name: str, change: Callable[[Bucket], dict[str, Any]]) -> Bucket:
        """Set what ``change`` makes of the record, which may be called again when somebody else was faster.

        Raises as ``read``; RequestError: all of it is too large; TryLater.
        """
        for _ in range(_CHANGE_TRIES):
            known = await self.read(name)
            try:
                return await self._write(
                    replace(known, config=change(known)), When(Condition.IF_ETAG, known.etag)
                )
            except PreconditionFailed:
                continue
            except ObjectNotFound:
                raise BucketNotFound(f"no bucket {name!r}") from None
        raise TryLater(f"bucket {name!r} is being changed by others all the time")

    async def use(self, name: str, work: Callable[[Bucket], Awaitable[T]]) -> T:
        """Run ``work`` with the bucket; once more with a fresh record if the old one may be why it failed.

        "No such object" from a cached id can mean that the bucket was deleted, or deleted and made
        again, so it is checked before it is believed.  A bucket that refuses writes and is active all
        the same was shut by a deletion that found an object in it: that is over.
        """
        cached = self._cache.get(name)
        known = _held(cached) if cached else await self.read(name)
        try:
            return await work(known)
        except ObjectNotFound:
            if cached is None:
                raise
            fresh = await self.read(name)
            if fresh.place == known.place:
                raise
        except (BucketNotFound, VersionKept):
            fresh = await self.read(name)
        except OutcomeUnknown:
            # Perhaps the bucket is another one by now. Whoever tries again must find that out.
            self._cache.pop(name, None)
            raise
        return await work(fresh)

    async def create(
        self,
        name: str,
        *,
        shards: int = SHARDS_DEFAULT,
        owner: str = "",
        config: dict[str, Any] | None = None,
    ) -> Bucket:
        """Create a bucket; ``shards`` 0 makes it hashed. Raises BucketAlreadyExists."""
        check_bucket_name(name)
        if not 0 <= shards <= SHARDS_MAX:
            raise InvalidBucketName(f"a bucket has 0 (hashed) to {SHARDS_MAX} shards, got {shards}")
        bucket_id = int.from_bytes(self._randomness.bytes(8), "big") or 1
        place = Place(bucket_id, shards)
        bucket = Bucket(name, place, self._clock.now_ms(), "active", "", owner=owner, config=config or {})
        try:
            return await self._write(bucket, IF_ABSENT)
        except PreconditionFailed:
            raise BucketAlreadyExists(f"bucket {name!r} exists") from None

    async def _write(self, bucket: Bucket, condition: When) -> Bucket:
        metadata, data = _encode(bucket)
        await self._registers.put(
            SYSTEM, Kind.OBJECT, _record_key(bucket.name), metadata, data, condition=condition
        )
        written = replace(bucket, etag=metadata.etag)
        self._cache.pop(bucket.name, None)
        if written.state == "active":
            self._keep(written)
        return written

    async def all(self, prefix: str = "", after: str = "") -> AsyncGenerator[Bucket, None]:
        """Buckets whose names begin with ``prefix`` and come after ``after``, in order of name."""

        async def fetch(shard: int, start: bytes, limit: int) -> Page:
            return await self._registers.shards.page(
                SYSTEM, Kind.OBJECT, shard, prefix=_record_key(prefix), after=start, limit=limit
            )

        start = _record_key(after) if after else b""
        rows = merge_shards(fetch, SYSTEM.shards, start, limit=1000, gather=asyncio.gather)
        async for bucket in read_rows(rows, self._of_row):
            yield bucket

    async def _of_row(self, row: Row) -> Bucket | None:
        """The bucket of a row of a listing; None for one that was deleted since."""
        key, _, etag, *_ = row
        name = key[len(_record_key("")) :].decode()
        known = self._cache.get(name)
        if known is not None and known.etag == etag:
            return _held(known)  # The tag is a digest of the record.
        try:
            return await self.read(name)
        except BucketNotFound:
            return None

    async def delete(self, name: str) -> None:
        """Delete an empty bucket. Raises BucketNotFound, BucketNotEmpty."""
        check_bucket_name(name)
        try:
            found = await self._registers.get(SYSTEM, Kind.OBJECT, _record_key(name))
        except ObjectNotFound:
            raise BucketNotFound(f"no bucket {name!r}") from None
        bucket = _held(_decode(name, found.metadata.etag, bytes(found.data)))
        # A plane that missed deletes shows objects that are none.  It is brought up to date while the bucket
        # still takes writes, and what is late for one attempt is there for the next.
        is_lagging = bucket.is_indexed and await self._registers.shards.is_replicated()
        try:
            for turn in range(_LAGGING_TRIES if is_lagging else 1):
                # A plane that is just back is not sent anything until somebody has noticed.
                await asyncio.sleep(2 * PROBE_EVERY_S if turn else 0)
                if is_lagging and bucket.state == "active" and await self._lists_any(bucket):
                    break
                bucket = await self._seal(bucket)
                if not await self._holds_any(bucket):
                    condition = When(Condition.IF_ETAG, bucket.etag)
                    await self._registers.delete(SYSTEM, Kind.OBJECT, _record_key(name), condition=condition)
                    await self._forget_quota(bucket)
                    return
                bucket = await self._reopen(bucket)
            raise BucketNotEmpty(f"bucket {name!r} is not empty")
        except (PreconditionFailed, ObjectNotFound):
            raise BucketNotFound(f"bucket {name!r} was changed or deleted by somebody else") from None
        finally:
            self._cache.pop(name, None)

    async def _forget_quota(self, bucket: Bucket) -> None:
        """Of a bucket that is gone. What is left of it if this fails is a record that nobody asks for."""
        key = quota_key(bucket.place.bucket)
        with suppress(SsaStoreError):
            await self._registers.get(SYSTEM, Kind.OBJECT, key, head_only=True)
            await self._registers.delete(SYSTEM, Kind.OBJECT, key)

    async def _seal(self, bucket: Bucket) -> Bucket:
        """From here on the bucket takes no writes."""
        sealed = replace(bucket, state="deleting", attempts=bucket.attempts + 1)
        sealed = await self._write(sealed, When(Condition.IF_ETAG, bucket.etag))
        await self._for_each_part(sealed, lambda part: self._shut(sealed, part, shut=True))
        return sealed

    async def _reopen(self, bucket: Bucket) -> Bucket:
        await self._for_each_part(bucket, lambda part: self._shut(bucket, part, shut=False))
        return await self._write(replace(bucket, state="active"), When(Condition.IF_ETAG, bucket.etag))

    async def _holds_any(self, bucket: Bucket) -> bool:
        return any(await self._for_each_part(bucket, lambda part: self._holds(bucket, part)))

    async def _lists_any(self, bucket: Bucket) -> bool:
        return any(await self._for_each_part(bucket, lambda part: self._lists(bucket, part)))

    async def _for_each_part(self, bucket: Bucket, work: Callable[[int], Awaitable[T]]) -> list[T]:
        """``work`` on every shard, or on every group of a hashed bucket."""
        results: list[T] = []
        parts = range(bucket.place.shards or GROUPS)
        for at in range(0, len(parts), _PARTS_AT_ONCE):
            results += await asyncio.gather(*[work(part) for part in parts[at : at + _PARTS_AT_ONCE]])
        return results

    async def _shut(self, bucket: Bucket, part: int, *, shut: bool) -> None:
        await self._registers.shards.shut(bucket.place, part, bucket.attempts, shut=shut)

    async def _holds(self, bucket: Bucket, part: int) -> bool:
        """Whether a shard or group holds a live object, or a version."""
        if not bucket.is_indexed:
            return await self._registers.shards.slice_holds(bucket.place, Kind.OBJECT, part)
        for kind in _kinds(bucket):
            if await self._registers.shards.shard_holds(bucket.place, kind, part):
                return True
        return False

    async def _lists(self, bucket: Bucket, part: int) -> bool:
        """Whether a shard has an object by the agreed state; planes that lag behind are brought up to it."""
        for kind in _kinds(bucket):
            after, is_more = b"", True
            while is_more:
                page = await self._registers.shards.page(
                    bucket.place, kind, part, after=after, limit=1000, is_thorough=True
                )
                if page.rows:
                    return True
                after, is_more = page.last, page.truncated
        return False
