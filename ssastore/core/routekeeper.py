"""Keeps a host's routes as the control store says who owns what. A conversation with both.

    group records --watch--> wanted set --diff--> Routes
                                  ^
                                  every DRIFT_EVERY_MS: read back, repair what somebody else changed

A node accepts what it owns; a router sends it to the node's address.  Both are told by the
same records, in no order: a packet that comes to a node before the node accepts it is
sent back to the router, and one that comes to a former owner is refused; clients dial again.

While the control store is out of reach the routes stay as they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import aclosing
from ipaddress import IPv6Network
from typing import Any

from ssastore.core.cluster import GROUP_PREFIX, NODE_PREFIX, GroupRecord, NodeRecord
from ssastore.core.planner import owned_slices
from ssastore.core.routeplan import diff
from ssastore.env import ControlStore, Route, Routes, WatchCompacted, spawn
from ssastore.errors import ConfigError, RouteRefused, Unavailable
from ssastore.keyspace import minimal_cover
from ssastore.limits import DRIFT_EVERY_MS, RECOVERY_RETRY_MS, ROUTES_GATHERED_MS

log = logging.getLogger(__name__)

Wanted = Callable[[Iterable[GroupRecord], Iterable[NodeRecord]], set[Route]]
"The routes of a host, of all group records and all nodes."


def accepted_by(service: IPv6Network, node: str) -> Wanted:
    """``local`` for the fewest prefixes that are exactly what a node owns."""

    def wanted(groups: Iterable[GroupRecord], nodes: Iterable[NodeRecord]) -> set[Route]:
        return {Route(str(piece.network(service))) for piece in minimal_cover(owned_slices(groups, node))}

    return wanted


def announced_to_router(service: IPv6Network) -> Wanted:
    """Every node's prefixes by way of its node address."""

    def wanted(groups: Iterable[GroupRecord], nodes: Iterable[NodeRecord]) -> set[Route]:
        records = list(groups)
        return {
            Route(str(piece.network(service)), node.address)
            for node in nodes
            for piece in minimal_cover(owned_slices(records, node.name))
        }

    return wanted


class RouteKeeper:
    """The routes of one host. Of others' routes it knows nothing (``env.Routes``)."""

    def __init__(self, control: ControlStore, routes: Routes, wanted: Wanted) -> None:
        self._control = control
        self._routes = routes
        self._wanted_of = wanted
        self._groups: dict[int, GroupRecord] = {}
        self._nodes: dict[str, NodeRecord] = {}
        self._revision = 0
        self._changed = asyncio.Event()
        self._wanted: set[Route] = set()

    async def load(self) -> None:
        """Read all records, and set the routes once.

        Raises:
            Unavailable: the control store does not answer.
            ConfigError: a record is not understood.
            RouteRefused: the kernel's word.
        """
        items, self._revision = await self._control.list(GROUP_PREFIX)
        for item in items:
            self._take(item.value)
        await self._learn_nodes()
        self._wanted = self._wanted_of(self._groups.values(), self._nodes.values())
        self._apply()

    async def run(self) -> None:
        """Follow every change, and repair what drifts, for ever. After ``load``."""
        keeper = spawn("keep routes", self._keep())
        try:
            while True:
                await self._follow()
                await asyncio.sleep(RECOVERY_RETRY_MS / 1000)
        finally:
            keeper.cancel()

    async def _follow(self) -> None:
        """Until the watch ends; the cause is logged."""
        try:
            watch: Any = self._control.watch(GROUP_PREFIX, self._revision)
            async with aclosing(watch):
                async for event in watch:
                    self._revision = event.revision
                    if event.value is not None:
                        self._take(event.value)
                        self._changed.set()
        except WatchCompacted:
            try:
                await self.load()
            except (Unavailable, ConfigError, RouteRefused) as error:
                log.warning("routes.not_followed", extra={"reason": str(error)})
        except Unavailable as error:
            log.warning("routes.not_followed", extra={"reason": str(error)})
        except ConfigError as error:
            # Written by a program that knows more, or damaged: the routes of the group stay as they are.
            log.error("routes.group_not_understood", extra={"reason": str(error)})

    def _take(self, value: bytes) -> None:
        record = GroupRecord.decode(value)
        self._groups[record.group] = record

    async def _learn_nodes(self) -> None:
        items, _ = await self._control.list(NODE_PREFIX)
        nodes = [NodeRecord.decode(item.value) for item in items]
        self._nodes = {node.name: node for node in nodes}

    async def _keep(self) -> None:
        while True:
            try:
                async with asyncio.timeout(DRIFT_EVERY_MS / 1000):
                    await self._changed.wait()
                # A plan changes many groups one after the other.
                await asyncio.sleep(ROUTES_GATHERED_MS / 1000)
            except TimeoutError:
                pass
            try:
                await self._turn()
            except (Unavailable, ConfigError, RouteRefused) as error:
                log.warning("routes.not_kept", extra={"reason": str(error)})
                self._changed.set()
                await asyncio.sleep(RECOVERY_RETRY_MS / 1000)

    async def _turn(self) -> None:
        is_changed = self._changed.is_set()
        self._changed.clear()
        if is_changed:
            if any(owner not in self._nodes for record in self._groups.values() for owner in record.owners):
                await self._learn_nodes()
            self._wanted = self._wanted_of(self._groups.values(), self._nodes.values())
        changes = self._apply()
        if changes:
            log.log(
                logging.INFO if is_changed else logging.WARNING,
                "routes.changed" if is_changed else "routes.repaired",
                extra={"changes": changes},
            )

    def _apply(self) -> list[str]:
        """Make what is installed what is wanted; the changes it took."""
        changes = diff(self._wanted, self._routes.installed())
        for change in changes:
            change.apply(self._routes)
        return [str(change) for change in changes]
