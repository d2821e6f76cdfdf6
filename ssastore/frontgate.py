"""What a gateway does on its host for its part of the front plane: addresses, routes, connections."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection
from ipaddress import IPv6Address, IPv6Network

from ssastore.config import GatewayConfig, parse_listen
from ssastore.core.clusterreading import read_nodes
from ssastore.core.front import GateRecord
from ssastore.core.frontkeeper import FrontKeeper, Hands
from ssastore.core.frontlease import GateLease
from ssastore.core.frontview import FrontView, accepted_by_gate
from ssastore.core.routekeeper import RouteKeeper
from ssastore.env import ControlStore, Route, Routes, spawn
from ssastore.errors import ConfigError, RouteRefused
from ssastore.limits import GOAWAY_MS
from ssastore.routes.announced import AnnouncedRoutes, announcer
from ssastore.routes.bgpspeaker import BgpRoutes
from ssastore.routes.netlink import FRONT_ROUTE_PROTOCOL, TABLE_LOCAL, NetlinkRoutes
from ssastore.routes.newflows import NewFlows, open_at

log = logging.getLogger(__name__)


Retire = Callable[[Collection[IPv6Network]], Awaitable[Collection[IPv6Network]]]
"Of ``Hands``, as far as this process knows connections."

_LOCK = "\0ssastore-front-plane"
"A Unix socket without a file; each network namespace has its own, and it goes with the process."
_ANSWER_S = 1.0
_QUESTION = b"GET / HTTP/1.1\r\nHost: front\r\nConnection: close\r\n\r\n"


class FrontGate:
    """A gateway that has joined the front plane."""

    @classmethod
    async def join(
        cls, config: GatewayConfig, control: ControlStore, view: FrontView, retire: Retire
    ) -> FrontGate:
        """Begin. ``view`` is loaded, and followed by the caller; ``config`` has a name.

        Raises:
            ConfigError: another gateway has the name, or this host; or its address is the service's, or a
                node's where it announces by itself.
            Unavailable: the control store does not answer.
            RouteRefused: the kernel does not let this host accept addresses.
        """
        gate = GateRecord(config.name, config.address, config.weight)
        for service in view.record.networks:
            if IPv6Address(gate.address) in service:
                raise ConfigError(f"address {gate.address} lies inside the service {service}")
        await _check_announcer(config, control)
        alone = _alone_on_this_host()
        leased = GateLease(control, gate, lambda: _is_here(gate.address))
        try:
            await leased.claim()
            return cls(config, gate, control, view, leased, retire, alone)
        except BaseException:
            alone.close()
            await leased.end()
            raise

    def __init__(
        self,
        config: GatewayConfig,
        gate: GateRecord,
        control: ControlStore,
        view: FrontView,
        leased: GateLease,
        retire: Retire,
        alone: socket.socket,
    ) -> None:
        port = parse_listen(config.s3_listen)[1]
        self._alone = alone
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

        async def still_open(networks: Collection[IPv6Network]) -> set[IPv6Network]:
            # What is answered may be on its way for long: the kernel has it, and no connection of ours.
            return {*await retire(networks), *await open_at(port, networks)}

        hands = Hands(accepts_all, self._new_flows.send_on, still_open, lambda host: _answers(host, port))
        self._keeper = FrontKeeper(control, view, gate, leased, hands)
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
        self._alone.close()

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


async def _check_announcer(config: GatewayConfig, control: ControlStore) -> None:
    """ConfigError: it would take a node's sessions away.

    A router has one with an address.  Whoever is second is refused, until the first one starts again: then
    the node is, and all its slices are cut off.
    """
    if config.announce != "bgp":
        return
    for node in await read_nodes(control):
        if IPv6Address(node.address) == IPv6Address(config.address):
            raise ConfigError(
                f"address {config.address} is that of node {node.name}, and a router has one session with an "
                'address: announce from another address of this host, or with announce = "kernel"'
            )


def _alone_on_this_host() -> socket.socket:
    """Held while a gateway of the front plane runs here. ConfigError: there is one.

    Two would take each other's routes away, whatever their names.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(_LOCK)
    except OSError:
        lock.close()
        raise ConfigError("name: a gateway of the front plane runs on this host already") from None
    return lock


def _is_here(address: str) -> bool:
    """Whether it is an address of this host."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


async def _answers(host: str, port: int) -> bool:
    """Whether somebody serves there. A host whose processes stand still connects, and says nothing."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_QUESTION)
                await reader.read(1)
            except ConnectionError:
                pass  # Refused by the rule: by a gateway that lives.
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return True
