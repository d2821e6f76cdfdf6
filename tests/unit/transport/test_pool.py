"""Dialling, reuse by coverage, retries, deadlines, doubts. Real frames over ::1, links in the test's hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from ssastore.core.acceptor import encode_coverage
from ssastore.core.birth import UNKNOWN_BIRTH
from ssastore.core.metadata import Metadata
from ssastore.core.place import Place
from ssastore.core.register import LIVE
from ssastore.core.replies import Refusal
from ssastore.env import Links
from ssastore.errors import (
    AccessDenied,
    ConfigError,
    ObjectNotFound,
    ObjectTooLarge,
    OutcomeUnknown,
    PreconditionFailed,
    Recounted,
    StoreFull,
    Unavailable,
)
from ssastore.keyspace import GROUP_BITS, address_of, iid_of, position_of_blob, slice16_of
from ssastore.limits import CHUNK_BYTES
from ssastore.messages import Delete, Get, GetBlob, Kind, Put, PutBlob, Report, Scan, Status
from ssastore.store.memory import MemoryStore
from ssastore.transport import pool as module
from ssastore.transport.connection import Identity
from ssastore.transport.pool import Pool
from ssastore.transport.tcp import LoopbackLinks
from tests.cluster import KEY, SECRET, SERVICE, SmallCluster, SmallNode, small_cluster
from tests.direct import SeededRandomness, iid_of_record
from tests.wires import connections_of, proxied, turns, until

PLACE = Place(7, 0)
NETWORK = IPv6Network(SERVICE)
IDENTITY = Identity("client", KEY, SECRET.encode())


class Dials:
    """Links that count, and can be told to fail, to hang, or to lead elsewhere."""

    def __init__(self, cluster: SmallCluster) -> None:
        self.cluster = cluster
        self.addresses: list[str] = []
        self.detours: dict[int, int] = {}
        "Local port instead of that of a node, by the node's port."
        self.dead: set[int] = set()
        "Ports that refuse."
        self.hanging: set[int] = set()
        "Ports whose packets are lost."
        self.unreachable = 0
        "How many dials are answered by a router."
        self.gate: asyncio.Event | None = None
        self.waiting = 0
        "Dials that have come to the gate."

    async def dial(self, address: IPv6Address, port: int, protocol: Any) -> Any:
        self.addresses.append(str(address))
        if self.gate is not None:
            self.waiting += 1
            await self.gate.wait()
        local = self.cluster.node_of(int(address) & ((1 << 64) - 1)).port
        if self.unreachable:
            self.unreachable -= 1
            raise OSError(113, "No route to host")
        if local in self.hanging:
            await asyncio.sleep(3600)
        if local in self.dead:
            raise ConnectionRefusedError(111, "Connection refused")
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(protocol, "::1", self.detours.get(local, local))
        return made


def pool_of(links: Links, **options: Any) -> Pool:
    known: dict[str, Any] = {"deadline_ms": 300, "randomness": SeededRandomness(), "identity": IDENTITY}
    known |= options
    return Pool(NETWORK, 7480, links=links, **known)


class World:
    """Four nodes, a pool, and the links between them."""

    def __init__(self, cluster: SmallCluster) -> None:
        self.cluster = cluster
        self.dials = Dials(cluster)
        self.pools: list[Pool] = []

    def pool(self, **options: Any) -> Pool:
        self.pools.append(pool_of(self.dials, **options))
        return self.pools[-1]

    def node_of(self, key: bytes) -> SmallNode:
        return self.cluster.node_of(iid_of_record(PLACE, key))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with small_cluster() as cluster:
        made = World(cluster)
        yield made
        for pool in made.pools:
            await pool.close()
        await turns(20)


def get_of(key: bytes) -> Get:
    return Get(iid_of_record(PLACE, key), Kind.OBJECT, PLACE.bucket, PLACE.shards, key, False)


def put_of(key: bytes, number: int = 1, condition: int = 0) -> Put:
    iid = iid_of_record(PLACE, key)
    metadata = Metadata(f"e{number}", 4).encode()
    return Put(iid, Kind.OBJECT, 7, 0, key, number.to_bytes(16, "big"), condition, "", 1, 0, metadata)


def delete_of(key: bytes, number: int = 9) -> Delete:
    return Delete(iid_of_record(PLACE, key), Kind.OBJECT, 7, 0, key, number.to_bytes(16, "big"), 0, "", 1, 0)


async def get(pool: Pool, key: bytes) -> bytes | None:
    header, data = await pool.call(get_of(key), iid_of_record(PLACE, key))
    return bytes(data) if header[4] == LIVE else None


async def put(pool: Pool, key: bytes, number: int = 1, condition: int = 0) -> None:
    await pool.call(put_of(key, number, condition), iid_of_record(PLACE, key), b"%04d" % number)


def keys_of(world: World, node: SmallNode, count: int) -> list[bytes]:
    """Keys that the node serves."""
    found = (b"key %d" % number for number in range(100_000))
    mine = (key for key in found if world.node_of(key) is node)
    return [next(mine) for _ in range(count)]


def key_of(world: World, index: int = 0) -> bytes:
    return keys_of(world, world.cluster.nodes[index], 1)[0]


# -- reuse ------------------------------------------------------------------------------------------


async def test_one_connection_a_worker_is_enough(world: World) -> None:
    pool = world.pool()
    for number in range(200):
        await get(pool, b"%d" % number)
    assert pool.dial_count == len(world.dials.addresses) == 4
    assert pool.connection_count == 4


async def test_many_calls_at_the_start_end_up_with_one_connection_a_worker(world: World) -> None:
    pool = world.pool(deadline_ms=2000)
    await asyncio.gather(*[get(pool, b"%d" % number) for number in range(300)])
    await turns(20)
    assert connections_of(pool) == 4 and len(world.dials.addresses) <= 4 * 2 * 4 * 2
    before = len(world.dials.addresses)
    await asyncio.gather(*[get(pool, b"%d" % number) for number in range(300)])
    assert len(world.dials.addresses) == before


async def test_without_hints_every_call_dials_its_own_address(world: World) -> None:
    pool = world.pool(use_hints=False)
    for number in range(20):
        await get(pool, b"%d" % number)
    expected = [str(address_of(NETWORK, iid_of_record(PLACE, b"%d" % number))) for number in range(20)]
    assert world.dials.addresses == expected


async def test_connections_that_no_hint_leads_to_are_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WATCH_S", 0.01)
    pool = world.pool(use_hints=False)
    for number in range(10):
        await get(pool, b"%d" % number)
    await until(lambda: not pool.connection_count)


async def test_superseded_connection_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node lost all of its slices to another: the connection to it is of no use any more."""
    monkeypatch.setattr(module, "_WATCH_S", 0.01)
    pool = world.pool(deadline_ms=2000)
    a, b = world.cluster.nodes[:2]
    key = key_of(world)
    await get(pool, key)
    move(world, a, b, set(a.slices))
    await get(pool, key)
    await until(lambda: not a.service.sessions and pool.connection_count == 1)


