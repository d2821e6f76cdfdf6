"""The node's side of a connection, with a transport that the test holds: order, bounds, ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from blake3 import blake3

from ssastore.core.acceptor import Acceptor, encode_coverage
from ssastore.core.metadata import Metadata
from ssastore.core.place import Place
from ssastore.core.records import record_key
from ssastore.core.register import LIVE, NO_BALLOT, NONE, Ballots
from ssastore.core.requestid import NUMBER_BITS, TRACED
from ssastore.errors import EnvironmentProblem
from ssastore.keyspace import iid_of, locator_of, position_of_blob, slice16_of
from ssastore.limits import (
    CHUNK_BYTES,
    GREETING_TIMEOUT_MS,
    IDLE_TIMEOUT_MS,
    KIB,
    MIB,
    STALL_TIMEOUT_MS,
    WRITE_BUFFER_BYTES,
)
from ssastore.messages import Get, GetBlob, Kind, Message, Proof, Put, PutBlob, Report, Status, Welcome
from ssastore.rules.guard import Guard
from ssastore.rules.hashes import ServiceKeys
from ssastore.rules.record import record_from_text
from ssastore.rules.verdict import Verdict
from ssastore.store.memory import MemoryStore
from ssastore.transport import session as module
from ssastore.transport.credentials import Credentials
from ssastore.transport.greeting import CLIENT_SIDE, NODE_SIDE, is_proof, proof
from ssastore.transport.session import Service, Session
from ssastore.wire import Header
from tests.direct import SeededRandomness, StillClock, iid_of_record
from tests.wires import HeldTransport, hello, packed, turns

PLACE = Place(7, 16)
SECRET, CLUSTER_SECRET = b"test-secret", b"c" * 32
CREDENTIALS = Credentials(CLUSTER_SECRET, {"TESTKEY": SECRET})


@dataclass
class Node:
    """A service whose connections are held transports."""

    service: Service
    store: MemoryStore

    def connect(self) -> tuple[Session, HeldTransport]:
        session = self.service.session()
        return session, HeldTransport(session)

    async def greeted(self) -> tuple[Session, HeldTransport]:
        session, transport = self.connect()
        await greet(transport)
        assert len(take(transport)) == 2
        return session, transport


def make_node(store: MemoryStore | None = None, describe: Callable[[], bytes] = lambda: b"described") -> Node:
    store = store or MemoryStore()
    acceptor = Acceptor(replicas=1, worker=0, workers=1, ballots=Ballots(1, 1))
    acceptor.activate(set(range(4096)))
    service = Service(
        store=store,
        acceptor=acceptor,
        credentials=CREDENTIALS,
        cluster_id="ab" * 16,
        clock=StillClock(),
        randomness=SeededRandomness(),
        describe=describe,
    )
    service.coverage = encode_coverage(acceptor.owned, 1)
    return Node(service, store)


@pytest.fixture
async def node() -> Node:
    return make_node()


def take(transport: HeldTransport, count: int | None = None) -> list[tuple[Header, bytes]]:
    return transport.take(count)


async def greet(transport: HeldTransport, secret: bytes = SECRET, **changes: Any) -> Welcome:
    """Up to and with the client's proof."""
    first = hello(**changes)
    transport.deliver(packed(first.header(0)))
    await turns(1)
    ((header, _),) = take(transport)
    welcome = Welcome.decode(header)
    transport.deliver(packed(Proof(proof(secret, CLIENT_SIDE, first, welcome)).header(0)))
    await turns(1)
    return welcome


NOTHING = [1, NO_BALLOT, NONE, 0, b""]
"Fields of the reply to a Get of what was never written."


def put_of(key: bytes, data: bytes = b"", number: int = 1) -> Put:
    op_id = number.to_bytes(16, "big")
    metadata = Metadata(f"e{number}", len(data)).encode()
    return Put(iid_of_record(PLACE, key), Kind.OBJECT, 7, 16, key, op_id, 0, "", 1, 0, metadata)


def get_of(key: bytes) -> Get:
    return Get(iid_of_record(PLACE, key), Kind.OBJECT, 7, 16, key, False)


def frames(*messages: Message, body: bytes = b"", first: int = 1) -> bytes:
    return b"".join(packed(m.header(number), body) for number, m in enumerate(messages, first))


