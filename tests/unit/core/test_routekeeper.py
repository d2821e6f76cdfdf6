"""Routes follow the owners, come back when somebody takes them, and stay while the control store is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import CLUSTER_KEY, NodeRecord, node_key
from ssastore.core.clusterview import ClusterView
from ssastore.core.forwarding import Forwarding
from ssastore.core.groups import MOVING, GroupRecord, PlaneOwner, group_key
from ssastore.core.planner import owned_slices
from ssastore.core.renumbering import order_renumbering, switched, withdrawn
from ssastore.core.routekeeper import RouteKeeper, Wanted, accepted_by, announced_to_router
from ssastore.env import Route, WatchCompacted, Write
from ssastore.errors import Overloaded, RouteRefused, StoreFull, Unavailable
from ssastore.keyspace import minimal_cover
from ssastore.limits import DRIFT_EVERY_MS, ROUTES_GATHERED_MS
from ssastore.rebalance import form_cluster, read_cluster
from ssastore.routes.memory import MemoryRoutes
from tests.registermodel import Seeded, run_virtually

SERVICE = IPv6Network("2001:db8:5a:1::/64")
OTHER = IPv6Network("2001:db8:77:5::/64")
LINK = IPv6Network("fd00::/64")
NODES = [NodeRecord(f"n{number}", f"fd00::{number}") for number in range(1, 5)]
MOVED = "2001:db8:5a:1:3ff::/80"
"Group 3ff of plane 0, the last of n1."


class Control(MemoryControlStore):
    """Can be cut off, and can have forgotten its history."""

    is_away = False
    away: Exception = Unavailable("away")
    kept_from = 0
    "Revision before which the history is gone."

    async def list(self, prefix: str) -> Any:
        if self.is_away:
            raise self.away
        return await super().list(prefix)

    async def watch(self, prefix: str, after_revision: int) -> Any:
        if after_revision < self.kept_from:
            raise WatchCompacted
        async for event in super().watch(prefix, after_revision):
            if self.is_away:
                raise self.away
            yield event


class Host:
    """One host that keeps its routes."""

    def __init__(
        self, control: Control, wanted: Wanted, linger_ms: int = 0, forwarding: Forwarding | None = None
    ) -> None:
        self.control, self.routes = control, MemoryRoutes(LINK)
        self.view = ClusterView(control)
        self.keeper = RouteKeeper(self.view, self.routes, wanted, linger_ms=linger_ms, forwarding=forwarding)

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
        return wanted(cluster.record.networks, cluster.groups, cluster.nodes)


@asynccontextmanager
async def running(
    wanted: Wanted, linger_ms: int = 0, forwarding: Forwarding | None = None
) -> AsyncIterator[Host]:
    control = Control()
    await form_cluster(control, SERVICE, 3, NODES, now_ms=1, random_bytes=Seeded(1).bytes)
    host = Host(control, wanted, linger_ms, forwarding)
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


N1 = accepted_by("n1")
ROUTER = announced_to_router()
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


def test_what_a_node_gave_away_is_sent_on_when_it_is_not_accepted_any_more() -> None:
    """Without a moment between the two, and until its time is over."""

    async def scenario() -> None:
        async with running(N1, 500, Forwarding("n1", keep_s=10)) as host:
            sent_on = Route(MOVED, "fd00::2")
            before = host.routes.installed()
            await host.give(0x3FF, "n2")
            await asyncio.sleep(A_MOMENT_S)
            assert before < host.routes.installed() and sent_on not in host.routes.installed()
            await asyncio.sleep(0.5)
            assert host.routes.installed() == await host.expected(N1) | {sent_on}
            await asyncio.sleep(DRIFT_EVERY_MS / 1000)
            assert sent_on in host.routes.installed()
            await asyncio.sleep(10)
            assert host.routes.installed() == await host.expected(N1)

    run_virtually(scenario)


def test_changes_elsewhere_keep_nothing_that_was_given_away() -> None:
    """A plan changes some record many times a second for minutes."""

    async def scenario() -> None:
        async with running(N1, 500, Forwarding("n1", keep_s=3)) as host:
            given, gone_at, ended_at = asyncio.get_running_loop().time(), 0.0, 0.0
            await host.give(0x3FF, "n2")
            for group in range(0x400, 0x420):
                await host.give(group, "n1" if host.record(group).planes[0].owner == "n2" else "n2")
                await asyncio.sleep(0.2)
                now, installed = asyncio.get_running_loop().time(), host.routes.installed()
                if Route("2001:db8:5a:1::/70") not in installed and not gone_at:
                    gone_at = now - given
                    assert Route(MOVED, "fd00::2") in installed
                if gone_at and Route(MOVED, "fd00::2") not in installed and not ended_at:
                    ended_at = now - given
            assert 0.5 <= gone_at < 0.8 and 3.5 <= ended_at < 3.8

    run_virtually(scenario)


def test_what_goes_further_is_sent_further_and_what_comes_back_is_accepted() -> None:
    async def scenario() -> None:
        async with running(N1, 500, Forwarding("n1", keep_s=10)) as host:
            await host.give(0x3FF, "n2")
            await host.give(0x3FE, "n2")
            await asyncio.sleep(1)
            assert Route("2001:db8:5a:1:3fe::/79", "fd00::2") in host.routes.installed()
            await host.control.transact([], [Write(node_key("n5"), NodeRecord("n5", "fd00::5").encode())])
            await host.give(0x3FF, "n5")
            await host.give(0x3FE, "n1")
            await asyncio.sleep(1)
            expected = await host.expected(N1)
            assert host.routes.installed() == expected | {Route(MOVED, "fd00::5")}

    run_virtually(scenario)


def test_where_nothing_can_be_sent_on_what_was_given_away_goes_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The new owner is on another link: the kernel refuses it as next hop."""

    async def scenario() -> None:
        async with running(N1, 500, Forwarding("n1", keep_s=10)) as host:
            await host.control.transact([], [Write(node_key("n5"), NodeRecord("n5", "fd77::5").encode())])
            await host.give(0x3FF, "n5")
            await asyncio.sleep(1)
            assert host.routes.installed() == await host.expected(N1)
            await host.give(0x3FE, "n2")
            await asyncio.sleep(1)
            sent_on = Route("2001:db8:5a:1:3fe::/80", "fd00::2")
            assert host.routes.installed() == await host.expected(N1) | {sent_on}

    run_virtually(scenario)
    assert [record.message for record in caplog.records] == ["routes.not_forwarded"]


