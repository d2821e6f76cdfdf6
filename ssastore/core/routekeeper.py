"""Keeps a host's routes as the control store says who owns what. A coroutine on a view and Routes.

    ClusterView --> wanted set --diff--> Routes
                                  ^
                                  every DRIFT_EVERY_MS: read back, repair what somebody else changed

A change is compared with what was read or set last: to read a thousand routes takes longer than to
change one, and a slice that has moved waits for it.

A node accepts what it owns; a router sends it to the node's address.  Both are told by the
same records, in no order: a packet that comes to a node before the node accepts it is
sent back to the router, and one that comes to a former owner is refused at first (clients
dial again) and then sent on to the new one (``forwarding.py``).

While the control store is out of reach the routes stay as they are.  A change that the
kernel refuses (somebody else holds the prefix) holds up no other, and is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Network
from typing import Protocol

from ssastore.core.cluster import ClusterRecord, NodeRecord
from ssastore.core.forwarding import Forwarding
from ssastore.core.groups import GroupRecord
from ssastore.core.ownership import OwnedPrefixes
from ssastore.core.routeplan import Action, Change, after, diff, take
from ssastore.env import Route, Routes
from ssastore.errors import RouteRefused
from ssastore.keyspace import GROUPS, Slice
from ssastore.limits import DRIFT_EVERY_MS, RECOVERY_RETRY_MS, ROUTES_GATHERED_MS

log = logging.getLogger(__name__)

Wanted = Callable[[Sequence[IPv6Network], Iterable[GroupRecord], Iterable[NodeRecord]], set[Route]]
"The routes of a host, of the service prefixes, all group records and all nodes."


class Followed(Protocol):
    """What routes are made of, as the control store says it: ``ClusterView``, ``FrontView``."""

    changed: asyncio.Event

    @property
    def record(self) -> ClusterRecord: ...

    @property
    def groups(self) -> Mapping[int, GroupRecord]: ...

    @property
    def nodes(self) -> Mapping[str, NodeRecord]: ...


class _Spelled:
    """The routes of nodes as text. Kept: while a plan goes on, thousands are the same as a moment ago."""

    def __init__(self) -> None:
        self._owned = OwnedPrefixes()
        self._prefix_of = lru_cache(maxsize=4 * GROUPS)(_prefix_of)
        self._routes: dict[str, tuple[Sequence[Slice], Sequence[IPv6Network], str | None, set[Route]]] = {}
        "By node, with what they were made of."

    def show(self, groups: Iterable[GroupRecord]) -> None:
        """Learn records."""
        self._owned.show(groups)

    def of(self, node: str, services: Sequence[IPv6Network], via: str | None = None) -> set[Route]:
        """The fewest routes for exactly what a node owns, in every service prefix."""
        pieces = self._owned.of(node)
        known = self._routes.get(node)
        if known is None or known[0] is not pieces or known[1:3] != (services, via):
            routes = {Route(self._prefix_of(service, piece), via) for service in services for piece in pieces}
            known = self._routes[node] = pieces, services, via, routes
        return known[3]


def _prefix_of(service: IPv6Network, piece: Slice) -> str:
    return str(piece.network(service))


def accepted_by(node: str) -> Wanted:
    """``local`` for the fewest prefixes that are exactly what a node owns."""
    spelled = _Spelled()

    def wanted(
        services: Sequence[IPv6Network], groups: Iterable[GroupRecord], nodes: Iterable[NodeRecord]
    ) -> set[Route]:
        spelled.show(groups)
        return set(spelled.of(node, services))

    return wanted


def announced_to_router() -> Wanted:
    """Every node's prefixes by way of its node address."""
    spelled = _Spelled()

    def wanted(
        services: Sequence[IPv6Network], groups: Iterable[GroupRecord], nodes: Iterable[NodeRecord]
    ) -> set[Route]:
        spelled.show(groups)
        return set().union(*[spelled.of(node.name, services, node.address) for node in nodes])

    return wanted


