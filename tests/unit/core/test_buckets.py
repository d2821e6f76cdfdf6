"""Bucket records, their cache, and deletion against everything that can happen beside it."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from ssastore.core.buckets import SYSTEM, check_bucket_name
from ssastore.core.content import Content
from ssastore.core.metadata import Metadata
from ssastore.core.objects import Objects
from ssastore.core.readahead import READS_AT_ONCE
from ssastore.core.registers import When
from ssastore.errors import (
    BucketAlreadyExists,
    BucketNotEmpty,
    BucketNotFound,
    CorruptObject,
    InvalidBucketName,
    ObjectNotFound,
    PreconditionFailed,
    RequestError,
    SsaStoreError,
    Unavailable,
)
from ssastore.limits import BUCKET_RECORD_BYTES_MAX, CONFIG_AGE_MS
from ssastore.messages import Condition, Delete, Get, Kind, Put, Scan, Shut
from tests.direct import DirectCaller, SeededRandomness

NAME = "photos"


def client(caller: DirectCaller, seed: int = 1) -> Objects:
    """A client of its own: its own cache, and with another seed identifiers of its own."""
    return Objects(caller, caller.clock, SeededRandomness(seed))


async def put(objects: Objects, key: str, data: bytes = b"data", bucket: str = NAME) -> Any:
    return await objects.commit(bucket, key, Content(len(data), data), "etag")


async def get(objects: Objects, key: str, bucket: str = NAME) -> bytes:
    return await (await objects.open(bucket, key)).read()


async def names(objects: Objects) -> list[str]:
    return [bucket.name async for bucket in objects.buckets.all()]


# -- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["abc", "a-b", "a.b.c", "0ab", "ab9", "a" * 63, "1.2.3", "my-bucket.v2"])
def test_good_name(name: str) -> None:
    check_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "a", "ab", "a" * 64, "A" * 5, "photoS", "a_b", "a b", "-ab", "ab-", ".ab", "ab.", "a..b",
        "192.168.0.1", "xn--abc", "abc-s3alias", "abc--ol-s3", "é" * 4, "abc\n", "\nabc", "ab/c", "ab\0c",
        "١٢٣",
    ],
)  # fmt: skip
async def test_bad_name(name: str) -> None:
    with pytest.raises(InvalidBucketName):
        check_bucket_name(name)
    caller = DirectCaller()
    for work in (client(caller).buckets.create(name), client(caller).buckets.read(name)):
        with pytest.raises(InvalidBucketName):
            await work
    with pytest.raises(InvalidBucketName):
        await client(caller).buckets.delete(name)
    assert not caller.calls, "nothing is asked of the store"


# -- listings ---------------------------------------------------------------------------------------


async def many(caller: DirectCaller, count: int) -> list[str]:
    made = [f"bucket-{number:04}" for number in range(count)]
    for name in made:
        await client(caller, seed=int(name[-4:])).buckets.create(name)
    return made


async def test_records_of_a_listing_are_read_side_by_side_and_once() -> None:
    caller = DirectCaller()
    made = await many(caller, 200)
    objects, running, most = client(caller), 0, 0

    async def count(message: Any) -> None:
        nonlocal running, most
        if isinstance(message, Get):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    caller.hook = count
    caller.calls.clear()
    assert await names(objects) == made
    assert (caller.calls.count("Get"), most) == (200, READS_AT_ONCE)
    caller.calls.clear()
    assert await names(objects) == made
    assert "Get" not in caller.calls, "a row has the digest of what is known already"
    other = client(caller, seed=5000)
    await other.buckets.configure(made[7], lambda known: {"tagging": {"a": "b"}})
    await other.buckets.delete(made[8])
    await other.buckets.create("bucket-0007a", owner="alice")
    caller.calls.clear()
    found = [bucket async for bucket in objects.buckets.all()]
    assert [bucket.name for bucket in found] == [*made[:8], "bucket-0007a", *made[9:]]
    assert (found[7].config, found[8].owner) == ({"tagging": {"a": "b"}}, "alice")
    assert caller.calls.count("Get") == 2


@pytest.mark.parametrize(
    ("prefix", "after", "expected"),
    [
        ("", "bucket-0003", slice(4, None)),
        ("bucket-000", "", slice(0, 10)),
        ("bucket-000", "bucket-0007", slice(8, 10)),
        ("bucket-001", "bucket-0007", slice(10, 12)),
        ("bucket-000", "bucket-1", slice(0, 0)),
        ("x", "", slice(0, 0)),
    ],
)
async def test_a_part_of_a_listing(prefix: str, after: str, expected: slice) -> None:
    caller = DirectCaller()
    made = await many(caller, 12)
    objects = client(caller)
    caller.calls.clear()
    assert [bucket.name async for bucket in objects.buckets.all(prefix, after)] == made[expected]
    assert caller.calls.count("Get") == len(made[expected]), "no other record is read"


# -- records ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [0, 1, 16, 4096])
async def test_created_bucket_is_read_by_others(shards: int) -> None:
    caller = DirectCaller()
    made = await client(caller).buckets.create(NAME, shards=shards)
    found = await client(caller).buckets.read(NAME)
    assert found == made
    assert (found.place.shards, found.is_indexed) == (shards, shards > 0)
    assert found.place.bucket != SYSTEM.bucket


async def test_bucket_is_created_once() -> None:
    caller = DirectCaller()
    results = await asyncio.gather(
        *[client(caller, seed).buckets.create(NAME) for seed in range(10)], return_exceptions=True
    )
    made = [result for result in results if not isinstance(result, BaseException)]
    assert len(made) == 1
    assert all(isinstance(r, BucketAlreadyExists) for r in results if r is not made[0])
    assert await client(caller).buckets.read(NAME) == made[0]


@pytest.mark.parametrize("shards", [-1, 4097])
async def test_impossible_shard_count(shards: int) -> None:
    with pytest.raises(InvalidBucketName):
        await client(DirectCaller()).buckets.create(NAME, shards=shards)


async def test_absent_bucket() -> None:
    objects = client(DirectCaller())
    for work in (
        objects.buckets.read(NAME),
        objects.buckets.delete(NAME),
        get(objects, "k"),
        put(objects, "k"),
    ):
        with pytest.raises(BucketNotFound):
            await work
    with pytest.raises(BucketNotFound):
        [entry async for entry in objects.list(NAME)]


async def test_all_buckets_in_order() -> None:
    caller = DirectCaller()
    made = [f"bucket-{number}" for number in range(40)]
    for name in Random(1).sample(made, len(made)):
        await client(caller).buckets.create(name)
    assert await names(client(caller)) == sorted(made)
    await client(caller).buckets.delete("bucket-7")
    assert await names(client(caller)) == sorted(set(made) - {"bucket-7"})


async def test_record_that_is_none_is_corrupt() -> None:
    caller = DirectCaller()
    objects = client(caller)
    for data in (
        b"",
        b"[]",
        b"{}",
        b'{"id": "zz", "shards": 1, "created_ms": 1, "state": "active"}',
        b"\xff",
    ):
        await objects.registers.put(SYSTEM, Kind.OBJECT, b"bucket/photos", Metadata("e", len(data)), data)
        with pytest.raises(CorruptObject):
            await objects.buckets.read(NAME)


# -- the cache --------------------------------------------------------------------------------------


async def test_record_is_read_once() -> None:
    caller = DirectCaller()
    await client(caller).buckets.create(NAME)
    objects = client(caller)
    for number in range(3):
        await put(objects, f"k{number}")
    assert caller.calls.count("Get") == 1


async def test_recreated_bucket_never_shows_old_objects() -> None:
    """Two clients whose caches lie: each operation finds the new bucket by itself."""
    caller = DirectCaller()
    old, other = client(caller, 1), client(caller, 2)
    await old.buckets.create(NAME)
    await put(old, "k", b"old")
    assert await get(other, "k") == b"old"

    async def recreate() -> None:
        third = client(caller, len(caller.calls))
        for entry in [entry async for entry in third.list(NAME)]:
            await third.delete(NAME, entry.key)  # type: ignore[union-attr]  # no delimiter, no prefixes
        await third.buckets.delete(NAME)
        await third.buckets.create(NAME)

    await recreate()
    with pytest.raises(ObjectNotFound):
        await get(other, "k")
    await put(other, "k", b"new")
    with pytest.raises(ObjectNotFound):
        await old.head(NAME, "nothing")
    assert await get(old, "k") == b"new"
    await recreate()
    await put(old, "k", b"newer")
    assert await get(other, "k") == b"newer"
    assert [entry.key async for entry in other.list(NAME)] == ["k"]  # type: ignore[union-attr]
    await recreate()
    assert [entry async for entry in other.list(NAME)] == []


async def test_deleted_bucket_is_noticed_by_every_operation() -> None:
    caller = DirectCaller()
    objects = client(caller)
    await objects.buckets.create(NAME)
    for work in (lambda: get(objects, "k"), lambda: put(objects, "k"), lambda: objects.head(NAME, "k")):
        other = client(caller, len(caller.calls))
        if not await names(other):
            await other.buckets.create(NAME)
        await objects.buckets.read(NAME)
        await other.buckets.delete(NAME)
        assert objects.buckets.cached(NAME) is not None
        with pytest.raises(BucketNotFound):
            await work()


async def test_objects_stay_within_reach_while_the_bucket_s_record_does_not() -> None:
    """A miss asks for the bucket's record; that its node is down then must not cost the other objects."""
    caller = DirectCaller()
    objects = client(caller)
    await objects.buckets.create(NAME)
    await put(objects, "k")

    async def hook(message: Any) -> None:
        if message.bucket == SYSTEM.bucket:
            raise Unavailable("slice 0bc9 at [...]")

    caller.hook = hook
    for _ in range(2):
        with pytest.raises(Unavailable):
            await get(objects, "absent")
        assert await get(objects, "k") == b"data"


