"""Routes in the kernel, by netlink: AnyIP on a node, what it announces, next hops on a router.

    ip -6 route show table all proto 74        lists those of nodes, and nothing else; 75: of gateways

All routes of one adapter stand in one table, so that the longest prefix wins
among them whatever its kind.  The kernel asks the tables one after the other:
were ``local`` in table local and next hops in table main, a ``local`` /68 would
win over the next hop of a /80 inside it that has moved away.  So a node keeps
both in table local; a router has its next hops in table main.  What a node announces stands
in table main too, for a routing daemon to learn, which does not look at ``local`` routes: as
``unreachable``, which is true of what no ``local`` route accepts.

Routes of others are not touched: ours carry our protocol number, a removal
names it, and a prefix for which somebody else has a route is refused.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Mapping

from ssastore.core.routeplan import parse
from ssastore.env import Route
from ssastore.errors import RouteRefused
from ssastore.routes.rtnetlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Rtnetlink

ROUTE_PROTOCOL = 74
"Our mark on a route (rtm_protocol). Nobody's in the lists of the kernel and of iproute2."
FRONT_ROUTE_PROTOCOL = 75
"On routes of the front plane: a gateway keeps them on hosts where a node keeps the others."

TABLE_MAIN = 254
TABLE_LOCAL = 255

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
_RTMSG = struct.Struct("=8BI")
"linux/rtnetlink.h: family, length of destination and of source, tos, table, protocol, scope, type; flags."
_DST_LENGTH_AT = 1
_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_INDEX = struct.Struct("=I")
_Request = tuple[bytes, list[tuple[int, bytes]]]
_ANY_ADDRESS = bytes(16)
"A default route has no destination."

ACCEPTED, ANNOUNCED = "local", "unreachable"
"The kernel's type of a route without a next hop."
_TYPES = {ACCEPTED: 2, ANNOUNCED: 7}
_UNICAST = 1

LOOPBACK_INDEX = 1
"lo is the first interface of every network namespace."


class NetlinkRoutes:
    """``env.Routes`` of the network namespace in which the calling thread is at construction.

    A call takes some 0.1 ms and waits for nothing, so it may be made on an event loop.

    Args:
        table: where our routes stand. ``TABLE_LOCAL`` for a node, ``TABLE_MAIN`` for a router.
        plain: what a route without a next hop is, ``ACCEPTED`` or ``ANNOUNCED``.
        protocol: what they are marked with; one adapter in a table keeps those with one mark.
    """

    def __init__(
        self, table: int = TABLE_LOCAL, plain: str = ACCEPTED, protocol: int = ROUTE_PROTOCOL
    ) -> None:
        self._table = table
        self._protocol = protocol
        self._plain = _TYPES[plain]
        self._rtnetlink = Rtnetlink()
        # What we last knew to be installed. It only decides whether an add may replace: one that
        # always replaced would take the place of somebody else's route.
        self._ours: dict[str, Route] = {}

    def close(self) -> None:
        """Close the socket; the routes stay."""
        self._rtnetlink.close()

    def installed(self) -> set[Route]:
        """Ours, read back.

        Raises:
            RouteRefused: the kernel did not let us read.
        """
        pattern = _RTMSG.pack(socket.AF_INET6, 0, 0, 0, self._table, self._protocol, 0, 0, 0)
        try:
            found = self._rtnetlink.dump_plainly(RTM_GETROUTE, pattern, _RTMSG)
        except OSError as error:
            raise RouteRefused(f"reading the routes: {error.strerror}") from error
        routes = {_route_of(fields[_DST_LENGTH_AT], attributes) for fields, attributes in found}
        self._ours = {route.prefix: route for route in routes}
        return routes

    def add(self, route: Route) -> None:
        request = self._encoded(route)
        try:
            if route.prefix not in self._ours:
                self._create(route, request)
            else:
                self._rtnetlink.request_plainly(RTM_NEWROUTE, *request, NLM_F_CREATE | NLM_F_REPLACE)
        except OSError as error:
            raise RouteRefused(f"{route}: {error.strerror}") from error
        self._ours[route.prefix] = route

    def remove(self, route: Route) -> None:
        try:
            self._rtnetlink.request_plainly(RTM_DELROUTE, *self._encoded(route))
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise RouteRefused(f"{route}: {error.strerror}") from error
        if self._ours.get(route.prefix) == route:
            del self._ours[route.prefix]

    def _create(self, route: Route, request: _Request) -> None:
        """Install a route whose prefix has none that we know of."""
        try:
            self._rtnetlink.request_plainly(RTM_NEWROUTE, *request, NLM_F_CREATE | NLM_F_EXCL)
        except FileExistsError:
            # Ours from an earlier life of this process may be replaced, somebody else's may not.
            self.installed()
            if route.prefix not in self._ours:
                raise
            self._rtnetlink.request_plainly(RTM_NEWROUTE, *request, NLM_F_CREATE | NLM_F_REPLACE)

    def _encoded(self, route: Route) -> _Request:
        try:
            network, via = parse(route)
        except ValueError as error:
            raise RouteRefused(f"{route}: {error}") from error
        kind = self._plain if via is None else _UNICAST
        fields = _RTMSG.pack(
            socket.AF_INET6, network.prefixlen, 0, 0, self._table, self._protocol, 0, kind, 0
        )
        # The kernel tells routes of one prefix apart by next hop and device alone: a removal of
        # ``local`` without device would take the next hop that has come in its place.
        where = (_RTA_OIF, _INDEX.pack(LOOPBACK_INDEX)) if via is None else (_RTA_GATEWAY, via.packed)
        return fields, [(_RTA_DST, network.network_address.packed), where]


def _route_of(length: int, attributes: Mapping[int, bytes]) -> Route:
    gateway = attributes.get(_RTA_GATEWAY)
    prefix = f"{_text_of(attributes.get(_RTA_DST, _ANY_ADDRESS))}/{length}"
    return Route(prefix, None if gateway is None else _text_of(gateway))


def _text_of(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, address)
