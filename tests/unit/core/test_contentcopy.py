"""Copies that move no bytes: every blob is kept for the target, whatever becomes of the source meanwhile."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from ssastore.core import content
from ssastore.core.blobstore import drop_reference, references_of
from ssastore.core.content import Content
from ssastore.core.contentcopy import content_tag, copy_content, copy_range, from_fresh_read
from ssastore.core.found import Found
from ssastore.core.metadata import Segment, SegmentKind, decode_manifest
from ssastore.core.objects import Objects
from ssastore.core.records import blob_key
from ssastore.errors import CorruptObject, ObjectNotFound
from ssastore.keyspace import iid_of, locator_of, position_of_blob
from ssastore.messages import PutBlob
from tests.direct import DirectCaller, SeededRandomness

CHUNK, BUCKET, TARGET = 512, "photos", b"name of the target"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(content, "SEGMENTS_MAX", 4)
    monkeypatch.setattr(content, "_MANIFEST_SEGMENTS", 8)


class World:
    """A bucket over a store whose blobs and references can be looked at."""

    def __init__(self) -> None:
        self.caller = DirectCaller()
        self.objects = Objects(self.caller, self.caller.clock, SeededRandomness())

    async def put(self, key: str, data: bytes) -> Found:
        bucket = await self.objects.bucket(BUCKET)
        writer = self.objects.writer(bucket, key.encode(), inline_bytes_max=16)
        await writer.write(data)
        await self.objects.commit(BUCKET, key, await writer.finish(), "etag")
        return await self.objects.find(BUCKET, key)

    async def read(self, made: Content) -> bytes:
        pieces = content.read_content(self.objects.blobs, made.segments, 0, made.size, content.Budget(4))
        return b"".join([piece async for piece in pieces])

    async def digests(self, segments: list[Segment]) -> list[bytes]:
        found = []
        for segment in segments:
            found.append(segment.digest)
            if segment.kind == SegmentKind.MANIFEST:
                found += await self.digests(decode_manifest(await self.objects.blobs.get(segment.digest)))
        return found

    def kept_for(self, digest: bytes) -> set[bytes]:
        with self.caller.store.read() as txn:
            rows = references_of(txn, locator_of(iid_of(position_of_blob(digest), 0)), digest)
        return {ref.name for _, ref in rows if ref is not None}

    async def forget(self, digest: bytes, *, but: bytes = b"") -> None:
        """As the sweeper does when all records but one are gone."""
        locator = locator_of(iid_of(position_of_blob(digest), 0))
        with self.caller.store.read() as txn:
            rows = references_of(txn, locator, digest)
        for stored_key, ref in rows:
            if ref is not None and ref.name != but:
                at_ms = ref.at_ms
                await self.caller.store.submit(
                    lambda txn, key=stored_key, at_ms=at_ms: drop_reference(txn, key, at_ms)
                )

    def has(self, digest: bytes) -> bool:
        with self.caller.store.read() as txn:
            return txn.get(blob_key(locator_of(iid_of(position_of_blob(digest), 0)), digest)) is not None


@pytest.fixture
async def world() -> World:
    made = World()
    await made.objects.buckets.create(BUCKET, shards=4)
    return made


@pytest.mark.parametrize("size", [0, 7, 17, CHUNK, 3 * CHUNK + 1, 5 * CHUNK, 40 * CHUNK, 200 * CHUNK + 3])
async def test_copy_keeps_every_blob_and_moves_none(world: World, size: int) -> None:
    data = Random(size).randbytes(size)
    found = await world.put("source", data)
    bodies: list[int] = []

    async def watch(message: Any) -> None:
        if isinstance(message, PutBlob):
            bodies.append(1)

    world.caller.hook = watch
    made = await copy_content(world.objects.blobs, found, TARGET)
    world.caller.hook = None
    digests = await world.digests(found.metadata.segments)
    assert made.size == size and len(bodies) == len(set(digests))
    # The source goes, and all that was kept for it alone.
    for digest in digests:
        assert TARGET in world.kept_for(digest)
        await world.forget(digest, but=TARGET)
    assert (made.data or await world.read(made)) == data


async def test_blob_that_is_there_often_is_kept_once(world: World) -> None:
    found = await world.put("zeros", bytes(30 * CHUNK))
    world.caller.calls.clear()
    await copy_content(world.objects.blobs, found, TARGET)
    assert world.caller.calls.count("PutBlob") <= 1 + len(found.metadata.segments)


@pytest.mark.parametrize(
    ("start", "end", "is_whole"),
    [
        (0, 41 * CHUNK + 9, True),
        (0, CHUNK, True),
        (3 * CHUNK, 30 * CHUNK, True),
        (41 * CHUNK, 41 * CHUNK + 9, True),
        (0, CHUNK - 1, False),
        (1, CHUNK, False),
        (5, 6, False),
        (CHUNK, 40 * CHUNK + 1, False),
        (7, 7, False),
    ],
)
async def test_range_of_whole_blobs_is_kept_and_any_other_is_not(
    world: World, start: int, end: int, is_whole: bool
) -> None:
    data = Random(5).randbytes(41 * CHUNK + 9)
    found = await world.put("source", data)
    made = await copy_range(world.objects.blobs, found, start, end, TARGET)
    assert (made is not None) == is_whole
    if made is None:
        return
    assert made.size == end - start and len(made.segments) <= 6
    for digest in await world.digests(made.segments):
        await world.forget(digest, but=TARGET)
    assert await world.read(made) == data[start:end]


async def test_inline_data_is_no_range_of_blobs(world: World) -> None:
    found = await world.put("small", b"inline")
    assert await copy_range(world.objects.blobs, found, 0, 6, TARGET) is None
    assert await copy_content(world.objects.blobs, found, TARGET) == Content(6, b"inline", [], TARGET)


async def test_list_of_parts_goes_with_an_object_and_not_into_a_part(world: World) -> None:
    """Each has its own: an object that is made of a copied part would have two lists else."""
    bucket = await world.objects.bucket(BUCKET)
    writer = world.objects.writer(bucket, b"source", inline_bytes_max=0)
    await writer.write(bytes(3 * CHUNK))
    stored = await writer.finish()
    listed = Segment(SegmentKind.PARTS, await world.objects.blobs.put(b"list", stored.reference), 0)
    stored.segments.insert(0, listed)
    await world.objects.commit(BUCKET, "source", stored, "etag")
    found = await world.objects.find(BUCKET, "source")
    copied = await copy_content(world.objects.blobs, found, TARGET)
    assert copied.segments[0] == listed and TARGET in world.kept_for(listed.digest)
    for end in (3 * CHUNK, CHUNK):
        made = await copy_range(world.objects.blobs, found, 0, end, b"another")
        assert made is not None and listed not in made.segments
        assert await world.read(made) == bytes(end)
    assert b"another" not in world.kept_for(listed.digest)


async def test_tag_follows_from_the_blobs(world: World) -> None:
    one, two = await world.put("one", bytes(CHUNK * 2)), await world.put("two", bytes(CHUNK * 3))
    tags = [content_tag(await copy_content(world.objects.blobs, found, TARGET)) for found in (one, two, one)]
    assert tags[0] == tags[2] != tags[1] and len(bytes.fromhex(tags[0])) == 16


@pytest.mark.parametrize("nth", [0, 3, 8, 11])
async def test_source_that_is_replaced_and_swept_meanwhile_is_read_again(world: World, nth: int) -> None:
    """The nth blob goes just before its reference is taken: the copy is of what is there then, and whole."""
    old = await world.put("source", Random(1).randbytes(12 * CHUNK))
    new = Random(2).randbytes(14 * CHUNK)
    taken = 0

    async def replace(message: Any) -> None:
        nonlocal taken
        if not isinstance(message, PutBlob):
            return
        taken += 1
        if taken == nth + 1:
            world.caller.hook = None
            await world.put("source", new)
            for digest in await world.digests(old.metadata.segments):
                await world.forget(digest, but=TARGET)

    world.caller.hook = replace
    made = await from_fresh_read(
        lambda: world.objects.find(BUCKET, "source"),
        lambda found: copy_content(world.objects.blobs, found, TARGET),
    )
    whole = await world.read(made)
    assert whole in (new, Random(1).randbytes(12 * CHUNK)) and (nth > 3 or whole == new)


async def test_source_that_is_deleted_and_swept_meanwhile_is_no_object(world: World) -> None:
    old = await world.put("source", Random(1).randbytes(3 * CHUNK))

    async def delete(message: Any) -> None:
        if isinstance(message, PutBlob):
            world.caller.hook = None
            await world.objects.delete(BUCKET, "source")
            for digest in await world.digests(old.metadata.segments):
                await world.forget(digest)

    world.caller.hook = delete
    with pytest.raises(ObjectNotFound):
        await from_fresh_read(
            lambda: world.objects.find(BUCKET, "source"),
            lambda found: copy_content(world.objects.blobs, found, TARGET),
        )


@pytest.mark.parametrize("which", [0, -1])
async def test_blob_that_is_lost_is_an_error_and_no_copy(world: World, which: int) -> None:
    found = await world.put("source", Random(1).randbytes(40 * CHUNK))
    lost = (await world.digests(found.metadata.segments))[which]
    await world.forget(lost)
    assert not world.has(lost)
    with pytest.raises(CorruptObject):
        await from_fresh_read(
            lambda: world.objects.find(BUCKET, "source"),
            lambda found: copy_content(world.objects.blobs, found, TARGET),
        )
