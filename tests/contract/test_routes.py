"""One suite for every adapter of ``env.Routes``.

The kernel's table is tried in a forked child that is root of its own network; where the machine
forbids that, its half of the suite is skipped with the reason.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import cache
from ipaddress import IPv6Network

import pytest
from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import RTM_NEWROUTE, rt_type
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ssastore.core.routeplan import diff
from ssastore.env import QUIET, Route, Routes
from ssastore.errors import NamespaceRefused, RouteRefused
from ssastore.lab.fabric import Fabric, infra_of
from ssastore.lab.namespaces import in_new_namespaces
from ssastore.routes.announced import HALF, AnnouncedRoutes
from ssastore.routes.bgpspeaker import BgpRoutes
from ssastore.routes.memory import MemoryRoutes
from ssastore.routes.netlink import ANNOUNCED, TABLE_LOCAL, TABLE_MAIN, NetlinkRoutes
from ssastore.routes.rtnetlink import Rtnetlink

SERVICE = IPv6Network("fd5a:0:0:1::/64")
FIRST, SECOND = "fd5a::11", "fd5a::12"
"Next hops on the host's link."

WIDE, NARROW = "fd5a:0:0:1:1000::/68", "fd5a:0:0:1:1a3f::/80"

Claim = Callable[[Routes], None]
claims: list[Claim] = []


def claim(check: Claim) -> Claim:
    """Mark a check that every adapter has to pass on a fresh host."""
    claims.append(check)
    return check


@claim
def nothing_is_installed_at_first(routes: Routes) -> None:
    assert routes.installed() == set()


@claim
def added_routes_are_read_back(routes: Routes) -> None:
    wanted = {Route(WIDE), Route(NARROW, FIRST), Route("fd5a::1:ffff:ffff:ffff:fff1/128", SECOND)}
    for route in wanted:
        routes.add(route)
    assert routes.installed() == wanted


@claim
def adding_again_changes_nothing(routes: Routes) -> None:
    for _ in range(2):
        routes.add(Route(WIDE))
        routes.add(Route(NARROW, FIRST))
    assert routes.installed() == {Route(WIDE), Route(NARROW, FIRST)}


@claim
def add_takes_the_place_of_the_same_prefix(routes: Routes) -> None:
    for action in (FIRST, SECOND, None, FIRST, None):
        routes.add(Route(NARROW, action))
        assert routes.installed() == {Route(NARROW, action)}


@claim
def removing_what_was_replaced_leaves_the_new_route(routes: Routes) -> None:
    for old, new in ((FIRST, SECOND), (None, FIRST), (FIRST, None)):
        routes.add(Route(NARROW, old))
        routes.add(Route(NARROW, new))
        routes.remove(Route(NARROW, old))
        assert routes.installed() == {Route(NARROW, new)}


@claim
def removal_takes_one_prefix_only(routes: Routes) -> None:
    routes.add(Route(WIDE, FIRST))
    routes.add(Route(NARROW, FIRST))
    routes.remove(Route(WIDE, FIRST))
    assert routes.installed() == {Route(NARROW, FIRST)}


@claim
def removing_what_is_gone_is_no_error(routes: Routes) -> None:
    routes.remove(Route(WIDE))
    routes.add(Route(WIDE))
    routes.remove(Route(WIDE))
    routes.remove(Route(WIDE))
    assert routes.installed() == set()


@claim
def removed_prefix_can_be_added_again(routes: Routes) -> None:
    routes.add(Route(NARROW, FIRST))
    routes.remove(Route(NARROW, FIRST))
    routes.add(Route(NARROW))
    assert routes.installed() == {Route(NARROW)}


@claim
def what_cannot_be_is_refused_and_leaves_no_trace(routes: Routes) -> None:
    routes.add(Route(NARROW, FIRST))
    for route in (
        Route("fd5a:0:0:1::1/64"),
        Route("10.0.0.0/8"),
        Route("FD5A:0:0:1::/64"),
        Route(WIDE, "fd5a:0:0:0::11"),
        Route(WIDE, "fd77::1"),
        Route(NARROW, "fd77::1"),
    ):
        with pytest.raises(RouteRefused):
            routes.add(route)
    assert routes.installed() == {Route(NARROW, FIRST)}


@claim
def plans_converge(routes: Routes) -> None:
    """What ``diff`` makes of sets that overlap, contain and contradict each other is taken as it is."""
    cover = [IPv6Network("fd5a:0:0:1:1000::/68"), *IPv6Network("fd5a:0:0:1:1000::/68").subnets(3)]
    for actions in ((FIRST,), (None, FIRST), (SECOND, None, None), (None,), ()):
        wanted = {
            Route(str(network), actions[at % len(actions)]) for at, network in enumerate(cover) if actions
        }
        for change in diff(wanted, routes.installed()):
            change.apply(routes)
        assert routes.installed() == wanted
        cover.pop(1)


@pytest.mark.parametrize("check", claims, ids=lambda check: check.__name__)
def test_memory(check: Claim) -> None:
    check(MemoryRoutes(infra_of(SERVICE)))


@pytest.mark.parametrize("check", claims, ids=lambda check: check.__name__)
def test_announced(check: Claim) -> None:
    check(AnnouncedRoutes(MemoryRoutes(infra_of(SERVICE)), MemoryRoutes(infra_of(SERVICE))))


@pytest.mark.lab
@pytest.mark.parametrize("check", claims, ids=lambda check: check.__name__)
def test_announced_by_netlink(check: Claim) -> None:
    _on_a_host(lambda: check(AnnouncedRoutes(NetlinkRoutes(), NetlinkRoutes(TABLE_MAIN, ANNOUNCED))))


@pytest.mark.parametrize("check", claims, ids=lambda check: check.__name__)
async def test_announced_by_bgp(check: Claim) -> None:
    """Whether somebody hears it or not."""
    announced = BgpRoutes([], number=65_001, source=infra_of(SERVICE)[0x11])
    check(AnnouncedRoutes(MemoryRoutes(infra_of(SERVICE)), announced))


class Watched(MemoryRoutes):
    """Notes the order of what is done to several tables; refuses when told to."""

    def __init__(self, name: str, done: list[str]) -> None:
        super().__init__(infra_of(SERVICE))
        self._name = name
        self._done = done
        self.refuses = False

    def add(self, route: Route) -> None:
        if self.refuses:
            raise RouteRefused(f"{route}")
        super().add(route)
        self._done.append(f"+{self._name} {route.via or 'local'}")

    def remove(self, route: Route) -> None:
        if route in self.installed():
            self._done.append(f"-{self._name} {route.via or 'local'}")
        super().remove(route)


def test_nothing_is_announced_that_is_not_accepted() -> None:
    """At a move the new owner accepts first; the former one sends on first; who ends withdraws first."""
    done: list[str] = []
    accepted, announced = Watched("accepted", done), Watched("announced", done)
    routes = AnnouncedRoutes(accepted, announced)
    accepted.refuses = True
    with pytest.raises(RouteRefused):
        routes.add(Route(NARROW))
    assert announced.installed() == set()
    accepted.refuses = False
    routes.add(Route(NARROW))
    routes.add(Route(NARROW, FIRST))
    routes.add(Route(NARROW))
    routes.remove(Route(NARROW))
    assert done == [
        *("+accepted local", "+announced local"),
        *(f"+accepted {FIRST}", "-announced local"),
        *("+accepted local", "+announced local"),
        *("-announced local", "-accepted local"),
    ]


def test_what_is_on_its_way_is_accepted_and_not_announced_yet() -> None:
    """Whose it becomes announces it, and who gives it up withdraws before it ends to accept."""
    done: list[str] = []
    accepted, announced = Watched("accepted", done), Watched("announced", done)
    routes = AnnouncedRoutes(accepted, announced)
    for route in (Route(NARROW, QUIET), Route(NARROW), Route(NARROW, QUIET)):
        routes.add(route)
        assert routes.installed() == {route}
        assert announced.installed() == {route} - {Route(NARROW, QUIET)}
    routes.remove(Route(NARROW, QUIET))
    assert routes.installed() == set()
    again = "+accepted local"
    assert done == [again, again, "+announced local", "-announced local", again, "-accepted local"]


@pytest.mark.parametrize("wanted", [None, Route(NARROW), Route(NARROW, FIRST), Route(NARROW, QUIET)])
@pytest.mark.parametrize("accepts", [None, Route(NARROW), Route(NARROW, FIRST)])
@pytest.mark.parametrize("announces", [False, True])
def test_what_was_left_half_done_is_seen_and_mended(
    wanted: Route | None, accepts: Route | None, announces: bool
) -> None:
    """By the same diff that keeps everything else, whatever a crash or somebody's hand has left."""
    accepted, announced = MemoryRoutes(infra_of(SERVICE)), MemoryRoutes(infra_of(SERVICE))
    if accepts is not None:
        accepted.add(accepts)
    if announces:
        announced.add(Route(NARROW))
    routes = AnnouncedRoutes(accepted, announced)
    is_whole = announces == (accepts == Route(NARROW))
    half = Route(NARROW, HALF if announces else QUIET)
    assert routes.installed() == ({accepts} - {None} if is_whole else {half})
    goal = {wanted} if wanted is not None else set()
    for change in diff(goal, routes.installed()):
        change.apply(routes)
    assert routes.installed() == goal
    assert accepted.installed() == {Route(NARROW) if route.via == QUIET else route for route in goal}
    assert announced.installed() == {Route(NARROW)} & goal


