"""What a gateway does on its host for its part of the front plane: addresses, routes, connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from ipaddress import IPv6Network

from ssastore.core.front import GateRecord
from ssastore.core.frontkeeper import FrontKeeper, Hands
from ssastore.core.frontview import FrontView, accepted_by_gate
from ssastore.core.routekeeper import RouteKeeper
from ssastore.env import ControlStore, Route, Routes, spawn
from ssastore.limits import GOAWAY_MS
from ssastore.routes.netlink import FRONT_ROUTE_PROTOCOL, TABLE_LOCAL, NetlinkRoutes
from ssastore.routes.newflows import NewFlows, open_at


class FrontGate:
    """A gateway that has joined the front plane."""

    def __init__(
        self,
        gate: GateRecord,
        port: int,
        control: ControlStore,
        view: FrontView,
        retire: Callable[[Collection[IPv6Network]], Collection[IPv6Network]],
    ) -> None:
        """Begin. ``view`` is loaded, and followed by the caller; ``port`` is that of S3.

        Raises:
            RouteRefused: the kernel does not let this host accept addresses.
        """
        routes = NetlinkRoutes(TABLE_LOCAL, protocol=FRONT_ROUTE_PROTOCOL)
        _try(routes, view)
        keeping = RouteKeeper(view, routes, accepted_by_gate(view, gate.name), linger_ms=GOAWAY_MS)
        keeping.begin()
        self._new_flows = NewFlows(port)

        def still_open(networks: Collection[IPv6Network]) -> set[IPv6Network]:
            # What is answered may be on its way for long: the kernel has it, and no connection of ours.
            return set(retire(networks)) | open_at(port, networks)

        hands = Hands(lambda: keeping.has_all, self._new_flows.send_on, still_open)
        self._keeper = FrontKeeper(control, view, gate, hands)
        self._jobs: list[asyncio.Task[None]] = [
            spawn("keep routes of the front plane", keeping.run()),
            spawn("keep the front plane", self._keeper.run()),
        ]
        self._jobs[0].add_done_callback(lambda _: routes.close())

    async def leave(self) -> None:
        """Give everything to others; what is open here is answered until it ends."""
        await self._keeper.leave()
        for job in self._jobs:
            job.cancel()
        await self._new_flows.send_on({})


def _try(routes: Routes, view: FrontView) -> None:
    """RouteRefused: this host may set no routes, and would get a part of which nobody answers."""
    route = Route(f"{view.record.network[-1]}/128")
    routes.add(route)
    routes.remove(route)
