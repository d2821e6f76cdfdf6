"""Blobs of versions: they stay as long as any version needs them, wherever that is, and no longer."""

from __future__ import annotations

from random import Random

import pytest

from ssastore.core.blobstore import references_of
from ssastore.core.objects import Objects
from ssastore.core.records import split_place
from ssastore.core.registers import key_bytes
from ssastore.core.sweep import Sweeper
from ssastore.core.tools import UpkeepRules
from ssastore.messages import Kind
from tests.direct import DirectCaller, SeededRandomness, tools_of

NAME = "photos"
KEY = "k"
GRACE_MS = 1000


class World:
    """A bucket that makes versions, and the sweeper of its one node."""

    def __init__(self) -> None:
        self.caller = caller = DirectCaller()
        self.objects = Objects(caller, caller.clock, SeededRandomness())
        tools = tools_of(caller, self.objects, UpkeepRules(blob_grace_ms=GRACE_MS))
        self._sweeper = Sweeper(tools, self.objects.blobs)

    async def put(self, data: bytes) -> str:
        writer = self.objects.writer(
            await self.objects.buckets.read(NAME), key_bytes(KEY), inline_bytes_max=0
        )
        await writer.write(data)
        return (await self.objects.commit(NAME, KEY, await writer.finish(), "etag")).version

    async def get(self, version: str | None = None) -> bytes:
        return await (await self.objects.open(NAME, KEY, version)).read()

    def stored(self, kind: Kind) -> list[bytes]:
        with self.caller.store.read() as txn:
            keys = [key for key, _ in txn.scan(b"", b"\xff" * 5)]
        return [key for key in keys if split_place(key)[1] == kind]

    async def sweep(self) -> int:
        """Examine every reference; how many blobs are left."""
        self.caller.clock.ms += GRACE_MS + 1
        for key in self.stored(Kind.REF):
            with self.caller.store.read() as txn:
                found = dict(references_of(txn, int.from_bytes(key[:4], "big"), key[5:37]))
            reference = found[key]
            assert reference is not None
            await self._sweeper.examine(key, reference)
        return len(self.stored(Kind.BLOB))


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("ssastore.core.content.CHUNK_BYTES", 512)
    monkeypatch.setattr("ssastore.core.content.SEGMENTS_MAX", 4)
    monkeypatch.setattr("ssastore.core.content._MANIFEST_SEGMENTS", 8)
    world = World()
    await world.objects.buckets.create(NAME, shards=1, config={"versioning": "Enabled"})
    return world


async def test_blobs_stay_with_their_versions(world: World) -> None:
    contents = [Random(number).randbytes(512 * 10) for number in range(3)]
    versions = [await world.put(data) for data in contents]
    marker = (await world.objects.delete(NAME, KEY)).marker
    assert await world.sweep() == 3 * 12, "10 of data and 2 of manifests each"
    for version, data in zip(versions, contents, strict=True):
        assert await world.get(version) == data
    await world.objects.delete(NAME, KEY, marker)
    await world.objects.delete(NAME, KEY, versions[2])
    assert await world.sweep() == 2 * 12
    assert await world.get() == contents[1], "it is current again"
    await world.objects.delete(NAME, KEY, versions[0])
    assert await world.sweep() == 12
    assert await world.get(versions[1]) == contents[1]
    await world.objects.delete(NAME, KEY, versions[1])
    assert await world.sweep() == 0


async def test_what_two_versions_have_in_common_stays_with_the_other(world: World) -> None:
    data = Random(7).randbytes(512 * 3)
    first, second = await world.put(data), await world.put(data)
    await world.objects.delete(NAME, KEY, second)
    assert await world.sweep() == 3
    assert await world.get(first) == data
