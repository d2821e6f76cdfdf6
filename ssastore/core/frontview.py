"""The front plane as the control store says it is, followed change by change. A conversation with it.

    front/plane       FrontRecord    who owns what (``core.front``)
    front/gate/NAME   GateRecord     a gateway that is there; gone with its lease

It is no part of ``ClusterView``: nodes have nothing to do with it.  While the control store is out of reach
it stays as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from ipaddress import IPv6Network
from typing import Any

from ssastore.core.cluster import ClusterRecord, NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.front import FRONT_KEY, GATE_PREFIX, FrontRecord, GateRecord, gate_key
from ssastore.core.groups import GroupRecord
from ssastore.core.routekeeper import Wanted
from ssastore.env import QUIET, ControlStore, Route, WatchCompacted, spawn
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.keyspace import Slice
from ssastore.limits import RECOVERY_RETRY_MS

log = logging.getLogger(__name__)

_FRONT_PREFIX = "front/"
_NETWORKS_EVERY_S = 1.0
"How often it is seen that the service is at another prefix, which takes minutes."


class FrontView:
    """Who owns which part of the front plane, and which gateways are there. ``load`` it first."""

    def __init__(self, control: ControlStore, cluster: ClusterView) -> None:
        """``cluster`` is followed by the caller: it says where the service is."""
        self.front = FrontRecord()
        self.revision = 0
        "Of the record; 0: there is none yet."
        self.gates: dict[str, GateRecord] = {}
        self.strange: dict[str, str] = {}
        "By key, why a record is not understood, of which nothing is known: of a newer version, or damaged."
        self.changed, self.news = asyncio.Event(), asyncio.Event()
        "Set with every change, one for each who waits, and clears it: routes, and who moves the parts."
        self.groups: Mapping[int, GroupRecord] = {}
        self.nodes: Mapping[str, NodeRecord] = {}
        "None: for ``RouteKeeper``."
        self._control = control
        self._cluster = cluster
        self._seen: dict[str, GateRecord] = {}
        self._followed = 0
        "The revision of which everything is known here."

    @property
    def record(self) -> ClusterRecord:
        """Of the cluster."""
        return self._cluster.record

    async def load(self) -> None:
        """Read everything.

        Raises:
            Unavailable: the control store does not answer.
        """
        items, self._followed = await self._control.list(_FRONT_PREFIX)
        found = {item.key: item for item in items}
        gone = [FRONT_KEY, *map(gate_key, self.gates), *self.strange]
        for key in gone:
            if key not in found:
                self._take(key, None, 0)
        for item in items:
            self._take(item.key, item.value, item.revision)
        self._tell()

    async def run(self) -> None:
        """Follow all of it, for ever."""
        networks = spawn("follow the service's prefixes", self._follow_networks())
        try:
            await self._follow()
        finally:
            networks.cancel()

    async def _follow(self) -> None:
        while True:
            try:
                watch: Any = self._control.watch(_FRONT_PREFIX, self._followed)
                async with aclosing(watch):
                    async for event in watch:
                        self._followed = event.revision
                        self._take(event.key, event.value, event.revision)
                        self._tell()
            except WatchCompacted:
                await self._load_again()
            except (SsaStoreError, OSError) as error:
                log.warning("front.not_followed", extra={"reason": str(error)})
            await asyncio.sleep(RECOVERY_RETRY_MS / 1000)

    async def _load_again(self) -> None:
        try:
            await self.load()
        except (SsaStoreError, OSError) as error:
            log.warning("front.not_followed", extra={"reason": str(error)})

    async def _follow_networks(self) -> None:
        known = self.record.networks
        while True:
            await asyncio.sleep(_NETWORKS_EVERY_S)
            if self.record.networks != known:
                known = self.record.networks
                self._tell()

    def _take(self, key: str, value: bytes | None, revision: int) -> None:
        """Learn a record. Of one that is damaged, or of a newer program, what was known stays."""
        self.strange.pop(key, None)
        try:
            if key == FRONT_KEY:
                front = FrontRecord.decode(value) if value else FrontRecord()
                self.front, self.revision = front, revision if value else 0
            elif key.startswith(GATE_PREFIX):
                self._take_gate(key.removeprefix(GATE_PREFIX), value)
        except ConfigError as error:
            log.error("front.record_not_understood", extra={"key": key, "reason": str(error)})
            if key == FRONT_KEY or key.removeprefix(GATE_PREFIX) not in self.gates:
                self.strange[key] = str(error)

    def _take_gate(self, name: str, value: bytes | None) -> None:
        gate = None if value is None else GateRecord.decode(value)
        others = {known: found for known, found in self.gates.items() if known != name}
        self.gates = others if gate is None else {**others, name: gate}
        if gate is not None:
            self._seen[name] = gate

    def silent(self) -> list[GateRecord]:
        """As they were seen last: gateways that own something, and have no lease any more."""
        return [
            self._seen[name] for name in sorted(self.front.names() - self.gates.keys()) if name in self._seen
        ]

    def _tell(self) -> None:
        self.changed.set()
        self.news.set()


def accepted_by_gate(view: FrontView, name: str, *, announces: bool = False) -> Wanted:
    """``local`` for the fewest prefixes that are exactly what a gateway owns, and for what it is to own.

    ``announces``: routers are told what it owns, and of the rest nothing yet (``QUIET``).
    """
    on_its_way = QUIET if announces else None
    return lambda services, groups, nodes: {
        *_routes(services, view.front.slices_of(name), None),
        *_routes(services, view.front.slices_for(name), on_its_way),
    }


def announced_gates(view: FrontView) -> Wanted:
    """Every gateway's prefixes by way of its address, also without a lease until somebody has taken them."""
    return lambda services, groups, nodes: {
        route
        for gate in (*view.gates.values(), *view.silent())
        for route in _routes(services, view.front.slices_of(gate.name), gate.address)
    }


def _routes(services: Iterable[IPv6Network], pieces: Iterable[Slice], via: str | None) -> Iterable[Route]:
    found = list(pieces)
    return [Route(str(piece.network(service)), via) for service in services for piece in found]
