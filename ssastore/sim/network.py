"""The network: hosts, the links between them, dialling and listening.

It stands behind ``loop.create_connection`` and ``loop.create_server``, so the code
that dials and serves is the code that runs in production.  A dial costs a round
trip (``dial``).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from ssastore.keyspace import IID_BITS
from ssastore.sim.clock import HostClock
from ssastore.sim.dial import Dial
from ssastore.sim.host import LOOPBACK, Host, Program
from ssastore.sim.links import CALM, Link, Weather
from ssastore.sim.loop import VirtualLoop
from ssastore.sim.process import PROCESS, Process
from ssastore.sim.routing import Routing
from ssastore.sim.seeds import Stream
from ssastore.sim.sockets import Socket
from ssastore.sim.transport import VirtualTransport
from ssastore.sim.traps import Forbidden

_WILDCARD = IPv6Address("::")


_address = lru_cache(maxsize=100_000)(IPv6Address)


class Listener(asyncio.AbstractServer):
    """A listening socket of a process, as ``loop.create_server`` returns it."""

    def __init__(
        self, network: Network, process: Process, address: IPv6Address, port: int, factory: Callable[[], Any]
    ) -> None:
        self.process = process
        self.address = address
        self._is_wildcard = address == _WILDCARD
        self.port = port
        self.sockets: tuple[Listener, ...] = (self,)
        self._network = network
        self._factory = factory

    def getsockname(self) -> tuple[str, int, int, int]:
        """Address and port; ``sockets`` holds this object itself."""
        return str(self.address), self.port, 0, 0

    def matches(self, address: IPv6Address, port: int) -> bool:
        """Whether a connection to this address and port is for it."""
        return port == self.port and (self._is_wildcard or self.address == address)

    def take(self, socket: Socket) -> None:
        """A connection is established: hand it to the process, which may be slow to take it."""
        self._network.loop.call_soon(self._serve, socket, context=self.process.context)

    def _serve(self, socket: Socket) -> None:
        VirtualTransport(self._network.loop, socket, self._factory())

    def is_serving(self) -> bool:
        return self in self.process.owner.listeners

    def get_loop(self) -> VirtualLoop:
        return self._network.loop

    def close(self) -> None:
        if self.is_serving():
            self.process.owner.listeners.remove(self)

    async def serve_forever(self) -> None:
        await self._network.loop.create_future()

    async def start_serving(self) -> None:
        """It serves from the start."""

    async def wait_closed(self) -> None:
        """Connections that are open are not waited for."""


class Network:
    """Hosts, and what is between them. Installs itself in the loop.

    Args:
        service: the service /64, which ``routing`` and the hosts' accepted slices divide up.
        weather: of all links; may be changed, or exchanged for single links, during the run.
    """

    def __init__(self, loop: VirtualLoop, seed: int, service: IPv6Network, weather: Weather) -> None:
        self.loop = loop
        self.seed = seed
        self.service = service
        self._prefix = int(service.network_address) >> IID_BITS
        self.weather = weather
        self.routing = Routing(loop, Stream(seed, "routing"))
        self.hosts: dict[str, Host] = {}
        self.connection_count = 0
        self._draw = Stream(seed, "network")
        self._by_address: dict[IPv6Address, Host] = {}
        self._links: dict[tuple[str, str], Link] = {}
        loop.network = self

    # -- hosts and links ----------------------------------------------------------------------------

    def host(self, name: str, address: str, program: Program | None = None, **clock: int) -> Host:
        """Add a host; it is off until ``start``. ``clock`` are the keywords of ``HostClock``."""
        assert name not in self.hosts
        host = Host(self, name, IPv6Address(address), HostClock(self.loop.schedule, **clock), program)
        self.hosts[name] = self._by_address[host.address] = host
        self.routing.add_host(name)
        return host

    def link(self, source: Host, target: Host) -> Link:
        """The way from one host to another."""
        ends = source.name, target.name
        if ends not in self._links:
            weather = CALM if source is target else self.weather
            self._links[ends] = Link(self.loop, Stream(self.seed, f"link {ends[0]} {ends[1]}"), weather)
        return self._links[ends]

    def cut(self, sources: Iterable[Host], targets: Iterable[Host]) -> Callable[[], None]:
        """Let nothing pass from the ones to the others (one way only); returns what heals it, once."""
        others = list(targets)
        held = [self.link(a, b) for a in sources for b in others if a is not b]
        for link in held:
            link.hold()

        def heal() -> None:
            while held:
                held.pop().release()

        return heal

    def reset(self, host: Host, index: int, delays_ns: tuple[int, int]) -> None:
        """Break one of a host's connections from the middle: each end hears of it after its delay."""
        socket = list(host.sockets)[index]
        peer = socket.outbound.reader
        self.loop.at(self.loop.now_ns + delays_ns[0], socket.reset)
        if peer is not None:
            self.loop.at(self.loop.now_ns + delays_ns[1], peer.reset)

    def iid_of(self, address: IPv6Address) -> int | None:
        """The IID of an address of the service, or None."""
        number = int(address)
        return number & (1 << IID_BITS) - 1 if number >> IID_BITS == self._prefix else None

    def target(self, source: Host, address: IPv6Address) -> Host | None:
        """Where the network takes a packet; None: there is no route."""
        iid = self.iid_of(address)
        if iid is None:
            return source if address == LOOPBACK else self._by_address.get(address)
        name = self.routing.lookup(source.name, iid)
        return None if name is None else self.hosts[name]

    # -- listening ----------------------------------------------------------------------------------

    async def listen(self, factory: Callable[[], Any], host: str | None, port: int) -> Listener:
        """Behind ``loop.create_server``. Raises OSError when the port is taken."""
        process = _caller()
        machine: Host = process.owner
        address = IPv6Address(host or "::")
        port = port or machine.free_port()
        if any(known.matches(address, port) for known in machine.listeners):
            raise OSError(errno.EADDRINUSE, f"[{address}]:{port} is in use")
        listener = Listener(self, process, address, port, factory)
        machine.listeners.append(listener)
        return listener

    # -- dialling -----------------------------------------------------------------------------------

    async def connect(
        self,
        factory: Callable[[], Any],
        host: str | IPv6Address,
        port: int,
        local_addr: tuple[str, int] | None,
    ) -> tuple[VirtualTransport, Any]:
        """Behind ``loop.create_connection``. Raises OSError."""
        process = _caller()
        source = IPv6Address(local_addr[0]) if local_addr else None
        address = _address(host) if isinstance(host, str) else host
        dial = Dial(self, process, address, port, source)
        try:
            socket = await dial.answered
            protocol = factory()
            transport = VirtualTransport(self.loop, socket, protocol)
        except BaseException:
            dial.give_up()
            raise
        finally:
            del dial  # Its future has the error, whose trace would have this frame and so the dial.
        made: asyncio.Future[None] = self.loop.create_future()
        self.loop.call_soon(_settle, made)  # after connection_made
        try:
            await made
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    def is_refused(self) -> bool:
        """Whether a dial meets a refusal that the weather makes."""
        return self._draw.chance(self.weather.refused_share)


def _caller() -> Process:
    process = PROCESS.get()
    if process is None or process.owner is None:
        raise Forbidden("only processes of hosts have a network: start this with Host.spawn")
    return process


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
