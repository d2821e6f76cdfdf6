"""What a gateway does on its host for its part of the front plane: addresses, routes, connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from ipaddress import IPv6Address, IPv6Network

from ssastore.config import GatewayConfig, parse_listen
from ssastore.core.front import GateRecord
from ssastore.core.frontkeeper import FrontKeeper, Hands
from ssastore.core.frontview import FrontView, accepted_by_gate
from ssastore.core.routekeeper import RouteKeeper
from ssastore.env import ControlStore, Route, Routes, spawn
from ssastore.errors import RouteRefused
from ssastore.limits import GOAWAY_MS
from ssastore.routes.announced import AnnouncedRoutes, announcer
from ssastore.routes.bgpspeaker import BgpRoutes
from ssastore.routes.netlink import FRONT_ROUTE_PROTOCOL, TABLE_LOCAL, NetlinkRoutes
from ssastore.routes.newflows import NewFlows, open_at

log = logging.getLogger(__name__)


class FrontGate:
    """A gateway that has joined the front plane."""

    def __init__(
        self,
        config: GatewayConfig,
        control: ControlStore,
        view: FrontView,
        retire: Callable[[Collection[IPv6Network]], Collection[IPv6Network]],
    ) -> None:
        """Begin. ``view`` is loaded, and followed by the caller; ``config`` has a name.

        Raises:
            RouteRefused: the kernel does not let this host accept addresses.
        """
        gate = GateRecord(config.name, config.address, config.weight)
        port = parse_listen(config.s3_listen)[1]
        accepted = NetlinkRoutes(TABLE_LOCAL, protocol=FRONT_ROUTE_PROTOCOL)
        _try(accepted, view)
        announced = announcer(config, IPv6Address(gate.address), FRONT_ROUTE_PROTOCOL)
        routes = accepted if announced is None else AnnouncedRoutes(accepted, announced)
        wanted = accepted_by_gate(view, gate.name, announces=announced is not None)
        keeping = RouteKeeper(view, routes, wanted, linger_ms=GOAWAY_MS)
        keeping.begin()
        self._accepted, self._announced = accepted, announced
        self._new_flows = NewFlows(port)

        def accepts_all() -> bool:
            # What becomes its own has to be announced at once: not before some router listens.
            is_heard = not isinstance(announced, BgpRoutes) or announced.is_heard
            return keeping.has_all and is_heard

        def still_open(networks: Collection[IPv6Network]) -> set[IPv6Network]:
            # What is answered may be on its way for long: the kernel has it, and no connection of ours.
            return set(retire(networks)) | open_at(port, networks)

        self._keeper = FrontKeeper(
            control, view, gate, Hands(accepts_all, self._new_flows.send_on, still_open)
        )
        self._jobs: list[asyncio.Task[None]] = [
            spawn("keep routes of the front plane", keeping.run()),
            spawn("keep the front plane", self._keeper.run()),
        ]

    async def leave(self) -> None:
        """Give everything to others; what is open here is answered until it ends."""
        await self._keeper.leave()
        for job in self._jobs:
            job.cancel()
        self._withdraw()
        await self._new_flows.send_on({})

    def _withdraw(self) -> None:
        """Announce nothing more: who has ended must share nothing with who takes it over one day."""
        if self._announced is not None:
            try:
                for route in self._announced.installed():
                    self._announced.remove(route)
            except RouteRefused as error:
                log.warning("routes.not_kept", extra={"reason": str(error)})
            self._announced.close()
        self._accepted.close()


def _try(routes: Routes, view: FrontView) -> None:
    """RouteRefused: this host may set no routes, and would get a part of which nobody answers."""
    route = Route(f"{view.record.network[-1]}/128")
    routes.add(route)
    routes.remove(route)
