"""A pool whose service gets another prefix: where it dials, what it believes, and that nothing is cut off."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from ssastore.errors import ConfigError, Unavailable
from ssastore.keyspace import slice_of
from ssastore.transport import pool as module
from ssastore.transport.coverage import encode_prefix
from ssastore.transport.lookup import NOWHERE, Found
from ssastore.transport.pool import Pool
from tests.cluster import SmallCluster, SmallNode, small_cluster
from tests.direct import SeededRandomness
from tests.unit.transport.test_pool import IDENTITY, NETWORK, Dials, get, pool_of, put, put_of
from tests.wires import turns, until

OTHER, THIRD = IPv6Network("2001:db8:77:5::/64"), IPv6Network("2001:db8:77:6::/64")


class Routed(Dials):
    """Links of a network that routes some prefixes."""

    def __init__(self, cluster: SmallCluster) -> None:
        super().__init__(cluster)
        self.routed = {NETWORK, OTHER}
        self.led_astray: dict[IPv6Network, Dials] = {}
        "Prefixes that are another cluster's."

    async def dial(self, address: IPv6Address, port: int, protocol: Any) -> Any:
        if not any(address in service for service in self.routed):
            self.addresses.append(str(address))
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        for service, dials in self.led_astray.items():
            if address in service:
                self.addresses.append(str(address))
                return await dials.dial(address, port, protocol)
        return await super().dial(address, port, protocol)

    def dialled(self) -> set[IPv6Network]:
        """Prefixes, since the last time."""
        found, self.addresses[:] = set(map(_prefix_of, self.addresses)), []
        return found


def _prefix_of(address: str) -> IPv6Network:
    return IPv6Network((int(IPv6Address(address)) >> 64 << 64, 64))


class World:
    def __init__(self, cluster: SmallCluster) -> None:
        self.cluster = cluster
        self.dials = Routed(cluster)
        self.pools: list[Pool] = []

    def pool(self, **options: Any) -> Pool:
        self.pools.append(pool_of(self.dials, **({"deadline_ms": 2000} | options)))
        return self.pools[-1]

    def node_of(self, key: bytes) -> SmallNode:
        return self.cluster.node_of(put_of(key).iid)

    def tell(self, serial: int, service: IPv6Network, *nodes: SmallNode) -> None:
        """Let nodes, all by default, say where the service is."""
        for node in nodes or self.cluster.nodes:
            node.service.prefix = serial, encode_prefix(service)
            node.service.serve()


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "_WATCH_S", 0.01)
    async with small_cluster() as cluster:
        made = World(cluster)
        yield made
        for pool in made.pools:
            await pool.close()
        await turns(20)


def key_of(world: World, index: int = 0) -> bytes:
    """A key that a node serves."""
    found = (b"key %d" % number for number in range(100_000))
    return next(key for key in found if world.node_of(key) is world.cluster.nodes[index])


async def read_all(world: World, pool: Pool) -> None:
    """Something of every node."""
    for index in range(len(world.cluster.nodes)):
        await get(pool, key_of(world, index))


async def test_who_is_connected_goes_to_the_prefix_that_nodes_say(world: World) -> None:
    """And lets go of the connections by the former one when nobody waits for an answer there."""
    pool = world.pool()
    await read_all(world, pool)
    assert world.dials.dialled() == {NETWORK}
    world.tell(1, OTHER)
    await until(lambda: pool.service == OTHER)
    await read_all(world, pool)
    assert world.dials.dialled() == {OTHER}
    await until(lambda: pool.connection_count == 4)
    assert set(pool._connections.values()) == {OTHER}
    world.dials.routed = {OTHER}
    await read_all(world, pool)


async def test_a_client_that_is_started_with_the_former_prefix_follows(world: World) -> None:
    world.tell(1, OTHER)
    pool = world.pool()
    await put(pool, key_of(world))
    await until(lambda: pool.service == OTHER)
    assert await get(pool, key_of(world)) == b"0001"


async def test_calls_under_way_are_answered_where_they_were_sent(world: World) -> None:
    pool = world.pool()
    key = key_of(world)
    await get(pool, key)
    node, held = world.cluster.nodes[0], []
    do, node.service.store.do = node.service.store.do, lambda *args, **more: held.append((args, more))  # type: ignore[method-assign]
    writing = asyncio.ensure_future(put(pool, key))
    await until(lambda: bool(held))
    world.tell(1, OTHER)
    await until(lambda: pool.service == OTHER)
    world.dials.dialled()
    node.service.serve()
    await asyncio.sleep(0.05)
    for _ in range(5):
        await get(pool, key)
    assert len(world.dials.addresses) <= 1 and world.dials.dialled() <= {OTHER}, "it has its own connection"
    assert {pool._connections[hinted] for hinted in pool._hints} == {OTHER}
    assert not writing.done()
    node.service.store.do = do  # type: ignore[method-assign]
    for args, more in held:
        do(*args, **more)
    await writing
    assert await get(pool, key) == b"0001" and len(held) == 1, "it was sent once"


async def test_an_old_word_is_not_believed(world: World) -> None:
    """A node that is cut off from the control store goes on saying what it knew."""
    pool = world.pool()
    await read_all(world, pool)
    world.tell(2, OTHER)
    await until(lambda: pool.service == OTHER)
    await read_all(world, pool)
    world.dials.dialled()
    world.tell(1, NETWORK, world.cluster.nodes[0])
    await asyncio.sleep(0.05)
    await read_all(world, pool)
    assert pool.service == OTHER and pool.prefixes.serial == 2 and not world.dials.dialled()
    world.tell(3, NETWORK, world.cluster.nodes[1])
    await until(lambda: pool.service == NETWORK)


async def test_until_somebody_answers_at_the_other_prefix_the_former_one_is_used(world: World) -> None:
    """The client's own network may not route it yet."""
    world.dials.routed = {NETWORK}
    pool = world.pool()
    await read_all(world, pool)
    world.tell(1, OTHER)
    await until(lambda: OTHER in world.dials.dialled())
    await read_all(world, pool)
    assert pool.service == NETWORK and pool.connection_count == 4
    world.dials.routed = {NETWORK, OTHER}
    await until(lambda: pool.service == OTHER)