@pytest.mark.lab
@pytest.mark.parametrize("table", [TABLE_LOCAL, TABLE_MAIN], ids=["local", "main"])
@pytest.mark.parametrize("check", claims, ids=lambda check: check.__name__)
def test_netlink(check: Claim, table: int) -> None:
    _on_a_host(lambda: check(NetlinkRoutes(table)))


@pytest.mark.lab
def test_netlink_leaves_routes_of_others_alone() -> None:
    """They are not listed, not replaced and not removed."""

    def work() -> None:
        kernel, routes = Rtnetlink(), NetlinkRoutes(TABLE_MAIN)
        kernel.request(RTM_NEWROUTE, _foreign(WIDE), NLM_F_CREATE | NLM_F_EXCL)
        assert routes.installed() == set()
        routes.remove(Route(WIDE, FIRST))
        with pytest.raises(RouteRefused, match="File exists"):
            routes.add(Route(WIDE, FIRST))
        with pytest.raises(FileExistsError):
            kernel.request(RTM_NEWROUTE, _foreign(WIDE), NLM_F_CREATE | NLM_F_EXCL)

    _on_a_host(work)


@pytest.mark.lab
def test_netlink_takes_over_routes_of_an_earlier_life() -> None:
    def work() -> None:
        earlier, routes = NetlinkRoutes(), NetlinkRoutes()
        earlier.add(Route(NARROW, FIRST))
        earlier.close()
        routes.add(Route(NARROW, SECOND))
        assert routes.installed() == {Route(NARROW, SECOND)}

    _on_a_host(work)


