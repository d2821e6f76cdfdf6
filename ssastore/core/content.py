"""Bytes of an object to blobs and back, in bounded memory. Coroutines on a Caller.

A stream is cut into chunks; each is a blob at an address of its own, so one large
object is spread over the cluster.  The record that names them is written last and
changes once: a reader sees one version, never a mixture.  Every blob is verified
by whoever reads it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from blake3 import blake3

from ssastore.core.approach import PLANE_BUDGET_MS
from ssastore.core.blobcache import BlobCache
from ssastore.core.caller import Caller
from ssastore.core.ciphers import CIPHER_BYTES, PIECE_BYTES, Cipher, Piece
from ssastore.core.counts import Counts
from ssastore.core.metadata import Segment, SegmentKind, decode_manifest, encode_manifest
from ssastore.core.quorum import every_plane
from ssastore.core.reach import Reach
from ssastore.core.suspects import Suspects
from ssastore.env import spawn
from ssastore.errors import (
    CorruptObject,
    ObjectNotFound,
    ObjectTooLarge,
    OutOfStep,
    Recounted,
    RequestError,
    SsaStoreError,
    Unavailable,
)
from ssastore.keyspace import iid_of, position_of_blob
from ssastore.limits import (
    BLOB_GRACE_MS,
    CHUNK_BYTES,
    INLINE_BYTES_MAX,
    OBJECT_BYTES_MAX,
    RETRY_CAP_MS,
    SEGMENTS_MAX,
    STREAM_CHUNKS_INFLIGHT,
)
from ssastore.messages import GetBlob, PutBlob
from ssastore.wire import Body

_MANIFEST_SEGMENTS = 65_536
"Segments of one manifest blob: 42 bytes each, so it fits a chunk."

assert _MANIFEST_SEGMENTS * 48 <= CHUNK_BYTES
assert OBJECT_BYTES_MAX / PIECE_BYTES / _MANIFEST_SEGMENTS <= SEGMENTS_MAX, "two levels hold any object"


LINGER_S = 2.0
"How long a blob that a majority has is still sent to a plane that is slow: it stays in memory for that."


class Budget:
    """Chunks that all streams of a client may hold beyond the first of each.

    The first chunk of a stream is free, so no stream ever waits for another.
    """

    def __init__(self, chunks: int) -> None:
        self._free = chunks

    def take(self) -> bool:
        """Take one if there is one."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def give(self) -> None:
        """Return one."""
        self._free += 1