async def answers(transport: HeldTransport) -> list[tuple[Header, bytes]]:
    """Everything that comes until nothing more does."""
    found: list[tuple[Header, bytes]] = []
    for _ in range(10):
        await turns(20)
        found += take(transport)
    return found


# -- greeting ---------------------------------------------------------------------------------------


async def test_a_connection_that_breaks_the_rule_ends_before_the_greeting(node: Node) -> None:
    node.service.guard = Guard(record_from_text("v=SSA1; data=content+source"), ServiceKeys(), list)
    _, transport = node.connect()
    assert not transport.is_aborted, "the host itself is not judged"
    stranger = HeldTransport(node.service.session(), peer="fd00::9")
    assert stranger.is_aborted and len(node.service.sessions) == 1
    assert node.service.guard.verdicts == {Verdict.OPEN: 1, Verdict.PLANE: 1}
    node.service.guard = Guard(node.service.guard.record, ServiceKeys(), list, is_monitor=True)
    assert not HeldTransport(node.service.session(), peer="fd00::9").is_aborted
    assert node.service.guard.verdicts == {Verdict.PLANE: 1}, "counted all the same"


async def test_greeting(node: Node) -> None:
    session, transport = node.connect()
    first = hello()
    welcome = await greet(transport)
    assert (welcome.cluster_id, welcome.replicas) == ("ab" * 16, 1)
    (mac, _), (coverage, body) = take(transport)
    assert is_proof(Proof.decode(mac).mac, SECRET, NODE_SIDE, first, welcome)
    assert coverage == [Status.COVERAGE, 0, StillClock().now_ms(), 1] and msgpack.unpackb(body) == [
        1,
        [[0, 4096]],
    ]
    assert session.role == "client"


async def test_where_the_service_is_is_said_when_it_was_renumbered(node: Node) -> None:
    node.service.prefix = 3, bytes.fromhex("20010db800770005")
    _, transport = node.connect()
    await greet(transport)
    _, (coverage, _) = take(transport)
    assert coverage[4:] == [3, bytes.fromhex("20010db800770005")]


async def test_nonces_of_two_connections_differ(node: Node) -> None:
    one, two = await greet(node.connect()[1]), await greet(node.connect()[1])
    assert one.nonce != two.nonce


async def test_node_proves_itself_with_the_cluster_secret(node: Node) -> None:
    session, transport = node.connect()
    await greet(transport, CLUSTER_SECRET, role="node", key_id="gateway")
    assert len(take(transport)) == 2 and session.role == "node"


STRANGERS = {
    "unknown key": {"key_id": "NOBODY"},
    "wrong secret": {"secret": b"wrong"},
    "empty secret": {"secret": b""},
    "client's secret for a node": {"role": "node"},
    "cluster secret for a client": {"secret": CLUSTER_SECRET},
    "empty key": {"key_id": ""},
}


@pytest.mark.parametrize("name", STRANGERS)
async def test_strangers_all_get_the_same_answer(node: Node, name: str) -> None:
    _, transport = node.connect()
    await greet(transport, **STRANGERS[name])  # type: ignore[arg-type]
    assert take(transport) == [([Status.DENIED, 0, "unknown access key or wrong secret"], b"")]
    assert transport.is_closing() and node.service.counters.denied == 1
    transport.deliver(frames(get_of(b"k")))
    await turns()
    assert not node.service.counters.requests


@pytest.mark.parametrize(
    "data",
    [
        frames(get_of(b"k")),
        packed(Proof(bytes(32)).header(0)),
        packed(hello().header(0)) * 2,
        packed(hello().header(0)) + frames(get_of(b"k")),
        packed([1, 0]),
        packed(hello().header(0), bytes(2000)),
    ],
    ids=["request", "proof first", "two hellos", "request after hello", "short hello", "long hello"],
)
async def test_greeting_out_of_order_is_closed(node: Node, data: bytes) -> None:
    _, transport = node.connect()
    transport.deliver(data)
    await turns()
    take(transport)
    await turns()
    assert transport.is_lost and node.service.counters.peer_errors == 1
    assert not node.service.sessions and not node.service.counters.requests