@pytest.mark.lab
def test_netlink_names_the_kernels_reason() -> None:
    def work() -> None:
        with pytest.raises(RouteRefused, match="No route to host") as caught:
            NetlinkRoutes().add(Route(NARROW, "fd77::1"))
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EHOSTUNREACH

    _on_a_host(work)


@pytest.mark.lab
def test_netlink_reads_back_more_than_one_datagram() -> None:
    wanted = {Route(str(network)) for network in SERVICE.subnets(10)}

    def work() -> None:
        routes = NetlinkRoutes()
        for route in wanted:
            routes.add(route)
        assert routes.installed() == wanted

    _on_a_host(work)


def _on_a_host(work: Callable[[], None]) -> None:
    """Call ``work`` on a host whose link has the next hops of this suite."""

    def on_host() -> None:
        fabric = Fabric.build(SERVICE, ["n1", "n2"])
        assert [str(fabric.address_of(host)) for host in fabric.hosts] == [FIRST, SECOND]
        work()

    if _refusal():
        pytest.skip(_refusal())
    in_new_namespaces(on_host)


@cache
def _refusal() -> str:
    """Why this machine gives us no namespaces; empty when it does."""
    try:
        in_new_namespaces(bool)
    except NamespaceRefused as error:
        return str(error)
    return ""


def _foreign(prefix: str) -> rtmsg:
    network = IPv6Network(prefix)
    message = rtmsg()
    message.update(family=10, dst_len=network.prefixlen, table=TABLE_MAIN, proto=4, type=rt_type["unicast"])
    message["attrs"] = [["RTA_DST", str(network.network_address)], ["RTA_GATEWAY", SECOND]]
    return message
