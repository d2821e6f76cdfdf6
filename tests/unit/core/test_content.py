"""Streams to blobs and back: any size, any cut, any range; bounded; nothing is left behind when it fails.

Chunks and manifests are made tiny, so that one small object has hundreds of blobs and two levels.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import contextmanager
from itertools import permutations
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssastore.core import content
from ssastore.core.blobstore import references_of
from ssastore.core.content import Blobs, Budget, Content, ContentWriter, fold_segments, read_content
from ssastore.core.metadata import Segment, SegmentKind, encode_manifest
from ssastore.core.records import blob_key
from ssastore.errors import CorruptObject, ObjectNotFound, ObjectTooLarge, Unavailable
from ssastore.keyspace import iid_of, locator_of, position_of_blob
from ssastore.limits import STREAM_CHUNKS_INFLIGHT
from ssastore.messages import GetBlob, PutBlob
from tests.direct import DirectCaller

CHUNK, SEGMENTS, MANIFEST, INLINE = 512, 4, 8, 100


@contextmanager
def tiny_chunks() -> Any:
    with (
        patch.object(content, "CHUNK_BYTES", CHUNK),
        patch.object(content, "SEGMENTS_MAX", SEGMENTS),
        patch.object(content, "_MANIFEST_SEGMENTS", MANIFEST),
    ):
        yield


@pytest.fixture(autouse=True)
def _tiny() -> Any:
    with tiny_chunks():
        yield


class SlowCaller(DirectCaller):
    """Answers in another order than it was asked, and counts how much is under way."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._random = Random(seed)
        self.underway = 0
        self.most = 0
        self.failing: set[bytes] = set()
        "Digests whose blob cannot be reached."
        self.hook = self._wait

    async def _wait(self, message: Any) -> None:
        if not isinstance(message, PutBlob | GetBlob):
            return
        self.underway += 1
        self.most = max(self.most, self.underway)
        try:
            for _ in range(self._random.randrange(6)):
                await asyncio.sleep(0)
        finally:
            self.underway -= 1
        if message.digest in self.failing:
            raise Unavailable("the node is gone")