async def test_another_cluster_at_the_other_prefix_is_not_taken_for_this_one(world: World) -> None:
    """It may have the same access keys: a wrong route must not lead writes there. Told in the first greeting
    too, when the client was started with no cluster id."""
    async with small_cluster() as strangers:
        for node in strangers.nodes:
            node.service.cluster_id = "cd" * 16
        world.dials.led_astray = {OTHER: Dials(strangers)}
        pool = world.pool()
        world.tell(1, OTHER)
        await read_all(world, pool)
        await until(lambda: OTHER in world.dials.dialled())
        await asyncio.sleep(0.05)
        await read_all(world, pool)
        assert (pool.service, pool.cluster_id) == (NETWORK, "ab" * 16)
        world.dials.led_astray.clear()
        await until(lambda: pool.service == OTHER)


async def test_who_looks_for_one_prefix_and_hears_of_the_next_looks_for_that(world: World) -> None:
    pool = world.pool()
    await read_all(world, pool)
    world.tell(1, THIRD)
    await until(lambda: THIRD in world.dials.dialled())
    world.tell(2, OTHER)
    await until(lambda: pool.service == OTHER)
    await turns(20)
    world.dials.dialled()
    await asyncio.sleep(0.7)
    assert not world.dials.dialled()


async def test_told_while_nothing_is_connected_it_is_there_at_once(world: World) -> None:
    """As a gateway's, that follows the control store."""
    pool = world.pool()
    pool.renumber(1, OTHER)
    await get(pool, key_of(world))
    assert world.dials.dialled() == {OTHER}


async def test_who_asks_about_a_prefix_does_not_leave_it(world: World) -> None:
    world.tell(1, OTHER)
    pool = world.pool(follows=False, use_hints=False)
    for _ in range(3):
        await get(pool, key_of(world))
    assert pool.service == NETWORK and world.dials.dialled() == {NETWORK}


async def test_a_closed_pool_goes_nowhere(world: World) -> None:
    world.dials.routed = {NETWORK}
    pool = world.pool()
    await read_all(world, pool)
    world.tell(1, OTHER)
    await until(lambda: OTHER in world.dials.dialled())
    await pool.close()
    world.dials.dialled()
    await asyncio.sleep(0.7)
    pool.renumber(9, THIRD)
    assert not world.dials.dialled() and pool.service == NETWORK


async def test_a_prefix_that_is_gone_is_named_as_the_likely_mistake(world: World) -> None:
    world.dials.routed = {OTHER}
    pool = world.pool(deadline_ms=50)
    with pytest.raises(Unavailable, match=f"nothing of {NETWORK} was reached: is that the service prefix"):
        await get(pool, key_of(world))


async def test_one_node_that_is_not_reached_says_nothing_of_the_prefix(world: World) -> None:
    pool = world.pool(deadline_ms=50)
    await get(pool, key_of(world, 1))
    world.dials.unreachable = 1000
    with pytest.raises(Unavailable) as found:
        await get(pool, key_of(world))
    assert "service prefix" not in str(found.value)


