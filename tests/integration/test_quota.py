"""Quotas with three replicas over real frames: native clients are bound, whoever proposes, whoever stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ssastore.client import AsyncBucket, AsyncClient
from ssastore.core import counting
from ssastore.core.amounts import Amount
from ssastore.core.content import Content
from ssastore.core.metadata import Metadata
from ssastore.core.place import Place
from ssastore.core.quotas import QuotaUse
from ssastore.core.registers import Registers
from ssastore.errors import BucketNotFound, OutcomeUnknown, QuotaExceeded, RequestError, SsaStoreError
from ssastore.keyspace import shard_of_key
from ssastore.messages import Kind
from tests.cluster import SmallCluster, small_cluster

DEADLINE_MS = 20_000
"Small limits are taken from one record, object by object: on a busy machine that takes a while."
_TRIES = 5


@pytest.fixture
async def cluster() -> AsyncIterator[SmallCluster]:
    async with small_cluster(4, replicas=3) as made:
        yield made


async def limited(
    client: AsyncClient, *, size: int | None = None, objects: int | None = None
) -> tuple[AsyncBucket, QuotaUse]:
    bucket = await client.create_bucket("photos", shards=4)
    return bucket, await client.objects.quotas.set("photos", size=size, objects=objects)


async def fill(bucket: AsyncBucket, prefix: str, tries: int, size: int = 10) -> int:
    """How many of some objects are taken."""

    async def put(number: int) -> bool:
        for _ in range(_TRIES):
            try:
                await bucket.put(f"{prefix}{number}", b"x" * size)
            except QuotaExceeded:
                return False
            except OutcomeUnknown:
                continue  # A busy machine, or a node that stops: the same object once more adds nothing.
            return True
        raise AssertionError("what becomes of a put is never known")

    return sum(await asyncio.gather(*[put(number) for number in range(tries)]))


async def test_clients_fill_a_bucket_together_and_none_gets_beyond(cluster: SmallCluster) -> None:
    one, other = cluster.client(deadline_ms=DEADLINE_MS), cluster.client(deadline_ms=DEADLINE_MS)
    bucket, _ = await limited(one, objects=14)
    taken = await asyncio.gather(fill(bucket, "a", 10), fill(other.bucket("photos"), "b", 10))
    assert sum(taken) == 14
    assert len([entry async for entry in bucket.list()]) == 14
    use = await one.objects.quotas.show("photos")
    assert use is not None and use.used == Amount(140, 14) and use.objects_limit == 14


@pytest.mark.parametrize("stopped", range(4))
async def test_a_node_that_stops_takes_nothing_of_the_quota_with_it(
    cluster: SmallCluster, stopped: int
) -> None:
    client = cluster.client(deadline_ms=DEADLINE_MS)
    bucket, _ = await limited(client, objects=12)
    assert await fill(bucket, "early", 6) == 6
    await cluster.nodes[stopped].stop()
    assert await fill(bucket, "late", 9) == 6
    assert len([entry async for entry in bucket.list()]) == 12


async def test_what_is_deleted_makes_room_at_once(cluster: SmallCluster) -> None:
    bucket, _ = await limited(cluster.client(deadline_ms=DEADLINE_MS), size=100)
    await bucket.put("a", b"x" * 100)
    for turn in range(5):
        assert await bucket.delete("a" if turn % 2 == 0 else "b")
        await bucket.put("b" if turn % 2 == 0 else "a", b"x" * 100)
        with pytest.raises(QuotaExceeded, match="more than its quota allows"):
            await bucket.put("c", b"x")


async def test_a_large_object_counts_with_all_its_bytes(cluster: SmallCluster) -> None:
    bucket, _ = await limited(cluster.client(deadline_ms=DEADLINE_MS), size=9 << 20)
    await bucket.put("a", b"x" * (5 << 20))
    with pytest.raises(QuotaExceeded):
        await bucket.put("b", b"y" * (5 << 20))
    await bucket.put("b", b"y" * (4 << 20))


async def test_a_lower_limit_is_in_force_when_it_was_set(cluster: SmallCluster) -> None:
    client = cluster.client(deadline_ms=DEADLINE_MS)
    bucket, _ = await limited(client, size=1 << 30, objects=10**6)
    assert await fill(bucket, "k", 40) == 40
    use = await client.objects.quotas.set("photos", size=None, objects=42)
    assert use.used == Amount(400, 40)
    assert await fill(bucket, "l", 10) == 2, "what shards had to spare under the other limit is worth nothing"


async def test_writes_go_on_while_a_quota_is_set_and_cleared(cluster: SmallCluster) -> None:
    client = cluster.client(deadline_ms=DEADLINE_MS)
    bucket = await client.create_bucket("photos", shards=4)

    async def write() -> None:
        for number in range(60):
            await bucket.put(f"k{number % 7}", b"x" * number)

    writing = asyncio.create_task(write())
    for turn in range(4):
        await client.objects.quotas.set("photos", size=10_000 + turn, objects=None)
        await client.objects.quotas.clear("photos")
    await writing
    assert await client.objects.quotas.show("photos") is None


async def test_who_cannot_have_a_quota_is_told(cluster: SmallCluster) -> None:
    client = cluster.client(deadline_ms=DEADLINE_MS)
    await client.create_bucket("hashed", shards=0)
    await client.create_bucket("photos")
    with pytest.raises(RequestError, match="indexed bucket"):
        await client.objects.quotas.set("hashed", size=1, objects=None)
    with pytest.raises(BucketNotFound):
        await client.objects.quotas.set("nobody", size=1, objects=None)
    with pytest.raises(RequestError, match="bytes, or objects"):
        await client.objects.quotas.set("photos", size=None, objects=None)


async def test_parts_of_no_upload_are_no_place_to_keep_bytes(cluster: SmallCluster) -> None:
    """A count takes them for what an upload has left, which does not count; so it deletes them."""
    client = cluster.client(deadline_ms=DEADLINE_MS)
    bucket, _ = await limited(client, size=100)
    record = await client.objects.buckets.read("photos")
    multipart, registers = client.objects.multipart(record), client.objects.registers
    opened = await multipart.create(b"k", {}, {})
    for upload in ("a" * 32, opened):
        await multipart.put_part(b"k", upload, 1, "e", Content(40, b""))
    with pytest.raises(QuotaExceeded):
        await bucket.put("more", b"x" * 21)
    use = await client.objects.quotas.set("photos", size=100, objects=10)
    assert use.used == Amount(40, 0)
    async with asyncio.timeout(20):
        while True:
            parts = [key async for key in _parts(registers, record.place)]
            if len(parts) == 1:
                break
            await asyncio.sleep(0.05)
    assert parts == [b"k\0" + opened.encode() + b"\0\1"]
    await bucket.put("more", b"x" * 60)
    use = await client.objects.quotas.set("photos", size=100, objects=20)
    assert use.used == Amount(100, 1)


async def _parts(registers: Registers, place: Place) -> AsyncIterator[bytes]:
    for shard in range(place.shards):
        for row in (await registers.shards.page(place, Kind.PART, shard, limit=100)).rows:
            yield row[0]


async def test_all_quotas_are_listed(cluster: SmallCluster) -> None:
    client = cluster.client(deadline_ms=DEADLINE_MS)
    for number in range(3):
        await client.create_bucket(f"bucket{number}", shards=2)
        await client.objects.quotas.set(f"bucket{number}", size=number + 1, objects=None)
    await client.objects.quotas.clear("bucket1")
    await client.delete_bucket("bucket2")
    assert [use.bucket async for use in client.objects.quotas.all()] == ["bucket0"]


async def test_who_says_a_wrong_number_of_shards_lifts_no_quota(cluster: SmallCluster) -> None:
    """Where a shard is does not depend on how many there are."""
    client = cluster.client(deadline_ms=DEADLINE_MS)
    bucket, _ = await limited(client, objects=5)
    assert await fill(bucket, "k", 7) == 5
    registers = client.objects.registers
    wrong = replace((await client.objects.buckets.read("photos")).place, shards=5)
    keys = [key for key in map(b"lie%d".__mod__, range(20)) if shard_of_key(key, 5) < 4]
    for key in keys:
        with pytest.raises(SsaStoreError):
            await registers.put(wrong, Kind.OBJECT, key, Metadata("e", 1), b"x")
    for shard in range(4):
        with pytest.raises(SsaStoreError):
            await registers.shards.count(wrong, shard)
    assert await fill(bucket, "more", 5) == 0
    assert len([entry async for entry in bucket.list()]) == 5


async def test_a_shard_is_held_anew_after_another_configuration(cluster: SmallCluster) -> None:
    client = cluster.client(deadline_ms=DEADLINE_MS)
    bucket, _ = await limited(client, objects=100)
    await bucket.put("a", b"x")
    services = [node.service for node in cluster.nodes]
    before = [bool(service.counting and service.counting.ledgers) for service in services]
    for service in services:
        for number in sorted(service.acceptor.served.owned):
            service.acceptor.served.vote(number, 2)
    await bucket.put("a", b"xx")
    place = (await client.objects.buckets.read("photos")).place
    shard = shard_of_key(b"a", place.shards)
    holders = [
        ledger.cfg
        for service, was_holder in zip(services, before, strict=True)
        if was_holder and service.counting is not None
        for name, ledger in service.counting.ledgers.items()
        if (name.bucket, name.shard) == (place.bucket, shard)
    ]
    assert holders == [2], "by the same worker, at once"


async def test_buckets_that_are_gone_leave_nothing_in_memory(
    cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_KNOWN_LEAST", 4)
    client = cluster.client(deadline_ms=DEADLINE_MS)
    for node in cluster.nodes:
        assert node.service.counting is not None
        node.service.counting._forget_at = 4
    for number in range(10):
        bucket = await client.create_bucket(f"bucket{number}", shards=4)
        await client.objects.quotas.set(f"bucket{number}", size=1000, objects=None)
        await bucket.put("k", b"x")
        await bucket.delete("k")
        await client.delete_bucket(f"bucket{number}")
    bucket, _ = await limited(client, objects=3)
    assert await fill(bucket, "k", 5) == 3, "what is known of this one stays, or is found again"
    for node in cluster.nodes:
        known = node.service.counting
        assert known is not None and len(known.ledgers) <= 8
        assert len(known._locks) == len(known._counts) == len(known._waiting) == 0


async def test_shards_that_are_others_are_forgotten(cluster: SmallCluster) -> None:
    client = cluster.client(deadline_ms=DEADLINE_MS)
    bucket, _ = await limited(client, objects=100)
    assert await fill(bucket, "k", 8) == 8
    holders = [
        node.service for node in cluster.nodes if node.service.counting and node.service.counting.ledgers
    ]
    for service in holders:
        assert service.counting is not None
        service.counting._forget()
        assert service.counting.ledgers, "they are its own"
        for number in sorted(service.acceptor.served.owned):
            service.acceptor.served.hush(number)
        service.counting._forget()
        assert not service.counting.ledgers