def _below(routes: set[Route], start: str) -> set[Route]:
    return {route for route in routes if route.prefix.startswith(start)}


@pytest.mark.parametrize("wanted", [N1, ROUTER], ids=["node", "router"])
def test_while_a_cluster_is_renumbered_both_prefixes_are_there(wanted: Wanted) -> None:
    """The former one goes when the record says so; a node goes on accepting it for a moment, as all that it
    gives away. What moves meanwhile moves in both."""

    async def scenario() -> None:
        async with running(wanted, linger_ms=500, forwarding=Forwarding("n1", keep_s=10)) as host:
            before = host.routes.installed()
            record = await order_renumbering(host.control, OTHER)
            await asyncio.sleep(A_MOMENT_S)
            during = host.routes.installed()
            assert _below(during, "2001:db8:5a:1:") == before and len(during) == 2 * len(before)
            assert during == await host.expected(wanted)
            await host.give(0x3FF, "n2")
            await asyncio.sleep(1)
            sent_on = {Route("2001:db8:77:5:3ff::/80", "fd00::2"), Route(MOVED, "fd00::2")}
            assert host.routes.installed() >= sent_on
            done = withdrawn(switched(record))
            await host.control.transact([], [Write(CLUSTER_KEY, done.encode())])
            await asyncio.sleep(A_MOMENT_S)
            assert bool(_below(host.routes.installed(), "2001:db8:5a:1:")) == (wanted is N1)
            await asyncio.sleep(0.6)
            left = await host.expected(wanted)
            assert host.routes.installed() == left | {Route("2001:db8:77:5:3ff::/80", "fd00::2")}
            assert not _below(left, "2001:db8:5a:1:")

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


runs = st.tuples(st.integers(0, 4095), st.integers(1, 700), st.sampled_from(NODES), st.booleans())
"First group, how many, who gets them, and whether they are still on their way to somebody."


@settings(max_examples=20)
@given(st.lists(st.lists(runs, max_size=6), min_size=3, max_size=3), st.integers(0, 4095))
def test_routes_are_the_fewest_prefixes_of_what_each_node_owns(planes: Any, turn: int) -> None:
    """A slice that is handed over is its owner's until the record says otherwise."""
    owned = [[PlaneOwner("n4")] * 4096, [PlaneOwner("gone")] * 4096, [PlaneOwner("n1")] * 4096]
    for by_group, changes in zip(owned, planes, strict=True):
        for first, count, node, is_moving in changes:
            moving = PlaneOwner(node.name, 3, MOVING, 1, since=1, target="n3", target_env=2)
            found = moving if is_moving else PlaneOwner(node.name, 3)
            by_group[first : first + count] = [found] * len(by_group[first : first + count])
    records = [GroupRecord(group, tuple(found)) for group, found in enumerate(zip(*owned, strict=True))]
    records = records[turn:] + records[:turn]
    covers = {node: minimal_cover(owned_slices(records, node.name)) for node in NODES}
    assert ROUTER((SERVICE,), records, NODES) == {
        Route(str(piece.network(SERVICE)), node.address) for node, cover in covers.items() for piece in cover
    }
    assert N1((SERVICE,), records, NODES) == {
        Route(str(piece.network(SERVICE))) for piece in covers[NODES[0]]
    }


def refuse(host: Host, *prefixes: str) -> None:
    """Somebody else holds them."""
    add = host.routes.add

    def grudging(route: Route) -> None:
        if route.prefix in prefixes:
            raise RouteRefused(f"{route.prefix}: File exists")
        add(route)

    host.routes.add = grudging  # type: ignore[method-assign]


