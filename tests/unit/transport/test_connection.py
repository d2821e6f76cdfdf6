"""The client's side of a connection, with a transport that the test holds."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Network
from typing import Any

import msgpack
import pytest

from ssastore.core.acceptor import encode_coverage
from ssastore.core.numbers import number_of_slice
from ssastore.core.requestid import NUMBER_BITS, REQUEST, new_id
from ssastore.errors import AccessDenied, ConfigError, ObjectTooLarge
from ssastore.keyspace import slice_of
from ssastore.limits import ATTEMPT_TIMEOUT_MS, FLUSH_FRAMES, FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES_MAX
from ssastore.messages import PROTOCOL_VERSION, Hello, Proof, Status, Welcome
from ssastore.transport import connection as module
from ssastore.transport.connection import Connection, Identity
from ssastore.transport.coverage import NOTHING, bits
from ssastore.transport.greeting import CLIENT_SIDE, NODE_SIDE, is_proof, proof
from tests.direct import SeededRandomness
from tests.wires import HeldTransport, packed, turns

SECRET = b"secret"
CLUSTER = "ab" * 16
NODE_MS = 1_900_000_000_000
NO_SLICES = msgpack.packb([1, []])
COVERAGE = packed([int(Status.COVERAGE), 0, NODE_MS, 1], msgpack.packb([1, [[0, 16], [32, 48]]]))
SERVED = bits(range(16)) | bits(range(32, 48))
PATIENCE_S = 30.0


class Client:
    """A connection, its transport, and what it said about coverage."""

    def __init__(self, **changes: Any) -> None:
        self.covered: list[int] = []
        fields: dict[str, Any] = {"role": "client", "key_id": "KEY", "secret": SECRET} | changes
        self.connection = Connection(
            Identity(**fields), SeededRandomness(), lambda c: self.covered.append(c.coverage.whole)
        )
        self.transport = HeldTransport(self.connection)
        self.ready = asyncio.ensure_future(self.connection.greeted())

    async def hello(self) -> Hello:
        await turns()
        ((header, _),) = self.transport.take()
        return Hello.decode(header)

    async def greet(self, secret: bytes = SECRET, **changes: Any) -> None:
        """Be the node for Welcome and Proof."""
        hello = await self.hello()
        fields: dict[str, Any] = {
            "protocol": PROTOCOL_VERSION,
            "hash_name": hello.hash_name,
            "rule_version": 1,
            "replicas": 1,
            "cluster_id": CLUSTER,
            "nonce": b"n" * 16,
        }
        welcome = Welcome(**(fields | changes))
        self.transport.deliver(packed(welcome.header(0)))
        await turns()
        for header, _ in self.transport.take():
            assert is_proof(Proof.decode(header).mac, SECRET, CLIENT_SIDE, hello, welcome)
            self.transport.deliver(packed(Proof(proof(secret, NODE_SIDE, hello, welcome)).header(0)))
        await turns()

    async def begin(self) -> None:
        """Greeted and covered."""
        await self.greet()
        self.transport.deliver(COVERAGE)
        await self.ready

    async def sent(self) -> list[Any]:
        await turns()
        return [header for header, _ in self.transport.take()]

    def answer(self, *header: Any, body: bytes = b"") -> None:
        self.transport.deliver(packed(list(header), body))


@pytest.fixture
async def client() -> Client:
    made = Client()
    await made.begin()
    return made


# -- greeting ---------------------------------------------------------------------------------------


async def test_greeting() -> None:
    client = Client(replicas=1, cluster_id=CLUSTER)
    await client.greet()
    assert not client.ready.done(), "the coverage belongs to the greeting"
    client.transport.deliver(COVERAGE)
    await client.ready
    assert client.connection.coverage.whole == SERVED and len(client.covered) == 1
    assert client.connection.is_open and client.connection.is_idle


async def test_a_cluster_that_was_renumbered_says_where_it_is(client: Client) -> None:
    assert client.connection.prefix is None
    client.answer(int(Status.COVERAGE), 0, NODE_MS, 1, 3, bytes.fromhex("20010db800770005"), body=NO_SLICES)
    await turns()
    assert client.connection.prefix == (3, IPv6Network("2001:db8:77:5::/64"))
    client.answer(int(Status.COVERAGE), 0, NODE_MS, 1, body=NO_SLICES)
    await turns()
    assert client.connection.prefix == (3, IPv6Network("2001:db8:77:5::/64")), "it is said when it changes"


@pytest.mark.parametrize(
    "more",
    [
        [3],
        [3, b"short"],
        [3, bytes(8)],
        [3, bytes.fromhex("ff02000000000000")],
        [3, bytes.fromhex("fe80000000000000")],
        [0, bytes.fromhex("20010db800770005")],
        [True, bytes.fromhex("20010db800770005")],
        [1 << 31, bytes.fromhex("20010db800770005")],
        [3, "20010db8"],
        [3, bytes.fromhex("20010db800770005"), 1],
    ],
)
async def test_a_prefix_that_is_none_ends_the_connection(client: Client, more: list[Any]) -> None:
    client.answer(int(Status.COVERAGE), 0, NODE_MS, 1, *more, body=NO_SLICES)
    await turns()
    assert not client.connection.is_open and client.connection.prefix is None


async def test_hello_says_who_and_what() -> None:
    hello = await Client(replicas=3, cluster_id=CLUSTER).hello()
    assert (hello.role, hello.key_id, hello.replicas, hello.cluster_id) == ("client", "KEY", 3, CLUSTER)
    assert SECRET not in packed(hello.header(0))


async def failed(client: Client, error: type[BaseException]) -> BaseException:
    with pytest.raises(error) as caught:
        await client.ready
    await turns()
    assert client.transport.is_lost and not client.connection.is_open
    return caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": PROTOCOL_VERSION + 1},
        {"hash_name": "md5"},
        {"rule_version": 0},
        {"replicas": 1},
        {"cluster_id": "cd" * 16},
    ],
)
async def test_other_cluster_is_a_config_error_and_gets_no_proof(changes: dict[str, Any]) -> None:
    client = Client(replicas=3, cluster_id=CLUSTER)
    hello = await client.hello()
    fields: dict[str, Any] = {
        "protocol": PROTOCOL_VERSION,
        "hash_name": hello.hash_name,
        "rule_version": 1,
        "replicas": 3,
        "cluster_id": CLUSTER,
        "nonce": b"n" * 16,
    }
    client.transport.deliver(packed(Welcome(**(fields | changes)).header(0)))
    await failed(client, ConfigError)
    assert not client.transport.take()


async def test_node_that_does_not_know_the_secret_is_not_believed() -> None:
    client = Client()
    await client.greet(b"another secret")
    await failed(client, AccessDenied)
    assert not client.covered


async def test_proof_sent_back_is_no_proof() -> None:
    client = Client()
    hello = await client.hello()
    welcome = Welcome(PROTOCOL_VERSION, hello.hash_name, 1, 1, CLUSTER, b"n" * 16)
    client.transport.deliver(packed(welcome.header(0)))
    await turns()
    ((mac, _),) = client.transport.take()
    client.transport.deliver(packed(mac))
    await failed(client, AccessDenied)


async def test_denied() -> None:
    client = Client()
    await client.hello()
    client.answer(int(Status.DENIED), 0, "unknown access key or wrong secret")
    await failed(client, AccessDenied)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        packed([3, 0, bytes(32)]),
        COVERAGE,
        packed([2, 0, 1]),
        packed([0, 1]),
    ],
    ids=["HTTP", "SSH", "proof first", "coverage first", "short welcome", "reply"],
)
async def test_stranger_at_the_port_is_an_error_of_the_connection(data: bytes) -> None:
    """OSError: another dial may reach a real node."""
    client = Client()
    client.transport.deliver(data)
    error = await failed(client, OSError)
    assert "broke the protocol" in str(error), "whoever looks for the reason finds it"


async def test_greeting_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING_TIMEOUT_MS", 20)
    client = Client()
    await failed(client, OSError)


async def test_connection_lost_in_the_greeting() -> None:
    client = Client()
    client.transport.lose(ConnectionResetError("reset"))
    await failed(client, ConnectionResetError)


async def test_greeting_given_up_by_its_caller() -> None:
    client = Client()
    await turns()
    client.ready.cancel()
    await turns()
    client.transport.deliver(b"\xff" * 8)
    await turns()
    assert client.transport.is_lost


# -- requests ---------------------------------------------------------------------------------------


async def test_replies_find_their_requests_in_any_order(client: Client) -> None:
    futures = [client.connection.request([16, None, number]) for number in range(3)]
    assert [header[1:] for header in await client.sent()] == [[1, 0], [2, 1], [3, 2]]
    assert client.connection.inflight_count == 3 and not client.connection.is_idle
    for number in (3, 1, 2):
        client.answer(0, number, number * 10, body=b"%d" % number)
    assert [await future for future in futures] == [([0, n, n * 10], b"%d" % n) for n in (1, 2, 3)]
    assert client.connection.is_idle


async def test_refusal_is_a_reply(client: Client) -> None:
    future = client.connection.request([16, None])
    client.answer(4, 1, "slice 0001 is not served here")
    assert (await future)[0] == [4, 1, "slice 0001 is not served here"]


async def test_answer_to_a_request_that_was_given_up_is_dropped(client: Client) -> None:
    given_up, other = client.connection.request([16, None]), client.connection.request([16, None])
    given_up.cancel()
    client.answer(0, 1)
    client.answer(0, 2)
    assert (await other)[0] == [0, 2] and client.connection.is_open


@pytest.mark.parametrize("size", ["header", "body"])
async def test_request_that_is_too_large_is_nobody_s_wait(client: Client, size: str) -> None:
    """Nothing was sent, so nothing may be waited for: the watchdog would end the connection."""
    fields: list[Any] = [16, None, b"x" * (FRAME_HEADER_BYTES_MAX if size == "header" else 1)]
    with pytest.raises(ObjectTooLarge):
        client.connection.request(fields, bytes(FRAME_BODY_BYTES_MAX + 1) if size == "body" else b"")
    assert client.connection.is_idle and not await client.sent()
    future = client.connection.request([16, None])
    (header,) = await client.sent()
    client.answer(0, header[1])
    await future


@pytest.mark.parametrize(
    "header",
    [[0, 99], [0, 0], [0], [0, -1], [0, True], [0, [1]], [0, "1"], [0, None], [7, b"1", "text"]],
    ids=str,
)
async def test_reply_to_no_request_ends_the_connection(client: Client, header: list[Any]) -> None:
    future = client.connection.request([16, None])
    client.answer(*header)
    with pytest.raises(ConnectionError):
        await future
    assert client.transport.is_lost


async def test_second_reply_ends_the_connection(client: Client) -> None:
    future = client.connection.request([16, None])
    client.answer(0, 1)
    client.answer(0, 1)
    await future
    await turns()
    assert client.transport.is_lost


async def test_lost_connection_fails_what_waits_and_what_comes(client: Client) -> None:
    futures = [client.connection.request([16, None]) for _ in range(3)]
    client.transport.lose()
    for future in futures:
        with pytest.raises(ConnectionResetError):
            await future
    with pytest.raises(ConnectionResetError):
        await client.connection.request([16, None])
    assert not client.connection.is_open and client.connection.inflight_count == 0


async def test_requests_of_one_turn_leave_together(client: Client) -> None:
    """Several in a write, and the first of them before the last is made: the node need not wait for all."""
    writes: list[int] = []
    write = client.transport.write

    def counted(data: Any) -> None:
        writes.append(len(data))
        write(data)

    client.transport.write = counted  # type: ignore[method-assign]
    for number in range(5 * FLUSH_FRAMES):
        client.connection.request([16, None, number])
    assert len(writes) == 5
    client.connection.request([16, None, 0])
    assert len(writes) == 5, "one alone waits for the end of the turn"
    await turns()
    assert len(writes) == 6 and len(client.transport.take()) == 5 * FLUSH_FRAMES + 1


async def test_request_whose_body_is_large_is_not_copied_with_the_others(client: Client) -> None:
    client.connection.request([16, None])
    client.connection.request([17, None], bytes(100_000))
    client.connection.request([16, None])
    await turns()
    assert [(header[1], len(body)) for header, body in client.transport.take()] == [
        (1, 0),
        (2, 100_000),
        (3, 0),
    ]


# -- coverage ---------------------------------------------------------------------------------------


async def test_coverage_may_change(client: Client) -> None:
    client.transport.deliver(packed([100, 0, NODE_MS, 1], msgpack.packb([2, [[5, 6]]])))
    client.transport.deliver(packed([100, 0, NODE_MS, 1], msgpack.packb([3, []])))
    assert client.covered == [SERVED, 1 << 5, 0]
    assert client.connection.coverage == NOTHING and client.connection.is_open


async def test_coverage_of_a_part_of_a_slice(client: Client) -> None:
    client.transport.deliver(
        packed([100, 0, NODE_MS, 1], encode_coverage([5, number_of_slice(slice_of(0, 7).split()[1])], 2))
    )
    coverage = client.connection.coverage
    assert coverage == (1 << 5, {range(0x00078000, 0x00080000)})
    assert coverage.holds(0x7 << 48 | 0x8000 << 32) and not coverage.holds(0x7 << 48)
    assert coverage.holds(0x5 << 48 | 0x8000 << 32) and not coverage.holds(0x6 << 48)


async def test_coverage_says_what_time_it_is_at_the_node(client: Client) -> None:
    """By the node's clock, which goes on here by the loop's."""
    assert NODE_MS <= client.connection.node_ms() < NODE_MS + 5_000
    client.transport.deliver(packed([100, 0, NODE_MS + 3_600_000, 1], msgpack.packb([2, []])))
    assert NODE_MS + 3_600_000 <= client.connection.node_ms() < NODE_MS + 3_605_000


@pytest.mark.parametrize("header", [[100, 0, 1], [100, 0, "now", 1], [100, 0, 1, 6], [100, 0, 1, 2, 3]])
async def test_coverage_with_other_fields_ends_the_connection(client: Client, header: list[Any]) -> None:
    client.transport.deliver(packed(header, msgpack.packb([2, []])))
    assert not client.connection.is_open


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgpack.packb(1),
        msgpack.packb([1]),
        msgpack.packb([1, 2]),
        msgpack.packb([1, [[1]]]),
        msgpack.packb([1, [[1, 2, 3]]]),
        msgpack.packb([1, ["ab"]]),
        msgpack.packb([1, [[1, None]]]),
        b"\x92\x01\xdd\x05\xf5\xe1\x00",
    ],
)
async def test_coverage_that_is_none_ends_the_connection(client: Client, body: bytes) -> None:
    client.transport.deliver(packed([100, 0, NODE_MS, 1], body))
    await turns()
    assert client.transport.is_lost and len(client.covered) == 1


@pytest.mark.parametrize("run", [[-1, 5], [5, 5], [6, 5], [0, 65537], [2**63, 2**64 - 1]])
async def test_impossible_run_of_slices_is_left_out(client: Client, run: list[int]) -> None:
    client.transport.deliver(packed([100, 0, NODE_MS, 1], msgpack.packb([2, [run, [7, 9]]])))
    assert client.connection.coverage == (bits(range(7, 9)), set())


# -- silence ----------------------------------------------------------------------------------------


async def test_silent_node_is_given_up(client: Client) -> None:
    future = client.connection.request([16, None])
    now = asyncio.get_running_loop().time()
    client.connection.check_alive(now + ATTEMPT_TIMEOUT_MS / 1000 - 1, PATIENCE_S)
    assert client.connection.is_open
    client.connection.check_alive(now + ATTEMPT_TIMEOUT_MS / 1000 + 1, PATIENCE_S)
    with pytest.raises(ConnectionResetError, match="no answer"):
        await future


async def test_idle_connection_is_not_given_up(client: Client) -> None:
    client.connection.check_alive(asyncio.get_running_loop().time() + 3600, PATIENCE_S)
    assert client.connection.is_open


async def test_request_has_a_deadline_though_others_are_answered(client: Client) -> None:
    slow = client.connection.request([16, None])
    quick = client.connection.request([16, None])
    client.answer(0, 2)
    await quick
    now = asyncio.get_running_loop().time()
    client.connection.check_alive(now + 1.5, 2.0)
    assert not slow.done()
    client.connection.check_alive(now + 2.5, 2.0)
    with pytest.raises(TimeoutError):
        await slow
    assert client.connection.is_open, "the connection works: others go on using it"
    client.answer(0, 1)
    await turns()
    assert client.connection.is_open and client.connection.is_idle


async def test_secret_is_not_shown() -> None:
    assert "secret" not in repr(Identity("client", "KEY", b"secret"))


async def test_requests_have_the_id_that_they_are_made_for_and_numbers_that_are_free() -> None:
    client = Client()
    await client.begin()
    client.connection.request([16, None, 0])
    upper = new_id(SeededRandomness())
    caused_by = REQUEST.set(upper)
    try:
        client.connection.request([16, None, 0])
        client.connection._next_number = 2
        client.connection.request([16, None, 0])  # The number of one that still waits is passed over.
        client.connection._next_number = (1 << NUMBER_BITS) - 1
        client.connection.request([16, None, 0])
        client.connection.request([16, None, 0])
    finally:
        REQUEST.reset(caused_by)
    sent = [header[1] for header in await client.sent()]
    assert sent == [1, *[upper << NUMBER_BITS | number for number in (2, 3, (1 << NUMBER_BITS) - 1, 0)]]