async def test_workers_that_share_nodes_by_lane_hold_up_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No two of a worker's slices are side by side, so the coverage of four has 12288 runs. What hints lead
    to is looked at all the time, on the loop on which calls wait."""
    monkeypatch.setattr(module, "_WATCH_S", 0.01)
    nodes, pool, loop = world.cluster.nodes, world.pool(deadline_ms=2000), asyncio.get_running_loop()
    for index, node in enumerate(nodes):
        node.slices = set(range(index, 3 << GROUP_BITS, len(nodes)))
        node.service.acceptor.activate(node.slices)
        node.service.coverage = encode_coverage(node.slices, 1)
    longest_s = 0.0
    for number in range(50):
        asked = loop.time()
        await get(pool, b"%d" % number)
        await asyncio.sleep(0.001)
        longest_s = max(longest_s, loop.time() - asked)
    assert pool.dial_count == pool.connection_count == len(nodes)
    assert longest_s < 1


async def test_hint_and_dial_ask_for_the_same(world: World) -> None:
    with_hints, without = world.pool(), world.pool(use_hints=False)
    for number in range(30):
        await put(with_hints if number % 2 else without, b"%d" % number, number)
    for number in range(40):
        expected = b"%04d" % number if number < 30 else None
        assert await get(with_hints, b"%d" % number) == expected
        assert await get(without, b"%d" % number) == expected


async def test_what_the_cluster_says_of_itself_is_known_afterwards(world: World) -> None:
    pool = world.pool()
    assert (pool.replicas, pool.cluster_id) == (0, "")
    await get(pool, b"k")
    assert (pool.replicas, pool.cluster_id) == (1, "ab" * 16)


async def test_one_replica_that_was_named_is_not_taken_for_granted(world: World) -> None:
    """There may be three by now, of which the one that had everything is gone: whoever answers says so."""
    pool = world.pool(identity=replace(IDENTITY, replicas=1))
    assert pool.replicas == 0
    assert world.pool(identity=replace(IDENTITY, replicas=3)).replicas == 3
    world.dials.dead.add(world.cluster.nodes[0].port)
    assert await pool.replica_count() == 1


async def test_one_replica_is_not_remembered_when_nobody_is_connected_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile there may be three, and the one that had everything gone: somebody else is asked first."""
    monkeypatch.setattr(module, "_WATCH_S", 0.01)
    pool = world.pool(deadline_ms=3000)
    await get(pool, key_of(world))
    assert pool.replicas == 1
    for session in list(world.cluster.nodes[0].service.sessions):
        session.abort()
    await until(lambda: not pool.connection_count)
    assert pool.replicas == 0
    world.dials.dead.add(world.cluster.nodes[0].port)
    assert await pool.replica_count() == 1


