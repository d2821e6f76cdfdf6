"""Routes follow the owners, come back when somebody takes them, and stay while the control store is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import GroupRecord, NodeRecord, PlaneOwner, group_key, node_key
from ssastore.core.clusterview import ClusterView
from ssastore.core.routekeeper import RouteKeeper, Wanted, accepted_by, announced_to_router
from ssastore.env import Route, WatchCompacted, Write
from ssastore.errors import RouteRefused, Unavailable
from ssastore.limits import DRIFT_EVERY_MS
from ssastore.rebalance import form_cluster, read_cluster
from ssastore.routes.memory import MemoryRoutes
from tests.registermodel import Seeded, run_virtually

SERVICE = IPv6Network("2001:db8:5a:1::/64")
LINK = IPv6Network("fd00::/64")
NODES = [NodeRecord(f"n{number}", f"fd00::{number}") for number in range(1, 5)]
MOVED = "2001:db8:5a:1:3ff::/80"
"Group 3ff of plane 0, the last of n1."


class Control(MemoryControlStore):
    """Can be cut off, and can have forgotten its history."""

    is_away = False
    kept_from = 0
    "Revision before which the history is gone."

    async def list(self, prefix: str) -> Any:
        if self.is_away:
            raise Unavailable("away")
        return await super().list(prefix)

    async def watch(self, prefix: str, after_revision: int) -> Any:
        if after_revision < self.kept_from:
            raise WatchCompacted
        async for event in super().watch(prefix, after_revision):
            if self.is_away:
                raise Unavailable("away")
            yield event


class Host:
    """One host that keeps its routes."""

    def __init__(self, control: Control, wanted: Wanted, linger_ms: int = 0) -> None:
        self.control, self.routes = control, MemoryRoutes(LINK)
        self.view = ClusterView(control)
        self.keeper = RouteKeeper(self.view, self.routes, wanted, linger_ms=linger_ms)

    def record(self, group: int) -> GroupRecord:
        return self.view.groups[group]

    async def give(self, group: int, owner: str) -> None:
        """Plane 0 of a group."""
        record = self.record(group)
        owned = PlaneOwner(owner, record.planes[0].epoch + 1)
        changed = replace(record, planes=(owned, *record.planes[1:]))
        await self.control.transact([], [Write(group_key(group), changed.encode())])

    async def expected(self, wanted: Wanted) -> set[Route]:
        cluster = await read_cluster(self.control)
        return wanted(cluster.groups, cluster.nodes)


@asynccontextmanager
async def running(wanted: Wanted, linger_ms: int = 0) -> AsyncIterator[Host]:
    control = Control()
    await form_cluster(control, SERVICE, 3, NODES, now_ms=1, random_bytes=Seeded(1).bytes)
    host = Host(control, wanted, linger_ms)
    await host.view.load()
    host.keeper.begin()
    running = [asyncio.ensure_future(work) for work in (host.view.run(), host.keeper.run())]
    await asyncio.sleep(0)
    yield host
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def play(work: Callable[[Host], Coroutine[Any, Any, None]], wanted: Wanted) -> None:
    async def scenario() -> None:
        async with running(wanted) as host:
            await work(host)

    run_virtually(scenario)


N1 = accepted_by(SERVICE, "n1")
ROUTER = announced_to_router(SERVICE)
A_MOMENT_S = 0.1


def test_node_accepts_just_what_it_owns() -> None:
    async def work(host: Host) -> None:
        pieces = ("::/70", ":1400::/70", ":2800::/70")
        assert host.routes.installed() == {Route(f"2001:db8:5a:1{piece}") for piece in pieces}

    play(work, N1)


def test_router_sends_every_prefix_to_its_owner() -> None:
    async def work(host: Host) -> None:
        routes = host.routes.installed()
        assert len(routes) == 12 and {route.via for route in routes} == {f"fd00::{n}" for n in range(1, 5)}
        assert Route("2001:db8:5a:1:1400::/70", "fd00::1") in routes

    play(work, ROUTER)


@pytest.mark.parametrize("wanted", [N1, ROUTER], ids=["node", "router"])
def test_routes_follow_a_new_owner(wanted: Wanted) -> None:
    async def work(host: Host) -> None:
        before = host.routes.installed()
        for group in range(0x3F0, 0x400):
            await host.give(group, "n2")
        await asyncio.sleep(A_MOMENT_S)
        after = host.routes.installed()
        assert after == await host.expected(wanted) != before
        assert (Route("2001:db8:5a:1:3f0::/76", "fd00::2") in after) == (wanted is ROUTER)

    play(work, wanted)


def test_a_node_goes_on_accepting_what_it_gave_away_for_a_while() -> None:
    """Added at once, removed later: who still comes is told that it is elsewhere now."""

    async def scenario() -> None:
        async with running(N1, linger_ms=500) as host:
            before = host.routes.installed()
            await host.give(0x3FF, "n2")
            await asyncio.sleep(A_MOMENT_S)
            during = host.routes.installed()
            assert before < during
            await asyncio.sleep(0.5)
            assert host.routes.installed() == await host.expected(N1) < during

    run_virtually(scenario)


def test_router_learns_of_a_node_that_came_later() -> None:
    async def work(host: Host) -> None:
        late = NodeRecord("n5", "fd00::5")
        await host.control.transact([], [Write(node_key("n5"), late.encode())])
        await host.give(0x3FF, "n5")
        await asyncio.sleep(A_MOMENT_S)
        assert Route(MOVED, "fd00::5") in host.routes.installed()

    play(work, ROUTER)


def test_what_somebody_else_removed_or_changed_comes_back() -> None:
    async def work(host: Host) -> None:
        wanted = host.routes.installed()
        removed, changed = sorted(wanted)[:2]
        host.routes.remove(removed)
        host.routes.add(replace(changed, via="fd00::9"))
        host.routes.add(Route(MOVED, "fd00::9"))
        await asyncio.sleep(DRIFT_EVERY_MS / 1000 + A_MOMENT_S)
        assert host.routes.installed() == wanted

    play(work, ROUTER)


def test_routes_stay_and_are_kept_while_the_control_store_is_away() -> None:
    async def work(host: Host) -> None:
        wanted = host.routes.installed()
        host.control.is_away = True
        await host.control.transact([], [Write("group/fff/later", None)])  # The watch finds out.
        host.routes.remove(min(wanted))
        await asyncio.sleep(DRIFT_EVERY_MS / 1000 + A_MOMENT_S)
        assert host.routes.installed() == wanted
        host.control.is_away = False
        await host.give(0x3FF, "n2")
        await asyncio.sleep(2)
        assert host.routes.installed() == await host.expected(ROUTER) != wanted

    play(work, ROUTER)


def test_history_that_is_gone_is_read_again() -> None:
    async def work(host: Host) -> None:
        host.control.is_away = True
        await host.give(0x3FF, "n2")
        await asyncio.sleep(A_MOMENT_S)
        _, host.control.kept_from = await MemoryControlStore.list(host.control, "group/")
        host.control.is_away = False
        await asyncio.sleep(4)
        assert Route(MOVED, "fd00::2") in host.routes.installed()

    play(work, ROUTER)


def test_record_that_is_not_understood_stops_nothing_else() -> None:
    async def work(host: Host) -> None:
        await host.control.transact([], [Write(group_key(0x3FE), b"{}")])
        await asyncio.sleep(A_MOMENT_S)
        await host.give(0x3FF, "n2")
        await asyncio.sleep(3)
        assert Route(MOVED, "fd00::2") in host.routes.installed()

    play(work, ROUTER)


def test_refused_route_is_tried_again() -> None:
    async def work(host: Host) -> None:
        refused = 3
        add = host.routes.add

        def grudging(route: Route) -> None:
            nonlocal refused
            if refused:
                refused -= 1
                raise RouteRefused("not now")
            add(route)

        host.routes.add = grudging  # type: ignore[method-assign]
        await host.give(0x3FF, "n2")
        await asyncio.sleep(5)
        assert refused == 0 and Route(MOVED, "fd00::2") in host.routes.installed()

    play(work, ROUTER)