class Name:
    """A service's name, and how often it was looked up."""

    def __init__(self, *services: IPv6Network, **more: Any) -> None:
        self.found = Found(services, 7480, **more)
        self.asked = 0
        self.error: Exception | None = None

    async def find(self) -> Found:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.found

    def pool(self, world: World, **options: Any) -> Pool:
        known: dict[str, Any] = {"deadline_ms": 2000, "randomness": SeededRandomness(), "identity": IDENTITY}
        world.pools.append(Pool(NOWHERE, 1, links=world.dials, find=self.find, **(known | options)))
        return world.pools[-1]


async def test_a_name_is_looked_up_by_the_first_call_and_once_for_all_that_wait(world: World) -> None:
    name = Name(NETWORK)
    pool = name.pool(world)
    assert name.asked == 0 and pool.service is NOWHERE
    await asyncio.gather(*(get(pool, key_of(world, index)) for index in range(4)))
    assert (name.asked, pool.service, pool.port) == (1, NETWORK, 7480)


async def test_a_caller_that_gives_up_does_not_end_the_look_up_of_others(world: World) -> None:
    name = Name(NETWORK)
    pool = name.pool(world)
    first = asyncio.ensure_future(get(pool, key_of(world)))
    second = asyncio.ensure_future(get(pool, key_of(world, 1)))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert name.asked == 1


async def test_a_name_that_is_not_found_is_the_callers_error_and_asked_for_again(world: World) -> None:
    name = Name(NETWORK)
    name.error = ConfigError("there is no name")
    pool = name.pool(world)
    with pytest.raises(ConfigError, match="there is no name"):
        await get(pool, key_of(world))
    name.error = None
    await get(pool, key_of(world))
    assert name.asked == 2


async def test_an_old_answer_is_used_until_there_is_a_new_one(world: World) -> None:
    name = Name(NETWORK, valid_s=0.0)
    pool = name.pool(world)
    await get(pool, key_of(world))
    name.error = Unavailable("name servers do not answer")
    for index in range(1, 4):
        await get(pool, key_of(world, index))
    assert name.asked >= 3 and pool.service == NETWORK
    name.error, name.found = None, Found((OTHER,), 7480, valid_s=0.0)
    pool._connections.copy().popitem()[0].abort()
    await until(lambda: pool.connection_count == 3)
    await read_all(world, pool)
    await until(lambda: pool.service == OTHER)


async def test_workers_word_stands_against_an_answer_that_says_nothing_new(world: World) -> None:
    """Caches tell the former prefix for a while after a cluster was renumbered."""
    name = Name(NETWORK, valid_s=0.0)
    pool = name.pool(world)
    await read_all(world, pool)
    world.tell(1, OTHER)
    await until(lambda: pool.service == OTHER)
    asked = name.asked
    await read_all(world, pool)
    assert name.asked > asked and pool.service == OTHER


async def test_of_several_sites_the_first_that_answers_is_used(world: World) -> None:
    world.dials.routed = {OTHER}
    pool = Name(THIRD, OTHER, NETWORK).pool(world)
    await get(pool, key_of(world))
    assert pool.service == OTHER


async def test_when_nothing_of_a_site_answers_any_more_another_one_is_used(world: World) -> None:
    pool = Name(NETWORK, OTHER).pool(world)
    await read_all(world, pool)
    assert pool.service == NETWORK
    world.dials.routed = {OTHER}
    for connection in list(pool._connections):
        connection.abort()
    await get(pool, key_of(world))
    assert pool.service == OTHER


async def test_a_site_without_another_is_not_left(world: World) -> None:
    pool = Name(NETWORK).pool(world, deadline_ms=100)
    await get(pool, key_of(world))
    world.dials.routed = set()
    for connection in list(pool._connections):
        connection.abort()
    with pytest.raises(Unavailable):
        await get(pool, key_of(world))
    world.dials.routed = {NETWORK}
    await get(pool, key_of(world))


async def test_holes_are_not_dialled(world: World) -> None:
    key = key_of(world)
    group = put_of(key).iid >> 48
    pool = Name(NETWORK, holes=(slice_of(0, group).network(NETWORK),)).pool(world, deadline_ms=50)
    with pytest.raises(Unavailable, match="the name of the service says that nobody has"):
        await get(pool, key)
    assert not world.dials.dialled()
    await get(pool, key_of(world, 1))


async def test_why_a_prefix_is_not_reached_is_logged_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pool = world.pool()
    await read_all(world, pool)
    world.dials.routed = {NETWORK}
    world.tell(1, OTHER)
    await until(lambda: len([a for a in world.dials.addresses if _prefix_of(a) == OTHER]) >= 3)
    assert len([record for record in caplog.records if record.message == "prefix.not_reached"]) == 1