class Blobs:
    """Blobs by digest, at their computed addresses."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._suspects = Suspects(lambda: asyncio.get_running_loop().time())
        self._reach = Reach(caller)
        self._counts = Counts(caller)
        self.cache = BlobCache()

    async def put(self, content: Body, reference: bytes = b"") -> bytes:
        """Store a blob of at most CHUNK_BYTES; its digest. The same content is stored once."""
        if len(content) > CHUNK_BYTES:
            raise ObjectTooLarge(f"a blob has at most {CHUNK_BYTES} bytes, got {len(content)}")
        digest: bytes = blake3(content).digest()
        await self._put_counted(digest, partial(self._send, digest, reference, content))
        return digest

    async def keep(self, digest: bytes, reference: bytes) -> None:
        """Let one more record refer to a blob that is stored. Its bytes go only to planes that lack it.

        Raises:
            ObjectNotFound: no plane has it.
            CorruptObject: what they have is not it.
        """

        async def refer(plane: int, replicas: int) -> int:
            try:
                return await self._send(digest, reference, b"", plane, replicas)
            except ObjectNotFound:
                content = await self.get(digest)
                return await self._send(digest, reference, content, plane, replicas)

        await self._put_counted(digest, refer)

    async def _send(self, digest: bytes, reference: bytes, content: Body, plane: int, replicas: int) -> int:
        iid = iid_of(position_of_blob(digest), plane)
        header, _ = await self._caller.call(PutBlob(iid, digest, reference, replicas), iid, content)
        cfg: int = header[3]
        return cfg

    async def _put_counted(self, digest: bytes, store: Callable[..., Awaitable[int]]) -> None:
        position = position_of_blob(digest)
        try:
            await self._put(position, store, await self._counts.at(position))
        except Recounted as error:
            await self._counts.again(position, error, partial(self._put, position, store))

    async def _put(self, position: int, store: Callable[..., Awaitable[int]], replicas: int) -> None:
        if replicas == 1:
            await store(0, 1)
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._caller.deadline_ms / 1000
        while True:
            try:
                async with self._reach.limit(position, replicas):
                    ask = partial(store, replicas=replicas)
                    await every_plane(ask, replicas, cfg_of=lambda cfg: cfg, linger_s=LINGER_S)
                return
            except OutOfStep:
                # A plane that stored it under the old cfg may not have handed it to the rebuilt one.
                if loop.time() + RETRY_CAP_MS / 1000 >= deadline:
                    raise
            await asyncio.sleep(RETRY_CAP_MS / 1000)

    async def get(self, digest: bytes) -> Body:
        """A blob, verified; from the next plane when one lacks it. Raises ObjectNotFound, CorruptObject."""
        return await self.cache.get(digest, partial(self._fetch, digest))

    async def _fetch(self, digest: bytes) -> Body:
        position = position_of_blob(digest)
        try:
            return await self._get(digest, position, await self._counts.at(position))
        except Recounted as error:
            return await self._counts.again(position, error, partial(self._get, digest, position))

    async def _get(self, digest: bytes, position: int, replicas: int) -> Body:
        failure: SsaStoreError = ObjectNotFound("no such blob")
        iids = [iid_of(position, plane) for plane in range(replicas)]
        iids.sort(key=self._suspects.is_suspect)
        for iid in iids:
            # The last one gets all the time that there is: being slow is better than failing.
            within_ms = None if iid == iids[-1] else PLANE_BUDGET_MS
            try:
                _, content = await self._caller.call(GetBlob(iid, digest, replicas), iid, within_ms=within_ms)
                self._suspects.answered(iid)
                if blake3(content).digest() == digest:
                    return content
                said: SsaStoreError = CorruptObject(f"blob {digest.hex()} does not match its digest")
            except (ObjectNotFound, CorruptObject, Unavailable) as error:
                if isinstance(error, Unavailable):
                    self._suspects.failed(iid)
                said = error
            failure = max(failure, said, key=_weight)
        raise failure


def _weight(failure: SsaStoreError) -> int:
    """What one plane says of a blob against another: whom nobody could ask may have it."""
    if isinstance(failure, Unavailable):
        return 2
    return int(isinstance(failure, CorruptObject))


@dataclass(slots=True)
class Content:
    """What a stream became: inline ``data``, or ``segments``."""

    size: int
    data: bytes = b""
    segments: list[Segment] = field(default_factory=list)
    reference: bytes = b""
    "Name of the record that the blobs were stored for; only it may name them."


class ContentWriter:
    """Takes bytes, keeps at most a few chunks, gives the Content at the end.

    ``reference`` is the name of the record that will point to the blobs.  With a ``cipher`` the
    bytes are encrypted as those of ``part`` before anything leaves.  If the stream fails, call
    ``cancel``: blobs already written stay without a record.
    """

    def __init__(
        self,
        blobs: Blobs,
        reference: bytes,
        budget: Budget,
        *,
        inline_bytes_max: int = INLINE_BYTES_MAX,
        cipher: Cipher | None = None,
        part: int = 0,
    ) -> None:
        self._blobs = blobs
        self._reference = reference
        self._budget = budget
        self._cipher = cipher
        self._part = part
        self._sent = 0
        self._chunk_bytes = PIECE_BYTES if cipher else CHUNK_BYTES
        self._inline_bytes_max = inline_bytes_max - CIPHER_BYTES if cipher else inline_bytes_max
        self._buffer = bytearray()
        self._size = 0
        self._tasks: deque[tuple[asyncio.Task[bytes], int, bool]] = deque()
        self._first_sent_s: float | None = None
        self._segments: list[Segment] = []
        self._manifests: list[Segment] = []

    async def write(self, data: Body) -> None:
        """Add bytes; returns when there is room for more."""
        self._size += len(data)
        if self._size > OBJECT_BYTES_MAX:
            raise ObjectTooLarge(f"an object has at most {OBJECT_BYTES_MAX} bytes")
        view = memoryview(data)
        while view:
            room = self._chunk_bytes - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]
            if len(self._buffer) == self._chunk_bytes:
                await self._send()

    async def finish(self) -> Content:
        """Everything is stored; where it is."""
        if self._size <= self._inline_bytes_max:
            data = bytes(self._encrypted(memoryview(self._buffer))) if self._size else b""
            return Content(self._size, data, reference=self._reference)
        if self._buffer:
            await self._send()
        while self._tasks:
            await self._collect()
        segments = self._segments
        if self._manifests or len(segments) > SEGMENTS_MAX:
            await self._fold()
            segments = self._manifests
        if self._age_s() > BLOB_GRACE_MS / 2000:
            raise RequestError("the stream took so long that its first blobs may be gone before it is named")
        return Content(self._size, b"", segments, self._reference)

    async def cancel(self) -> None:
        """Stop what is under way and give the budget back."""
        for task, _, is_extra in self._tasks:
            task.cancel()
            if is_extra:
                self._budget.give()
        await asyncio.gather(*[task for task, _, _ in self._tasks], return_exceptions=True)
        self._tasks.clear()

    def _age_s(self) -> float:
        """How long ago the first blob was sent."""
        now_s = asyncio.get_running_loop().time()
        return now_s - (now_s if self._first_sent_s is None else self._first_sent_s)

    async def _send(self) -> None:
        if self._first_sent_s is None:
            self._first_sent_s = asyncio.get_running_loop().time()
        content, self._buffer = self._buffer, bytearray()
        is_extra = False
        while self._tasks:
            if len(self._tasks) < STREAM_CHUNKS_INFLIGHT and self._budget.take():
                is_extra = True
                break
            await self._collect()
        stored = self._encrypted(memoryview(content))
        task = spawn("put blob", self._blobs.put(stored, self._reference))
        self._tasks.append((task, len(content), is_extra))

    def _encrypted(self, plain: memoryview) -> Body:
        """The next piece as it is stored. Encrypting 4 MiB takes 1 ms, an eighth of their MD5: no thread."""
        if self._cipher is None:
            return plain
        piece = Piece(self._part, self._sent)
        self._sent += 1
        return self._cipher.encrypt(piece, plain)

    async def _collect(self) -> None:
        """Wait for the oldest blob under way; order of completion does not matter, order here does."""
        task, size, is_extra = self._tasks[0]
        digest = await asyncio.shield(task)
        self._tasks.popleft()
        if is_extra:
            self._budget.give()
        self._segments.append(Segment(SegmentKind.DATA, digest, size))
        if len(self._segments) == _MANIFEST_SEGMENTS:
            await self._fold()

    async def _fold(self) -> None:
        """Move the segments collected so far into a manifest blob."""
        if self._segments:
            self._manifests.append(await write_manifest(self._blobs, self._segments, self._reference))
            self._segments = []


async def write_manifest(blobs: Blobs, segments: list[Segment], reference: bytes) -> Segment:
    """Store a list of segments as a manifest blob; the segment that stands for it."""
    digest = await blobs.put(encode_manifest(segments), reference)
    return Segment(SegmentKind.MANIFEST, digest, sum(segment.size for segment in segments))


async def fold_segments(
    blobs: Blobs, segments: list[Segment], reference: bytes, *, others: int = 0
) -> list[Segment]:
    """So few segments for the same bytes that a record can name them, and ``others`` beside them."""
    if len(segments) + others <= SEGMENTS_MAX:
        return segments
    runs = [segments[at : at + _MANIFEST_SEGMENTS] for at in range(0, len(segments), _MANIFEST_SEGMENTS)]
    return [await write_manifest(blobs, run, reference) for run in runs]


async def _existing(blobs: Blobs, digest: bytes) -> Body:
    """A blob that a record or manifest names. That it is not there is no "no such object"."""
    try:
        return await blobs.get(digest)
    except ObjectNotFound:
        raise CorruptObject("a blob of the object is missing") from None


async def _data_segments(
    blobs: Blobs, segments: list[Segment], start: int, end: int
) -> AsyncGenerator[tuple[Segment, int, int, int], None]:
    """(segment, its offset, first, last + 1) of the DATA segments with bytes ``start`` to ``end - 1``."""
    at = 0
    for segment in segments:
        low, high = max(start - at, 0), min(end - at, segment.size)
        if low < high:
            if segment.kind == SegmentKind.DATA:
                yield segment, at, low, high
            else:
                inner = decode_manifest(await _existing(blobs, segment.digest))
                async for found, begin, first, last in _data_segments(blobs, inner, low, high):
                    yield found, at + begin, first, last
        at += segment.size


async def named_blobs(blobs: Blobs, segments: list[Segment]) -> AsyncGenerator[bytes, None]:
    """Digests of all blobs that segments name, manifests among them. Raises CorruptObject."""
    for segment in segments:
        yield segment.digest
        if segment.kind == SegmentKind.MANIFEST:
            async for digest in named_blobs(blobs, decode_manifest(await _existing(blobs, segment.digest))):
                yield digest


def _as_stored(offset: int, stored: Body) -> Body:
    return stored


async def read_content(
    blobs: Blobs,
    segments: list[Segment],
    start: int,
    end: int,
    budget: Budget,
    opened: Callable[[int, Body], Body] = _as_stored,
) -> AsyncIterator[Body]:
    """Bytes ``start`` to ``end - 1`` in order, with read-ahead.

    ``opened`` makes the plain bytes of a blob whose bytes begin at an offset of the object.

    Raises:
        CorruptObject: a blob is missing, or is not what its digest says.
    """
    wanted = _data_segments(blobs, segments, start, end)
    ahead: deque[tuple[asyncio.Task[Body], int, int, int, bool]] = deque()
    is_more = True
    missing = end - start
    try:
        while True:
            while is_more and len(ahead) < STREAM_CHUNKS_INFLIGHT:
                is_extra = bool(ahead)
                if is_extra and not budget.take():
                    break
                entry = None
                try:
                    entry = await anext(wanted, None)
                finally:
                    if entry is None and is_extra:
                        budget.give()
                if entry is None:
                    is_more = False
                    break
                segment, at, low, high = entry
                ahead.append((spawn("get blob", _existing(blobs, segment.digest)), at, low, high, is_extra))
            if not ahead:
                if missing > 0:
                    raise CorruptObject(f"the segments of an object lack {missing} bytes")
                return
            task, at, low, high, is_extra = ahead[0]
            stored = await asyncio.shield(task)
            ahead.popleft()
            if is_extra:
                budget.give()
            content = opened(at, stored)
            del task, stored  # Else the encrypted bytes stay while the plain ones are sent.
            if high > len(content):
                raise CorruptObject("a blob is shorter than its segment")
            missing -= high - low
            yield content if high - low == len(content) else memoryview(content)[low:high]
    finally:
        for task, *_, is_extra in ahead:
            task.cancel()
            if is_extra:
                budget.give()
        await asyncio.gather(*[entry[0] for entry in ahead], return_exceptions=True)
        await wanted.aclose()
