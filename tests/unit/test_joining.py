"""A node that joins, and what happens at the same moment elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv6Network

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import NodeRecord
from ssastore.core.clusterreading import read_nodes, read_record
from ssastore.core.renumbering import order_renumbering
from ssastore.core.sites import order_sites
from ssastore.env import Compare, ControlStore, Write
from ssastore.errors import ConfigError, Unavailable
from ssastore.rebalance import add_node, form_cluster

SERVICE, NEW = IPv6Network("2001:db8:5a:1::/64"), IPv6Network("2001:db8:77:5::/64")
FIRST = NodeRecord("n1", "fd00::1")
INSIDE = NodeRecord("n2", "2001:db8:77:5::9")


async def formed() -> MemoryControlStore:
    control = MemoryControlStore()
    await form_cluster(control, SERVICE, 1, [FIRST], now_ms=1, random_bytes=bytes)
    return control


class Meanwhile(MemoryControlStore):
    """A client of another's store; once, just before it writes, somebody else does something."""

    def __init__(self, shared: MemoryControlStore, deed: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._engine = shared.another_client()._engine
        self._deed: Callable[[], Awaitable[object]] | None = deed

    async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
        deed, self._deed = self._deed, None
        if deed is not None:
            await deed()
        return await super().transact(compares, writes)


async def give_prefix(control: ControlStore) -> object:
    return await order_renumbering(control, NEW)


async def give_site(control: ControlStore) -> object:
    return await order_sites(control, [NEW])


PREFIXES = pytest.mark.parametrize("give", [give_prefix, give_site])


@PREFIXES
async def test_no_node_comes_from_inside_of_a_prefix_that_the_cluster_gets(
    give: Callable[[ControlStore], Awaitable[object]],
) -> None:
    shared = await formed()
    with pytest.raises(ConfigError, match="n2 lies inside the service"):
        await add_node(Meanwhile(shared, lambda: give(shared)), INSIDE)
    assert await read_nodes(shared) == [FIRST]


@PREFIXES
async def test_the_cluster_gets_no_prefix_that_a_node_comes_from(
    give: Callable[[ControlStore], Awaitable[object]],
) -> None:
    shared = await formed()
    with pytest.raises(ConfigError, match="n2 lies inside the service"):
        await give(Meanwhile(shared, lambda: add_node(shared, INSIDE)))
    assert (await read_record(shared)).networks == (SERVICE,)


async def test_of_two_that_come_with_one_address_one_is_let_in() -> None:
    shared = await formed()
    twins = [NodeRecord(name, "fd00::7") for name in ("n2", "n3")]
    with pytest.raises(ConfigError, match="same address and port"):
        await add_node(Meanwhile(shared, lambda: add_node(shared, twins[0])), twins[1])
    assert [node.name for node in await read_nodes(shared)] == ["n1", "n2"]


async def test_many_that_come_at_once_are_all_let_in() -> None:
    shared = await formed()
    names = [f"n{number}" for number in range(2, 12)]
    await asyncio.gather(*[add_node(shared, NodeRecord(name, f"fd00::{name[1:]}")) for name in names])
    assert sorted(node.name for node in await read_nodes(shared)) == sorted(["n1", *names])


async def test_again_changes_nothing_also_when_the_answer_was_lost() -> None:
    shared = await formed()

    class Deaf(Meanwhile):
        async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
            await super().transact(compares, writes)
            raise Unavailable("the answer is lost")

    node = NodeRecord("n2", "fd00::2")
    with pytest.raises(Unavailable):
        await add_node(Deaf(shared, lambda: asyncio.sleep(0)), node)
    for _ in range(2):
        await add_node(shared, node)
    assert await read_nodes(shared) == [FIRST, node]
    with pytest.raises(ConfigError, match="has a node n2 already"):
        await add_node(shared, NodeRecord("n2", "fd00::3"))


async def test_into_no_cluster_nobody_comes() -> None:
    with pytest.raises(ConfigError, match="no cluster"):
        await add_node(MemoryControlStore(), FIRST)
