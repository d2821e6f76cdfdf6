"""Nodes that are gone, stores that are full, blobs that are lost, clients that leave: what S3 clients see.

The one thing that must never be seen is an answer that looks whole and is not.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from blake3 import blake3
from botocore.exceptions import ClientError

from ssastore.core.buckets import SYSTEM
from ssastore.core.objects import ObjectReader
from ssastore.core.place import Place
from ssastore.keyspace import iid_of, position_of_blob, slice16_of
from ssastore.limits import CHUNK_BYTES, MIB
from ssastore.s3 import answers
from ssastore.store.memory import MemoryStore
from ssastore.wire import Body
from tests.cluster import SmallNode
from tests.direct import iid_of_part, iid_of_record
from tests.s3.gateways import Gateway
from tests.s3.raw import Answer, Site, Wire, sign

DEADLINE_MS = 400
CHUNKS = [random.Random(number).randbytes(CHUNK_BYTES) for number in range(6)]


@pytest.fixture
def faulty() -> Iterator[Gateway]:
    """A gateway of the test's own, to be broken."""
    with Gateway(deadline_ms=DEADLINE_MS) as gateway:
        yield gateway


def wait_until(is_so: Callable[[], object], within_s: float = 5) -> None:
    """Return when ``is_so`` holds; what must happen soon needs no exact time."""
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end, "it does not become so"
        time.sleep(0.01)


class Broken:
    """A bucket whose record is on one node, and another node with some of its shards, to be stopped."""

    BUCKET = "faults"

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.s3 = gateway.boto()
        self.s3.create_bucket(Bucket=self.BUCKET)
        self.place: Place = gateway.run(gateway.client.objects.bucket(self.BUCKET)).place
        cluster = gateway.cluster
        self.home = cluster.node_of(iid_of_record(SYSTEM, f"bucket/{self.BUCKET}".encode()))
        shards = [iid_of_part(self.place, shard) for shard in range(self.place.shards)]
        self.victim = next(node for node in map(cluster.node_of, shards) if node is not self.home)

    def node_of(self, key: str) -> SmallNode:
        return self.gateway.cluster.node_of(iid_of_record(self.place, key.encode()))

    def slice_of(self, key: str) -> str:
        return f"{slice16_of(iid_of_record(self.place, key.encode())):04x}"

    def key(self, *, on_victim: bool) -> str:
        """A key that lives on the victim, or on another node."""
        keys = (f"key{number}" for number in itertools.count())
        return next(key for key in keys if (self.node_of(key) is self.victim) == on_victim)

    def raw(self, method: str, key: str = "", body: bytes = b"", query: str = "") -> Answer:
        target = f"/{self.BUCKET}" + (f"/{key}" if key else "") + (f"?{query}" if query else "")
        return Site.exchange(self.gateway, sign(self.gateway.host, method, target, body))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.gateway.run(self.victim.stop())
        try:
            yield
        finally:
            self.gateway.run(self.victim.start())


@pytest.fixture
def broken(faulty: Gateway) -> Broken:
    return Broken(faulty)


# -- a node is gone ---------------------------------------------------------------------------------