async def test_greeting_in_one_go_with_requests(node: Node) -> None:
    """Whatever arrives together: small requests behind the proof are answered after the coverage."""
    _, transport = node.connect()
    first = hello()
    transport.deliver(packed(first.header(0)))
    await turns(1)
    welcome = Welcome.decode(take(transport)[0][0])
    mac = proof(SECRET, CLIENT_SIDE, first, welcome)
    transport.deliver(packed(Proof(mac).header(0)) + frames(get_of(b"k")))
    await turns(1)
    assert [header[0] for header, _ in take(transport)] == [Proof.TYPE, Status.COVERAGE, Status.OK]


# -- requests ---------------------------------------------------------------------------------------


async def test_requests_are_answered_by_their_ids(node: Node) -> None:
    _, transport = await node.greeted()
    transport.deliver(frames(put_of(b"k", b"data"), body=b"data", first=41))
    ((header, _),) = await answers(transport)
    assert header[:2] == [Status.OK, 41]
    transport.deliver(frames(get_of(b"k"), get_of(b"absent"), Report(0), first=2**64 - 3))
    got, absent, report = await answers(transport)
    assert got[0][:3] == [Status.OK, 2**64 - 3, 1] and got[0][3] > NO_BALLOT
    assert (got[0][4:], got[1]) == ([LIVE, header[2], put_of(b"k", b"data").metadata], b"data")
    assert absent == ([Status.OK, 2**64 - 2, *NOTHING], b"")
    assert report == ([Status.OK, 2**64 - 1], b"described")


async def test_reads_do_not_wait_for_writes() -> None:
    node = make_node(MemoryStore(commit_ms=200))
    _, transport = await node.greeted()
    transport.deliver(frames(put_of(b"k"), get_of(b"l")))
    await turns()
    assert [header[1] for header, _ in take(transport)] == [2]
    assert [header[:2] for header, _ in await slow_answers(transport, 1)] == [[Status.OK, 1]]


async def test_nothing_is_answered_before_it_is_durable() -> None:
    store = MemoryStore(commit_ms=200)
    _, transport = await make_node(store).greeted()
    transport.deliver(frames(put_of(b"k")))
    while store.usage().records == 0:
        assert not transport.buffer
        await asyncio.sleep(0.001)
    assert len(await slow_answers(transport, 1)) == 1


async def test_request_id_may_be_used_again(node: Node) -> None:
    _, transport = await node.greeted()
    transport.deliver(packed(get_of(b"a").header(5)) * 3)
    assert [header[1] for header, _ in await answers(transport)] == [5, 5, 5]


@pytest.mark.parametrize(
    "header",
    [
        [99, 1, 0],
        [16, 1, 0],
        [*get_of(b"k").header(1), 0],
        [0, 1],
        hello().header(0),
        [16],
    ],
    ids=["unknown type", "missing fields", "extra field", "status", "hello", "only a type"],
)
async def test_what_is_no_request_ends_the_connection(node: Node, header: Header) -> None:
    _, transport = await node.greeted()
    transport.deliver(frames(get_of(b"k"), first=7) + packed(header))
    assert [found[0][1] for found in await answers(transport)] == [7], "what came before is answered"
    assert transport.is_lost and node.service.counters.peer_errors == 1


async def test_refusals_say_why(node: Node) -> None:
    _, transport = await node.greeted()
    wrong, foreign = get_of(b"k"), get_of(b"l")
    wrong.iid ^= 1 << 40
    node.service.acceptor.activate(set(node.service.acceptor.owned) - {slice16_of(foreign.iid)})
    too_long = put_of(b"m")
    too_long.metadata = b"\x90" * 40_000
    transport.deliver(frames(wrong, foreign, too_long))
    found = {header[1]: header for header, _ in await answers(transport)}
    assert [found[number][0] for number in (1, 2, 3)] == [
        Status.MISDIRECTED,
        Status.NOT_MINE,
        Status.BAD_REQUEST,
    ]
    assert all(len(header) == 3 and type(header[2]) is str for header in found.values())
    assert node.service.counters.refusals == {5: 1, 4: 1, 9: 1}


