"""A service whose name has several prefixes, or says something else than before: what a client believes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest

from ssastore.errors import Unavailable
from ssastore.keyspace import slice_of
from ssastore.system import SystemRandomness
from ssastore.transport import pool as module
from ssastore.transport.lookup import NOWHERE, Found
from ssastore.transport.pool import Pool
from tests.cluster import small_cluster
from tests.direct import SeededRandomness
from tests.unit.transport.test_pool import IDENTITY, NETWORK, get, put_of
from tests.unit.transport.test_prefix import OTHER, THIRD, Name, World, key_of, read_all
from tests.wires import turns, until


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "_WATCH_S", 0.01)
    async with small_cluster() as cluster:
        made = World(cluster)
        yield made
        for pool in made.pools:
            await pool.close()
        await turns(20)


async def dial_again(pool: Pool) -> None:
    """Something has to be dialled: the name may be looked up."""
    next(iter(pool._connections)).abort()
    count = pool.connection_count
    await until(lambda: pool.connection_count < count)


@pytest.mark.parametrize(
    "later",
    [
        Found((NETWORK, THIRD), 7480),
        Found((THIRD, NETWORK), 7480),
        Found((NETWORK,), 7480),
    ],
)
async def test_an_answer_that_says_nothing_new_does_not_undo_workers_word(world: World, later: Found) -> None:
    """Caches count the time of an answer down, and give its records in any order."""
    name = Name(NETWORK, THIRD, valid_s=0.0)
    pool = name.pool(world)
    await read_all(world, pool)
    world.tell(1, OTHER)
    await until(lambda: pool.service == OTHER)
    name.found = replace(later, valid_s=0.0)
    for connection in list(pool._connections):
        connection.abort()
    await read_all(world, pool)
    await asyncio.sleep(0.1)
    assert pool.service == OTHER


async def test_closing_ends_a_look_up_and_says_so(world: World) -> None:
    async def find() -> Found:
        await asyncio.sleep(30)
        raise AssertionError

    options: dict[str, Any] = {"randomness": SeededRandomness(), "identity": IDENTITY, "deadline_ms": 2000}
    pool = Pool(NOWHERE, 1, links=world.dials, find=find, **options)
    asking = asyncio.ensure_future(get(pool, key_of(world)))
    await asyncio.sleep(0.02)
    await pool.close()
    with pytest.raises(Unavailable):
        await asking
    slow = Pool(NOWHERE, 1, links=world.dials, find=find, **(options | {"deadline_ms": 50}))
    with pytest.raises(Unavailable, match="whose name was not looked up yet"):
        await get(slow, key_of(world))
    await slow.close()


async def test_one_node_that_is_down_does_not_decide_about_a_site(world: World) -> None:
    dead, dial = world.cluster.nodes[0], world.dials.dial

    async def broken(address: IPv6Address, port: int, protocol: Any) -> Any:
        if address in NETWORK and world.cluster.node_of(int(address) & (1 << 64) - 1) is dead:
            raise OSError(113, "no route")
        return await dial(address, port, protocol)

    world.dials.dial = broken  # type: ignore[method-assign]
    for _ in range(15):
        pool = Name(NETWORK, OTHER).pool(world, randomness=SystemRandomness())
        await get(pool, key_of(world, 1))
        assert pool.service == NETWORK


async def test_a_site_that_is_cut_off_is_left_though_its_connections_are_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssastore.transport import connection as connections

    pool = Name(NETWORK, OTHER).pool(world, deadline_ms=3000)
    await read_all(world, pool)
    # Now, not before: a read that takes longer on a busy machine would end the connections that are meant.
    monkeypatch.setattr(connections, "ATTEMPT_TIMEOUT_MS", 50)
    monkeypatch.setattr(module, "DIAL_TIMEOUT_MS", 50)
    world.dials.routed = {OTHER}
    for connection in pool._connections:
        connection._transport.write = lambda *data: None  # type: ignore[method-assign, union-attr]
        connection._transport.writelines = lambda *data: None  # type: ignore[method-assign, union-attr]
    await get(pool, key_of(world))
    assert pool.service == OTHER


async def test_a_name_that_is_rolled_back_is_not_left(world: World) -> None:
    world.dials.routed = {NETWORK}
    name = Name(NETWORK, valid_s=0.0)
    pool = name.pool(world)
    await read_all(world, pool)
    name.found = Found((OTHER,), 9000, valid_s=0.0)
    await dial_again(pool)
    await read_all(world, pool)
    await until(lambda: OTHER in world.dials.dialled())
    assert pool.port == 7480, "the port belongs to the prefix that it was said with"
    name.found = Found((NETWORK,), 7480, valid_s=0.0)
    await dial_again(pool)
    await read_all(world, pool)
    await asyncio.sleep(0.05)
    world.dials.routed = {NETWORK, OTHER}
    await asyncio.sleep(0.5)
    assert pool.service == NETWORK


async def test_workers_word_that_leads_nowhere_does_not_keep_clients_at_a_dead_site(
    world: World,
) -> None:
    world.tell(1, NETWORK)
    world.dials.routed = {OTHER, THIRD}
    pool = Name(OTHER, THIRD).pool(world)
    await get(pool, key_of(world))
    world.dials.routed = {THIRD}
    for connection in list(pool._connections):
        connection.abort()
    await get(pool, key_of(world))
    assert pool.service == THIRD


async def test_holes_count_when_a_site_is_chosen(world: World) -> None:
    """All of plane 0 of the first site: nobody can be asked there."""
    plane = slice_of(0, 0).network(NETWORK).supernet(new_prefix=68)
    pool = Name(NETWORK, OTHER, holes=(plane,)).pool(world)
    await get(pool, key_of(world))
    assert pool.service == OTHER and put_of(key_of(world)).iid >> 60 == 0


async def test_a_site_that_the_name_withdraws_is_left(world: World) -> None:
    name = Name(NETWORK, OTHER, valid_s=0.0)
    pool = name.pool(world)
    await read_all(world, pool)
    assert pool.service == NETWORK
    name.found = Found((OTHER,), 7480)
    await dial_again(pool)
    await read_all(world, pool)
    await until(lambda: pool.service == OTHER)


async def test_workers_word_is_not_forgotten_over_a_site_that_died(world: World) -> None:
    world.dials.routed = {NETWORK, OTHER}
    pool = Name(NETWORK, OTHER).pool(world)
    world.tell(1, THIRD)
    await read_all(world, pool)
    world.dials.routed = {OTHER}
    for connection in list(pool._connections):
        connection.abort()
    await get(pool, key_of(world))
    assert pool.service == OTHER
    world.dials.routed = {OTHER, THIRD}
    await until(lambda: pool.service == THIRD)


async def test_sites_are_tried_once_at_the_beginning(world: World) -> None:
    """A site that does not answer is not tried a second time beside the first look."""
    world.dials.routed = {OTHER}
    pool = Name(THIRD, OTHER).pool(world)
    await get(pool, key_of(world))
    await asyncio.sleep(0.05)
    at_the_first = [address for address in world.dials.addresses if IPv6Address(address) in THIRD]
    assert pool.service == OTHER and len(at_the_first) == 8
