"""Three replicas on four nodes, with all of them, with one stopped, with two of a group's three stopped.

Real frames over the loopback; nodes in this process. What was acknowledged is there, whoever stops.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ssastore.client import AsyncBucket, AsyncClient
from ssastore.core.objects import ObjectInfo
from ssastore.core.place import Place
from ssastore.errors import (
    BucketNotEmpty,
    BucketNotFound,
    ObjectNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    Unavailable,
)
from ssastore.messages import Kind
from tests.cluster import SmallCluster, SmallNode, small_cluster
from tests.direct import iid_of_part, iid_of_record

STOPPED = [None, 0, 1, 2, 3]


@pytest.fixture
async def cluster() -> AsyncIterator[SmallCluster]:
    async with small_cluster(4, replicas=3) as made:
        yield made


async def stop(cluster: SmallCluster, index: int | None) -> None:
    if index is not None:
        await cluster.nodes[index].stop()


async def listed(bucket: AsyncBucket, **options: Any) -> list[str]:
    return [
        entry.key if isinstance(entry, ObjectInfo) else entry.prefix async for entry in bucket.list(**options)
    ]


async def place_of(client: AsyncClient, name: str) -> Place:
    return (await client.objects.buckets.read(name)).place


def planes_of(cluster: SmallCluster, place: Place, key: str) -> list[SmallNode]:
    """The nodes that hold a key, by plane."""
    return [cluster.node_of(iid_of_record(place, key.encode(), plane)) for plane in range(3)]


def test_planes_of_a_group_are_on_three_nodes() -> None:
    async def check() -> None:
        async with small_cluster(4, replicas=3) as cluster:
            for number in range(50):
                assert len({node.port for node in planes_of(cluster, Place(7, 16), f"{number}")}) == 3

    asyncio.run(check())


@pytest.mark.parametrize("stopped", STOPPED)
async def test_everything_works_with_any_one_node_stopped(cluster: SmallCluster, stopped: int | None) -> None:
    bucket = await cluster.client().create_bucket("photos")
    large = os.urandom(9_000_000)
    before = {f"before/{number}": b"%d" % number for number in range(20)}
    await asyncio.gather(*[bucket.put(key, data) for key, data in before.items()])
    await bucket.put("large before", large)
    await stop(cluster, stopped)
    client = cluster.client(deadline_ms=10_000)
    bucket = client.bucket("photos")
    assert await asyncio.gather(*[bucket.get(key) for key in before]) == list(before.values())
    assert await bucket.get("large before") == large
    during = {f"during/{number}": b"%d" % number for number in range(20)}
    await asyncio.gather(*[bucket.put(key, data) for key, data in during.items()])
    await asyncio.gather(*[bucket.put(key, b"again") for key in list(before)[:10]])
    await asyncio.gather(*[bucket.delete(key) for key in list(before)[10:]])
    await bucket.put("large during", large[::-1])
    expected = [*sorted(list(before)[:10]), *sorted(during), "large before", "large during"]
    assert await listed(bucket) == sorted(expected)
    assert await listed(bucket, delimiter="/") == ["before/", "during/", "large before", "large during"]
    assert await asyncio.gather(*[bucket.get(key) for key in during]) == list(during.values())
    assert await bucket.get("large during") == large[::-1] and await bucket.get("before/3") == b"again"
    for key in list(before)[10:]:
        with pytest.raises(ObjectNotFound):
            await bucket.get(key)
    other = await client.create_bucket("more")
    await other.put("k", b"v")
    assert await other.get("k") == b"v"


async def test_every_plane_holds_what_was_written(cluster: SmallCluster) -> None:
    client = cluster.client()
    bucket = await client.create_bucket("photos")
    await bucket.put("k", b"data")
    await asyncio.sleep(0.05)  # The third accept is sent in the background.
    place = await place_of(client, "photos")
    rows = [node.store.usage().records for node in planes_of(cluster, place, "k")]
    for plane, node in enumerate(planes_of(cluster, place, "k")):
        with node.store.read() as txn:
            request = iid_of_record(place, b"k", plane) >> 32
            found = [bytes(value) for key, value in txn.scan(b"", b"\xf0") if key.endswith(b"k")]
        assert found and found[0].endswith(b"data"), (rows, request)


@pytest.mark.parametrize("stopped", [None, 2])
async def test_conditional_race_has_one_winner(cluster: SmallCluster, stopped: int | None) -> None:
    clients = [cluster.client(deadline_ms=10_000) for _ in range(3)]
    await clients[0].create_bucket("photos")
    await stop(cluster, stopped)

    async def race(client: AsyncClient, key: str) -> bool:
        try:
            await client.bucket("photos").put(key, os.urandom(8), if_none_match="*")
        except PreconditionFailed:
            return False
        return True

    for number in range(8):
        won = await asyncio.gather(*[race(client, f"k{number}") for client in clients * 4])
        assert sum(won) == 1


@pytest.mark.parametrize("stopped", [None, 1])
async def test_counter_by_etag_loses_no_step(cluster: SmallCluster, stopped: int | None) -> None:
    clients = [cluster.client(deadline_ms=20_000) for _ in range(4)]
    bucket = await clients[0].create_bucket("photos")
    await bucket.put("counter", b"0")
    await stop(cluster, stopped)

    async def count(client: AsyncClient) -> None:
        bucket, steps = client.bucket("photos"), 0
        while steps < 5:
            reader = await bucket.open("counter")
            value = int(await reader.read())
            try:
                await bucket.put("counter", b"%d" % (value + 1), if_match=reader.info.etag)
                steps += 1
            except PreconditionFailed:
                pass

    await asyncio.gather(*[count(client) for client in clients * 2])
    assert await clients[3].bucket("photos").get("counter") == b"40"


async def test_without_a_majority_nothing_is_acknowledged_and_nothing_is_read(cluster: SmallCluster) -> None:
    client = cluster.client()
    bucket = await client.create_bucket("photos")
    place = await place_of(client, "photos")
    keys = [f"{number}" for number in range(400)]
    lost = cluster.nodes[:2]
    stuck = [key for key in keys if sum(node in lost for node in planes_of(cluster, place, key)) == 2][:8]
    await asyncio.gather(*[bucket.put(key, b"old") for key in stuck])
    for node in lost:
        await node.stop()
    late = cluster.client(deadline_ms=1500)
    late.objects.buckets._cache["photos"] = client.objects.buckets._cache["photos"]
    started = asyncio.get_running_loop().time()

    async def refused(work: Any) -> None:
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await work

    bucket = late.bucket("photos")
    await asyncio.gather(*[refused(bucket.put(key, b"new")) for key in stuck])
    assert asyncio.get_running_loop().time() - started < 4
    registers = late.objects.registers
    for key in stuck[:3]:
        with pytest.raises(Unavailable):
            await registers.get(place, Kind.OBJECT, key.encode())


async def test_majority_that_comes_back_serves_again(cluster: SmallCluster) -> None:
    client = cluster.client(deadline_ms=15_000)
    bucket = await client.create_bucket("photos")
    await bucket.put("k", b"old")
    for node in cluster.nodes[:3]:
        await node.stop()
    writing = asyncio.ensure_future(bucket.put("k", b"new"))
    await asyncio.sleep(1.5)
    assert not writing.done()
    for node in cluster.nodes[:3]:
        await node.start()
        node.join(cluster.links())
    await writing
    assert await bucket.get("k") == b"new"


async def test_node_that_missed_writes_misleads_nobody(cluster: SmallCluster) -> None:
    """Stale on one plane: newer versions, deletes and new keys are found at the others."""
    client = cluster.client(deadline_ms=10_000)
    bucket = await client.create_bucket("photos")
    keys = [f"{number:02}" for number in range(24)]
    await asyncio.gather(*[bucket.put(key, b"old") for key in keys])
    node = cluster.nodes[1]
    await node.stop()
    await asyncio.gather(*[bucket.put(key, b"new") for key in keys[:8]])
    await asyncio.gather(*[bucket.delete(key) for key in keys[8:16]])
    await asyncio.gather(*[bucket.put(f"n{key}", b"born") for key in keys[:8]])
    await node.start()
    node.join(cluster.links())
    for stale in (cluster.client(deadline_ms=10_000), client):
        bucket = stale.bucket("photos")
        assert await listed(bucket) == [*keys[:8], *keys[16:], *[f"n{key}" for key in keys[:8]]]
        assert await asyncio.gather(*[bucket.get(key) for key in keys[:8]]) == [b"new"] * 8
        for key in keys[8:16]:
            with pytest.raises(ObjectNotFound):
                await bucket.get(key)


@pytest.mark.parametrize("lagging", range(3))
async def test_a_prefix_that_a_listing_begins_in_shows_what_comes_after(
    cluster: SmallCluster, lagging: int
) -> None:
    """What was before the beginning does not count, also where a plane has missed that the rest is gone."""
    client = cluster.client(deadline_ms=10_000)
    bucket = await client.create_bucket("photos", shards=1)
    for key in ("gone/a", "gone/x", "left/a", "left/x", "made/a", "z"):
        await bucket.put(key, b"old")
    node = planes_of(cluster, await place_of(client, "photos"), "z")[lagging]
    await node.stop()
    await bucket.delete("gone/x")
    await bucket.delete("left/a")
    await bucket.put("made/x", b"new")
    await node.start()
    node.join(cluster.links())
    bucket = cluster.client(deadline_ms=10_000).bucket("photos")
    for start, expected in (
        ("gone/m", ["left/", "made/", "z"]),
        ("left/m", ["left/", "made/", "z"]),
        ("made/m", ["made/", "z"]),
        ("made/x", ["z"]),
        ("gone/", ["left/", "made/", "z"]),
    ):
        assert await listed(bucket, start_after=start, delimiter="/") == expected, start


@pytest.mark.parametrize("shards", [1, 16])
async def test_bucket_is_deleted_with_a_node_down(cluster: SmallCluster, shards: int) -> None:
    client = cluster.client(deadline_ms=10_000)
    bucket = await client.create_bucket("photos", shards=shards)
    await bucket.put("k", b"data")
    await stop(cluster, 1)
    with pytest.raises(BucketNotEmpty):
        await client.delete_bucket("photos")
    assert await bucket.get("k") == b"data"
    await bucket.delete("k")
    await client.delete_bucket("photos")
    with pytest.raises(BucketNotFound):
        await cluster.client().bucket("photos").get("k")
    bucket = await client.create_bucket("photos", shards=shards)
    assert await listed(bucket) == []


async def test_plane_that_missed_a_delete_does_not_keep_the_bucket(cluster: SmallCluster) -> None:
    """A shut bucket takes no write that would bring the plane up to date: so it is done before."""
    client = cluster.client(deadline_ms=10_000)
    bucket = await client.create_bucket("photos")
    place = await place_of(client, "photos")
    await asyncio.gather(*[bucket.put(f"{number}", b"old") for number in range(12)])
    node = cluster.node_of(iid_of_part(place, 0))
    await node.stop()
    await asyncio.gather(*[bucket.delete(f"{number}") for number in range(12)])
    await node.start()
    node.join(cluster.links())
    fresh = cluster.client(deadline_ms=10_000)
    await fresh.delete_bucket("photos")
    with pytest.raises(BucketNotFound):
        await fresh.bucket("photos").get("1")


async def test_client_that_was_not_told_finds_out_how_many_replicas_there_are(cluster: SmallCluster) -> None:
    await stop(cluster, 0)
    client = cluster.client(deadline_ms=10_000)
    assert client.pool.replicas == 0
    bucket = await client.create_bucket("photos")
    await bucket.put("k", b"v")
    assert client.pool.replicas == 3 and await bucket.get("k") == b"v"


async def test_hung_node_holds_up_nobody_for_long(cluster: SmallCluster) -> None:
    """It takes requests and answers none: the connection stays open."""
    client = cluster.client(deadline_ms=10_000)
    bucket = await client.create_bucket("photos")
    place = await place_of(client, "photos")
    key = next(f"{n}" for n in range(100) if planes_of(cluster, place, f"{n}")[0] is cluster.nodes[0])
    await bucket.put(key, b"old")
    for session in cluster.nodes[0].service.sessions:
        session.handle = lambda frames: frames.clear()  # type: ignore[method-assign]
    started = asyncio.get_running_loop().time()
    await bucket.put(key, b"new")
    assert await bucket.get(key) == b"new"
    assert asyncio.get_running_loop().time() - started < 5