async def test_rotten_record_is_corrupt(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    _, transport = await node.greeted()
    transport.deliver(frames(put_of(b"k")))
    await answers(transport)
    node.store.poke(record_key(locator_of(iid_of_record(PLACE, b"k")), Kind.OBJECT, 7, b"k"), b"rotten")
    traced = TRACED | 0xABCDEF << NUMBER_BITS | 2
    transport.deliver(frames(get_of(b"k")) + frames(put_of(b"k", number=2), first=traced))
    transport.deliver(frames(get_of(b"l"), first=3))
    found = {header[1]: header[0] for header, _ in await answers(transport)}
    assert found == {1: Status.CORRUPT, traced: Status.CORRUPT, 3: Status.OK}
    ids = [record.__dict__["id"] for record in caplog.records if record.message == "record.corrupt"]
    assert sorted(ids) == ["", "800000ABCDEF"], "the id that a gateway gave the request, where there is one"


async def test_full_store_refuses_writes_and_takes_deletes() -> None:
    _, transport = await make_node(MemoryStore(map_bytes=40_000)).greeted()
    for number in range(10):
        transport.deliver(frames(put_of(b"%d" % number, bytes(8000), number), body=bytes(8000), first=number))
    found = await answers(transport)
    assert Status.FULL in {header[0] for header, _ in found} and Status.OK in {h[0] for h, _ in found}


async def test_longest_key_that_decodes_is_answered(node: Node) -> None:
    """A key that the codec lets through must not be too long for the store: that ended the connection."""
    _, transport = await node.greeted()
    for length in (1024, 1059, 1187):
        transport.deliver(frames(get_of(b"k" * length)))
        ((header, _),) = await answers(transport)
        assert header[2:] == NOTHING
    assert not transport.is_closing()


async def test_failed_commit_is_internal_and_the_connection_goes_on(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    _, transport = await node.greeted()

    def fail(change: Any, then: Any, *, size: int = 0) -> None:
        asyncio.get_running_loop().call_soon(then, None, EnvironmentProblem("the disk is gone"))

    node.service.store = type("Broken", (), {"do": staticmethod(fail), "read": node.store.read})()
    transport.deliver(frames(put_of(b"k"), get_of(b"k")))
    found = {header[1]: header for header, _ in await answers(transport)}
    assert found[1] == [Status.INTERNAL, 1, "EnvironmentProblem"], "the reason stays in the log"
    assert found[2] == [Status.OK, 2, *NOTHING] and not transport.is_closing()
    assert any(record.message == "request.failed" for record in caplog.records)


async def test_failed_read_is_internal_and_the_connection_goes_on(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, transport = await node.greeted()

    def fail(request: Any, txn: Any) -> Any:
        raise EnvironmentProblem("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(node.service.acceptor, "read", fail)
        transport.deliver(frames(get_of(b"k")))
        assert [header[0] for header, _ in await answers(transport)] == [Status.INTERNAL]
    transport.deliver(frames(get_of(b"k")))
    assert [header for header, _ in await answers(transport)] == [[Status.OK, 1, *NOTHING]]
    caplog.clear()


# -- bounds -----------------------------------------------------------------------------------------


async def test_flood_of_reads_stops_when_nobody_takes_the_answers(node: Node) -> None:
    """Ten thousand gets of 8 KiB and a peer that does not read: the node keeps a few MiB, not 80."""
    session, transport = await node.greeted()
    transport.deliver(frames(put_of(b"k", bytes(8000)), body=bytes(8000)))
    await answers(transport)
    flood = frames(*[get_of(b"k")] * 10_000)
    for at in range(0, len(flood), 256 * KIB):
        if transport.takes_data:
            transport.deliver(flood[at : at + 256 * KIB])
            sent = at + 256 * KIB
        await turns(2)
    assert (transport.takes_data, sent < len(flood)) == (False, True)
    assert transport.most_buffered < 3 * WRITE_BUFFER_BYTES
    assert len(session._backlog) <= 256 * KIB // len(frames(get_of(b"k"))), "what one read brought"
    seen: list[int] = []
    while len(seen) < 10_000:
        before = len(seen)
        seen += [header[1] for header, _ in take(transport, 300_000)]
        if transport.takes_data and sent < len(flood):
            transport.deliver(flood[sent : sent + 256 * KIB])
            sent += 256 * KIB
        await turns(2)
        assert len(seen) > before or transport.buffer
    assert seen == list(range(1, 10_001)), "each once, in order"
    assert transport.takes_data


async def test_unfinished_writes_stop_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INFLIGHT_REQUESTS_MAX", 4)
    node = make_node(MemoryStore(commit_ms=5))
    session, transport = await node.greeted()
    transport.deliver(frames(*[put_of(b"%d" % number, number=number) for number in range(20)]))
    assert (session._inflight, len(session._backlog), transport.takes_data) == (4, 16, False)
    seen: list[int] = []
    while len(seen) < 20:
        await asyncio.sleep(0.002)
        assert session._inflight <= 4
        seen += [header[1] for header, _ in take(transport)]
    assert sorted(seen) == list(range(1, 21))
    assert (session._inflight, session._inflight_bytes, transport.takes_data) == (0, 0, True)


@pytest.mark.parametrize("where", ["body", "metadata", "etag"])
async def test_bytes_of_unfinished_writes_are_bounded(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Wherever in a frame the bytes are: 4096 headers of 60 KiB would be 240 MiB."""
    monkeypatch.setattr(module, "INFLIGHT_BYTES_MAX", 100_000)
    node = make_node(MemoryStore(commit_ms=5))
    session, transport = await node.greeted()
    puts = [put_of(b"%d" % number, number=number) for number in range(20)]
    for put in puts:
        if where == "metadata":
            put.metadata = bytes(50_000)
        elif where == "etag":
            put.etag = "e" * 50_000
    transport.deliver(frames(*puts, body=bytes(50_000) if where == "body" else b""))
    assert session._inflight == 2 and not transport.takes_data
    assert len(await slow_answers(transport, 20)) == 20
    assert session._inflight_bytes == 0 and transport.takes_data


async def slow_answers(transport: HeldTransport, count: int) -> list[tuple[Header, bytes]]:
    found: list[tuple[Header, bytes]] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            await asyncio.sleep(0.001)
            found += take(transport)
    return found


async def settled(session: Session) -> None:
    """Wait until nothing is in flight."""
    async with asyncio.timeout(5):
        while session._inflight:
            await asyncio.sleep(0.001)


async def test_blobs_wait_for_a_peer_that_reads_slowly(node: Node) -> None:
    _, transport = await node.greeted()
    content = bytes(CHUNK_BYTES)
    digest = blake3(content).digest()
    iid = iid_of(position_of_blob(digest), 0)
    transport.deliver(frames(PutBlob(iid, digest, b""), body=content))
    await answers(transport)
    transport.deliver(frames(*[GetBlob(iid, digest)] * 20))
    found: list[tuple[Header, bytes]] = []
    while len(found) < 20:
        await turns(2)
        found += take(transport, MIB)
    assert all(body == content for _, body in found)
    assert transport.most_buffered < 2 * CHUNK_BYTES + 2 * WRITE_BUFFER_BYTES


async def test_connections_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 3)
    kept = [await node.greeted() for _ in range(3)]
    _, refused = node.connect()
    assert refused.is_aborted and len(node.service.sessions) == 3
    kept[0][1].lose()
    await turns()
    await node.greeted()


# -- ends -------------------------------------------------------------------------------------------


async def test_lost_connection_does_not_lose_its_writes() -> None:
    node = make_node(MemoryStore(commit_ms=5))
    session, transport = await node.greeted()
    transport.deliver(frames(put_of(b"k")))
    transport.lose(ConnectionResetError())
    await settled(session)
    assert node.store.usage().records == 2, "the record, and the ceiling of promised ballots"
    assert not node.service.sessions and node.service.emptied.is_set()


async def test_stop_answers_what_is_in_flight_and_takes_no_more() -> None:
    node = make_node(MemoryStore(commit_ms=10))
    session, transport = await node.greeted()
    transport.deliver(frames(put_of(b"k")))
    session.stop()
    assert not transport.takes_data and not transport.is_closing()
    assert [header[0] for header, _ in await slow_answers(transport, 1)] == [Status.OK]
    await turns()
    assert transport.is_lost and node.service.emptied.is_set()


async def test_stop_of_an_idle_connection(node: Node) -> None:
    session, transport = await node.greeted()
    session.stop()
    await turns()
    assert transport.is_lost


async def test_stopped_connection_does_not_read_again_when_its_peer_does() -> None:
    """A peer that takes its answers late wakes the session: no request may be taken then."""
    slow = make_node(MemoryStore(commit_ms=30))
    session, transport = await slow.greeted()
    session.send([0, 1], bytes(2 * MIB))
    transport.deliver(frames(put_of(b"k")))
    session.stop()
    take(transport)
    assert (session.is_choked, transport.takes_data) == (False, False)


def age(session: Session, milliseconds: int) -> float:
    """The loop's time when the session will be that old."""
    return asyncio.get_running_loop().time() + milliseconds / 1000


async def test_greeting_has_a_time(node: Node) -> None:
    session, transport = node.connect()
    transport.deliver(packed(hello().header(0)))
    session.check_alive(age(session, GREETING_TIMEOUT_MS - 500))
    assert not transport.is_closing()
    session.check_alive(age(session, GREETING_TIMEOUT_MS + 1))
    assert transport.is_aborted


async def test_denied_peer_that_does_not_read_is_aborted(node: Node) -> None:
    session, transport = node.connect()
    await greet(transport, b"wrong")
    assert transport.is_closing() and not transport.is_lost
    session.check_alive(age(session, GREETING_TIMEOUT_MS + 1))
    assert transport.is_aborted


async def test_idle_connection_is_closed(node: Node) -> None:
    session, transport = await node.greeted()
    session.check_alive(age(session, IDLE_TIMEOUT_MS - 500))
    assert not transport.is_closing()
    session.check_alive(age(session, IDLE_TIMEOUT_MS + 1))
    assert transport.is_closing()


async def test_busy_connection_is_not_idle() -> None:
    node = make_node(MemoryStore(commit_ms=60_000))
    session, transport = await node.greeted()
    transport.deliver(frames(put_of(b"k")))
    session.check_alive(age(session, IDLE_TIMEOUT_MS + 1))
    assert not transport.is_closing()
    node.store.crash()


async def test_peer_that_stops_reading_is_aborted(node: Node) -> None:
    session, transport = await node.greeted()
    session.send([0, 1], bytes(2 * MIB))
    assert session.is_choked
    session.check_alive(age(session, STALL_TIMEOUT_MS - 500))
    assert not transport.is_closing()
    session.check_alive(age(session, STALL_TIMEOUT_MS + 1))
    assert transport.is_aborted


@pytest.mark.parametrize("end", ["stop", "bad frame"])
async def test_closing_connection_whose_peer_does_not_read_is_aborted(node: Node, end: str) -> None:
    """Less than the buffer's bound waits, so nothing is choked; closing alone would wait for ever."""
    session, transport = await node.greeted()
    session.send([0, 1], bytes(1000))
    if end == "stop":
        session.stop()
    else:
        transport.deliver(b"\xff" * 8)
    await turns()
    assert transport.is_closing() and not transport.is_lost
    session.check_alive(age(session, STALL_TIMEOUT_MS - 500))
    assert not transport.is_lost
    session.check_alive(age(session, STALL_TIMEOUT_MS + 1))
    await turns()
    assert transport.is_aborted and not node.service.sessions


async def test_answer_after_the_connection_was_given_up_goes_nowhere() -> None:
    """A bad frame closes while a write is under way: its answer is not written to a closing transport."""
    node = make_node(MemoryStore(commit_ms=5))
    session, transport = await node.greeted()
    session.send([0, 1], bytes(1000))
    transport.deliver(frames(put_of(b"k")), b"\xff" * 8)
    await turns()
    assert transport.is_closing() and transport.buffer
    wrong: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    await settled(session)
    await turns()
    assert node.store.usage().records == 2, "the record, and the ceiling of promised ballots"
    assert not wrong


async def test_one_bad_frame_is_one_line(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    _, transport = await node.greeted()
    with caplog.at_level(logging.DEBUG):
        transport.deliver(b"\xff" * 100, b"\xff" * 100)
    assert [record.message for record in caplog.records] == ["connection.closed"]


async def test_reaper_looks_at_every_session(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING_TIMEOUT_MS", -1)
    transports = [node.connect()[1] for _ in range(3)]
    node.service.reap()
    await turns()
    assert all(transport.is_aborted for transport in transports) and not node.service.sessions


async def test_another_version_of_the_protocol_is_one_line_each(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    for protocol in [3, 3, 5, *range(100, 120)]:
        _, transport = node.connect()
        transport.deliver(packed(hello(protocol=protocol).header(0)))
        await turns(1)
    told = [r.__dict__["theirs"] for r in caplog.records if r.message == "connection.other_protocol_version"]
    assert told == [3, 5, *range(100, 106)]