# -- answers ----------------------------------------------------------------------------------------


async def test_refusals_are_raised_as_they_are(world: World) -> None:
    pool = world.pool()
    await put(pool, b"k")
    blob = GetBlob(iid_of(position_of_blob(bytes(32)), 0), bytes(32))
    for _ in range(2):  # Once over a fresh connection, once over a known one.
        with pytest.raises(PreconditionFailed):
            await put(world.pools[0], b"k", 2, condition=1)
        with pytest.raises(ObjectNotFound):
            await pool.call(blob, blob.iid)
    fresh = world.pool()
    with pytest.raises(PreconditionFailed):
        await put(fresh, b"k", 3, condition=1)


async def test_request_that_no_frame_holds_is_refused_and_harms_nobody(world: World) -> None:
    pool = world.pool()
    await get(pool, b"k")
    message = put_of(b"k")
    message.etag = "e" * 70_000
    with pytest.raises(ObjectTooLarge):
        await pool.call(message, message.iid)
    assert connections_of(pool) == 1 and await get(pool, b"k") is None
    assert all(connection.is_idle for connection in pool._connections)


async def test_overloaded_node_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    key, refused = key_of(world), 0
    acceptor = world.node_of(key).service.acceptor
    read = acceptor.read

    def overloaded(request: Any, txn: Any) -> Any:
        nonlocal refused
        refused += 1
        if refused <= 3:
            raise Refusal(Status.OVERLOADED, "too much")
        return read(request, txn)

    monkeypatch.setattr(acceptor, "read", overloaded)
    assert await get(world.pool(), key) is None and refused == 4
    refused = -(10**6)
    with pytest.raises(Unavailable, match="too much"):
        await get(world.pool(), key)


# -- slices that move -------------------------------------------------------------------------------


def move(world: World, source: SmallNode, target: SmallNode, moved: set[int], *, say: bool = False) -> None:
    """The slices are the target's now: state, coverage and route, in one moment."""
    source.slices -= moved
    target.slices |= moved
    for node in (source, target):
        node.service.acceptor.activate(node.slices)
        node.service.coverage = encode_coverage(node.slices, 2)
        for session in node.service.sessions if say else ():
            session.cover()


