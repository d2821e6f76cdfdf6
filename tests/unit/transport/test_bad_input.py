"""Whatever comes over the native port: an answer or an end, bounded memory, and the next client is served.

Every case runs against a real server on ::1, on asyncio's loop and on uvloop, and ends with a good
client that stores and reads an object. The cases follow the catalogue of bad input, section "native
protocol"; those about planes that vote belong to a later version.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv6Address
from typing import Any

import msgpack
import pytest
import uvloop
from blake3 import blake3

from ssastore.core.metadata import Metadata
from ssastore.core.place import Place
from ssastore.env import spawn
from ssastore.keyspace import iid_of, position_of_blob, slice16_of
from ssastore.limits import CHUNK_BYTES, INLINE_BYTES_MAX, KIB, MIB, SCAN_PAGE_ITEMS_MAX
from ssastore.messages import (
    Delete,
    Get,
    GetBlob,
    Kind,
    Message,
    Put,
    PutBlob,
    Report,
    Scan,
    Shut,
    Status,
)
from ssastore.store.memory import MemoryStore
from ssastore.transport import session as session_module
from ssastore.transport.tcp import TcpLinks
from tests.cluster import SmallCluster, SmallNode
from tests.direct import iid_of_part, iid_of_record
from tests.wires import RawClient, hello, packed

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
PLACE = Place(7, 16)
Case = Callable[[SmallNode], Awaitable[None]]


class ToOne:
    """All addresses lead to one port."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def dial(self, address: IPv6Address, port: int, protocol: Any) -> Any:
        return await TcpLinks().dial(IPv6Address("::1"), self._port, protocol)


@asynccontextmanager
async def one_node() -> Any:
    """A node that owns plane 0 but for slice 0fff, with a reaper that looks often."""
    node = SmallNode(set(range(4095)), MemoryStore())
    await node.start()
    cluster = SmallCluster([node])

    async def reap() -> None:
        while True:
            await asyncio.sleep(0.005)
            node.service.reap()

    reaping = spawn("reap", reap())
    try:
        yield node
        # A new bucket gets a random id, and might lie in the slice that is missing.
        node.service.acceptor.activate(set(range(4096)))
        client = cluster.client(links=ToOne(node.port))
        bucket = await client.create_bucket("good-client", shards=1)
        await bucket.put("k", b"data")
        assert await bucket.get("k") == b"data"
    finally:
        reaping.cancel()
        await cluster.close()


def run(case: Case, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), one_node() as node:
            await case(node)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def raw(header: bytes, body: bytes = b"", *, length: int | None = None) -> bytes:
    length = 2 + len(header) + len(body) if length is None else length
    return length.to_bytes(4, "big") + len(header).to_bytes(2, "big") + header + body


# -- requests that are as they should be, to be spoilt ----------------------------------------------


def get_of(key: bytes = b"k") -> Get:
    return Get(iid_of_record(PLACE, key), Kind.OBJECT, 7, 16, key, False)


def put_of(key: bytes = b"k", data: bytes = b"") -> Put:
    metadata = Metadata("e", len(data)).encode()
    return Put(iid_of_record(PLACE, key), Kind.OBJECT, 7, 16, key, b"o" * 16, 0, "", 1, 0, metadata)


def scan_of(**changes: Any) -> Scan:
    scan = Scan(iid_of_part(PLACE, 3), Kind.OBJECT, 7, 16, 3, b"", b"", b"", 10, False)
    spoilt(scan, **changes)
    return scan


def blob_iid(digest: bytes) -> int:
    return iid_of(position_of_blob(digest), 0)


def blob_of(content: bytes = b"blob") -> PutBlob:
    digest = blake3(content).digest()
    return PutBlob(blob_iid(digest), digest, b"")


def spoilt(message: Any, **changes: Any) -> Any:
    for name, value in changes.items():
        setattr(message, name, value)
    return message


# -- strangers --------------------------------------------------------------------------------------

