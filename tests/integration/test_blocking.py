"""The client without ``await``: the same results from ordinary code, several threads, and its own streams."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import IPv6Address
from typing import Any

import pytest

import ssastore
from ssastore.blocking import Bucket, Client, Reader
from ssastore.client import AsyncBucket, AsyncClient
from ssastore.core.objects import CommonPrefix, ObjectInfo
from ssastore.errors import (
    AccessDenied,
    BucketNotFound,
    ConfigError,
    ObjectNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    RangeNotSatisfiable,
    Unavailable,
)
from ssastore.limits import CHUNK_BYTES, INLINE_BYTES_MAX
from tests.cluster import KEY, SECRET, SERVICE, SmallCluster, small_cluster

BIG = b"".join(number.to_bytes(4, "big") * 4 for number in range((CHUNK_BYTES + 160_000) // 16))


class Unreachable:
    """Links to nowhere: each dial is refused at once."""

    async def dial(self, address: IPv6Address, port: int, protocol: Any) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")


class Nodes:
    """A small cluster on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._main()))
        self._stopped: asyncio.Event
        self.cluster: SmallCluster

    async def _main(self) -> None:
        self._stopped = asyncio.Event()
        async with small_cluster(2) as self.cluster:
            self._started.set()
            await self._stopped.wait()

    def __enter__(self) -> Nodes:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        self._loop.close()

    def client(self, **options: Any) -> Client:
        known = {"access_key": KEY, "secret_key": SECRET, "links": self.cluster.links(), "deadline_ms": 3000}
        return Client(SERVICE, **(known | options))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with Nodes() as made:
        yield made


@pytest.fixture
def client(nodes: Nodes) -> Iterator[Client]:
    with nodes.client() as made:
        yield made


@pytest.fixture
def bucket(client: Client, request: pytest.FixtureRequest) -> Bucket:
    name = f"b-{abs(hash(request.node.name)) % 10**9}"
    return client.create_bucket(name, shards=2)


def test_life_of_an_object(bucket: Bucket) -> None:
    info = bucket.put("k", b"data", content_type="text/plain", metadata={"n": "v"})
    assert bucket.get("k") == b"data" and bucket.head("k") == info
    assert bucket.get("k", start=1, length=2) == b"at" and bucket.get("k", start=-1) == b"a"
    with pytest.raises(RangeNotSatisfiable):
        bucket.get("k", start=4)
    with pytest.raises(PreconditionFailed):
        bucket.put("k", b"x", if_none_match="*")
    bucket.put("k", b"new", if_match=info.etag)
    assert bucket.delete("k") is True and bucket.delete("k") is False
    with pytest.raises(ObjectNotFound):
        bucket.get("k")


def test_buckets_and_listing(client: Client, bucket: Bucket) -> None:
    for key in ("a", "a/b", "c/d", "e"):
        bucket.put(key, b"")
    entries = list(bucket.list(delimiter="/"))
    assert [e.prefix if isinstance(e, CommonPrefix) else e.key for e in entries] == ["a", "a/", "c/", "e"]
    assert [e.key for e in bucket.list("a", start_after="a") if isinstance(e, ObjectInfo)] == ["a/b"]
    assert bucket.name in list(client.list_buckets())
    for key in ("a", "a/b", "c/d", "e"):
        bucket.delete(key)
    client.delete_bucket(bucket.name)
    with pytest.raises(BucketNotFound):
        client.bucket(bucket.name).get("a")


def test_content_and_places(client: Client, bucket: Bucket) -> None:
    digest = client.put_content(b"hello\n")
    assert client.get_content(digest) == b"hello\n"
    assert client.locate_content(digest).addresses[0].endswith("274:331d:9667:9203")
    bucket.put("k", b"data")
    assert bucket.locate("k").as_json() == bucket.explain("k")["location"]