class TestStoppedNode:
    def test_other_slices_keep_working(self, broken: Broken) -> None:
        alive, dead = broken.key(on_victim=False), broken.key(on_victim=True)
        for key in (alive, dead):
            broken.s3.put_object(Bucket=broken.BUCKET, Key=key, Body=key.encode())
        with broken.stopped():
            for _ in range(2):
                assert broken.raw("GET", alive).body == alive.encode()
                assert broken.raw("PUT", alive, alive.encode()).status == 200
                assert broken.raw("HEAD", alive).status == 200
        assert broken.raw("GET", dead).body == dead.encode()

    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
    def test_the_answer_names_the_slice_within_the_deadline(self, broken: Broken, method: str) -> None:
        key = broken.key(on_victim=True)
        broken.s3.put_object(Bucket=broken.BUCKET, Key=key, Body=b"x")
        with broken.stopped():
            # The first call may find a connection that is just ending: for a write that is a doubt (500).
            broken.raw("GET", key)
            began = time.monotonic()
            answer = broken.raw(method, key, b"new" if method == "PUT" else b"")
            assert time.monotonic() - began < DEADLINE_MS / 1000 + 1
            assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
            if method != "HEAD":
                assert answer.code == "ServiceUnavailable"
                assert f"slice {broken.slice_of(key)} at" in answer.element("Message")
        assert broken.raw("GET", key).body == b"x"

    def test_a_write_in_doubt_is_old_or_new_and_can_be_repeated(self, broken: Broken) -> None:
        """The node goes while it has the request; whatever is answered, the object is one of the two."""
        key = broken.key(on_victim=True)
        broken.s3.put_object(Bucket=broken.BUCKET, Key=key, Body=b"old")
        with Wire(broken.gateway.port) as wire:
            request = sign(broken.gateway.host, "PUT", f"/{broken.BUCKET}/{key}", b"new")
            wire.send(request.raw())
            with broken.stopped():
                answer = wire.answer()
                assert answer.status in (200, 500, 503)
        found = broken.raw("GET", key).body
        assert found == b"new" if answer.status == 200 else found in (b"old", b"new")
        assert broken.raw("PUT", key, b"new").status == 200
        assert broken.raw("GET", key).body == b"new"

    @pytest.mark.parametrize(
        "query", ["list-type=2", "", "list-type=2&delimiter=/", "list-type=2&max-keys=1", "uploads="]
    )
    def test_a_listing_is_never_short(self, broken: Broken, query: str) -> None:
        keys = [f"k{number:02}" for number in range(40)]
        for key in keys:
            assert broken.raw("PUT", key, b"").status == 200
        with broken.stopped():
            answer = broken.raw("GET", query=query)
            assert (answer.status, answer.code) == (503, "ServiceUnavailable")
            named = answer.element("Message").partition("slice ")[2][:4]
            assert int(named, 16) in broken.victim.slices
            wait_until(lambda: not broken.gateway.tasks())
        listed = broken.s3.list_objects_v2(Bucket=broken.BUCKET)["Contents"]
        assert [entry["Key"] for entry in listed] == keys

    def test_many_deletions_have_each_its_result(self, broken: Broken) -> None:
        keys = sorted([f"k{number:02}" for number in range(40)] + [broken.key(on_victim=True)])
        for key in keys:
            assert broken.raw("PUT", key, b"").status == 200
        with broken.stopped():
            broken.raw("GET", broken.key(on_victim=True))
            entries = {"Objects": [{"Key": key} for key in keys]}
            result = broken.s3.delete_objects(Bucket=broken.BUCKET, Delete=entries)
        assert {entry["Key"] for entry in result["Deleted"]} == {
            key for key in keys if broken.node_of(key) is not broken.victim
        }
        assert {entry["Code"] for entry in result["Errors"]} == {"ServiceUnavailable"}
        listed = broken.s3.list_objects_v2(Bucket=broken.BUCKET)["Contents"]
        assert [entry["Key"] for entry in listed] == [
            key for key in keys if broken.node_of(key) is broken.victim
        ]

    def test_a_bucket_that_could_not_be_deleted_loses_nothing(self, broken: Broken) -> None:
        """The deletion stops half way; who repeats it is told that the bucket is not empty."""
        alive = broken.key(on_victim=False)
        broken.s3.put_object(Bucket=broken.BUCKET, Key=alive, Body=b"x")
        with broken.stopped():
            assert broken.raw("DELETE").status == 503
        answer = broken.raw("DELETE")
        assert (answer.status, answer.code) == (409, "BucketNotEmpty")
        assert broken.raw("GET", alive).body == b"x"
        assert broken.raw("PUT", broken.key(on_victim=True), b"y").status == 200

    def test_sdks_wait_and_try_again(self, broken: Broken) -> None:
        """With its default retries boto3 gets over a node that comes back."""
        key = broken.key(on_victim=True)
        broken.s3.put_object(Bucket=broken.BUCKET, Key=key, Body=b"x")
        patient = broken.gateway.boto(config={"retries": {"mode": "standard", "total_max_attempts": 5}})
        broken.gateway.run(broken.victim.stop())
        starter = threading.Timer(0.6, lambda: broken.gateway.run(broken.victim.start()))
        starter.start()
        try:
            assert patient.get_object(Bucket=broken.BUCKET, Key=key)["Body"].read() == b"x"
        finally:
            starter.join()


# -- blobs that are lost ----------------------------------------------------------------------------


