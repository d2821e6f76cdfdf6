"""Wanted routes against installed routes -> ordered changes. Pure.

A host has at most one route of ours for a prefix: ``local`` or one next hop.
``Routes.add`` takes the place of the route with the same prefix, so a new next
hop is one change and there is no moment without a route.

Order: first what is added, longest prefix first; then what is removed, shortest
prefix first.  With longest-prefix match this gives every address at most one
switch, from what it met before straight to what it meets afterwards:

- Adding /64 before the /80 inside it would send the /80 to the next hop of the
  /64 for a moment, which neither the old nor the new set says.
- Removing the /80 before the /72 around it, with both going, would do the same.

Hence an address that is covered before and after is covered all along.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, IPv6Network

from ssastore.env import Route, Routes
from ssastore.errors import RouteRefused


class Action(Enum):
    ADD = "add"
    "Install, in the place of an installed route with the same prefix."
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Change:
    """One step: the method of ``Routes`` to call, and its argument."""

    action: Action
    route: Route

    def apply(self, routes: Routes) -> None:
        """Take the step. Raises RouteRefused; ``take`` knows what is still to be done then."""
        if self.action is Action.ADD:
            routes.add(self.route)
        else:
            routes.remove(self.route)

    def __str__(self) -> str:
        how = f"via {self.route.via}" if self.route.via else "local"
        return f"{self.action.value} {self.route.prefix} {how}"


def parse(route: Route) -> tuple[IPv6Network, IPv6Address | None]:
    """Prefix and next hop of a route as numbers.

    Raises:
        ValueError: not IPv6, bits set below the prefix length, or not in the spelling that a
            read-back has; such a route would never compare equal to itself once installed.
    """
    network = IPv6Network(route.prefix)
    via = None if route.via is None else IPv6Address(route.via)
    if str(network) != route.prefix or (via is not None and str(via) != route.via):
        raise ValueError(f"not in canonical spelling: {network}, {via}")
    return network, via


def diff(wanted: set[Route], installed: set[Route]) -> list[Change]:
    """The changes that turn ``installed`` into ``wanted``, in the order to apply them.

    Raises:
        ValueError: two wanted routes have the same prefix, or a route does not parse.
    """
    if len({route.prefix for route in wanted}) != len(wanted):
        raise ValueError("two wanted routes for one prefix")
    added = sorted(wanted - installed, key=_shortest_first)
    replaced = {route.prefix for route in added}
    removed = [route for route in installed - wanted if route.prefix not in replaced]
    return [Change(Action.ADD, route) for route in reversed(added)] + [
        Change(Action.REMOVE, route) for route in sorted(removed, key=_shortest_first)
    ]


def take(changes: Iterable[Change], routes: Routes) -> tuple[list[Change], dict[Change, RouteRefused]]:
    """Take the steps of ``diff``: those that were taken, and those that were refused, with the reason.

    What is refused stops no other, except that around and inside of a prefix that could not be
    added nothing is removed: its addresses keep the route that they have.
    """
    taken: list[Change] = []
    refused: dict[Change, RouteRefused] = {}
    missing: list[IPv6Network] = []
    for change in changes:
        network, _ = parse(change.route)
        if change.action is Action.REMOVE and any(network.overlaps(other) for other in missing):
            continue
        try:
            change.apply(routes)
        except RouteRefused as error:
            refused[change] = error
            if change.action is Action.ADD:
                missing.append(network)
        else:
            taken.append(change)
    return taken, refused


def after(installed: set[Route], taken: Iterable[Change]) -> set[Route]:
    """What is installed when changes of ``installed`` have been made."""
    routes = {route.prefix: route for route in installed}
    for change in taken:
        if change.action is Action.ADD:
            routes[change.route.prefix] = change.route
        else:
            routes.pop(change.route.prefix, None)
    return set(routes.values())


def _shortest_first(route: Route) -> tuple[int, int, str]:
    network, _ = parse(route)
    return network.prefixlen, int(network.network_address), route.via or ""
