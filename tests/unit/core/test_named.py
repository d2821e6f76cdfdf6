"""Which references keep the blobs of a record, and what is said when nothing does, with one replica."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from ssastore.core.blobstore import decode_reference
from ssastore.core.named import LOST, QUESTION_BYTES, Looked, Named, Naming, naming_of
from ssastore.core.objects import Objects
from ssastore.core.records import reference_key, reference_name, split_place, split_reference_name
from ssastore.core.registers import key_bytes
from ssastore.core.sweep import Sweeper
from ssastore.core.titles import Titles
from ssastore.core.tools import UpkeepRules
from ssastore.messages import RECORD_KINDS, GetBlob, Kind, Message
from tests.direct import DirectCaller, SeededRandomness, tools_of

NAME = "photos"
KEY = "k"
CHUNK = 512


class World:
    """A bucket, and what its one node says of the blobs that records name."""

    def __init__(self) -> None:
        self.caller = caller = DirectCaller()
        self.objects = Objects(caller, caller.clock, SeededRandomness())
        tools = tools_of(caller, self.objects, UpkeepRules())
        self.sweeper = Sweeper(tools, self.objects.blobs)
        self.named = Named(tools, self.objects.blobs, self.sweeper, Titles(self.objects.buckets.all))
        self.spent: list[int] = []

    async def put(self, data: bytes) -> str:
        writer = self.objects.writer(
            await self.objects.buckets.read(NAME), key_bytes(KEY), inline_bytes_max=0
        )
        await writer.write(data)
        return (await self.objects.commit(NAME, KEY, await writer.finish(), "etag")).version

    def stored(self, *kinds: int) -> dict[bytes, bytes]:
        with self.caller.store.read() as txn:
            return {
                key: bytes(value) for key, value in txn.scan(b"", b"\xff" * 4) if split_place(key)[1] in kinds
            }

    def namings(self) -> list[Naming]:
        found = [naming_of(*item) for item in self.stored(*RECORD_KINDS).items()]
        return [naming for naming in found if naming is not None]

    async def lacking(self) -> list[bytes]:
        async def spend(size: int) -> None:
            self.spent.append(size)

        return (await self.named.ask(self.namings(), spend)).lacking

    async def sweep(self) -> None:
        """All references are old now, and those that do not stand go."""
        self.caller.clock.ms += UpkeepRules().blob_grace_ms + 1
        for key, value in self.stored(Kind.REF).items():
            await self.sweeper.examine(key, decode_reference(value))

    async def drop(self, *keys: bytes) -> None:
        await self.caller.store.submit(lambda txn: [txn.delete(key) for key in keys])


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("ssastore.core.multipart.PART_BYTES_MIN", 10)
    monkeypatch.setattr("ssastore.core.content.CHUNK_BYTES", CHUNK)
    monkeypatch.setattr("ssastore.core.content.SEGMENTS_MAX", 4)
    monkeypatch.setattr("ssastore.core.content._MANIFEST_SEGMENTS", 8)
    return World()


async def upload(world: World, *parts: bytes, is_completed: bool = True) -> str:
    bucket = await world.objects.buckets.read(NAME)
    uploads = world.objects.multipart(bucket)
    upload_id = await uploads.create(KEY.encode(), {}, {})
    for number, data in enumerate(parts, 1):
        writer = world.objects.writer(bucket, f"{KEY}\0{upload_id}".encode(), inline_bytes_max=0)
        await writer.write(data)
        await uploads.put_part(KEY.encode(), upload_id, number, "e", await writer.finish())
    if is_completed:
        named = [(number, "e") for number in range(1, len(parts) + 1)]
        await uploads.complete(KEY.encode(), upload_id, named, "etag")
    return upload_id


async def test_versions_are_kept_wherever_they_are_and_however_they_came_there(world: World) -> None:
    """References of an object, of a version, of an upload, and of a version that is current again."""
    await world.objects.buckets.create(NAME, shards=1, config={"versioning": "Enabled"})
    versions = [await world.put(Random(number).randbytes(CHUNK * 10)) for number in range(3)]
    await upload(world, Random(7).randbytes(CHUNK * 3), Random(8).randbytes(CHUNK))
    for _ in range(2):
        assert len(world.namings()) >= 4 and not await world.lacking()
        await world.sweep()
    current = (await world.objects.head(NAME, KEY)).version
    await world.objects.delete(NAME, KEY, current)
    await world.objects.delete(NAME, KEY, versions[2])
    await world.sweep()
    assert (await world.objects.head(NAME, KEY)).version == versions[1], "it is current again"
    assert len(world.namings()) >= 3 and not await world.lacking()


async def test_an_upload_keeps_its_parts_and_the_object_made_of_them(world: World) -> None:
    await world.objects.buckets.create(NAME, shards=1)
    await upload(world, b"a" * 99, b"b" * 9, is_completed=False)
    assert len(world.namings()) == 2 and not await world.lacking()
    await upload(world, b"c" * CHUNK * 20, b"d" * 9)
    assert len(world.namings()) == 3 and not await world.lacking()


async def test_with_one_replica_what_is_lost_is_said_with_its_name(world: World) -> None:
    await world.objects.buckets.create(NAME, shards=1)
    await world.put(bytes(100))
    await world.drop(*world.stored(Kind.BLOB, Kind.REF))
    (stored_key,) = await world.lacking()
    for _ in range(2):
        assert await world.named.look(stored_key) == Looked("missing", here=LOST, title=f"{NAME}/{KEY}")
    await world.put(bytes(100))
    assert await world.named.look(stored_key) == Looked("missing"), "it is back"
    assert await world.named.look(stored_key) == Looked()
    assert not await world.lacking()


async def test_a_version_that_is_lost_has_its_id_said(world: World) -> None:
    await world.objects.buckets.create(NAME, shards=1, config={"versioning": "Enabled"})
    first = await world.put(bytes(100))
    await world.put(b"other" * 20)
    await world.drop(*[key for key, value in world.stored(Kind.BLOB).items() if value == bytes(100)])
    digests = {key[5:] for key in world.stored(Kind.BLOB)}
    await world.drop(*[key for key in world.stored(Kind.REF) if key[5:37] not in digests])
    (stored_key,) = await world.lacking()
    looked = await world.named.look(stored_key)
    assert (looked.here, looked.title) == (LOST, f"{NAME}/{KEY} (version {first})")


async def test_a_blob_of_which_only_the_reference_is_gone_gets_it_again(world: World) -> None:
    await world.objects.buckets.create(NAME, shards=1)
    await world.put(bytes(100))
    before = world.stored(Kind.BLOB, Kind.REF)
    await world.drop(*world.stored(Kind.REF))
    (stored_key,) = await world.lacking()
    assert await world.named.look(stored_key) == Looked("missing")
    assert world.stored(Kind.BLOB, Kind.REF) == before and not await world.lacking()


async def test_a_reference_under_another_number_of_shards_is_found_by_a_close_look(world: World) -> None:
    """A stored key does not tell the number; of a name only the hash can be asked for."""
    await world.objects.buckets.create(NAME, shards=1)
    await world.put(bytes(100))
    ((key, value),) = world.stored(Kind.REF).items()
    reference = decode_reference(value)
    bucket, shards, name = split_reference_name(reference.name)
    other = reference_name(bucket, shards + 5, name)
    moved = reference_key(int.from_bytes(key[:4], "big"), key[5:37], other)
    await world.caller.store.submit(lambda txn: txn.put(moved, value[:8], other))
    await world.drop(key)
    (stored_key,) = await world.lacking()
    assert await world.named.look(stored_key) == Looked()
    assert set(world.stored(Kind.REF)) == {moved}, "it is not given another one"


async def test_questions_are_paid_for_and_empty_objects_ask_none(world: World) -> None:
    await world.objects.buckets.create(NAME, shards=1)
    await world.objects.commit(NAME, "empty", await empty(world), "etag")
    assert not await world.lacking() and not world.spent
    await world.put(bytes(CHUNK * 3))
    assert not await world.lacking() and sum(world.spent) == 3 * QUESTION_BYTES


async def empty(world: World) -> Any:
    writer = world.objects.writer(await world.objects.buckets.read(NAME), b"empty")
    return await writer.finish()


async def test_what_is_deleted_while_its_blob_is_looked_for_is_not_lost(world: World) -> None:
    """Not even until it is looked at again: somebody would be woken for it."""
    await world.objects.buckets.create(NAME, shards=1)
    await world.put(bytes(100))
    await world.drop(*world.stored(Kind.BLOB, Kind.REF))
    (stored_key,) = await world.lacking()
    deleted: list[bool] = []

    async def delete_meanwhile(message: Message) -> None:
        if isinstance(message, GetBlob) and not deleted:
            deleted.append(True)
            await world.objects.delete(NAME, KEY)

    world.caller.hook = delete_meanwhile
    assert await world.named.look(stored_key) == Looked(is_young=True) and deleted
    assert await world.named.look(stored_key) == Looked()