class Large:
    """An object of several blobs, any of which can be taken away."""

    def __init__(self, broken: Broken) -> None:
        self.broken = broken
        self.key = broken.key(on_victim=False)
        self.data = b"".join(CHUNKS)
        # Calls are short here, so that tests of nodes that are gone are; this one need not be.
        patient = broken.gateway.boto(config={"retries": {"mode": "standard", "total_max_attempts": 5}})
        patient.put_object(Bucket=broken.BUCKET, Key=self.key, Body=self.data)

    def node_of(self, chunk: int) -> SmallNode:
        digest = blake3(CHUNKS[chunk]).digest()
        return self.broken.gateway.cluster.node_of(iid_of(position_of_blob(digest), 0))

    def _stored_key(self, chunk: int) -> tuple[MemoryStore, bytes]:
        store = self.node_of(chunk).store
        assert isinstance(store, MemoryStore)
        with store.read() as txn:
            for key, value in txn.scan(b"\0", b"\xff" * 8):
                if len(value) >= CHUNK_BYTES and CHUNKS[chunk][:64] in bytes(value[-CHUNK_BYTES:]):
                    return store, key
        raise AssertionError("the blob is not where it should be")

    async def drop(self, chunk: int) -> None:
        store, key = self._stored_key(chunk)
        await store.submit(lambda txn: txn.delete(key))

    async def damage(self, chunk: int) -> None:
        """Flip a bit, as a failing disk does."""
        store, key = self._stored_key(chunk)
        sealed = bytearray(store.peek(key))
        sealed[len(sealed) // 2] ^= 1
        store.poke(key, bytes(sealed))

    def get(self, span: str = "") -> Answer:
        request = sign(self.broken.gateway.host, "GET", f"/{self.broken.BUCKET}/{self.key}")
        if span:
            request = request.plus(("Range", f"bytes={span}"))
        return Site.exchange(self.broken.gateway, request)


@pytest.fixture
def large(broken: Broken) -> Large:
    return Large(broken)


class TestLostBlobs:
    @pytest.mark.parametrize("how", ["drop", "damage"])
    def test_the_first_is_an_error(self, large: Large, how: str) -> None:
        """The status line waits for the first chunk."""
        large.broken.gateway.run(getattr(large, how)(0))
        answer = large.get()
        assert (answer.status, answer.code) == (500, "InternalError")
        assert "blob" not in answer.element("Message")
        assert large.get(f"{CHUNK_BYTES}-").body == large.data[CHUNK_BYTES:]

    @pytest.mark.parametrize("how", ["drop", "damage"])
    @pytest.mark.parametrize("chunk", [1, 3, 5])
    def test_a_later_one_breaks_the_connection(self, large: Large, how: str, chunk: int) -> None:
        large.broken.gateway.run(getattr(large, how)(chunk))
        answer = large.get()
        assert answer.status == 200 and int(answer.headers["content-length"]) == len(large.data)
        assert not answer.is_whole, "a short answer that looks whole"
        assert large.data.startswith(answer.body) and len(answer.body) <= chunk * CHUNK_BYTES
        wait_until(lambda: not large.broken.gateway.tasks())
        assert large.get(f"0-{chunk * CHUNK_BYTES - 1}").body == large.data[: chunk * CHUNK_BYTES]

    def test_boto3_sees_it(self, large: Large) -> None:
        large.broken.gateway.run(large.drop(4))
        with pytest.raises(Exception, match=r"IncompleteRead|Connection broken|bytes read"):
            large.broken.s3.get_object(Bucket=large.broken.BUCKET, Key=large.key)["Body"].read()

    def test_a_range_beside_it_is_whole(self, large: Large) -> None:
        large.broken.gateway.run(large.drop(2))
        for first, last in ((0, 2 * CHUNK_BYTES - 1), (3 * CHUNK_BYTES, len(large.data) - 1)):
            answer = large.get(f"{first}-{last}")
            assert (answer.status, answer.body) == (206, large.data[first : last + 1])
        assert large.get(f"{2 * CHUNK_BYTES}-").status == 500

    def test_a_node_that_is_gone(self, large: Large) -> None:
        """Before the first byte that is a 503 with the slice, later a broken connection."""
        broken = large.broken
        holders = dict.fromkeys(large.node_of(chunk) for chunk in range(len(CHUNKS)))
        for broken.victim in holders:
            if broken.victim is broken.node_of(large.key):
                continue  # then the record is gone too
            with broken.stopped():
                first = next(n for n in range(len(CHUNKS)) if large.node_of(n) is broken.victim)
                answer = large.get()
                if first == 0:
                    assert (answer.status, answer.code) == (503, "ServiceUnavailable")
                else:
                    assert answer.status == 200 and not answer.is_whole
                    assert large.data.startswith(answer.body)
                at = first * CHUNK_BYTES
                answer = large.get(f"{at}-{at + 9}")
                assert (answer.status, answer.code) == (503, "ServiceUnavailable")
                assert "slice " in answer.element("Message") and answer.headers["retry-after"]
            assert large.get().body == large.data

    def test_the_head_is_still_there(self, large: Large) -> None:
        large.broken.gateway.run(large.drop(0))
        head = large.broken.s3.head_object(Bucket=large.broken.BUCKET, Key=large.key)
        assert head["ContentLength"] == len(large.data)
        assert large.broken.raw("DELETE", large.key).status == 204


# -- a store that is full ---------------------------------------------------------------------------


def code_of(call: Callable[..., Any], **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


class TestFullStore:
    FULL = ("InsufficientStorage", 507)

    @pytest.fixture
    def small(self) -> Iterator[Gateway]:
        with Gateway(make_store=lambda index: MemoryStore(map_bytes=MIB), deadline_ms=2000) as gateway:
            yield gateway

    def test_nothing_new_but_reads_and_deletes(self, small: Gateway) -> None:
        s3 = small.boto()
        s3.create_bucket(Bucket="full")
        stored: dict[str, bytes] = {}
        refused: set[str] = set()
        for number in range(400):
            key, data = f"k{number:03}", random.Random(number).randbytes(40_000)
            try:
                s3.put_object(Bucket="full", Key=key, Body=data)
                stored[key] = data
            except ClientError as error:
                assert error.response["Error"]["Code"] == self.FULL[0]
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] == self.FULL[1]
                refused.add(key)
            if len(refused) > 20:
                break
        assert len(refused) > 20 and stored
        listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket="full")["Contents"]]
        assert listed == sorted(stored)
        for key, data in stored.items():
            assert s3.get_object(Bucket="full", Key=key)["Body"].read() == data
        assert code_of(s3.get_object, Bucket="full", Key=min(refused)) == ("NoSuchKey", 404)
        half = sorted(stored)[::2]
        for key in half[:5]:
            s3.delete_object(Bucket="full", Key=key)
        result = s3.delete_objects(Bucket="full", Delete={"Objects": [{"Key": key} for key in half[5:]]})
        assert "Errors" not in result
        for key in sorted(refused)[:5]:
            s3.put_object(Bucket="full", Key=key, Body=b"there is room again")

    def test_a_large_object_that_does_not_fit_is_not_there(self, small: Gateway) -> None:
        s3 = small.boto()
        s3.create_bucket(Bucket="full")
        assert code_of(s3.put_object, Bucket="full", Key="k", Body=CHUNKS[0] + CHUNKS[1]) == self.FULL
        upload = s3.create_multipart_upload(Bucket="full", Key="k")
        part = {"Bucket": "full", "Key": "k", "UploadId": upload["UploadId"], "PartNumber": 1}
        assert code_of(s3.upload_part, **part, Body=CHUNKS[0]) == self.FULL
        assert "Contents" not in s3.list_objects_v2(Bucket="full")
        s3.abort_multipart_upload(Bucket="full", Key="k", UploadId=upload["UploadId"])
        s3.delete_bucket(Bucket="full")
        wait_until(lambda: not small.tasks())

    def test_the_sdk_does_not_try_507_again(self, small: Gateway) -> None:
        s3 = small.boto(config={"retries": {"mode": "standard", "total_max_attempts": 5}})
        s3.create_bucket(Bucket="full")
        with pytest.raises(ClientError) as caught:
            s3.put_object(Bucket="full", Key="k", Body=CHUNKS[0])
        assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0