@pytest.mark.parametrize("say", [True, False], ids=["announced", "found out"])
async def test_moved_slice_is_found_again(say: bool) -> None:
    """The two nodes share a store, so data has moved; the client's hint still says the old owner."""
    store = MemoryStore()
    async with small_cluster(2, lambda index: store) as cluster:
        world = World(cluster)
        pool = world.pool(deadline_ms=2000)
        a, b = cluster.nodes
        keys = keys_of(world, a, 20)
        for number, key in enumerate(keys):
            await put(pool, key, number)
        dialled = pool.dial_count
        move(world, a, b, {slice16_of(iid_of_record(PLACE, key)) for key in keys[:10]}, say=say)
        await turns(20)
        assert [await get(pool, key) for key in keys] == [b"%04d" % number for number in range(20)]
        for number, key in enumerate(keys):
            await put(pool, key, number + 100)
        assert [await get(pool, key) for key in keys] == [b"%04d" % (number + 100) for number in range(20)]
        assert pool.dial_count - dialled <= 2
        await pool.close()


async def test_route_that_lags_behind_is_waited_for(world: World) -> None:
    """The old owner answers NOT_MINE and the address still leads to it: tried until the route has moved."""
    key = key_of(world)
    a, b = world.cluster.nodes[:2]
    pool = world.pool(deadline_ms=2000)
    await get(pool, key)
    moved = {slice16_of(iid_of_record(PLACE, key))}
    a.service.acceptor.activate(a.slices - moved)
    b.service.acceptor.activate(b.slices | moved)

    async def converge() -> None:
        await asyncio.sleep(0.1)
        a.slices.difference_update(moved)
        b.slices.update(moved)

    converging = asyncio.ensure_future(converge())
    assert await get(pool, key) is None
    await converging
    assert connections_of(pool) <= 3, "attempts in vain leave no connections behind"


async def test_slice_that_nobody_serves_is_unavailable(world: World) -> None:
    key = key_of(world)
    for node in world.cluster.nodes:
        node.service.acceptor.activate(set())
    pool = world.pool()
    with pytest.raises(Unavailable, match="is not served here") as caught:
        await put(pool, key)
    assert f"slice {slice16_of(iid_of_record(PLACE, key)):04x}" in str(caught.value)
    await turns(20)
    assert connections_of(pool) <= 1


# -- deadlines --------------------------------------------------------------------------------------