@pytest.mark.parametrize("linger_ms", [0, 3000])
def test_a_prefix_that_somebody_else_holds_stops_no_other(linger_ms: int) -> None:
    """Nor do addresses lose a route that they have because they cannot get another."""

    async def scenario() -> None:
        async with running(ROUTER, linger_ms) as host:
            add, before = host.routes.add, host.routes.installed()
            refuse(host, MOVED)
            await host.give(0x3FF, "n2")
            await host.give(0x7FF, "n3")
            await asyncio.sleep(10)
            found, expected = host.routes.installed(), await host.expected(ROUTER)
            assert Route("2001:db8:5a:1:7ff::/80", "fd00::3") in found
            assert expected - found == {Route(MOVED, "fd00::2")}
            # The old prefix around it stays; the one around the other has gone.
            around = Route("2001:db8:5a:1::/70", "fd00::1")
            assert found - expected == {around} and around in before
            host.routes.add = add  # type: ignore[method-assign]
            await asyncio.sleep(5)
            assert host.routes.installed() == expected

    run_virtually(scenario)


def test_what_is_inside_a_refused_prefix_stays() -> None:
    async def work(host: Host) -> None:
        for group in range(0x3F0, 0x3FF):
            await host.give(group, "n2")
        await asyncio.sleep(A_MOMENT_S)
        before = {route for route in host.routes.installed() if ":3f" in route.prefix}
        refuse(host, "2001:db8:5a:1:3f0::/76")
        await host.give(0x3FF, "n2")
        await asyncio.sleep(A_MOMENT_S)
        assert len(before) == 5 and before <= host.routes.installed()

    play(work, ROUTER)


def test_a_prefix_that_cannot_be_had_is_told_at_the_start_when_all_others_are_set() -> None:
    async def scenario() -> None:
        control = Control()
        await form_cluster(control, SERVICE, 3, NODES, now_ms=1, random_bytes=Seeded(1).bytes)
        host = Host(control, N1)
        await host.view.load()
        refuse(host, "2001:db8:5a:1:1400::/70")
        with pytest.raises(RouteRefused, match="File exists"):
            host.keeper.begin()
        assert len(host.routes.installed()) == 2

    run_virtually(scenario)


@pytest.mark.parametrize("error", [Overloaded("busy"), StoreFull("full"), OSError("odd")], ids=repr)
@pytest.mark.parametrize("at", ["watch", "list"])
def test_view_goes_on_after_any_word_of_the_control_store(error: Exception, at: str) -> None:
    async def work(host: Host) -> None:
        host.control.is_away = True
        host.control.away = error
        if at == "list":
            _, host.control.kept_from = await MemoryControlStore.list(host.control, "group/")
            host.control.kept_from += 1
        await host.give(0x3FE, "n2")
        await asyncio.sleep(3)
        host.control.is_away = False
        await host.give(0x3FF, "n2")
        await asyncio.sleep(4)
        assert Route("2001:db8:5a:1:3fe::/79", "fd00::2") in host.routes.installed()

    play(work, ROUTER)


def test_the_first_change_is_made_at_once_and_those_that_follow_together() -> None:
    """A slice that moved leads to its new owner when that is known; a plan is not thousands of changes."""

    async def work(host: Host) -> None:
        loop, seen = asyncio.get_running_loop(), []
        add = host.routes.add

        def noted(route: Route) -> None:
            seen.append(loop.time())
            add(route)

        host.routes.add = noted  # type: ignore[method-assign]
        await asyncio.sleep(A_MOMENT_S)
        began = loop.time()
        for group in range(100, 110):
            await host.give(group, "n2")
            await asyncio.sleep(0.001)
        await asyncio.sleep(A_MOMENT_S)
        assert seen[0] - began < 0.001
        assert len(set(seen)) == 2 and seen[-1] - began >= ROUTES_GATHERED_MS / 1000
        assert host.routes.installed() == await host.expected(ROUTER)

    play(work, ROUTER)


def counted_reads(host: Host) -> list[float]:
    """When the routes of a host are read back, from now on."""
    reads: list[float] = []
    installed, loop = host.routes.installed, asyncio.get_running_loop()

    def counted() -> set[Route]:
        reads.append(loop.time())
        return installed()

    host.routes.installed = counted  # type: ignore[method-assign]
    return reads


def test_a_change_of_owner_does_not_wait_until_all_routes_are_read() -> None:
    """Of a plan there are many, and on a router thousands of routes: they are read from time to time."""

    async def work(host: Host) -> None:
        reads = counted_reads(host)
        for group in range(100, 400, 10):
            await host.give(group, "n2")
            await asyncio.sleep(2 * ROUTES_GATHERED_MS / 1000)
        assert not reads
        assert host.routes.installed() == await host.expected(ROUTER)

    play(work, ROUTER)


def test_routes_are_read_back_while_one_change_follows_the_other() -> None:
    async def work(host: Host) -> None:
        reads = counted_reads(host)
        removed = min(host.keeper._wanted)
        host.routes.remove(removed)
        for group in range(0, 0x400, 32):
            await host.give(group, "n2")
            await asyncio.sleep(DRIFT_EVERY_MS / 8000)
        assert 2 <= len(reads) <= 5
        assert host.routes.installed() == await host.expected(ROUTER)

    play(work, ROUTER)