def test_streams(bucket: Bucket) -> None:
    bucket.put("k", BIG)
    reader = bucket.open("k")
    assert (reader.info.size, reader.size) == (len(BIG), len(BIG))
    assert b"".join(reader) == BIG
    assert bucket.open("k", start=CHUNK_BYTES - 2, length=4).read() == BIG[CHUNK_BYTES - 2 :][:4]


def thousand_pieces() -> Iterator[bytes]:
    for number in range(300):
        yield b"" if number % 7 == 0 else b"%03d" % number * 100


@pytest.mark.parametrize(
    "source",
    [
        lambda: iter(thousand_pieces()),
        lambda: list(thousand_pieces()),
        lambda: b"".join(thousand_pieces()),
        lambda: memoryview(b"".join(thousand_pieces())),
        lambda: io.BytesIO(b"".join(thousand_pieces())),
    ],
    ids=["iterator", "list", "bytes", "view", "file"],
)
def test_every_source(bucket: Bucket, source: Any) -> None:
    """Empty pieces in the middle end nothing."""
    expected = b"".join(thousand_pieces())
    assert len(expected) > INLINE_BYTES_MAX
    assert bucket.put("k", source()).size == len(expected)
    assert bucket.get("k") == expected


@pytest.mark.timeout(20)
@pytest.mark.parametrize("form", ["reader", "iterator", "generator"])
def test_object_is_copied_from_a_stream_of_the_same_client(bucket: Bucket, form: str) -> None:
    """The source asks the client's own loop: were it run there, it would wait for itself for ever."""
    bucket.put("k", BIG)
    reader = bucket.open("k")
    source = {"reader": reader, "iterator": iter(reader), "generator": (chunk for chunk in reader)}[form]
    assert bucket.put("copy", source).size == len(BIG)  # type: ignore[arg-type]  # a Reader is iterable
    assert bucket.get("copy") == BIG


def test_source_that_fails_raises_in_the_caller(bucket: Bucket) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise OSError("the tape is torn")

    with pytest.raises(OSError, match="torn"):
        bucket.put("k", broken())
    with pytest.raises(ObjectNotFound):
        bucket.get("k")


def test_async_source_is_refused(bucket: Bucket) -> None:
    async def source() -> Any:
        yield b"data"

    with pytest.raises(AssertionError, match="blocking sources"):
        bucket.put("k", source())


def test_iterators_that_are_left_early(client: Client, bucket: Bucket) -> None:
    for number in range(5):
        bucket.put(f"k{number}", b"")
    bucket.put("large", BIG)
    iterators: list[Any] = [bucket.list(), iter(bucket.open("large"))]
    for iterator in iterators:
        next(iterator)
        iterator.close()
    next(bucket.list())
    next(iter(bucket.open("large")))
    gc.collect()
    assert client._client.objects._budget._free == 8
    assert len(list(bucket.list())) == 6


@pytest.mark.timeout(20)
def test_iterator_that_the_collector_ends_on_the_loop_s_thread(client: Client, bucket: Bucket) -> None:
    """A forgotten iterator in a cycle ends wherever the collector happens to run."""
    bucket.put("k", b"")
    cycle: list[Any] = [bucket.list()]
    next(cycle[0])
    cycle.append(cycle)
    del cycle

    async def collect() -> None:
        gc.collect()

    client._thread.run(collect())
    assert bucket.get("k") == b""


def test_client_is_shared_by_threads(bucket: Bucket) -> None:
    def work(number: int) -> bytes:
        bucket.put(f"k{number}", b"%d" % number)
        return bucket.get(f"k{number}")

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(100))) == [b"%d" % number for number in range(100)]
    assert len(list(bucket.list())) == 100