async def unavailable(pool: Pool, key: bytes, work: Any = get) -> float:
    """Seconds until the call is given up."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(Unavailable) as caught:
        await work(pool, key)
    address = address_of(NETWORK, iid_of_record(PLACE, key))
    slice16 = slice16_of(iid_of_record(PLACE, key))
    assert f"slice {slice16:04x} at [{address}]:7480" in str(caught.value)
    assert str(caught.value)[-2:] != ": ", "it says why"
    return loop.time() - started


@pytest.mark.parametrize("work", [get, put])
async def test_dead_node_is_unavailable_within_the_deadline(world: World, work: Any) -> None:
    """A refused connection leaves no doubt, not even for a write."""
    world.dials.dead = {world.cluster.nodes[0].port}
    pool = world.pool(deadline_ms=200)
    assert 0.05 < await unavailable(pool, key_of(world), work) < 1
    assert 3 < len(world.dials.addresses) < 40, "tried again, ever more slowly"


async def test_hanging_dial_is_unavailable_within_the_deadline(world: World) -> None:
    world.dials.hanging = {world.cluster.nodes[0].port}
    assert await unavailable(world.pool(deadline_ms=200), key_of(world), put) < 1


async def test_node_that_comes_back_is_used(world: World) -> None:
    world.dials.dead = {world.cluster.nodes[0].port}
    reading = asyncio.ensure_future(get(world.pool(deadline_ms=2000), key_of(world)))
    await asyncio.sleep(0.05)
    world.dials.dead.clear()
    assert await reading is None


async def test_dead_node_holds_up_no_other(world: World) -> None:
    """Packets to one node of four are lost; many calls for it wait while others are dialled first time."""
    world.dials.hanging = {world.cluster.nodes[0].port}
    pool = world.pool(deadline_ms=800)
    dead = [asyncio.ensure_future(get(pool, key)) for key in keys_of(world, world.cluster.nodes[0], 100)]
    await turns(20)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for node in world.cluster.nodes[1:]:
        for key in keys_of(world, node, 10):
            await get(pool, key)
    assert loop.time() - started < 0.7
    results = await asyncio.gather(*dead, return_exceptions=True)
    assert all(isinstance(result, Unavailable) for result in results)


async def test_who_is_asked_without_hints_waits_for_nobody(world: World) -> None:
    """Packets to one node are lost; another one, of the same arc, is asked whether it is there."""
    dead, alive = world.cluster.nodes[:2]
    there, *gone = sorted(dead.slices)[:5]
    dead.slices.remove(there)
    alive.slices.add(there)
    world.dials.hanging = {dead.port}
    pool = world.pool(deadline_ms=300, use_hints=False)
    asked = [pool.call(Report(slice16 << 48), slice16 << 48) for slice16 in (*gone, there)]
    *lost, (header, _) = await asyncio.gather(*asked, return_exceptions=True)
    assert header[0] == Status.OK
    assert [type(error) for error in lost] == [Unavailable] * len(gone)


@pytest.mark.parametrize(("work", "error"), [(get, Unavailable), (put, OutcomeUnknown)])
async def test_silent_node_on_a_known_connection_is_given_up_in_time(
    world: World, work: Any, error: type[Exception]
) -> None:
    """The deadline counts from the call, not from the moment when the watchdog ends the connection."""
    key = key_of(world)
    async with proxied(world.cluster.nodes[0].port) as proxy:
        world.dials.detours[world.cluster.nodes[0].port] = proxy.port
        pool = world.pool(deadline_ms=300)
        await get(pool, key)
        proxy.is_mute = True
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(error):
            await work(pool, key)
        assert loop.time() - started < 1
        proxy.is_mute = False


async def test_node_that_never_greets_is_unavailable_in_time(world: World) -> None:
    async with proxied(world.cluster.nodes[0].port) as proxy:
        proxy.is_mute = True
        world.dials.detours[world.cluster.nodes[0].port] = proxy.port
        assert await unavailable(world.pool(deadline_ms=200), key_of(world), put) < 1


@pytest.mark.parametrize("is_known", [True, False], ids=["connected before", "never connected"])
async def test_node_is_silent_when_neither_answer_nor_refusal_comes(world: World, is_known: bool) -> None:
    key, pool, port = key_of(world), world.pool(), world.cluster.nodes[0].port
    if is_known:
        await get(pool, key)
        assert not await pool.is_silent(iid_of_record(PLACE, key), 200)
    assert not await pool.is_silent(iid_of_record(PLACE, key), 200)
    world.dials.hanging = {port}
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(module._FRESH_S)
    assert await pool.is_silent(iid_of_record(PLACE, key), 200)
    assert 0.2 <= loop.time() - began < 1
    world.dials.hanging, world.dials.dead = set(), {port}
    assert not await pool.is_silent(iid_of_record(PLACE, key), 200)


async def test_one_dial_that_is_unreachable_is_no_silence(world: World) -> None:
    """Routes settle; silence is what lasts."""
    key, pool = key_of(world), world.pool()
    world.dials.unreachable = 1
    assert not await pool.is_silent(iid_of_record(PLACE, key), 1000)
    world.dials.unreachable = 10**6
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await pool.is_silent(iid_of_record(PLACE, key), 600)
    assert loop.time() - began >= 0.6


# -- doubts -----------------------------------------------------------------------------------------


async def test_lost_answer_of_a_read_is_read_again(world: World) -> None:
    key = key_of(world)
    async with proxied(world.cluster.nodes[0].port) as proxy:
        world.dials.detours[world.cluster.nodes[0].port] = proxy.port
        pool = world.pool(deadline_ms=2000)
        await put(pool, key, 5)
        for _ in range(3):
            proxy.lose_next_answer()
            assert await get(pool, key) == b"0005"


@pytest.mark.parametrize("is_fresh", [True, False], ids=["over a fresh connection", "over a known one"])
async def test_write_whose_answer_was_lost_is_applied_once(world: World, is_fresh: bool) -> None:
    """The put was applied and its answer lost; another put came in between. The repetition gets its
    first result: neither a refusal for its own write, nor a second application over the later one."""
    key, node = key_of(world), world.cluster.nodes[0]
    direct = pool_of(Dials(world.cluster))
    world.pools.append(direct)
    async with proxied(node.port) as proxy:
        world.dials.detours[node.port] = proxy.port
        pool = world.pool(deadline_ms=2000)
        if not is_fresh:
            await get(pool, key)
        do = node.store.do

        def lossy(change: Any, then: Any, *, size: int = 0) -> None:
            node.store.do = do  # type: ignore[method-assign]
            world.dials.gate = asyncio.Event()
            proxy.lose_next_answer()
            do(change, then, size=size)

        node.store.do = lossy  # type: ignore[method-assign]
        writing = asyncio.ensure_future(put(pool, key, 1, condition=1))
        while world.dials.waiting == 0:
            await asyncio.sleep(0.001)
        await put(direct, key, 2)
        assert world.dials.gate is not None
        world.dials.gate.set()
        await writing
        assert await get(direct, key) == b"0002"
        assert node.service.counters.requests[Put.TYPE] == 3, "two attempts, and the other put"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (put_of, OutcomeUnknown),
        (delete_of, OutcomeUnknown),
        (get_of, Unavailable),
        (lambda key: Report(iid_of_record(PLACE, key)), Unavailable),
        (
            lambda key: Scan(iid_of_record(PLACE, key), Kind.OBJECT, 7, 0, 0, b"", b"", b"", 1, False),
            Unavailable,
        ),
    ],
    ids=["put", "delete", "get", "report", "scan"],
)
async def test_only_a_write_that_was_sent_leaves_a_doubt(world: World, message: Any, error: type) -> None:
    key = key_of(world)
    async with proxied(world.cluster.nodes[0].port) as proxy:
        world.dials.detours[world.cluster.nodes[0].port] = proxy.port
        pool = world.pool(deadline_ms=200)
        await get(pool, key)

        def die() -> None:
            proxy.cut()
            world.dials.dead = {world.cluster.nodes[0].port}

        proxy.is_mute, proxy.on_answer = True, die
        with pytest.raises(error) as caught:
            await pool.call(message(key), iid_of_record(PLACE, key))
        assert type(caught.value) is error and f"{slice16_of(iid_of_record(PLACE, key)):04x}" in str(
            caught.value
        )


@pytest.mark.parametrize(
    "refusal", [StoreFull("full"), Refusal(Status.NO_BUCKET, "shut")], ids=["full", "shut"]
)
async def test_refusal_of_a_repetition_does_not_settle_what_became_of_the_first_attempt(
    world: World, refusal: Exception
) -> None:
    """The first was applied and its answer lost; "full" is said of the second alone."""
    key, node = key_of(world), world.cluster.nodes[0]
    do = node.store.do

    def full(change: Any, then: Any, *, size: int = 0) -> None:
        raise refusal

    def lossy(change: Any, then: Any, *, size: int = 0) -> None:
        node.store.do = full  # type: ignore[method-assign]
        proxy.lose_next_answer()
        do(change, then, size=size)

    async with proxied(node.port) as proxy:
        world.dials.detours[node.port] = proxy.port
        pool = world.pool(deadline_ms=2000)
        await get(pool, key)
        node.store.do = lossy  # type: ignore[method-assign]
        message = put_of(key)
        with pytest.raises(OutcomeUnknown):
            await pool.call(message, message.iid, b"0001")
        node.store.do = do  # type: ignore[method-assign]
        assert message.attempt == 2 and await get(pool, key) == b"0001"


async def test_repetition_carries_the_birth_of_the_first_attempt(world: World) -> None:
    """A node that is asked again later may have forgotten the first time; it must know when that was."""
    key, node = key_of(world), world.cluster.nodes[0]
    async with proxied(node.port) as proxy:
        world.dials.detours[node.port] = proxy.port
        pool = world.pool(deadline_ms=5000)
        await get(pool, key)
        proxy.is_mute = True
        message = put_of(key)
        before_ms = node.service.clock.now_ms()
        writing = asyncio.ensure_future(pool.call(message, message.iid, b"0001"))
        await asyncio.sleep(0.1)
        born_ms = message.born_ms
        await asyncio.sleep(0.2)
        proxy.is_mute = False
        proxy.cut()
        await writing
        assert message.attempt == 2 and message.born_ms == born_ms
        assert before_ms - 100 <= born_ms <= before_ms + 100


async def test_write_over_a_connection_that_is_known_to_be_lost_leaves_no_doubt(world: World) -> None:
    """The node went away while nothing was under way: nothing was sent afterwards."""
    key = key_of(world)
    pool = world.pool(deadline_ms=200)
    await get(pool, key)
    await world.cluster.nodes[0].stop()
    world.dials.dead = {world.cluster.nodes[0].port}
    await until(lambda: not connections_of(pool))
    await unavailable(pool, key, put)


@pytest.mark.parametrize("is_dialled", [False, True])
async def test_who_cancels_a_call_is_told_whether_anything_had_left(world: World, is_dialled: bool) -> None:
    key, node = key_of(world), world.cluster.nodes[0]
    async with proxied(node.port) as proxy:
        world.dials.detours[node.port] = proxy.port
        pool = world.pool(deadline_ms=5000)
        if is_dialled:
            await get(pool, key)
            proxy.is_mute = True
        else:
            world.dials.gate = asyncio.Event()
        message = put_of(key)
        writing = asyncio.ensure_future(pool.call(message, message.iid, b"0001", within_ms=4000))
        await asyncio.sleep(0.1)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await writing
        # asyncio.timeout knows no other class.
        assert type(caught.value) is asyncio.CancelledError
        assert (message.born_ms != UNKNOWN_BIRTH) == is_dialled


# -- credentials and configuration ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "error"),
    [
        (Identity("client", KEY, b"wrong"), AccessDenied),
        (Identity("client", "NOBODY", SECRET.encode()), AccessDenied),
        (Identity("node", "gateway", SECRET.encode()), AccessDenied),
        (Identity("client", KEY, SECRET.encode(), 3), ConfigError),
        (Identity("client", KEY, SECRET.encode(), 1, "cd" * 16), ConfigError),
    ],
    ids=["wrong secret", "unknown key", "client as node", "replicas", "cluster id"],
)
async def test_wrong_identity_is_refused_at_once_and_asks_nothing(
    world: World, identity: Identity, error: type[Exception]
) -> None:
    pool = world.pool(identity=identity, deadline_ms=20_000)
    for work in (get, put):
        with pytest.raises(error):
            await work(pool, key_of(world))
    await turns(50)
    assert pool.connection_count == 0 and len(world.dials.addresses) == 2
    assert not world.cluster.nodes[0].service.counters.requests


# -- ends -------------------------------------------------------------------------------------------


async def test_call_given_up_by_its_caller_leaves_the_connection_usable(world: World) -> None:
    pool = world.pool()
    await get(pool, b"k")
    for count in range(6):
        calling = asyncio.ensure_future(get(pool, b"k"))
        await turns(count)
        calling.cancel()
        await asyncio.wait({calling})
    assert await get(pool, b"k") is None and pool.dial_count == 1


@pytest.mark.parametrize("count", range(0, 30, 3))
async def test_dial_given_up_by_its_caller_leaves_nothing_behind(world: World, count: int) -> None:
    pool = world.pool()
    calling = asyncio.ensure_future(get(pool, b"k"))
    await turns(count)
    calling.cancel()
    await asyncio.wait({calling})
    await pool.close()
    await until(lambda: not any(node.service.sessions for node in world.cluster.nodes))


async def test_closed_pool_dials_no_more(world: World) -> None:
    pool = world.pool(deadline_ms=5000)
    await get(pool, b"k")
    await pool.close()
    before = len(world.dials.addresses)
    with pytest.raises(Unavailable, match="closed"):
        await get(pool, b"k")
    assert len(world.dials.addresses) == before


async def test_close_ends_what_is_under_way(world: World) -> None:
    """Else a call would dial again behind its back, and the connection would stay."""
    key = key_of(world)
    async with proxied(world.cluster.nodes[0].port) as proxy:
        world.dials.detours[world.cluster.nodes[0].port] = proxy.port
        pool = world.pool(deadline_ms=20_000)
        await get(pool, key)
        proxy.is_mute = True
        reading, writing = (asyncio.ensure_future(work(pool, key)) for work in (get, put))
        await turns(20)
        await pool.close()
        results = await asyncio.gather(reading, writing, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, OutcomeUnknown]
        before = len(world.dials.addresses)
        await asyncio.sleep(0.02)
        assert len(world.dials.addresses) == before and pool.connection_count == 0


@pytest.mark.timeout(20)
async def test_close_does_not_wait_for_a_node_that_does_not_read(world: World) -> None:
    """What is queued for it would keep the connection, and all calls that wait for its answers."""
    async with proxied(world.cluster.nodes[0].port) as proxy:
        world.dials.detours[world.cluster.nodes[0].port] = proxy.port
        pool = world.pool(deadline_ms=60_000)
        key = key_of(world)
        await get(pool, key)
        proxy.hears.clear()
        iid, blob = iid_of_record(PLACE, key), bytes(CHUNK_BYTES)
        calls = [pool.call(PutBlob(iid, bytes(32), b""), iid, blob) for _ in range(8)]
        waiting = [asyncio.ensure_future(call) for call in [*calls, get(pool, key)]]
        await turns(20)
        await pool.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}


async def test_close_during_a_dial(world: World) -> None:
    world.dials.hanging = {world.cluster.nodes[0].port}
    pool = world.pool(deadline_ms=200)
    calling = asyncio.ensure_future(get(pool, key_of(world)))
    await turns(10)
    await pool.close()
    with pytest.raises(Unavailable):
        await calling
    assert pool.connection_count == 0


def test_loopback_links_know_only_their_slices() -> None:
    with pytest.raises(OSError, match="no owner"):
        asyncio.run(LoopbackLinks({}).dial(IPv6Address("fd5a::1"), 7480, asyncio.Protocol))


# -- slices that do not vote ------------------------------------------------------------------------


@pytest.mark.parametrize("is_known", [True, False])
async def test_silent_slice_is_waited_for_when_there_is_nobody_else(world: World, is_known: bool) -> None:
    key, pool = key_of(world), world.pool(deadline_ms=3000)
    served = world.node_of(key).service.acceptor.served
    if is_known:
        await put(pool, key)
    served.hush(slice16_of(iid_of_record(PLACE, key)))
    writing = asyncio.ensure_future(put(pool, key, 2))
    await asyncio.sleep(0.05)
    assert not writing.done()
    served.vote(slice16_of(iid_of_record(PLACE, key)), 1)
    await writing
    assert await get(pool, key) == b"0002" and pool.connection_count == 1


@pytest.mark.parametrize("is_known", [True, False])
async def test_silent_slice_is_given_up_at_once_when_others_can_be_asked(
    world: World, is_known: bool
) -> None:
    key, pool = key_of(world), world.pool(deadline_ms=3000)
    if is_known:
        await put(pool, key)
    world.node_of(key).service.acceptor.served.hush(slice16_of(iid_of_record(PLACE, key)))
    started = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="does not vote"):
        await pool.call(get_of(key), iid_of_record(PLACE, key), within_ms=2000)
    assert asyncio.get_running_loop().time() - started < 1


@pytest.mark.parametrize("request_of", [get_of, put_of, delete_of])
async def test_one_plane_that_is_gone_when_there_are_more_by_now(
    world: World, request_of: Callable[[bytes], Any]
) -> None:
    """Who was told of one plane, and of three while that one cannot be dialled, asks the others."""
    pool = world.pool(deadline_ms=5000)
    (key,) = keys_of(world, world.cluster.nodes[0], 1)
    pool.replicas = 1
    world.dials.dead.add(world.cluster.nodes[0].port)
    asked = asyncio.create_task(pool.call(request_of(key), iid_of_record(PLACE, key)))
    await turns(20)
    assert not asked.done()
    pool.replicas = 3
    with pytest.raises(Recounted) as caught:
        await asked
    assert caught.value.replicas == 3


async def test_a_question_that_is_for_one_plane_goes_on_when_there_are_more(world: World) -> None:
    pool = world.pool(deadline_ms=500)
    (key,) = keys_of(world, world.cluster.nodes[0], 1)
    pool.replicas = 1
    world.dials.dead.add(world.cluster.nodes[0].port)
    iid = iid_of_record(PLACE, key)
    asked = asyncio.create_task(pool.call(Report(iid), iid))
    await turns(20)
    pool.replicas = 3
    with pytest.raises(Unavailable):
        await asked