# -- clients that leave -----------------------------------------------------------------------------


def reset(wire: Wire) -> None:
    """Close with a reset instead of an end, as a client that crashes does."""
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def budget_of(gateway: Gateway) -> int:
    return gateway.client.objects._budget._free


class TestLeavingClients:
    @pytest.mark.parametrize("how", ["end", "reset"])
    @pytest.mark.parametrize("query", ["", "part"])
    def test_in_the_middle_of_an_upload(self, gateway: Gateway, site: Site, how: str, query: str) -> None:
        """9 of 24 MiB have come, two blobs are stored: nothing of it may be seen, no task may stay."""
        budget = budget_of(gateway)
        upload_id = ""
        if query:
            upload_id = site.send(site.sign("POST", "new", query="uploads=")).element("UploadId")
            query = f"partNumber=1&uploadId={upload_id}"
        sent = site.sign("PUT", "new", b"".join(CHUNKS), query=query)
        with site.wire() as wire:
            wire.send(sent.head() + sent.body[: 9 * MIB])
            wait_until(gateway.tasks)
            if how == "reset":
                reset(wire)
        wait_until(lambda: not gateway.tasks())
        assert budget_of(gateway) == budget
        if upload_id:
            parts = site.send(site.sign("GET", "new", query=f"uploadId={upload_id}"))
            assert parts.status == 200 and b"<Part>" not in parts.body
            assert site.send(site.sign("DELETE", "new", query=f"uploadId={upload_id}")).status == 204

    def test_in_the_middle_of_a_download(self, gateway: Gateway, site: Site) -> None:
        site.send(site.sign("PUT", "new", b"".join(CHUNKS)))
        budget = budget_of(gateway)
        for how in ("end", "reset"):
            with site.wire() as wire:
                wire.send(site.sign("GET", "new").raw())
                assert len(wire.stream.read(MIB)) == MIB
                if how == "reset":
                    reset(wire)
            wait_until(lambda: not gateway.tasks())
            assert budget_of(gateway) == budget
        assert site.send(site.sign("GET", "new")).body == b"".join(CHUNKS)
        site.send(site.sign("DELETE", "new"))

    def test_a_client_that_does_not_read_is_cut_off(
        self, gateway: Gateway, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a few of them would hold all chunks that may be held at once."""
        monkeypatch.setattr(answers, "_STALL_S", 0.2)
        site.send(site.sign("PUT", "new", b"".join(CHUNKS)))
        budget = budget_of(gateway)
        with site.wire() as wire:
            wire.send(site.sign("GET", "new").raw())
            wait_until(gateway.tasks)
            wait_until(lambda: not gateway.tasks())
            assert budget_of(gateway) == budget
            assert not wire.answer().is_whole
        site.send(site.sign("DELETE", "new"))

    def test_a_bug_in_the_middle_of_a_download_ends_the_connection(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An error document, or the next answer, would be taken for the rest of the object."""
        site.send(site.sign("PUT", "new", b"".join(CHUNKS)))
        real = ObjectReader.__aiter__

        async def broken(reader: ObjectReader) -> AsyncIterator[Body]:
            async for chunk in real(reader):
                yield chunk
                raise KeyError("a bug")

        with monkeypatch.context() as patched, site.wire() as wire:
            patched.setattr(ObjectReader, "__aiter__", broken)
            wire.send(site.sign("GET", "new").raw() + site.sign("GET", Site.KEY).raw())
            received = wire.stream.read()
        assert received.count(b"HTTP/1.1") == 1
        assert len(received) < len(b"".join(CHUNKS))
        caplog.clear()  # The crash is what was wanted.
        site.send(site.sign("DELETE", "new"))

    def test_a_client_that_takes_no_rest_is_ended_by_the_kernel(
        self, gateway: Gateway, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The answer was given, and no timer of the gateway runs for what waits to be read."""
        monkeypatch.setattr(answers, "_STALL_S", 0.5)
        site.send(site.sign("PUT", "new", bytes(60_000)))
        known = set(gateway.http.connections)
        with site.wire() as wire:
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.send(site.sign("GET", "new").raw())
            wait_until(lambda: set(gateway.http.connections) - known)
            wait_until(lambda: set(gateway.http.connections) <= known)
        site.send(site.sign("DELETE", "new"))

    def test_before_the_answer(self, gateway: Gateway, site: Site) -> None:
        """The request was whole, so it may take effect; the server must get over it."""
        for _ in range(20):
            with site.wire() as wire:
                wire.send(site.sign("PUT", "new", b"x").raw())
                reset(wire)
        wait_until(lambda: not gateway.tasks())
        site.send(site.sign("DELETE", "new"))


# -- races ------------------------------------------------------------------------------------------


def at_once(site: Site, requests: list[bytes]) -> list[Answer]:
    """Send all before reading any answer."""
    wires = [site.wire(timeout=30) for _ in requests]
    try:
        for wire, request in zip(wires, requests, strict=True):
            wire.send(request)
        return [wire.answer() for wire in wires]
    finally:
        for wire in wires:
            wire.socket.close()


class TestRaces:
    @pytest.mark.parametrize("size", [10, 100_000])
    def test_create_only_has_one_winner(self, site: Site, size: int) -> None:
        bodies = [random.Random(number).randbytes(size) for number in range(50)]
        requests = [site.sign("PUT", "new", body, [("If-None-Match", "*")]).raw() for body in bodies]
        answers = at_once(site, requests)
        assert Counter(answer.status for answer in answers) == {200: 1, 412: 49}
        winner = next(number for number, answer in enumerate(answers) if answer.status == 200)
        assert site.send(site.sign("GET", "new")).body == bodies[winner]
        site.send(site.sign("DELETE", "new"))

    def test_replace_only_what_was_read_has_one_winner(self, site: Site) -> None:
        """Ten rounds of ten writers that all read the same version."""
        etag = site.send(site.sign("PUT", "new", b"")).headers["etag"]
        for turn in range(10):
            bodies = [f"{turn} {number}".encode() for number in range(10)]
            answers = at_once(site, [site.sign("PUT", "new", b, [("If-Match", etag)]).raw() for b in bodies])
            assert Counter(answer.status for answer in answers) == {200: 1, 412: 9}
            winner = next(number for number, answer in enumerate(answers) if answer.status == 200)
            found = site.send(site.sign("GET", "new"))
            assert found.body == bodies[winner]
            etag = found.headers["etag"]
        site.send(site.sign("DELETE", "new"))

    def test_a_bucket_is_created_once(self, gateway: Gateway, site: Site) -> None:
        answers = at_once(site, [sign(gateway.host, "PUT", f"/{site.bucket}-race").raw()] * 20)
        assert Counter(answer.status for answer in answers) == {200: 1, 409: 19}

    def test_completions_of_one_upload_agree(self, site: Site) -> None:
        upload_id = site.send(site.sign("POST", "new", query="uploads=")).element("UploadId")
        query = f"uploadId={upload_id}"
        body = b"part"
        assert site.send(site.sign("PUT", "new", body, query=f"partNumber=1&{query}")).status == 200
        etag = hashlib.md5(body).hexdigest()
        part = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
        document = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode()
        answers = at_once(site, [site.sign("POST", "new", document, query=query).raw()] * 20)
        assert Counter(answer.status for answer in answers) == {200: 20}
        assert len({answer.element("ETag") for answer in answers}) == 1
        assert site.send(site.sign("GET", "new")).body == body
        site.send(site.sign("DELETE", "new"))

    def test_readers_see_one_version(self, site: Site) -> None:
        """Large objects written over each other while they are read: never a mixture."""
        versions = [CHUNKS[0] + CHUNKS[1], CHUNKS[2] + CHUNKS[3]]
        site.send(site.sign("PUT", "new", versions[0]))
        stop = threading.Event()

        def write() -> None:
            for version in itertools.cycle(versions):
                if stop.is_set():
                    return
                site.send(site.sign("PUT", "new", version))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            found = [site.send(site.sign("GET", "new")) for _ in range(12)]
        finally:
            stop.set()
            writer.join()
        for answer in found:
            assert answer.status == 200 and answer.is_whole and answer.body in versions
            assert answer.headers["etag"].strip('"') == hashlib.md5(answer.body).hexdigest()
        site.send(site.sign("DELETE", "new"))


def test_what_was_answered_is_counted(faulty: Gateway) -> None:
    counts = faulty.server.counts
    received, sent = counts.received_bytes, counts.sent_bytes
    broken = Broken(faulty)
    broken.raw("GET", "none")
    broken.raw("PUT", "k", b"x" * 1000)
    assert broken.raw("GET", "k").body == b"x" * 1000
    answers = counts.answers
    assert (answers["GetObject", 404], answers["PutObject", 200], answers["CreateBucket", 200]) == (1, 1, 1)
    assert counts.errors["NoSuchKey"] == 1
    # What is sent has headers too.
    assert counts.received_bytes - received == 1000 and 1000 < counts.sent_bytes - sent < 5000
    assert {name: sum(found.counts) for name, found in counts.durations.items()} == {
        "CreateBucket": 1,
        "GetObject": 2,
        "PutObject": 1,
    }
    assert 0 < counts.durations["PutObject"].seconds < 5 and counts.in_flight == 0


def test_a_request_that_is_broken_off_is_in_flight_until_then(faulty: Gateway) -> None:
    counts = faulty.server.counts
    with socket.create_connection(("127.0.0.1", faulty.port)) as client:
        client.sendall(b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        wait_until(lambda: counts.in_flight == 1)
    wait_until(lambda: counts.in_flight == 0)