def test_interrupted_call_is_given_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while waiting: the call behind it ends, nothing is left to go on by itself."""
    began, ended = threading.Event(), threading.Event()

    async def endless() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    class Interrupted:
        """A future whose wait is interrupted, as by a signal."""

        def __init__(self, future: Any) -> None:
            self.cancel = future.cancel

        def result(self) -> None:
            assert began.wait(5)
            raise KeyboardInterrupt

    real = asyncio.run_coroutine_threadsafe
    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", lambda work, loop: Interrupted(real(work, loop)))
    with pytest.raises(KeyboardInterrupt):
        client._thread.run(endless())
    assert ended.wait(5)


def test_wrong_settings_leave_no_thread_behind(nodes: Nodes) -> None:
    before = threading.active_count()
    with pytest.raises(ConfigError):
        Client("not a prefix")
    with pytest.raises(ConfigError):
        Client.from_url("http://x")
    assert threading.active_count() == before
    with nodes.client(secret_key="wrong") as client, pytest.raises(AccessDenied):
        client.create_bucket("photos")


def test_closed_client_has_no_thread_and_may_be_closed_again(nodes: Nodes) -> None:
    before = threading.active_count()
    client = nodes.client()
    assert threading.active_count() == before + 1
    client.close()
    client.close()
    assert threading.active_count() == before


@pytest.mark.timeout(20)
def test_calls_of_other_threads_end_when_the_client_is_closed(nodes: Nodes) -> None:
    """Else a thread waits for ever for a loop that does not run any more, and so does who waits for that."""
    client = nodes.client(deadline_ms=60_000, links=Unreachable())
    began = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"x" * INLINE_BYTES_MAX
        began.set()
        ended.wait(10)

    ended = threading.Event()
    with nodes.client() as other:
        other.create_bucket("closing", shards=2)
    slow = nodes.client()
    with ThreadPoolExecutor(2) as threads:
        calls: list[Future[Any]] = [
            threads.submit(client.bucket("photos").get, "k"),
            threads.submit(slow.bucket("closing").put, "k", pieces()),
        ]
        assert began.wait(10)
        client.close()
        slow.close()
        for call in calls:
            with pytest.raises((Unavailable, OutcomeUnknown)):
                call.result(10)
        ended.set()
    with pytest.raises(Unavailable, match="closed"):
        client.bucket("photos").get("k")


FORKS = """
import os, pickle, sys
from ssastore.blocking import Client
client = Client(**pickle.load(sys.stdin.buffer))
bucket = client.create_bucket("forking", shards=2)
bucket.put("k", b"data")
reading = iter(bucket.list())
next(reading)
child = os.fork()
if child == 0:
    try:
        bucket.get("k")
    except RuntimeError as error:
        print(error, flush=True)
    del reading
    client.close()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), bucket.get("k"), flush=True)
del reading
client.close()
"""


@pytest.mark.timeout(30)
def test_forked_child_is_told_that_it_needs_a_client_of_its_own(nodes: Nodes) -> None:
    """The loop's thread is not there in a child: what was asked of it would be waited for for ever."""
    options = {
        "service": SERVICE, "access_key": KEY, "secret_key": SECRET, "links": nodes.cluster.links()
    }  # fmt: skip
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", FORKS]
    ended = subprocess.run(command, input=pickle.dumps(options), capture_output=True, timeout=20)
    assert ended.stdout.splitlines() == [b"a client must not be used across a fork", b"0 b'data'"]
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_client_from_the_environment(monkeypatch: pytest.MonkeyPatch, nodes: Nodes) -> None:
    monkeypatch.setenv("SSASTORE_URL", f"ssa://[{SERVICE.removesuffix('/64')}]")
    monkeypatch.setenv("SSASTORE_ACCESS_KEY", KEY)
    monkeypatch.setenv("SSASTORE_SECRET_KEY", SECRET)
    with ssastore.Client.from_env(links=nodes.cluster.links()) as client:
        assert "absent" not in list(client.list_buckets())


def public(kind: type) -> dict[str, list[str]]:
    """Methods that people call, with the names of their parameters."""
    return {
        name: list(inspect.signature(member).parameters)
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_blocking_client_has_the_names_of_the_other() -> None:
    assert public(Client) == public(AsyncClient)
    assert public(Bucket) == public(AsyncBucket)
    assert public(Reader) == {"read": ["self"]}