async def test_misses_do_not_send_others_to_the_bucket_s_record() -> None:
    """While a miss reads the record again, everybody else goes on with what is cached."""
    caller = DirectCaller()
    objects = client(caller)
    await objects.buckets.create(NAME)
    await put(objects, "k")
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hook(message: Any) -> None:
        if message.bucket == SYSTEM.bucket:
            asked.set()
            await answer.wait()

    caller.hook = hook
    missing = asyncio.ensure_future(get(objects, "absent"))
    await asked.wait()
    async with asyncio.timeout(1):
        assert await get(objects, "k") == b"data"
    answer.set()
    with pytest.raises(ObjectNotFound):
        await missing


# -- deletion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 16, 0])
async def test_empty_bucket_is_deleted_and_a_full_one_is_not(shards: int) -> None:
    caller = DirectCaller()
    objects = client(caller)
    await objects.buckets.create(NAME, shards=shards)
    await put(objects, "k")
    with pytest.raises(BucketNotEmpty):
        await objects.buckets.delete(NAME)
    assert await get(objects, "k") == b"data"
    await put(objects, "l")
    await objects.delete(NAME, "k")
    await objects.delete(NAME, "l")
    await objects.buckets.delete(NAME)
    assert await names(objects) == []
    with pytest.raises(BucketNotFound):
        await put(objects, "k")


