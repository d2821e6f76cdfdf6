"""The client against nodes in this process: real frames over ::1, all front doors, and what goes wrong."""

from __future__ import annotations

import asyncio
import io
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from blake3 import blake3

from ssastore.client import AsyncBucket, AsyncClient, native_etag
from ssastore.core.acceptor import encode_coverage
from ssastore.core.objects import CommonPrefix, ObjectInfo
from ssastore.errors import (
    AccessDenied,
    BucketAlreadyExists,
    BucketNotEmpty,
    BucketNotFound,
    ConfigError,
    CorruptObject,
    InvalidKey,
    ObjectNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    RangeNotSatisfiable,
    Unavailable,
)
from ssastore.keyspace import Slice, slice16_of
from ssastore.limits import CHUNK_BYTES, INLINE_BYTES_MAX, MIB
from ssastore.messages import Kind
from ssastore.store.lmdb import LmdbStore
from ssastore.store.memory import MemoryStore
from ssastore.transport.tcp import LoopbackLinks
from tests.cluster import SmallCluster, SmallNode, small_cluster
from tests.direct import iid_of_record
from tests.wires import Proxy, proxied, until

BLOCK = Random(1).randbytes(MIB)


def data_of(size: int) -> bytes:
    """Bytes of which no two chunks are equal."""
    blocks = [number.to_bytes(4, "big") + BLOCK[4:] for number in range(-(-size // MIB))]
    return b"".join(blocks)[:size]


@pytest.fixture
async def cluster() -> AsyncIterator[SmallCluster]:
    async with small_cluster() as made:
        yield made


@pytest.fixture(params=[True, False], ids=["hints", "no hints"])
async def bucket(cluster: SmallCluster, request: pytest.FixtureRequest) -> AsyncBucket:
    client = cluster.client(use_hints=request.param)
    return await client.create_bucket("photos", shards=4)


async def shown(bucket: AsyncBucket, *args: str, **options: str) -> list[str]:
    return [
        f"<{entry.prefix}>" if isinstance(entry, CommonPrefix) else entry.key
        async for entry in bucket.list(*args, **options)
    ]


# -- the same with hints and without ----------------------------------------------------------------


async def test_life_of_an_object(bucket: AsyncBucket) -> None:
    info = await bucket.put("cat.jpg", b"meow", content_type="image/jpeg", metadata={"colour": "grün"})
    assert (info.size, info.etag) == (4, native_etag(blake3(b"meow").hexdigest()))
    assert await bucket.get("cat.jpg") == b"meow"
    head = await bucket.head("cat.jpg")
    assert head == info
    assert (head.headers, head.metadata) == ({"content-type": "image/jpeg"}, {"colour": "grün"})
    assert [entry async for entry in bucket.list()] == [ObjectInfo("cat.jpg", 4, info.etag, info.modified_ms)]
    with pytest.raises(PreconditionFailed):
        await bucket.put("cat.jpg", b"x", if_none_match="*")
    with pytest.raises(PreconditionFailed):
        await bucket.put("cat.jpg", b"x", if_match="other")
    newer = await bucket.put("cat.jpg", b"purr", if_match=info.etag)
    assert newer.etag != info.etag and await bucket.get("cat.jpg") == b"purr"
    with pytest.raises(PreconditionFailed):
        await bucket.delete("cat.jpg", if_match=info.etag)
    assert await bucket.delete("cat.jpg", if_match=newer.etag) is True
    assert await bucket.delete("cat.jpg") is False
    for work in (bucket.get("cat.jpg"), bucket.head("cat.jpg"), bucket.open("cat.jpg")):
        with pytest.raises(ObjectNotFound):
            await work


async def test_listing(bucket: AsyncBucket) -> None:
    keys = ["a", "a/b", "a/c/d", "b", "z/", "é/x", "\U0001f600"]
    for key in keys:
        await bucket.put(key, b"")
    assert await shown(bucket) == sorted(keys, key=str.encode)
    assert await shown(bucket, delimiter="/") == ["a", "<a/>", "b", "<z/>", "<é/>", "\U0001f600"]
    assert await shown(bucket, "a/", delimiter="/") == ["a/b", "<a/c/>"]
    assert await shown(bucket, start_after="a/c/d") == ["b", "z/", "é/x", "\U0001f600"]


async def test_buckets(bucket: AsyncBucket) -> None:
    client = bucket.client
    with pytest.raises(BucketAlreadyExists):
        await client.create_bucket("photos")
    await client.create_bucket("another", shards=0)
    assert [name async for name in client.list_buckets()] == ["another", "photos"]
    await bucket.put("k", b"")
    with pytest.raises(BucketNotEmpty):
        await client.delete_bucket("photos")
    await bucket.delete("k")
    await client.delete_bucket("photos")
    for work in (bucket.put("k", b""), bucket.get("k"), client.delete_bucket("photos")):
        with pytest.raises(BucketNotFound):
            await work
    assert [name async for name in client.list_buckets()] == ["another"]


@pytest.mark.parametrize("size", [10, INLINE_BYTES_MAX + 1])
async def test_bucket_that_somebody_made_again_is_found_at_the_first_try(
    bucket: AsyncBucket, cluster: SmallCluster, size: int
) -> None:
    await bucket.put("k", b"old")
    other = cluster.client()
    await other.bucket("photos").delete("k")
    await other.delete_bucket("photos")
    await other.create_bucket("photos", shards=2)
    await bucket.put("k", data_of(size))
    assert await other.bucket("photos").get("k") == data_of(size)


async def test_objects_are_spread_over_all_nodes(bucket: AsyncBucket, cluster: SmallCluster) -> None:
    hashed = await bucket.client.create_bucket("hashed", shards=0)
    for number in range(64):
        await hashed.put(f"k{number}", b"data")
    assert all(node.store.usage().records > 4 for node in cluster.nodes)


# -- bytes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES],
)
async def test_sizes_about_the_bounds(cluster: SmallCluster, size: int) -> None:
    bucket = await cluster.client().create_bucket("sizes", shards=1)
    data = data_of(size)
    assert (await bucket.put("k", data)).size == size
    assert await bucket.get("k") == data
    assert (await bucket.head("k")).size == size
    found = await bucket.client.objects.find("sizes", "k")
    blobs = 0 if size <= INLINE_BYTES_MAX else -(-size // CHUNK_BYTES)
    assert len(found.metadata.segments) == blobs


async def test_ranges_across_chunks(cluster: SmallCluster) -> None:
    bucket = await cluster.client().create_bucket("ranges", shards=1)
    data = data_of(CHUNK_BYTES + 100_000)
    await bucket.put("k", data)
    for start, length in (
        (CHUNK_BYTES - 5, 10),
        (CHUNK_BYTES, 1),
        (CHUNK_BYTES - 1, 1),
        (-5, None),
        (-CHUNK_BYTES - 1, 3),
        (0, 1),
        (5, 0),
        (len(data) - 1, 100),
        (CHUNK_BYTES // 2, None),
    ):
        first = start % len(data) if start else 0
        expected = data[first:] if length is None else data[first : first + length]
        assert await bucket.get("k", start=start, length=length) == expected
        reader = await bucket.open("k", start=start, length=length)
        assert reader.size == len(expected) and reader.info.size == len(data)
        assert b"".join([bytes(chunk) async for chunk in reader]) == expected
    with pytest.raises(RangeNotSatisfiable):
        await bucket.get("k", start=len(data))


def source_of(form: str, tmp_path: Path) -> Any:
    """The same 200,000 bytes in every form that ``put`` takes."""
    data = data_of(200_000)
    path = tmp_path / "file"
    path.write_bytes(data)

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(data), 30_001):
            yield data[at : at + 30_001]
            yield b""

    async def later() -> AsyncIterator[bytes]:
        for piece in pieces():
            await asyncio.sleep(0)
            yield piece

    return {
        "bytes": data,
        "bytearray": bytearray(data),
        "view": memoryview(data),
        "view of wide items": memoryview(array("Q", data)),
        "view with gaps": memoryview(bytes(b for byte in data for b in (byte, 0)))[::2],
        "file": path.open("rb") if form == "file" else None,
        "buffer": io.BytesIO(data),
        "list": list(pieces()),
        "iterator": pieces(),
        "async iterator": later(),
    }[form]


@pytest.mark.parametrize(
    "form",
    [
        "bytes", "bytearray", "view", "view of wide items", "view with gaps",
        "file", "buffer", "list", "iterator", "async iterator",
    ],
)  # fmt: skip
async def test_every_source(cluster: SmallCluster, tmp_path: Path, form: str) -> None:
    bucket = await cluster.client().create_bucket("sources", shards=1)
    source = source_of(form, tmp_path)
    info = await bucket.put("k", source)
    data = data_of(200_000)
    assert info.size == len(data) and await bucket.get("k") == data
    assert info.etag == (await bucket.put("l", data)).etag
    if form == "file":
        source.close()


@pytest.mark.parametrize("items", [1, 100])
async def test_small_views_of_wide_items(cluster: SmallCluster, items: int) -> None:
    """Their length counts items: an object cut to an eighth of its bytes would be the result."""
    bucket = await cluster.client().create_bucket("views", shards=1)
    view = memoryview(array("Q", range(items)))
    assert (await bucket.put("k", view)).size == 8 * items
    assert await bucket.get("k") == view.tobytes()


class SourceFailed(Exception):
    """The caller's own iterator raised."""


async def test_source_that_fails_changes_nothing(cluster: SmallCluster) -> None:
    bucket = await cluster.client().create_bucket("sources", shards=1)
    await bucket.put("k", b"before")

    async def broken() -> AsyncIterator[bytes]:
        yield data_of(CHUNK_BYTES + 10)
        raise SourceFailed

    with pytest.raises(SourceFailed):
        await bucket.put("k", broken())
    assert await bucket.get("k") == b"before"


async def test_impossible_arguments_send_nothing(cluster: SmallCluster) -> None:
    bucket = cluster.client().bucket("photos")
    big = bytes(INLINE_BYTES_MAX + 1)
    for work in (
        bucket.put("", b""),
        bucket.get("a\0b"),
        bucket.delete("k" * 1025),
        bucket.head("\ud800"),
    ):
        with pytest.raises(InvalidKey):
            await work
    for options in ({"if_none_match": "tag"}, {"if_none_match": "*", "if_match": "*"}):
        with pytest.raises(ValueError, match="if_none_match"):
            await bucket.put("k", big, **options)  # type: ignore[arg-type]
    assert bucket.client.pool.dial_count == 0


async def test_streams_share_a_bounded_memory(cluster: SmallCluster) -> None:
    """Twelve uploads and downloads at once: all get on, and give back what they took."""
    client = cluster.client(deadline_ms=10_000)
    bucket = await client.create_bucket("streams", shards=1)
    data = data_of(CHUNK_BYTES + 7)
    await asyncio.gather(*[bucket.put(f"k{number}", data) for number in range(12)])
    found = await asyncio.gather(*[bucket.get(f"k{number}") for number in range(12)])
    assert all(one == data for one in found)
    assert client.objects._budget._free == 8


async def test_reader_that_is_left_early_gives_back_what_it_took(cluster: SmallCluster) -> None:
    client = cluster.client()
    bucket = await client.create_bucket("streams", shards=1)
    await bucket.put("k", data_of(3 * CHUNK_BYTES))
    for _ in range(5):
        chunks = aiter(await bucket.open("k"))
        assert len(await anext(chunks)) == CHUNK_BYTES
        await chunks.aclose()  # type: ignore[attr-defined]  # an async generator
    assert client.objects._budget._free == 8


async def test_content_by_digest(cluster: SmallCluster) -> None:
    client = cluster.client()
    digest = await client.put_content(b"hello\n")
    assert digest.startswith("8e4c7c1b") and digest.endswith("9a99")
    assert await client.get_content(digest) == b"hello\n"
    assert client.locate_content(digest).addresses[0].endswith("274:331d:9667:9203")
    for absent in ("00" * 32, "zz", "", "00" * 31):
        with pytest.raises(ObjectNotFound):
            await client.get_content(absent)


async def test_rotten_blob_is_not_served(cluster: SmallCluster) -> None:
    bucket = await cluster.client().create_bucket("rotten", shards=1)
    data = data_of(100_000)
    await bucket.put("k", data)
    for node in cluster.nodes:
        store = node.store
        assert isinstance(store, MemoryStore)
        for key in store._records.keys:
            if key[4] == Kind.BLOB:
                store.poke(key, store.peek(key)[:-1] + b"\0")
    with pytest.raises(CorruptObject):
        await bucket.get("k")
    await bucket.put("k", data)
    assert await bucket.get("k") == data, "storing it again mends it"


async def test_locate_and_explain(cluster: SmallCluster) -> None:
    bucket = await cluster.client().create_bucket("photos", shards=4)
    await bucket.put("cat.jpg", b"meow")
    found = await bucket.locate("cat.jpg")
    explained = await bucket.explain("cat.jpg")
    assert explained["location"] == found.as_json() and len(found.addresses) == 1
    assert explained["object"].startswith("4 bytes")
    assert "no such object" in (await bucket.explain("dog.jpg"))["object"]
    fresh = cluster.client().bucket("photos")
    assert await fresh.locate("cat.jpg") == found


# -- who may ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"replicas": 3}, ConfigError),
        ({"secret_key": "wrong"}, AccessDenied),
        ({"access_key": "NOBODY"}, AccessDenied),
        ({"access_key": "", "secret_key": ""}, AccessDenied),
    ],
)
async def test_client_that_does_not_belong(
    cluster: SmallCluster, options: dict[str, Any], error: type[Exception]
) -> None:
    known: dict[str, Any] = {"access_key": "TESTKEY", "secret_key": "test-secret", "links": cluster.links()}
    async with AsyncClient("fd5a:1:2:3::/64", **(known | options)) as client:
        with pytest.raises(error):
            await client.create_bucket("photos")
    assert not any(node.service.counters.requests for node in cluster.nodes)


# -- nodes that go and slices that move -------------------------------------------------------------


async def test_slices_that_move_under_load_lose_nothing() -> None:
    """Slices go back and forth between two nodes that share a store, while clients write and read."""
    store = MemoryStore()
    async with small_cluster(2, lambda index: store) as cluster:
        a, b = cluster.nodes
        links = MovingLinks(cluster)
        writer = cluster.client(links=links, deadline_ms=5000)
        reader = cluster.client(links=links, deadline_ms=5000, use_hints=False)
        bucket = await writer.create_bucket("moving", shards=0)
        written: dict[str, bytes] = {}

        async def write(number: int) -> None:
            for count in range(15):
                key = f"k{number}-{count % 5}"
                data = f"{number} {count}".encode()
                await bucket.put(key, data, if_match=None)
                written[key] = data

        async def shuffle() -> None:
            random = Random(1)
            for _ in range(10):
                await asyncio.sleep(0.005)
                source, target = random.choice([(a, b), (b, a)])
                moved = set(random.sample(sorted(source.slices), len(source.slices) // 2))
                source.slices -= moved
                target.slices |= moved
                for node in (source, target):
                    node.service.acceptor.activate(node.slices)
                    node.service.coverage = encode_coverage(node.slices, 1)

        await asyncio.gather(shuffle(), *[write(number) for number in range(8)])
        for key, data in written.items():
            assert await bucket.get(key) == data
            assert await reader.bucket("moving").get(key) == data


class MovingLinks:
    """Routes that follow the owners."""

    def __init__(self, cluster: SmallCluster) -> None:
        self._cluster = cluster

    async def dial(self, address: Any, port: int, protocol: Any) -> Any:
        node = self._cluster.node_of(int(address) & ((1 << 64) - 1))
        links = LoopbackLinks({Slice(0, 0): node.port})
        return await links.dial(address, port, protocol)


class Lossy:
    """A cluster whose first node is behind a proxy, and a key that lives there."""

    def __init__(self, cluster: SmallCluster, proxy: Proxy) -> None:
        self.proxy = proxy
        self.node: SmallNode = cluster.nodes[0]
        owners = {Slice(s << 48, 16): node.port for node in cluster.nodes for s in node.slices}
        mine = {Slice(s << 48, 16): proxy.port for s in self.node.slices}
        self._links = LoopbackLinks(owners | mine)
        self._cluster = cluster
        self.client = cluster.client(links=self._links)
        self.direct = cluster.client()

    async def impatient(self) -> AsyncBucket:
        """The bucket of a client that waits a second, and is connected: others may be at work here."""
        bucket = self._cluster.client(links=self._links, deadline_ms=1000).bucket("lossy")
        await bucket.get(self.key)
        return bucket

    async def begin(self) -> str:
        """Make a bucket that both clients know; a key of it that the proxied node serves."""
        self.bucket = await self.client.create_bucket("lossy", shards=0)
        self.place = (await self.client.objects.bucket("lossy")).place
        keys = (f"k{number}" for number in range(1000))
        self.key = next(
            key for key in keys if slice16_of(iid_of_record(self.place, key.encode())) in self.node.slices
        )
        await self.bucket.put(self.key, b"first")
        await self.direct.bucket("lossy").get(self.key)
        return self.key


@pytest.fixture
async def lossy(cluster: SmallCluster) -> AsyncIterator[Lossy]:
    async with proxied(cluster.nodes[0].port) as proxy:
        made = Lossy(cluster, proxy)
        await made.begin()
        yield made


async def test_lost_answers_are_asked_for_again(lossy: Lossy) -> None:
    """Each answer is lost once. Reads are repeated, writes are applied once and get their own result."""
    bucket, key = lossy.bucket, lossy.key
    lossy.proxy.lose_next_answer()
    assert await bucket.get(key) == b"first"
    lossy.proxy.lose_next_answer()
    info = await bucket.put(key, b"second")
    lossy.proxy.lose_next_answer()
    newer = await bucket.put(key, b"third", if_match=info.etag)
    lossy.proxy.lose_next_answer()
    assert await bucket.delete(key, if_match=newer.etag) is True
    lossy.proxy.lose_next_answer()
    await bucket.put(key, b"fourth", if_none_match="*")
    lossy.proxy.lose_next_answer()
    assert await bucket.delete(key) is True
    lossy.proxy.lose_next_answer()
    assert await bucket.delete(key) is False
    with pytest.raises(ObjectNotFound):
        await lossy.direct.bucket("lossy").get(key)


async def test_lost_answers_of_a_large_object(lossy: Lossy) -> None:
    data = data_of(2 * CHUNK_BYTES)
    for lost in range(3):
        lossy.proxy.lose_next_answer()
        await lossy.bucket.put(f"{lossy.key}-{lost}", data)
        assert await lossy.bucket.get(f"{lossy.key}-{lost}") == data


async def test_increments_with_lost_answers_count_each_once(lossy: Lossy) -> None:
    """A counter by if_match, answers lost at random: what it says is what its clients were told."""
    key = lossy.key
    await lossy.bucket.put(key, b"0")
    random = Random(3)
    successes = 0
    for _ in range(30):
        reader = await lossy.bucket.open(key)
        value = int(await reader.read())
        if random.random() < 0.5:
            lossy.proxy.lose_next_answer()
        await lossy.bucket.put(key, b"%d" % (value + 1), if_match=reader.info.etag)
        successes += 1
    assert int(await lossy.direct.bucket("lossy").get(key)) == successes


@pytest.mark.parametrize(
    ("verb", "error"),
    [
        ("put", OutcomeUnknown),
        ("put if", OutcomeUnknown),
        ("delete", OutcomeUnknown),
        ("get", Unavailable),
        ("head", Unavailable),
    ],
)
async def test_node_that_dies_with_a_request(lossy: Lossy, verb: str, error: type[Exception]) -> None:
    """The request was sent and the node never answers any more: a doubt remains of writes only."""
    bucket, key = await lossy.impatient(), lossy.key
    lossy.proxy.is_mute = True
    work: Callable[[], Awaitable[Any]] = {
        "put": lambda: bucket.put(key, b"new"),
        "put if": lambda: bucket.put(key, b"new", if_none_match="*"),
        "delete": lambda: bucket.delete(key),
        "get": lambda: bucket.get(key),
        "head": lambda: bucket.head(key),
    }[verb]
    with pytest.raises(error) as caught:
        await work()
    assert type(caught.value) is error
    location = await lossy.direct.bucket("lossy").locate(key)
    assert location.slices[0] in str(caught.value) and location.addresses[0] in str(caught.value)


def connections_to(bucket: AsyncBucket, node: SmallNode) -> int:
    """Open connections that cover what the node serves."""
    pool = bucket.client.pool
    return sum(
        c.is_open and any(c.coverage.whole >> number & 1 for number in node.slices) for c in pool._connections
    )


async def test_node_that_is_gone_before_the_request_leaves_no_doubt(lossy: Lossy) -> None:
    bucket = await lossy.impatient()
    await lossy.proxy.stop()
    await until(lambda: not connections_to(bucket, lossy.node))
    for work in (bucket.put(lossy.key, b"new"), bucket.delete(lossy.key)):
        with pytest.raises(Unavailable):
            await work
    assert await lossy.direct.bucket("lossy").get(lossy.key) == b"first"


async def test_other_nodes_serve_while_one_is_gone(cluster: SmallCluster) -> None:
    client = cluster.client(deadline_ms=300)
    bucket = await client.create_bucket("photos", shards=0)
    for number in range(40):
        await bucket.put(f"k{number}", b"data")
    record = await client.objects.bucket("photos")
    gone = cluster.nodes[3]
    await gone.stop()
    tried = 0
    for number in range(40):
        iid = iid_of_record(record.place, f"k{number}".encode())
        if slice16_of(iid) not in gone.slices:
            assert await bucket.get(f"k{number}") == b"data"
        elif tried < 2:
            tried += 1
            with pytest.raises(Unavailable):
                await bucket.get(f"k{number}")
    assert tried


async def test_listing_of_a_bucket_with_a_shard_that_is_gone_fails(cluster: SmallCluster) -> None:
    client = cluster.client(deadline_ms=200)
    bucket = await client.create_bucket("photos", shards=16)
    for number in range(20):
        await bucket.put(f"k{number}", b"")
    assert len(await shown(bucket)) == 20
    await cluster.nodes[2].stop()
    with pytest.raises(Unavailable):
        await shown(bucket)


async def test_real_store_below(tmp_path: Path) -> None:
    """The same with LMDB: what was acknowledged is there after a restart."""
    path = [tmp_path / "0", tmp_path / "1"]
    data = data_of(INLINE_BYTES_MAX * 3)
    async with small_cluster(2, lambda index: LmdbStore.open(path[index], map_bytes=64 * MIB)) as cluster:
        bucket = await cluster.client().create_bucket("photos")
        for number in range(30):
            await bucket.put(f"k{number:02}", b"%d" % number)
        await bucket.put("large", data)
        await bucket.put("k" * 1024, b"long key")
        await bucket.delete("k07")
    async with small_cluster(2, lambda index: LmdbStore.open(path[index], map_bytes=64 * MIB)) as cluster:
        bucket = cluster.client().bucket("photos")
        assert len(await shown(bucket)) == 31
        assert await shown(bucket, "k0", start_after="k05") == ["k06", "k08", "k09"]
        assert await bucket.get("large") == data and await bucket.get("k" * 1024) == b"long key"
        assert await bucket.get("k29", start=1) == b"9"
