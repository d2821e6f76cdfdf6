"""Routes in memory, for tests and the simulator: refuses what the kernel refuses."""

from __future__ import annotations

from ipaddress import IPv6Network

from ssastore.core.routeplan import parse
from ssastore.env import Route
from ssastore.errors import RouteRefused


class MemoryRoutes:
    """``env.Routes`` of an imaginary host.

    Args:
        link: the prefix of the host's link; a next hop outside is refused.
    """

    def __init__(self, link: IPv6Network) -> None:
        self._link = link
        self._routes: dict[str, Route] = {}

    def installed(self) -> set[Route]:
        return set(self._routes.values())

    def add(self, route: Route) -> None:
        try:
            _, via = parse(route)
        except ValueError as error:
            raise RouteRefused(f"{route}: {error}") from error
        if via is not None and via not in self._link:
            raise RouteRefused(f"{route}: the next hop is not on the link {self._link}")
        self._routes[route.prefix] = route

    def remove(self, route: Route) -> None:
        if self._routes.get(route.prefix) == route:
            del self._routes[route.prefix]
