"""Objects: what ``put``, ``get``, ``head``, ``delete`` and ``list`` mean. Coroutines on a Caller.

The front ends (client, S3) differ in how bytes arrive and what an ETag is; from
there on they share this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ssastore.core.buckets import Bucket, Buckets
from ssastore.core.caller import Caller
from ssastore.core.ciphers import ENCRYPTION, Cipher, Piece, Pieces
from ssastore.core.content import Blobs, Budget, Content, ContentWriter, read_content
from ssastore.core.demand import NOTHING, Demand
from ssastore.core.found import Found
from ssastore.core.keeping import is_marker
from ssastore.core.listing import Page, Row, merge_runs
from ssastore.core.metadata import Metadata, Segment
from ssastore.core.multipart import Multipart
from ssastore.core.parts import parts_of
from ssastore.core.quotas import Quotas
from ssastore.core.records import reference_name
from ssastore.core.registers import Once, Registers, key_bytes
from ssastore.core.versionlist import ListedVersion, VersionList, Wanted
from ssastore.core.versionnames import id_of, name_in, shown_ms, time_of, whole_name
from ssastore.core.versions import Deleted, Guard, Versions, Written
from ssastore.env import Clock, Randomness
from ssastore.errors import (
    BucketBeingDeleted,
    BucketNotFound,
    CorruptObject,
    EncryptedObject,
    InvalidKey,
    MarkerFound,
    OutcomeUnknown,
    PeerError,
    RangeNotSatisfiable,
    RequestError,
    StoreFull,
    TryLater,
)
from ssastore.limits import INLINE_BYTES_MAX, LIST_KEYS_MAX, STORED_KEY_BYTES_MAX
from ssastore.messages import Kind
from ssastore.wire import Body

_BUDGET_CHUNKS = 8

_OF_AN_ATTEMPT = (TryLater, StoreFull, CorruptObject, PeerError, BucketBeingDeleted)
"Failures that say nothing of earlier attempts."


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object without its bytes.

    ``modified_ms`` is milliseconds since the epoch; ``headers`` are entity headers in lower case,
    ``metadata`` the caller's own.  Entries of a listing have neither.
    """

    key: str
    size: int
    etag: str
    modified_ms: int
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    "Id of the version; empty when it was not written as one."


@dataclass(slots=True)
class Listed:
    """What a listing says of an object. Not frozen: that takes three times as long, for a thousand a page."""

    key: str
    modified_ms: int
    etag: str
    size: int
    version: str = ""
    owner: str = ""
    "Whose the record says that it is; empty when it says nothing."


@dataclass(frozen=True, slots=True)
class CommonPrefix:
    """All keys that share the text up to the delimiter, rolled into one entry."""

    prefix: str


def _entry(row: Row) -> Listed | CommonPrefix:
    """A row of a listing (``core.listing``)."""
    if len(row) == 4:
        key, modified_ms, etag, size = row
        return Listed(key.decode(), modified_ms, etag, size)
    if len(row) == 1:
        return CommonPrefix(row[0].decode())
    key, modified_ms, etag, size, name, *more = row
    version = "" if name is None else whole_name(name, modified_ms)
    shown_ms = time_of(version) if version else modified_ms
    return Listed(key.decode(), shown_ms, etag, size, version, more[0] if more else "")


