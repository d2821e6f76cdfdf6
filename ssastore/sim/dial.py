"""One attempt to connect, from the first packet to the open connection.

A dial costs a round trip.  First packets that get no answer are sent again after 1,
2, 4 ... seconds, as Linux does, and the route is looked up anew for each.  The
dialling end is open when the answer arrives, the listening end a packet later: if
that one is lost, the one believes in a connection of which the other knows nothing.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, TypeVar

from ssastore.limits import DIAL_TIMEOUT_MS
from ssastore.sim.clock import NS_PER_S
from ssastore.sim.host import LOOPBACK, Host
from ssastore.sim.process import Process
from ssastore.sim.sockets import Mark, Name, Pipe, Socket, digits

if TYPE_CHECKING:
    from ssastore.sim.network import Listener, Network

P = TypeVar("P", bound=asyncio.BaseProtocol)

SYN_TRIES = 6
"Then a dial fails with ETIMEDOUT, after a minute."


class VirtualLinks:
    """``env.Links`` of a simulated host. ``TcpLinks`` asks the kernel for a socket, which is not here."""

    async def dial(self, address: IPv6Address, port: int, protocol: Callable[[], P]) -> P:
        """See ``env.Links.dial``."""
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_MS / 1000):
                # As the loop's ``create_connection``, but that wants the address in digits.
                made: P
                _, made = await _network().connect(protocol, address, port, None)
        except TimeoutError:
            raise OSError(f"no answer from [{address}]:{port} in {DIAL_TIMEOUT_MS} ms") from None
        return made


def _network() -> Network:
    network: Network = asyncio.get_running_loop().network  # type: ignore[attr-defined]
    return network


class Dial:
    """Seen from the kernel of who dials. ``answered`` gets the socket or OSError."""

    def __init__(
        self, network: Network, process: Process, address: IPv6Address, port: int, source: IPv6Address | None
    ) -> None:
        self._network = network
        self._process = process
        self._host: Host = process.owner
        self._address = address
        self._port = port
        own = address if address == LOOPBACK else source or self._host.address
        self._sockname = own, self._host.free_port()
        self._peername = address, port
        self._tries = 0
        self._is_answered = False
        self.answered: asyncio.Future[Socket] = network.loop.create_future()
        self._ask()

    @property
    def _where(self) -> str:
        return digits(self._address)

    def give_up(self) -> None:
        """Whoever dialled is no longer interested; a connection that came after all is closed."""
        if self.answered.done() and not self.answered.cancelled() and not self.answered.exception():
            self.answered.result().close()
        self._is_answered = True

    def _ask(self) -> None:
        """Send the first packet, and again while nothing comes back."""
        if self._is_answered or self._process.is_dead:
            return
        target = self._network.target(self._host, self._address)
        if target is None:
            self._fail(OSError(errno.ENETUNREACH, f"no route to {self._where}"))
            return
        if self._tries == SYN_TRIES:
            self._fail(TimeoutError(errno.ETIMEDOUT, f"no answer from [{self._where}]:{self._port}"))
            return
        link, loop = self._network.link(self._host, target), self._network.loop
        if not link.is_held:
            loop.at(link.arrival_ns(0, 0), self._asked, target)
        loop.at(loop.now_ns + (NS_PER_S << self._tries), self._ask)
        self._tries += 1

    def _asked(self, target: Host) -> None:
        """The packet is there: answer, if there is somebody and the way back works."""
        link, loop = self._network.link(target, self._host), self._network.loop
        if not target.is_up or link.is_held:
            return
        error: OSError | None = None
        if not target.answers(self._address):
            error = OSError(errno.EHOSTUNREACH, f"{target.name} does not answer for {self._where}")
        elif self._network.is_refused() or self._listener(target) is None:
            error = ConnectionRefusedError(errno.ECONNREFUSED, f"[{self._where}]:{self._port} refused")
        loop.at(link.arrival_ns(0, 0), partial(self._fail, error) if error else partial(self._open, target))

    def _listener(self, target: Host) -> Listener | None:
        for listener in target.listeners:
            if listener.matches(self._address, self._port):
                return listener
        return None

    def _fail(self, error: OSError) -> None:
        if not self._is_answered and not self._process.is_dead:
            self._is_answered = True
            if not self.answered.done():
                self.answered.set_exception(error)

    def _open(self, target: Host) -> None:
        """The answer is here: the dialling end is open; the other will be when the next packet arrives."""
        if self._is_answered or self._process.is_dead or self.answered.done():
            return
        self._is_answered = True
        network = self._network
        network.connection_count += 1
        label = f"c{network.connection_count} {self._host.name}"
        out, back = network.link(self._host, target), network.link(target, self._host)
        request = Pipe(f"{label}>{target.name}", out, back)
        reply = Pipe(f"{label}<{target.name}", back, out)
        near = self._socket(self._process, (self._sockname, self._peername), (reply, request))
        far = self._socket(target.process, (self._peername, self._sockname), (request, reply), self._take)
        if not target.is_up:
            far.vanish()
        request.send(Mark.OPEN)
        self.answered.set_result(near)

    def _socket(
        self,
        process: Process,
        names: tuple[Name, Name],
        pipes: tuple[Pipe, Pipe],
        on_open: Callable[[Socket], None] | None = None,
    ) -> Socket:
        host: Host = process.owner
        socket = Socket(process, names, pipes, on_open=on_open, on_gone=host.forget)
        host.sockets[socket] = None
        return socket

    def _take(self, socket: Socket) -> None:
        """The handshake is complete at the listening end, if that still listens."""
        host: Host = socket.process.owner
        listener = self._listener(host)
        if listener is None:
            socket.refuse()
            socket.vanish()
        else:
            socket.process = listener.process
            listener.take(socket)