async def test_deletion_looks_behind_pages_of_tombstones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may be empty and truncated; the live object is on a later one."""
    monkeypatch.setattr("ssastore.core.listing.SCAN_PAGE_ITEMS_MAX", 2)
    objects = client(DirectCaller())
    await objects.buckets.create(NAME, shards=1)
    for number in range(30):
        await put(objects, f"{number:02}")
        await objects.delete(NAME, f"{number:02}")
    await put(objects, "z")
    with pytest.raises(BucketNotEmpty):
        await objects.buckets.delete(NAME)
    await objects.delete(NAME, "z")
    await objects.buckets.delete(NAME)


class Interrupted(Exception):
    """The deleter dies here."""


async def stop_after(caller: DirectCaller, kind: type, count: int) -> None:
    """The next deletion ends when it has sent ``count`` messages of a kind."""
    left = count

    async def hook(message: Any) -> None:
        nonlocal left
        if isinstance(message, kind):
            left -= 1
            if left < 0:
                raise Interrupted

    caller.hook = hook


@pytest.mark.parametrize("kind", [Put, Shut, Scan, Delete])
@pytest.mark.parametrize("count", [0, 1, 3])
async def test_deletion_that_died_anywhere_is_finished_by_the_next(kind: type, count: int) -> None:
    caller = DirectCaller()
    objects = client(caller)
    await objects.buckets.create(NAME, shards=4)
    await stop_after(caller, kind, count)
    try:
        await objects.buckets.delete(NAME)
    except Interrupted:
        caller.hook = None
        await client(caller, 2).buckets.delete(NAME)
    caller.hook = None
    assert await names(objects) == []
    with pytest.raises(BucketNotFound):
        await put(client(caller, 3), "k")


@pytest.mark.parametrize(("kind", "count"), [(Put, 1), (Shut, 2), (Shut, 4), (Shut, 6), (Scan, 2)])
async def test_deletion_of_a_full_bucket_that_died_is_undone_by_the_next(kind: type, count: int) -> None:
    caller = DirectCaller()
    objects = client(caller)
    await objects.buckets.create(NAME, shards=4)
    await put(objects, "k")
    await stop_after(caller, kind, count)
    with pytest.raises((Interrupted, BucketNotEmpty)):
        await objects.buckets.delete(NAME)
    caller.hook = None
    with pytest.raises(BucketNotEmpty):
        await client(caller, 2).buckets.delete(NAME)
    other = client(caller, 3)
    for number in range(20):
        await put(other, f"k{number}")
    assert await get(other, "k") == b"data"


async def test_write_that_is_refused_by_a_deletion_in_vain_is_tried_again() -> None:
    """The bucket is shut, found in use, and opened again while a put is under way: the put succeeds."""
    caller = DirectCaller()
    writer, deleter = client(caller, 1), client(caller, 2)
    await writer.buckets.create(NAME, shards=2)
    await put(writer, "old")
    shut = asyncio.Event()
    go_on = asyncio.Event()

    async def hook(message: Any) -> None:
        if isinstance(message, Scan):
            shut.set()
            await go_on.wait()
        if type(message).__name__ == "Get" and message.key == b"bucket/photos" and shut.is_set():
            go_on.set()
            await asyncio.gather(deleting, return_exceptions=True)

    caller.hook = hook
    deleting = asyncio.ensure_future(deleter.buckets.delete(NAME))
    await shut.wait()
    await put(writer, "new", b"new")
    with pytest.raises(BucketNotEmpty):
        await deleting
    caller.hook = None
    assert await get(writer, "new") == b"new"


async def test_two_deletions_never_lose_a_write_between_them() -> None:
    """A finds an object and opens the shards again; B, that shut them too and found none, ends first.

    Method: hold A before it opens until B has scanned, hold B before it removes the record until A
    has opened, or failed; write; let B end, then A. A write that was acknowledged must be readable.
    """
    caller = DirectCaller()
    a, b, writer = (client(caller, seed) for seed in range(3))
    await writer.buckets.create(NAME, shards=1)
    await put(writer, "old")
    a_found, b_scanned, a_opened, b_may_end, b_ended = (asyncio.Event() for _ in range(5))
    tasks: dict[str, asyncio.Task[None]] = {}

    async def hook(message: Any) -> None:
        if isinstance(message, Shut) and not message.shut:
            a_found.set()
            await b_scanned.wait()
        if isinstance(message, Put) and message.key == b"bucket/photos" and b_scanned.is_set():
            a_opened.set()
            await b_ended.wait()
        if isinstance(message, Delete) and message.key == b"bucket/photos":
            b_scanned.set()
            await b_may_end.wait()

    caller.hook = hook
    tasks["a"] = asyncio.ensure_future(a.buckets.delete(NAME))
    await a_found.wait()
    await writer.delete(NAME, "old")
    tasks["b"] = asyncio.ensure_future(b.buckets.delete(NAME))
    opened = asyncio.ensure_future(a_opened.wait())
    await asyncio.wait({tasks["a"], opened}, return_when=asyncio.FIRST_COMPLETED)
    opened.cancel()
    written = await asyncio.gather(put(writer, "new", b"new"), return_exceptions=True)
    b_may_end.set()
    await asyncio.wait({tasks["b"]})
    b_ended.set()
    outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
    caller.hook = None
    if not isinstance(written[0], SsaStoreError):
        assert await get(client(caller, 9), "new") == b"new", outcomes
    assert [outcome for outcome in outcomes if outcome is None] in ([], [None])


@pytest.mark.parametrize("seed", range(60))
async def test_deletions_and_writes_in_any_order(seed: int) -> None:
    """Two deleters, writers and a remover with random pauses: what was acknowledged and not deleted
    is there, in a bucket that exists, or the bucket was deleted and every later write was refused."""
    caller = DirectCaller()
    random = Random(seed)
    await client(caller, 99).buckets.create(NAME, shards=2)
    await put(client(caller, 98), "old")
    acknowledged: set[str] = set()

    async def hook(message: Any) -> None:
        for _ in range(random.randrange(8)):
            await asyncio.sleep(0)

    caller.hook = hook

    async def deleter(number: int) -> None:
        try:
            await client(caller, number).buckets.delete(NAME)
        except (BucketNotEmpty, BucketNotFound):
            pass

    async def write(number: int) -> None:
        for _ in range(random.randrange(60)):
            await asyncio.sleep(0)
        try:
            await put(client(caller, 10 + number), f"k{number}")
        except BucketNotFound:
            return
        acknowledged.add(f"k{number}")

    async def remover() -> None:
        try:
            await client(caller, 30).delete(NAME, "old")
        except BucketNotFound:
            pass

    tasks = [deleter(1), deleter(2), deleter(3), remover(), *map(write, range(4))]
    await asyncio.gather(*tasks)
    caller.hook = None
    for key in acknowledged:
        assert await get(client(caller, 50), key) == b"data"
    if await names(client(caller, 51)):
        await put(client(caller, 52), "after")


async def test_deletion_that_cannot_reach_a_shard_keeps_the_bucket() -> None:
    caller = DirectCaller()
    objects = client(caller)
    await objects.buckets.create(NAME, shards=4)

    async def hook(message: Any) -> None:
        if isinstance(message, Scan) and message.shard == 3 and message.bucket:
            raise Unavailable("slice 0123 at [...]")

    caller.hook = hook
    with pytest.raises(Unavailable):
        await objects.buckets.delete(NAME)
    caller.hook = None
    await objects.buckets.delete(NAME)


async def test_attempts_are_counted_in_the_record() -> None:
    caller = DirectCaller()
    objects = client(caller)
    made = await objects.buckets.create(NAME, shards=1)
    await put(objects, "k")
    for attempt in (1, 2):
        with pytest.raises(BucketNotEmpty):
            await objects.buckets.delete(NAME)
        found = await objects.buckets.read(NAME)
        assert (found.attempts, found.state) == (attempt, "active")
        assert found.etag != made.etag, "else a step of an older deletion would still fit"


async def test_record_changes_only_under_its_tag() -> None:
    caller = DirectCaller()
    objects = client(caller)
    made = await objects.buckets.create(NAME)
    with pytest.raises(PreconditionFailed):
        await objects.registers.put(
            SYSTEM,
            Kind.OBJECT,
            b"bucket/photos",
            Metadata("x", 0),
            condition=When(Condition.IF_ETAG, made.etag + "0"),
        )


# -- what is set for a bucket -----------------------------------------------------------------------


async def test_what_is_set_is_kept_through_a_deletion_that_fails() -> None:
    caller = DirectCaller()
    objects = client(caller)
    await objects.buckets.create(NAME, owner="alice", config={"tagging": {"a": "b"}})
    await put(objects, "k")
    await objects.buckets.configure(NAME, lambda known: known.config | {"versioning": "Enabled"})
    with pytest.raises(BucketNotEmpty):
        await objects.buckets.delete(NAME)
    found = await client(caller).buckets.read(NAME)
    assert (found.owner, found.config) == ("alice", {"tagging": {"a": "b"}, "versioning": "Enabled"})


async def test_changes_of_many_are_all_there() -> None:
    caller = DirectCaller()
    await client(caller).buckets.create(NAME)
    clients = [client(caller, seed) for seed in range(2, 6)]
    await asyncio.gather(
        *[
            one.buckets.configure(NAME, lambda known, number=number: known.config | {f"rule{number}": number})
            for number, one in enumerate(clients)
        ]
    )
    assert (await client(caller).buckets.read(NAME)).config == {f"rule{n}": n for n in range(4)}


async def test_settings_above_the_limit_are_refused() -> None:
    objects = client(DirectCaller())
    before = await objects.buckets.create(NAME)
    with pytest.raises(RequestError, match="65536"):
        await objects.buckets.configure(NAME, lambda known: {"policy": "x" * BUCKET_RECORD_BYTES_MAX})
    assert await objects.buckets.read(NAME) == before


async def test_settings_of_others_are_seen_when_what_is_known_is_old() -> None:
    caller = DirectCaller()
    mine, other = client(caller), client(caller, 2)
    await mine.buckets.create(NAME)
    await other.buckets.configure(NAME, lambda known: {"versioning": "Enabled"})
    assert (await mine.buckets.current(NAME)).config == {}
    caller.clock.ms += CONFIG_AGE_MS
    assert (await mine.buckets.current(NAME)).config == {"versioning": "Enabled"}


async def test_old_settings_hold_while_the_record_cannot_be_read() -> None:
    caller = DirectCaller()
    objects = client(caller)
    made = await objects.buckets.create(NAME, config={"policy": "deny"})
    caller.clock.ms += CONFIG_AGE_MS

    async def gone(message: Any) -> None:
        raise Unavailable("the node is gone")

    caller.hook = gone
    assert await objects.buckets.current(NAME) == made
    with pytest.raises(Unavailable):
        await client(caller).buckets.current(NAME)


async def test_nobody_waits_for_a_record_whose_node_is_silent() -> None:
    """But one request, for a moment, and then one in a second: the objects are elsewhere."""
    caller = DirectCaller()
    objects = client(caller)
    made = await objects.buckets.create(NAME)
    caller.clock.ms += CONFIG_AGE_MS
    asked, answer = 0, asyncio.Event()

    async def silent(message: Any) -> None:
        nonlocal asked
        asked += 1
        await answer.wait()
        raise Unavailable("the node is gone")

    caller.hook = silent
    now = asyncio.get_running_loop().time
    began = now()
    assert await asyncio.gather(*[objects.buckets.current(NAME) for _ in range(9)]) == [made] * 9
    assert await objects.buckets.current(NAME) == made
    assert now() - began < 2
    assert asked == 1
    answer.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await objects.buckets.current(NAME) == made
    assert asked == 1, "it is asked again in a second"
    caller.hook = None
    caller.clock.ms += 1000
    await client(caller, 2).buckets.configure(NAME, lambda known: {"policy": "x"})
    assert (await objects.buckets.current(NAME)).config == {"policy": "x"}


async def test_deleted_bucket_is_noticed_when_what_is_known_is_old() -> None:
    caller = DirectCaller()
    mine, other = client(caller), client(caller, 2)
    await mine.buckets.create(NAME)
    await other.buckets.delete(NAME)
    assert (await mine.buckets.current(NAME)).name == NAME
    caller.clock.ms += CONFIG_AGE_MS
    with pytest.raises(BucketNotFound):
        await mine.buckets.current(NAME)