class ObjectReader:
    """One version of an object: ``info``, and its bytes (or a range of them) once.

    Iterate with ``async for`` over chunks of up to CHUNK_BYTES, or ``read`` it all.  Both raise
    EncryptedObject for an object that needs a ``cipher``.
    """

    def __init__(
        self, info: ObjectInfo, found: Found, blobs: Blobs, budget: Budget, cipher: Cipher | None = None
    ) -> None:
        self.info = info
        self.start = 0
        self.end = info.size
        self._data = found.data
        self._segments: list[Segment] = found.metadata.segments
        self._metadata = found.metadata
        self._cipher = cipher
        self._blobs = blobs
        self._budget = budget

    def narrow(self, start: int, length: int | None) -> ObjectReader:
        """Only ``length`` bytes from ``start``, or fewer where the object ends. Returns itself.

        A negative ``start`` counts from the end.

        Raises:
            RangeNotSatisfiable: ``start`` is at or after the end of an object that has bytes.
        """
        size = self.info.size
        first = max(size + start, 0) if start < 0 else start
        if first >= size and first > 0:
            raise RangeNotSatisfiable(f"offset {start} of an object of {size} bytes")
        self.start = first
        self.end = size if length is None else min(size, first + max(length, 0))
        return self

    @property
    def size(self) -> int:
        """Bytes that will be read."""
        return self.end - self.start

    @property
    def is_small(self) -> bool:
        """Whether its bytes lie with the record, and are here."""
        return not self._segments

    def _small(self) -> Body:
        """The range, of data that lie with the record."""
        data = self._data
        if ENCRYPTION in self.info.extra and self.info.size:
            data = self._known_cipher().decrypt(Piece(0, 0), data)
        return data if self.size == len(data) else data[self.start : self.end]

    def _known_cipher(self) -> Cipher:
        if self._cipher is None:
            raise EncryptedObject(
                "the object is encrypted: it can be read through an S3 gateway that has its key"
            )
        return self._cipher

    async def _chunks(self) -> AsyncIterator[Body]:
        if ENCRYPTION not in self.info.extra:
            return read_content(self._blobs, self._segments, self.start, self.end, self._budget)
        cipher = self._known_cipher()
        parts = await parts_of(self._blobs, self._metadata)
        pieces = Pieces([(part.number, part.size) for part in parts])

        def opened(offset: int, encrypted: Body) -> Body:
            return cipher.decrypt(pieces.at(offset), encrypted)

        return read_content(self._blobs, self._segments, self.start, self.end, self._budget, opened)

    async def __aiter__(self) -> AsyncIterator[Body]:
        if not self._segments:
            if self.size:
                yield self._small()
            return
        chunks = await self._chunks()
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]  # it is an async generator

    async def read(self) -> bytes:
        """All bytes of the range."""
        if not self._segments:
            return bytes(self._small())
        return b"".join([chunk async for chunk in self])


def _reference(bucket: Bucket, key: bytes) -> bytes:
    return reference_name(bucket.place.bucket, bucket.place.shards, key)


def _info(key: str, found: Found) -> ObjectInfo:
    known = found.metadata
    version = id_of(name_in(found)) if known.version else ""
    modified_ms = shown_ms(found)
    return ObjectInfo(
        key, known.size, known.etag, modified_ms, {**known.headers}, {**known.user}, {**known.extra}, version
    )


class of_one_attempt:
    """What fails inside fails for this attempt alone: after an earlier one the outcome is unknown.

    A class, since every write passes here: a generator costs 2 us.
    """

    __slots__ = ("_attempt",)

    def __init__(self, attempt: int) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._attempt > 1 and isinstance(error, _OF_AN_ATTEMPT):
            raise OutcomeUnknown(str(error)) from None