def data_of(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


def chunks_of(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


def digest_of(data: bytes) -> bytes:
    return blake3(data).digest()


def free(budget: Budget) -> int:
    count = 0
    while budget.take():
        count += 1
    for _ in range(count):
        budget.give()
    return count


def writer_of(caller: DirectCaller, budget: Budget) -> ContentWriter:
    return ContentWriter(Blobs(caller), b"reference", budget, inline_bytes_max=INLINE)


async def write(caller: DirectCaller, budget: Budget, data: bytes, cut: int = 10**9) -> Content:
    writer = writer_of(caller, budget)
    for at in range(0, len(data), cut):
        await writer.write(data[at : at + cut])
    return await writer.finish()


async def read(
    caller: DirectCaller, budget: Budget, stored: Content, start: int = 0, end: int | None = None
) -> bytes:
    end = stored.size if end is None else end
    return b"".join([c async for c in read_content(Blobs(caller), stored.segments, start, end, budget)])


def blob_count(caller: DirectCaller) -> int:
    return sum(name == "PutBlob" for name in caller.calls)


LARGEST = CHUNK * MANIFEST * SEGMENTS


@given(
    size=st.integers(INLINE + 1, LARGEST) | st.integers(1, 32).map(lambda count: count * CHUNK),
    cut=st.integers(7, 3 * CHUNK),
    ranges=st.lists(st.tuples(st.integers(0, LARGEST), st.integers(0, LARGEST)), max_size=3),
    budget_chunks=st.integers(0, 8),
    seed=st.integers(0, 99),
)
@example(size=CHUNK, cut=CHUNK, ranges=[(0, CHUNK)], budget_chunks=8, seed=0)
@example(size=CHUNK * SEGMENTS, cut=7, ranges=[(CHUNK, CHUNK * 2)], budget_chunks=8, seed=0)
@example(size=CHUNK * SEGMENTS + 1, cut=CHUNK * 2, ranges=[(CHUNK - 1, CHUNK + 1)], budget_chunks=0, seed=0)
@example(size=CHUNK * MANIFEST, cut=99, ranges=[(0, 1)], budget_chunks=1, seed=0)
@example(size=CHUNK * MANIFEST + 1, cut=99, ranges=[(4095, 4097)], budget_chunks=1, seed=0)
@settings(max_examples=40)
def test_round_trip(
    size: int, cut: int, ranges: list[tuple[int, int]], budget_chunks: int, seed: int
) -> None:
    async def run() -> None:
        caller, budget, data = SlowCaller(seed), Budget(budget_chunks), data_of(size, seed)
        stored = await write(caller, budget, data, cut)
        assert (stored.size, stored.data) == (size, b"")
        assert sum(segment.size for segment in stored.segments) == size
        assert len(stored.segments) <= SEGMENTS
        assert await read(caller, budget, stored) == data
        for start, end in ranges:
            start, end = min(start, size), min(end, size)
            assert await read(caller, budget, stored, start, end) == data[start:end]
        assert caller.most <= min(STREAM_CHUNKS_INFLIGHT, budget_chunks + 1)
        assert free(budget) == budget_chunks

    with tiny_chunks():
        asyncio.run(run())


@pytest.mark.parametrize("size", [0, 1, INLINE])
async def test_small_data_stays_inline(size: int) -> None:
    caller, data = DirectCaller(), data_of(size)
    assert await write(caller, Budget(1), data, 7) == Content(size, data, [], b"reference")
    assert not caller.calls


@pytest.mark.parametrize(
    ("size", "kinds", "blobs"),
    [
        (INLINE + 1, [SegmentKind.DATA], 1),
        (CHUNK, [SegmentKind.DATA], 1),
        (CHUNK + 1, [SegmentKind.DATA] * 2, 2),
        (CHUNK * SEGMENTS, [SegmentKind.DATA] * SEGMENTS, SEGMENTS),
        (CHUNK * SEGMENTS + 1, [SegmentKind.MANIFEST], SEGMENTS + 2),
        (CHUNK * MANIFEST, [SegmentKind.MANIFEST], MANIFEST + 1),
        (CHUNK * MANIFEST + 1, [SegmentKind.MANIFEST] * 2, MANIFEST + 3),
        (LARGEST, [SegmentKind.MANIFEST] * SEGMENTS, SEGMENTS * (MANIFEST + 1)),
    ],
)
async def test_shape_at_the_bounds(size: int, kinds: list[SegmentKind], blobs: int) -> None:
    """The record names the last full set of chunks itself; one chunk more goes into a manifest."""
    caller = DirectCaller()
    stored = await write(caller, Budget(8), data_of(size))
    assert [segment.kind for segment in stored.segments] == kinds
    assert blob_count(caller) == blobs
    assert await read(caller, Budget(8), stored) == data_of(size)


async def test_equal_chunks_are_stored_once() -> None:
    caller = DirectCaller()
    stored = await write(caller, Budget(8), bytes(CHUNK * 4))
    assert len({segment.digest for segment in stored.segments}) == 1
    assert caller.store.usage().records == 2, "a blob and its one reference"
    assert await read(caller, Budget(8), stored) == bytes(CHUNK * 4)


async def test_one_more_record_refers_to_a_blob_without_its_bytes() -> None:
    caller = DirectCaller()
    sent: list[int] = []

    async def count(message: Any) -> None:
        sent.append(type(message) is PutBlob)

    blobs = Blobs(caller)
    digest = await blobs.put(b"data", b"0123456789first")
    caller.hook = count
    await blobs.keep(digest, b"0123456789second")
    assert sent == [True], "one request, and its body is empty"
    with caller.store.read() as txn:
        found = references_of(txn, locator_of(iid_of(position_of_blob(digest), 0)), digest)
    names = sorted(reference.name for _, reference in found if reference)
    assert names == [b"0123456789first", b"0123456789second"]
    assert await blobs.get(digest) == b"data"


async def test_a_blob_that_is_not_there_cannot_be_referred_to() -> None:
    caller = DirectCaller()
    with pytest.raises(ObjectNotFound):
        await Blobs(caller).keep(digest_of(b"absent"), b"0123456789record")
    with caller.store.read() as txn:
        assert list(txn.scan(b"", b"\xff")) == []
    empty = await Blobs(caller).put(b"", b"0123456789record")
    assert bytes(await Blobs(caller).get(empty)) == b"", "an empty body is a blob as well"


async def test_stream_above_the_limit_is_refused() -> None:
    caller, budget = SlowCaller(), Budget(8)
    writer = writer_of(caller, budget)
    with patch.object(content, "OBJECT_BYTES_MAX", 2 * CHUNK):
        await writer.write(bytes(2 * CHUNK))
        with pytest.raises(ObjectTooLarge):
            await writer.write(b"x")
    await writer.cancel()
    assert free(budget) == 8


async def test_blob_above_a_chunk_is_refused() -> None:
    with pytest.raises(ObjectTooLarge):
        await Blobs(DirectCaller()).put(bytes(CHUNK + 1))


async def test_streams_without_budget_still_get_on() -> None:
    """Many streams and no chunk to spare: each goes on with its own first one, none waits for another."""
    caller, budget = SlowCaller(), Budget(0)
    data = [data_of(5 * CHUNK, seed) for seed in range(20)]
    stored = await asyncio.gather(*[write(caller, budget, one) for one in data])
    assert await asyncio.gather(*[read(caller, budget, one) for one in stored]) == data


# -- failures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", range(6))
async def test_failed_upload_gives_everything_back(failing: int) -> None:
    caller, budget, data = SlowCaller(failing), Budget(8), data_of(6 * CHUNK)
    caller.failing = {digest_of(chunks_of(data)[failing])}
    writer = writer_of(caller, budget)
    with pytest.raises(Unavailable):
        for chunk in chunks_of(data):
            await writer.write(chunk)
        await writer.finish()
    await writer.cancel()
    assert free(budget) == 8 and caller.underway == 0


@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_cancelled_upload_gives_everything_back(turns: int) -> None:
    caller, budget, data = SlowCaller(turns), Budget(8), data_of(20 * CHUNK)
    writer = writer_of(caller, budget)
    task = asyncio.ensure_future(writer.write(data))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await writer.cancel()
    assert free(budget) == 8 and caller.underway == 0


@pytest.mark.parametrize("at", range(6))
async def test_missing_chunk_is_corrupt_and_gives_everything_back(at: int) -> None:
    """Not ObjectNotFound: the object is there, some of its bytes are not."""
    caller, budget, data = SlowCaller(at), Budget(8), data_of(6 * CHUNK)
    stored = await write(caller, budget, data)
    await drop(caller, digest_of(chunks_of(data)[at]))
    seen = b""
    with pytest.raises(CorruptObject):
        async for chunk in read_content(Blobs(caller), stored.segments, 0, stored.size, budget):
            seen += bytes(chunk)
    assert seen == data[: at * CHUNK], "what came before was right"
    assert free(budget) == 8 and caller.underway == 0


async def drop(caller: DirectCaller, digest: bytes) -> None:
    key = blob_key(locator_of(iid_of(position_of_blob(digest), 0)), digest)
    assert await caller.store.submit(lambda txn: txn.delete(key))


@pytest.mark.parametrize("at", range(2))
async def test_missing_manifest_is_corrupt_and_gives_everything_back(at: int) -> None:
    caller, budget, data = SlowCaller(at), Budget(8), data_of(2 * MANIFEST * CHUNK)
    stored = await write(caller, budget, data)
    await drop(caller, stored.segments[at].digest)
    for _ in range(10):
        with pytest.raises(CorruptObject):
            await read(caller, budget, stored)
    assert free(budget) == 8 and caller.underway == 0


@pytest.mark.parametrize("at", range(2))
async def test_unreachable_manifest_gives_everything_back(at: int) -> None:
    """Ten failed reads must not eat up the budget of all later ones."""
    caller, budget, data = SlowCaller(at), Budget(8), data_of(2 * MANIFEST * CHUNK)
    stored = await write(caller, budget, data)
    caller.failing = {stored.segments[at].digest}
    for _ in range(10):
        with pytest.raises(Unavailable):
            await read(caller, budget, stored)
    assert free(budget) == 8 and caller.underway == 0


async def test_rotten_bytes_are_noticed_by_the_reader() -> None:
    """A node that lies about its bytes, or a seal that was made after the damage."""
    caller, data = DirectCaller(), data_of(3 * CHUNK)
    stored = await write(caller, Budget(8), data)
    digest = digest_of(chunks_of(data)[1])
    key = blob_key(locator_of(iid_of(position_of_blob(digest), 0)), digest)
    await caller.store.submit(lambda txn: txn.put(key, bytes(CHUNK)))
    with pytest.raises(CorruptObject):
        await read(caller, Budget(8), stored)


async def test_segments_that_lack_bytes_are_corrupt() -> None:
    """An object must never come out short without an error."""
    caller, data = DirectCaller(), data_of(2 * CHUNK)
    stored = await write(caller, Budget(8), data)
    stored.size += 1
    with pytest.raises(CorruptObject):
        await read(caller, Budget(8), stored)
    long = [Segment(0, segment.digest, CHUNK + 1) for segment in stored.segments]
    with pytest.raises(CorruptObject):
        await read(caller, Budget(8), Content(2 * CHUNK + 2, b"", long))


async def test_manifest_that_lists_too_little_is_corrupt() -> None:
    caller, data = DirectCaller(), data_of(CHUNK)
    digest = await Blobs(caller).put(data)
    manifest = await Blobs(caller).put(encode_manifest([Segment(SegmentKind.DATA, digest, CHUNK)]))
    segments = [Segment(SegmentKind.MANIFEST, manifest, CHUNK + 5)]
    with pytest.raises(CorruptObject):
        await read(caller, Budget(8), Content(CHUNK + 5, b"", segments))


@pytest.mark.parametrize("chunks", [0, 1, 3])
async def test_reader_that_stops_early_gives_everything_back(chunks: int) -> None:
    caller, budget = SlowCaller(), Budget(8)
    stored = await write(caller, budget, data_of(2 * MANIFEST * CHUNK))
    reading = read_content(Blobs(caller), stored.segments, 0, stored.size, budget)
    for _ in range(chunks):
        await anext(reading)
    await close(reading)
    assert free(budget) == 8 and caller.underway == 0


async def close(reading: AsyncIterator[Any]) -> None:
    await reading.aclose()  # type: ignore[attr-defined]  # it is an async generator


@pytest.mark.parametrize("turns", range(0, 16, 2))
async def test_cancelled_reader_gives_everything_back(turns: int) -> None:
    caller, budget = SlowCaller(turns), Budget(8)
    stored = await write(caller, budget, data_of(2 * MANIFEST * CHUNK))
    task = asyncio.ensure_future(read(caller, budget, stored))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert free(budget) == 8 and caller.underway == 0


async def test_reader_asks_only_for_what_the_range_needs() -> None:
    caller = DirectCaller()
    stored = await write(caller, Budget(8), data_of(LARGEST))
    caller.calls.clear()
    await read(caller, Budget(8), stored, CHUNK + 1, CHUNK + 2)
    assert caller.calls == ["GetBlob", "GetBlob"], "one manifest, one chunk"
    caller.calls.clear()
    await read(caller, Budget(8), stored, 5, 5)
    assert not caller.calls


async def test_absent_blob_by_digest_is_not_found() -> None:
    with pytest.raises(ObjectNotFound):
        await Blobs(DirectCaller()).get(bytes(32))


class Saying(DirectCaller):
    """Three planes, each of which has something else to say of a blob."""

    def __init__(self, *answers: Exception) -> None:
        super().__init__()
        self.replicas = 3
        self._answers = iter(answers)

    async def call(self, *_: Any, **__: Any) -> Any:
        raise next(self._answers)


@pytest.mark.parametrize("answers", [*permutations([ObjectNotFound, CorruptObject, Unavailable])])
async def test_a_plane_that_cannot_be_asked_may_have_a_blob_that_others_lack(answers: Any) -> None:
    with pytest.raises(Unavailable):
        await Blobs(Saying(*[answer("so it is") for answer in answers])).get(bytes(32))
    planes = [one for one in answers if one is not Unavailable] + [ObjectNotFound]
    with pytest.raises(CorruptObject):
        await Blobs(Saying(*[answer("so it is") for answer in planes])).get(bytes(32))


async def test_many_segments_fold_into_manifests() -> None:
    caller = DirectCaller()
    blobs = Blobs(caller)
    data = data_of(20 * CHUNK)
    flat = [Segment(SegmentKind.DATA, await blobs.put(chunk), CHUNK) for chunk in chunks_of(data)]
    assert await fold_segments(blobs, flat[:SEGMENTS], b"r") == flat[:SEGMENTS]
    folded = await fold_segments(blobs, flat, b"r")
    assert [segment.size for segment in folded] == [8 * CHUNK, 8 * CHUNK, 4 * CHUNK]
    twice = await fold_segments(blobs, [*folded, *flat], b"r")
    assert await read(caller, Budget(8), Content(40 * CHUNK, b"", twice)) == data * 2
