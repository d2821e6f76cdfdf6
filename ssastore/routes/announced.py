"""Routes of a node that tells routers what it accepts: two adapters behind one ``env.Routes``.

Accepting comes before announcing, and withdrawing before accepting ends; what is sent on to a new owner is
not announced any more.  So no router is told of a prefix that this host would refuse, and at a move the new
owner announces while the former one still does (make before break).

What is installed is read back from both.  Where they differ, as after a crash between two steps, the prefix
shows with ``HALF`` for its next hop, which nobody wants: so it is mended, or removed.
"""

from __future__ import annotations

from ssastore.env import Route, Routes

HALF = "::"
"In the place of a next hop: accepted and not announced, or the other way round."


class AnnouncedRoutes:
    """``env.Routes``: every ``local`` one of ``accepted`` stands in ``announced`` too, and nothing else does.

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
        self._halves = {
            prefix: accepted.get(prefix, Route(prefix))
            for prefix in accepted.keys() | announced
            if (prefix in announced) != (prefix in accepted and accepted[prefix].via is None)
        }
        whole = {route for prefix, route in accepted.items() if prefix not in self._halves}
        return whole | {Route(prefix, HALF) for prefix in self._halves}

    def add(self, route: Route) -> None:
        self._accepted.add(route)
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
        self._accepted.remove(route)