STRANGERS: dict[str, bytes] = {
    "length 0": bytes(8),
    "length 2^32 - 1": b"\xff\xff\xff\xff\0\x05",
    "length of a large frame": (5 * MIB).to_bytes(4, "big") + b"\0\x05",
    "TLS": bytes.fromhex("160301020001000" + "1fc0303" + "00" * 500),
    "HTTP": b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "zeros": bytes(100_000),
    "ones": b"\xff" * 100_000,
    "array of 10^8": raw(b"\xdd\x05\xf5\xe1\x00"),
    "map of 10^8": raw(b"\xdf\x05\xf5\xe1\x00"),
    "nested claims": raw(b"\xdd\x05\xf5\xe1\x00" * 190),
    "nesting": raw(b"\x91" * 1000),
    "request": packed(get_of().header(1)),
    "reply": packed([0, 1]),
    "proof": packed([3, 0, bytes(32)]),
    "hello of another version": packed([1, 0, 1, "xxh3-64"]),
    "hello with an extra field": packed([*hello().header(0), 1]),
    "hello with a boolean": packed([1, 0, True, *hello().header(0)[3:]]),
    "hello of an unknown role": packed(hello(role="admin").header(0)),
    "hello with a short nonce": packed(hello(nonce=b"n").header(0)),
    "hello with a long name": packed(hello(key_id="k" * 200).header(0)),
    "hello with a large body": packed(hello().header(0), bytes(5000)),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", STRANGERS)
def test_stranger_is_closed_at_once(name: str, loop: str) -> None:
    async def case(node: SmallNode) -> None:
        client = await RawClient.dial(node.port)
        client.writer.write(STRANGERS[name])
        assert await client.is_closed()
        assert node.service.counters.peer_errors == 1
        client.close()

    run(case, LOOPS[loop])


SLOW: dict[str, list[bytes]] = {
    "nothing": [],
    "one byte": [b"\0"],
    "length and no more": [b"\0\0\0\x20"],
    "half a hello": [packed(hello().header(0))[:20]],
    "hello and no proof": [packed(hello().header(0))],
    "byte by byte": [packed(hello().header(0))[at : at + 1] for at in range(15)],
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", SLOW)
def test_greeting_that_does_not_end_is_ended(name: str, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "GREETING_TIMEOUT_MS", 60)

    async def case(node: SmallNode) -> None:
        client = await RawClient.dial(node.port)
        for piece in SLOW[name]:
            await asyncio.sleep(0.002)
            if not client.writer.is_closing():
                client.writer.write(piece)
        if name == "hello and no proof":
            await client.frame()
        assert await client.is_closed()
        client.close()
        monkeypatch.undo()

    run(case, LOOPS[loop])


@pytest.mark.parametrize("loop", LOOPS)
def test_unknown_key_and_wrong_secret_get_the_same_answer(loop: str) -> None:
    async def case(node: SmallNode) -> None:
        answers = []
        for secret, changes in ((b"wrong", {}), (b"wrong", {"key_id": "NOBODY"}), (b"", {"role": "node"})):
            client = await RawClient.dial(node.port)
            with pytest.raises(Exception, match="Proof"):
                await client.greet(secret, **changes)
            answers.append(client.last)
            assert await client.is_closed()
            client.close()
        assert answers == [([Status.DENIED, 0, "unknown access key or wrong secret"], b"")] * 3
        assert node.service.counters.denied == 3 and not node.service.counters.requests

    run(case, LOOPS[loop])


@pytest.mark.parametrize("loop", LOOPS)
def test_many_silent_connections_hold_up_nobody(loop: str) -> None:
    async def case(node: SmallNode) -> None:
        clients = [await RawClient.dial(node.port) for _ in range(200)]
        good = await RawClient.greeted(node.port)
        good.send(get_of().header(1))
        assert (await good.frame())[0][0] == Status.OK
        for client in [*clients, good]:
            client.close()

    run(case, LOOPS[loop])


# -- greeted, and then ------------------------------------------------------------------------------

ENDS: dict[str, bytes] = {
    "length 0": bytes(8),
    "length 2^32 - 1": b"\xff\xff\xff\xff\0\x05",
    "body above a chunk": raw(b"\x91\x10", length=2 + 2 + CHUNK_BYTES + 1),
    "nesting": raw(b"\x91" * 65_000),
    "array of 10^8": raw(b"\xdd\x05\xf5\xe1\x00"),
    "map for a field": raw(b"\x92\x10\x80\xa0"),
    "map with a key twice": raw(b"\x92\x10\x82\x01\x01\x01\x01"),
    "extension": raw(b"\x92\x10\xc7\x04\x05abcd"),
    "timestamp": raw(b"\x92\x10" + msgpack.packb(msgpack.Timestamp(5))),
    "NaN": packed([32, 1, float("nan")]),
    "unknown type": packed([77, 1, 0]),
    "negative type": packed([-1, 1, 0]),
    "hello again": packed(hello().header(0)),
    "missing field": packed(get_of().header(1)[:-1]),
    "extra field": packed([*get_of().header(1), 0]),
    "integer for a boolean": packed([*get_of().header(1)[:-2], 1, 1]),
    "text for bytes": packed([*get_of().header(1)[:-3], "k", False, 1]),
    "empty key": packed(spoilt(get_of(), key=b"").header(1)),
    "key that no store takes": packed(spoilt(get_of(), key=b"k" * 1200).header(1)),
    "kind of a blob": packed(spoilt(get_of(), kind=0x40).header(1)),
    "shards above the limit": packed(spoilt(get_of(), shards=4097).header(1)),
    "condition 6": packed(spoilt(put_of(), condition=6).header(1)),
    "operation id of 4 bytes": packed(spoilt(put_of(), op_id=b"oooo").header(1)),
    "page of no rows": packed(scan_of(limit=0).header(1)),
    "page of less than no rows": packed(scan_of(limit=-(10**9)).header(1)),
    "digest of 31 bytes": packed(spoilt(blob_of(), digest=bytes(31)).header(1)),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", ENDS)
def test_frame_that_is_none_ends_the_connection(name: str, loop: str) -> None:
    async def case(node: SmallNode) -> None:
        client = await RawClient.greeted(node.port)
        client.writer.write(ENDS[name])
        assert await client.is_closed()
        assert node.service.counters.peer_errors == 1
        client.close()

    run(case, LOOPS[loop])


def at_plane(message: Any, plane: int) -> Any:
    return spoilt(message, iid=message.iid % (1 << 60) + (plane << 60))


def foreign_key() -> bytes:
    """A key in the slice that the node does not own."""
    return next(
        key
        for key in (b"%d" % n for n in range(200_000))
        if slice16_of(iid_of_record(Place(7, 0), key)) == 4095
    )


def foreign() -> Get:
    key = foreign_key()
    return Get(iid_of_record(Place(7, 0), key), Kind.OBJECT, 7, 0, key, False)


REFUSED: dict[str, tuple[Callable[[], Message], bytes, Status]] = {
    "plane 1 of one": (lambda: at_plane(get_of(), 1), b"", Status.NOT_MINE),
    "plane 5": (lambda: at_plane(put_of(), 5), b"", Status.MISDIRECTED),
    "plane f": (lambda: at_plane(scan_of(), 15), b"", Status.MISDIRECTED),
    "plane -1": (lambda: at_plane(get_of(), -1), b"", Status.MISDIRECTED),
    "plane 2 of a blob": (lambda: at_plane(blob_of(), 2), b"blob", Status.NOT_MINE),
    "locator of another key": (lambda: spoilt(get_of(), key=b"l"), b"", Status.MISDIRECTED),
    "locator of another bucket": (lambda: spoilt(put_of(), bucket=8), b"", Status.MISDIRECTED),
    "locator of another shard": (lambda: scan_of(shard=4), b"", Status.MISDIRECTED),
    "locator of another digest": (lambda: spoilt(blob_of(), digest=bytes(32)), b"", Status.MISDIRECTED),
    "shut elsewhere": (lambda: Shut(5, 7, 16, 3, 1, True), b"", Status.MISDIRECTED),
    "slice of another node": (foreign, b"", Status.NOT_MINE),
    "value above inline": (put_of, bytes(INLINE_BYTES_MAX + 1), Status.BAD_REQUEST),
    "value of a chunk": (put_of, bytes(CHUNK_BYTES), Status.BAD_REQUEST),
    "metadata above its limit": (
        lambda: spoilt(put_of(), metadata=Metadata("e" * 40_000, 0).encode()),
        b"",
        Status.BAD_REQUEST,
    ),
    "metadata that is none": (lambda: spoilt(put_of(), metadata=b"\xc1"), b"", Status.BAD_REQUEST),
    "key with a NUL": (
        lambda: spoilt(put_of(b"a"), key=b"a\0b"),
        b"",
        Status.BAD_REQUEST,
    ),
    "blob with other content": (blob_of, b"blub", Status.BAD_REQUEST),
    "blob that is not there": (lambda: GetBlob(blob_iid(bytes(32)), bytes(32)), b"", Status.NOT_FOUND),
    "delete if there": (
        lambda: Delete(get_of().iid, Kind.OBJECT, 7, 16, b"k", b"o" * 16, 2, "", 1, 0),
        b"",
        Status.NOT_FOUND,
    ),
    "cursor behind everything": (lambda: scan_of(after=b"\xff" * 1200), b"", Status.OK),
    "prefix behind everything": (lambda: scan_of(prefix=b"\xff" * 1200), b"", Status.OK),
    "page of 10^9 rows": (lambda: scan_of(limit=10**9), b"", Status.OK),
    "page of 2^64 - 1 rows": (lambda: scan_of(limit=2**64 - 1), b"", Status.OK),
    "figures of nowhere": (lambda: Report(-1), b"", Status.OK),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", REFUSED)
def test_request_that_cannot_be_has_its_status(name: str, loop: str) -> None:
    make, body, status = REFUSED[name]

    async def case(node: SmallNode) -> None:
        client = await RawClient.greeted(node.port)
        client.send(make().header(2**64 - 1), body)
        header, _ = await client.frame()
        assert header[:2] == [status, 2**64 - 1]
        client.send(get_of().header(2))
        assert (await client.frame())[0][:2] == [Status.OK, 2], "the connection goes on"
        assert not node.service.counters.peer_errors
        client.close()

    run(case, LOOPS[loop])


# -- too much ---------------------------------------------------------------------------------------

FLOOD = 100_000


@pytest.mark.parametrize("loop", ["uvloop"])
def test_flood_of_requests_in_one_write(loop: str) -> None:
    """10^5 gets at once: the queue of the connection is bounded, and each is answered in the end."""

    async def case(node: SmallNode) -> None:
        client = await RawClient.greeted(node.port)
        client.writer.write(b"".join([packed(get_of().header(number)) for number in range(FLOOD)]))
        (session,) = node.service.sessions
        most, answered = 0, 0
        while answered < FLOOD:
            header, _ = await client.frame()
            assert header[:2] == [Status.OK, answered]
            answered += 1
            most = max(most, len(session._backlog))
        assert most * len(packed(get_of().header(FLOOD))) <= 512 * KIB
        client.close()

    run(case, LOOPS[loop])


@pytest.mark.parametrize("loop", LOOPS)
def test_flood_of_writes_by_a_peer_that_reads_nothing(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node stops reading; what it holds for the connection stays below a few MiB."""
    monkeypatch.setattr(session_module, "INFLIGHT_REQUESTS_MAX", 64)

    async def case(node: SmallNode) -> None:
        client = await RawClient.greeted(node.port)
        frame = packed(put_of(b"k", bytes(8 * KIB)).header(1), bytes(8 * KIB))
        client.writer.write(frame * 1000)
        (session,) = node.service.sessions
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(20):
                await asyncio.sleep(0.001)
                assert session._inflight <= 64
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 * MIB
        client.close()
        monkeypatch.undo()

    run(case, LOOPS[loop])


@pytest.mark.parametrize("loop", LOOPS)
def test_peer_that_never_reads_is_ended(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-open peer: its window is shut, the node's buffer fills, and after the time it is over."""
    monkeypatch.setattr(session_module, "STALL_TIMEOUT_MS", 50)

    async def case(node: SmallNode) -> None:
        client = await RawClient.greeted(node.port)
        content = bytes(CHUNK_BYTES)
        message = blob_of(content)
        client.send(message.header(1), content)
        assert (await client.frame())[0][0] == Status.OK
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport
        get = GetBlob(message.iid, message.digest)
        client.writer.write(packed(get.header(2)) * 20)
        async with asyncio.timeout(5):
            while node.service.sessions:
                await asyncio.sleep(0.01)
        client.close()
        monkeypatch.undo()

    run(case, LOOPS[loop])


@pytest.mark.parametrize("loop", LOOPS)
def test_idle_connection_is_ended(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "IDLE_TIMEOUT_MS", 60)

    async def case(node: SmallNode) -> None:
        client = await RawClient.greeted(node.port)
        (session,) = node.service.sessions
        assert session.is_open
        assert await client.is_closed()
        client.close()
        monkeypatch.undo()

    run(case, LOOPS[loop])


@pytest.mark.parametrize("loop", LOOPS)
def test_page_is_bounded_whatever_is_asked(loop: str) -> None:
    async def case(node: SmallNode) -> None:
        client = await RawClient.greeted(node.port)
        place = Place(7, 1)
        for number in range(SCAN_PAGE_ITEMS_MAX + 1):
            key = b"%05d" % number
            put = put_of(key)
            put.iid, put.shards = iid_of_record(place, key), 1
            client.send(put.header(number))
        for _ in range(SCAN_PAGE_ITEMS_MAX + 1):
            assert (await client.frame())[0][0] == Status.OK
        scan = Scan(iid_of_part(place, 0), Kind.OBJECT, 7, 1, 0, b"", b"", b"", 10**9, False)
        client.send(scan.header(1))
        header, body = await client.frame()
        assert header[2] is True and len(msgpack.unpackb(body)) == SCAN_PAGE_ITEMS_MAX
        client.close()

    run(case, LOOPS[loop])


@pytest.mark.parametrize("loop", LOOPS)
def test_reset_in_the_middle_of_a_body_stores_nothing(loop: str) -> None:
    async def case(node: SmallNode) -> None:
        for end in (10, 100, 50_000):
            client = await RawClient.greeted(node.port)
            frame = packed(put_of(b"k", bytes(60_000)).header(1), bytes(60_000))
            client.writer.write(frame[:end])
            await asyncio.sleep(0.005)
            client.close()
        async with asyncio.timeout(5):
            while node.service.sessions:
                await asyncio.sleep(0.005)
        assert node.store.usage().records == 0

    run(case, LOOPS[loop])