class Objects:
    """Objects of one service, as seen by one client."""

    def __init__(self, caller: Caller, clock: Clock, randomness: Randomness) -> None:
        self.registers = Registers(caller, randomness)
        self.blobs = Blobs(caller)
        self.buckets = Buckets(self.registers, clock, randomness)
        self.versions = Versions(self.registers, self.blobs, clock, randomness)
        self.quotas = Quotas(self.registers, self.buckets, randomness)
        self._budget = Budget(_BUDGET_CHUNKS)
        self._clock = clock
        self._randomness = randomness

    def multipart(self, bucket: Bucket) -> Multipart:
        """Uploads of a bucket. Raises RequestError for a hashed one, which has no ordered parts."""
        if not bucket.is_indexed:
            raise RequestError("multipart uploads need an indexed bucket")
        return Multipart(self.registers, self.blobs, self.versions, bucket, self._clock, self._randomness)

    def writer(
        self,
        bucket: Bucket,
        key: bytes,
        *,
        inline_bytes_max: int = INLINE_BYTES_MAX,
        cipher: Cipher | None = None,
        part: int = 0,
    ) -> ContentWriter:
        """A writer for the bytes of an object that ``commit`` will name, or of a ``part`` of one."""
        return ContentWriter(
            self.blobs,
            _reference(bucket, key),
            self._budget,
            inline_bytes_max=inline_bytes_max,
            cipher=cipher,
            part=part,
        )

    async def commit(
        self,
        bucket: str,
        key: str,
        content: Content,
        etag: str,
        *,
        headers: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
        extra: dict[str, Any] | None = None,
        demand: Demand = NOTHING,
        once: Once | None = None,
    ) -> ObjectInfo:
        """Make an object of stored content, in one register change; a version in a bucket that makes them."""
        described = Metadata(etag, content.size, content.segments, headers or {}, metadata or {}, extra or {})
        name = key_bytes(key)

        def write(record: Bucket) -> Awaitable[Written]:
            # Blobs are kept for the record that they were stored for. A bucket that was deleted and
            # made again during the upload is another one, and its records cannot keep them.
            if content.segments and content.reference != _reference(record, name):
                raise BucketNotFound(f"bucket {bucket!r} was deleted during the upload")
            return self.versions.write(record, name, described, content.data, demand=demand, once=once)

        with of_one_attempt(once.attempt if once else 1):
            written = await self.buckets.use(bucket, write)
        return ObjectInfo(
            key,
            content.size,
            etag,
            written.modified_ms,
            described.headers,
            described.user,
            described.extra,
            id_of(written.name) if written.name else "",
        )

    async def open(self, bucket: str, key: str, version_id: str | None = None) -> ObjectReader:
        """The current version, or another one. Raises as ``find``."""
        return self.reader(key, await self.find(bucket, key, version_id))

    def reader(self, key: str, found: Found, cipher: Cipher | None = None) -> ObjectReader:
        """A reader of the version in a record that was read; ``cipher`` opens an encrypted one."""
        return ObjectReader(_info(key, found), found, self.blobs, self._budget, cipher)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """What is known of the current version, or of another one, without its bytes."""
        return _info(key, await self.find(bucket, key, version_id, head_only=True))

    async def find(
        self, bucket: str, key: str, version_id: str | None = None, *, head_only: bool = False
    ) -> Found:
        """The record of the current version, or of another one; ``data`` is all of its bytes, or empty.

        Raises:
            ObjectNotFound, BucketNotFound.
            VersionNotFound: of another version.
            MarkerFound: the version says that the object was deleted.
        """
        name = key_bytes(key)
        if version_id is not None:
            found = await self.buckets.use(
                bucket,
                lambda record: self.versions.find(record.place, name, version_id, head_only=head_only),
            )
            if is_marker(found.metadata):
                raise MarkerFound("the version is a mark that the object was deleted", shown_ms(found))
            return found
        return await self.buckets.use(
            bucket,
            lambda record: self.registers.get(record.place, Kind.OBJECT, name, head_only=head_only),
        )

    async def amend(
        self,
        bucket: str,
        key: str,
        change: Callable[[Metadata], Metadata],
        version_id: str | None = None,
    ) -> Metadata:
        """Change what is said of an object or a version: not its bytes, ETag or time. What is said now.

        ``change`` gets what is stored, and is called again when somebody else was faster.

        Raises:
            ObjectNotFound, VersionNotFound.
            MarkerFound: of a mark that the object was deleted nothing is said.
            TryLater: others write it all the time.
        """
        name = key_bytes(key)

        def change_object(metadata: Metadata) -> Metadata:
            if is_marker(metadata):
                raise MarkerFound("the version is a mark that the object was deleted")
            return change(metadata)

        return await self.buckets.use(
            bucket, lambda record: self.versions.amend(record.place, name, version_id, change_object)
        )

    async def delete(
        self,
        bucket: str,
        key: str,
        version_id: str | None = None,
        *,
        demand: Demand = NOTHING,
        guard: Guard = lambda metadata: None,
        once: Once | None = None,
        is_earlier: bool = False,
    ) -> Deleted:
        """Delete an object, which leaves a marker in a bucket that makes versions; or one version for good.

        ``guard`` and ``is_earlier`` are of the version (``Versions.delete_version``).

        Raises:
            PreconditionFailed; ObjectNotFound: something was demanded of what is not there.
        """
        name = key_bytes(key)

        def delete(record: Bucket) -> Awaitable[Deleted]:
            if version_id is not None:
                return self.versions.delete_version(
                    record.place, name, version_id, demand=demand, guard=guard, is_earlier=is_earlier
                )
            return self.versions.remove(record, name, demand=demand, once=once)

        with of_one_attempt(once.attempt if once else 1):
            return await self.buckets.use(bucket, delete)

    async def list_versions(
        self, bucket: str, wanted: Wanted, *, page_size: int = LIST_KEYS_MAX
    ) -> AsyncGenerator[ListedVersion | CommonPrefix, None]:
        """Versions in order of key, the newest first, and each common prefix once. Raises as ``list``."""
        record = await self.buckets.read(bucket)
        if not record.is_indexed:
            raise RequestError(f"bucket {bucket!r} is hashed: it has no ordered listing")
        listing = VersionList(self.registers, self.versions.kept, record.place, wanted)
        async for entry in listing.entries(max(1, page_size)):
            yield CommonPrefix(entry) if isinstance(entry, str) else entry

    async def marker(self, bucket: str, key: str) -> str | None:
        """Id of the marker that says that an object was deleted, if that is what it is."""
        record = await self.buckets.current(bucket)
        return await self.versions.marker(record.place, key_bytes(key)) if record.versioning else None

    async def bucket(self, name: str) -> Bucket:
        """A bucket's record as it was some seconds ago (``Buckets.current``)."""
        return await self.buckets.current(name)

    async def list(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_after: str = "",
        page_size: int = LIST_KEYS_MAX,
        gather: Callable[..., Any] = asyncio.gather,
    ) -> AsyncIterator[ObjectInfo | CommonPrefix]:
        """Keys in byte order, each common prefix once. Complete, or it raises.

        Args and errors are those of ``runs``.
        """
        async for run in self.runs(
            bucket,
            prefix=prefix,
            delimiter=delimiter,
            start_after=start_after,
            page_size=page_size,
            gather=gather,
        ):
            for entry in run:
                if isinstance(entry, CommonPrefix):
                    yield entry
                else:
                    yield ObjectInfo(
                        entry.key, entry.size, entry.etag, entry.modified_ms, version=entry.version
                    )

    async def runs(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_after: str = "",
        page_size: int = LIST_KEYS_MAX,
        gather: Callable[..., Any] = asyncio.gather,
    ) -> AsyncGenerator[Sequence[Listed | CommonPrefix], None]:
        """As ``list``, some entries at a time.

        Args:
            bucket: its name.
            prefix: only keys that start so.
            delimiter: roll up what follows it after the prefix.
            start_after: exclusive; a common prefix here is skipped whole.
            page_size: how many entries the caller will take, about; no run is longer.
            gather: for tests.

        Raises:
            RequestError: the bucket is hashed; those have no order.
            Unavailable: a shard cannot be read; names its slice.
        """
        for what, text in (("prefix", prefix), ("delimiter", delimiter), ("start_after", start_after)):
            # A little above a key: a directory's prefix is its name and a slash.
            if len(text.encode()) > STORED_KEY_BYTES_MAX:
                raise InvalidKey(f"{what} is longer than {STORED_KEY_BYTES_MAX} bytes of UTF-8")
        # A listing answers from a cached id only after checking it: an empty bucket and a deleted
        # one look the same from the shards.
        record = await self.buckets.read(bucket)
        if not record.is_indexed:
            raise RequestError(f"bucket {bucket!r} is hashed: it has no ordered listing")

        async def fetch(shard: int, after: bytes, limit: int) -> Page:
            return await self.registers.shards.page(
                record.place,
                Kind.OBJECT,
                shard,
                prefix=prefix.encode(),
                after=after,
                delimiter=delimiter.encode(),
                limit=limit,
            )

        async for rows in merge_runs(
            fetch, record.place.shards, start_after.encode(), limit=page_size, gather=gather
        ):
            yield [_entry(row) for row in rows]
