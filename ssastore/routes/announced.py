"""Routes of a host that tells routers what it accepts: two adapters behind one ``env.Routes``.

Accepting comes before announcing, and withdrawing before accepting ends; what is sent on to a new owner is
not announced any more.  So no router is told of a prefix that this host would refuse, and at a move the new
owner announces while the former one still does (make before break).  What is on its way to a gateway is
accepted and not announced yet: ``QUIET`` stands in the place of its next hop.

What is installed is read back from both.  Where they differ, as after a crash between two steps, the prefix
shows with ``QUIET`` or ``HALF`` for its next hop: so it is mended, or removed.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Protocol

from ssastore.env import QUIET, Route, Routes
from ssastore.routes.bgpspeaker import BgpRoutes, parse_neighbours
from ssastore.routes.netlink import ANNOUNCED, ROUTE_PROTOCOL, TABLE_MAIN, NetlinkRoutes

HALF = "::"
"In the place of a next hop: announced, and not accepted. Nobody wants that."


class AnnouncedRoutes:
    """``env.Routes``: every ``local`` one of ``accepted`` that is not ``QUIET`` stands in ``announced`` too.

    Args:
        accepted: the host's own, with what it sends on.
        announced: what routers are told, all of it without a next hop.
    """

    def __init__(self, accepted: Routes, announced: Routes) -> None:
        self._accepted = accepted
        self._announced = announced
        self._halves: dict[str, Route] = {}
        "What is accepted of each prefix that was read back as half done."

    def installed(self) -> set[Route]:
        accepted = {route.prefix: route for route in self._accepted.installed()}
        announced = {route.prefix for route in self._announced.installed()}
        plain = {prefix for prefix, route in accepted.items() if route.via is None}
        self._halves = {prefix: accepted.get(prefix, Route(prefix)) for prefix in announced - plain}
        whole = {route for prefix, route in accepted.items() if prefix not in self._halves}
        quiet = plain - announced
        found = {Route(route.prefix, QUIET) if route.prefix in quiet else route for route in whole}
        return found | {Route(prefix, HALF) for prefix in self._halves}

    def add(self, route: Route) -> None:
        is_quiet = route.via == QUIET
        if is_quiet:
            self._announced.remove(Route(route.prefix))
        self._accepted.add(Route(route.prefix) if is_quiet else route)
        if route.via is None:
            self._announced.add(route)
        else:
            self._announced.remove(Route(route.prefix))
        self._halves.pop(route.prefix, None)

    def remove(self, route: Route) -> None:
        if route.via is None or route.via == HALF:
            self._announced.remove(Route(route.prefix))
        if route.via == HALF:
            route = self._halves.pop(route.prefix, Route(route.prefix))
        self._accepted.remove(Route(route.prefix) if route.via == QUIET else route)


class Announcing(Protocol):
    """Settings of a node or gateway that say how routers hear of it."""

    @property
    def announce(self) -> str: ...

    @property
    def bgp_as(self) -> int: ...

    @property
    def bgp_neighbours(self) -> str: ...


def announcer(
    settings: Announcing, source: IPv6Address, protocol: int = ROUTE_PROTOCOL
) -> NetlinkRoutes | BgpRoutes | None:
    """Where routers hear of what is accepted; None: they are told by somebody else.

    ``source``: the host's own address. ``protocol``: the mark on routes for a daemon on the host.
    """
    if settings.announce == "kernel":
        return NetlinkRoutes(TABLE_MAIN, ANNOUNCED, protocol)
    if settings.announce == "bgp":
        return BgpRoutes(parse_neighbours(settings.bgp_neighbours), number=settings.bgp_as, source=source)
    return None
