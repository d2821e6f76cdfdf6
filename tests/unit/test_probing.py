"""Asking nodes themselves: who answers at an address in a prefix, as whom, and what it tells clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import msgpack
import pytest

from ssastore import probing as module
from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import CLUSTER_KEY, NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.groups import MOVING
from ssastore.core.numbers import numbered_slice
from ssastore.core.renumbering import order_renumbering, switched
from ssastore.env import Links, Write
from ssastore.errors import Unavailable
from ssastore.keyspace import service_network
from ssastore.messages import Report
from ssastore.probing import Prober, worker_iids
from ssastore.rebalance import form_cluster
from ssastore.transport.connection import Identity
from tests.cluster import CREDENTIALS, SERVICE, SmallCluster, small_cluster
from tests.direct import SeededRandomness

OLD, NEW = service_network(SERVICE), IPv6Network("2001:db8:77:5::/64")


class Routed:
    """The cluster's links, for those prefixes that are routed."""

    def __init__(self, links: Links, *routed: IPv6Network) -> None:
        self._links = links
        self.routed = set(routed)
        self.dialled: list[IPv6Address] = []

    async def dial(self, address: IPv6Address, port: int, protocol: Any) -> Any:
        self.dialled.append(address)
        if not any(address in service for service in self.routed):
            raise OSError(101, "Network is unreachable")
        return await self._links.dial(address, port, protocol)


class World:
    """Four nodes that say who they are."""

    def __init__(self, cluster: SmallCluster) -> None:
        self.cluster = cluster
        self.links = Routed(cluster.links(), OLD, NEW)
        self.control = MemoryControlStore()
        self.view = ClusterView(self.control)
        for index in range(4):
            self.says(index, node=f"n{index + 1}", worker=0, serial=0)

    def says(self, index: int, **report: Any) -> None:
        """What a node reports of itself."""
        self.cluster.nodes[index].service.describe = _constant(msgpack.packb(report))

    async def form(self) -> None:
        nodes = [
            NodeRecord(f"n{index + 1}", f"fd00::{index + 1}", port=node.port)
            for index, node in enumerate(self.cluster.nodes)
        ]
        await form_cluster(self.control, OLD, 1, nodes, now_ms=1, random_bytes=SeededRandomness().bytes)
        await self.view.load()
        identity = Identity("node", "prober", CREDENTIALS.cluster_secret)
        self.prober = Prober(self.view, identity, self.links, SeededRandomness())


def _constant(body: bytes) -> Callable[[], bytes]:
    return lambda: body


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "ASK_MS", 200)
    async with small_cluster() as cluster:
        made = World(cluster)
        await made.form()
        yield made
        await made.prober.close()


async def test_everybody_answers_in_both_prefixes(world: World) -> None:
    everybody = {f"n{number}": 0 for number in range(1, 5)}
    assert await world.prober.heard(NEW) == await world.prober.heard(OLD) == everybody
    assert [address in NEW for address in world.links.dialled] == 4 * [True] + 4 * [False]


async def test_a_prefix_without_routes_is_answered_by_nobody(world: World) -> None:
    world.links.routed = {OLD}
    assert set((await world.prober.heard(NEW)).values()) == {None}


async def test_a_node_that_does_not_answer_is_named_and_hides_no_other(world: World) -> None:
    await world.cluster.nodes[2].stop()
    assert await world.prober.heard(NEW) == {"n1": 0, "n2": 0, "n3": None, "n4": 0}


@pytest.mark.parametrize(
    "report",
    [
        {"node": "n1", "worker": 0, "serial": 0},
        {"node": "n2", "worker": 1, "serial": 0},
        {"node": "n2", "worker": 0},
        {"node": "n2", "worker": 0, "serial": "0"},
    ],
    ids=["another node", "another worker", "an earlier version", "no number"],
)
async def test_who_answers_as_somebody_else_has_not_answered(world: World, report: dict[str, Any]) -> None:
    world.says(1, **report)
    assert await world.prober.heard(NEW) == {"n1": 0, "n2": None, "n3": 0, "n4": 0}


async def test_the_lowest_serial_of_a_nodes_workers_counts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here all workers of a node are the same one, which says another serial each time it is asked."""
    world.view.nodes["n1"] = replace(world.view.nodes["n1"], workers=3)
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    answers = iter([(0, 7), (1, 3), (2, 5)])

    def describe() -> Any:
        worker, serial = next(answers)
        return msgpack.packb({"node": "n1", "worker": worker, "serial": serial})

    world.cluster.nodes[0].service.describe = describe
    monkeypatch.setattr(module, "worker_iids", _in_order)
    assert (await world.prober.heard(NEW))["n1"] == 3


def _in_order(cluster: Any, node: NodeRecord) -> dict[int, int]:
    return dict(sorted(worker_iids(cluster, node).items()))


async def test_a_worker_is_asked_at_a_slice_that_stays_with_it(world: World) -> None:
    """The address of one that moves leads to somebody else before the gateway knows it."""
    (node,), cluster = [world.view.nodes["n1"]], world.view.cluster()
    first = next(group for group in cluster.groups if group.owners == ("n1",))
    plane = replace(first.planes[0], epoch=2, since=1, state=MOVING, target="n2", target_env=7)
    world.view.groups[first.group] = replace(first, planes=(plane,), cfg=2)
    asked = worker_iids(world.view.cluster(), node)[0]
    assert (
        numbered_slice(first.group).first <= worker_iids(cluster, node)[0] < numbered_slice(first.group).end
    )
    assert asked >= numbered_slice(first.group + 1).first
    # If all of them move there is no other.
    alone = replace(cluster, groups=(world.view.groups[first.group],))
    assert worker_iids(alone, node) == worker_iids(cluster, node)


async def test_it_asks_where_the_service_is_now(world: World) -> None:
    (iid, *_) = worker_iids(world.view.cluster(), world.view.nodes["n1"]).values()
    await world.prober.ask(Report(iid))
    record = switched(await order_renumbering(world.control, NEW, 60))
    await world.control.transact([], [Write(CLUSTER_KEY, record.encode())])
    await world.view.load()
    world.links.routed = {NEW}
    assert await world.prober.reaches("n1")
    assert [address in NEW for address in world.links.dialled] == [False, True]
    world.links.routed = {OLD}
    with pytest.raises(Unavailable):
        await world.prober.ask(Report(iid))