class RouteKeeper:
    """The routes of one host. Of others' routes it knows nothing (``env.Routes``)."""

    def __init__(
        self,
        view: Followed,
        routes: Routes,
        wanted: Wanted,
        *,
        linger_ms: int = 0,
        forwarding: Forwarding | None = None,
    ) -> None:
        """
        Args:
            linger_ms: what is not wanted any more stays so long. A node that gave a slice away goes on
                accepting its addresses for a while, to say that they are not its own any more.
            forwarding: where packets for them go afterwards; None: nowhere.
        """
        self._view = view
        self._linger_s = linger_ms / 1000
        self._lingering: dict[Route, float] = {}
        "Until when each of those that were given away is still accepted."
        self._routes = routes
        self._forwarding = forwarding
        self._wanted_of = wanted
        self._wanted: set[Route] = set()
        self._installed: set[Route] = set()
        "As it was read back or set last."
        self._read_at = 0.0
        "When it is read back the next time."
        self._refused: dict[Change, RouteRefused] = {}
        "Of what is wanted, what could not be had the last time."

    def begin(self) -> None:
        """Set the routes as the view, which is loaded, has it.

        Raises RouteRefused, the kernel's word, when all that it allows is set.
        """
        self._view.changed.clear()
        self._want()
        self._apply(reads_back=True)
        for error in self._refused.values():
            raise error

    @property
    def has_all(self) -> bool:
        """Whether everything that the view says now is installed."""
        return not self._view.changed.is_set() and self._wanted <= self._installed

    async def run(self) -> None:
        """Follow the view, which others run, and repair what drifts, for ever. After ``begin``."""
        changed, loop = self._view.changed, asyncio.get_running_loop()
        self._read_at, next_at = loop.time() + DRIFT_EVERY_MS / 1000, 0.0
        while True:
            due_at = min(self._read_at, self._forwarded_until, *self._lingering.values())
            try:
                async with asyncio.timeout_at(due_at):
                    await changed.wait()
                # A slice that has moved is led to its new owner at once; of a plan, which changes
                # many groups one after the other, those that follow are one change.
                await asyncio.sleep(max(0.0, next_at - loop.time()))
            except TimeoutError:
                pass
            next_at = loop.time() + ROUTES_GATHERED_MS / 1000
            is_unsure = False
            try:
                self._turn()
            except RouteRefused as error:
                log.warning("routes.not_kept", extra={"reason": str(error)})
                is_unsure = True
            if is_unsure or self._refused:
                self._read_at = min(self._read_at, loop.time() + RECOVERY_RETRY_MS / 1000)

    def _want(self) -> None:
        view = self._view
        self._wanted = self._wanted_of(view.record.networks, view.groups.values(), view.nodes.values())

    def _turn(self) -> None:
        is_changed = self._view.changed.is_set()
        if is_changed:
            self._view.changed.clear()
            self._want()
        now = asyncio.get_running_loop().time()
        lapsed = self._lapsed(now)
        if self._forwarding is not None:
            self._forwarding.give([route.prefix for route in lapsed], now)
        # What was refused a moment ago did not drift.
        is_due = bool(lapsed or self._refused) or now >= self._forwarded_until
        reads_back = now >= self._read_at
        if reads_back:
            self._read_at = now + DRIFT_EVERY_MS / 1000
        changes = self._apply(reads_back=reads_back)
        if changes:
            log.log(
                logging.INFO if is_changed or is_due else logging.WARNING,
                "routes.changed" if is_changed or is_due else "routes.repaired",
                extra={"changes": changes},
            )

    def _lapsed(self, now: float) -> set[Route]:
        """Of what was given away, what has been accepted long enough since; the rest goes on lingering."""
        given = [route for route in self._installed - self._wanted if route.via is None]
        until = {route: self._lingering.get(route, now + self._linger_s) for route in given}
        self._lingering = {route: at for route, at in until.items() if at > now}
        return until.keys() - self._lingering.keys()

    @property
    def _forwarded_until(self) -> float:
        """When something is sent on no more."""
        return math.inf if self._forwarding is None else self._forwarding.next_at

    def _forwarded(self) -> set[Route]:
        """What this host sends on at the moment."""
        if self._forwarding is None:
            return set()
        now, view = asyncio.get_running_loop().time(), self._view
        return self._forwarding.routes(view.record.networks, view.groups.values(), view.nodes.values(), now)

    def _apply(self, *, reads_back: bool) -> list[str]:
        """Make what is installed what is wanted, but for what is refused; the changes it took."""
        if reads_back:
            self._installed = self._routes.installed()
        forwarded = self._forwarded()
        changes = diff(self._wanted | forwarded, self._installed)
        changes = [
            change for change in changes if change.action is Action.ADD or change.route not in self._lingering
        ]
        known = self._refused.keys()
        taken, self._refused = take(changes, self._routes)
        self._installed = after(self._installed, taken)
        not_forwarded = [error for change, error in self._refused.items() if change.route in forwarded]
        if not_forwarded and self._forwarding is not None:
            # The new owner is on no link of ours. What keeps its place would be in the way of what is wanted.
            log.warning("routes.not_forwarded", extra={"reason": str(not_forwarded[0])})
            self._forwarding.forget()
            return [*map(str, taken), *self._apply(reads_back=False)]
        for change, error in self._refused.items():
            if change not in known:  # It is tried again and again.
                log.warning("routes.not_kept", extra={"change": str(change), "reason": str(error)})
        return [str(change) for change in taken]
