"""Announces by BGP without a routing daemon on the host: ``env.Routes`` over sessions with the routers given.

What is added is announced to all of them, with the node's own address for next hop; nothing is believed and
nothing is installed in the kernel.  A session that ends is begun again after a while; at the node's end each
router is told that it is over, and forgets what was announced.

Packets leave with hop limit 255, so that routers may insist on neighbours on the link (GTSM, RFC 5082).
Nobody listens here: who wants to be asked must be passive, or will find the session that we have begun.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address, IPv6Network
from typing import Any

from ssastore.core.routeplan import parse
from ssastore.env import Route, spawn
from ssastore.errors import ConfigError, RouteRefused
from ssastore.routes.bgpsession import Peering, Session, State

log = logging.getLogger(__name__)

PORT = 179
HOLD_S = 9
CONNECT_S = 5
"For the three steps of TCP: a router on the link takes a millisecond."
RETRY_BASE_S, RETRY_CAP_S = 1.0, 30.0
STEADY_S = 10.0
"A session of so long was a good one: the next is begun soon."
UNREAD_BYTES_MAX = 1 << 20
"What waits for a router that does not read; a whole table has a tenth of it."
UNREAD_S = 30
"How long a router may take nothing of what it is sent (RFC 9687), or, where no time holds, be silent."
CLOSE_S = 2.0
"For the last words of a session."
AS_MAX = (1 << 32) - 2
NEIGHBOURS_MAX = 16

_HOP_LIMIT = 255
_NEIGHBOUR = re.compile(r"(?P<address>[0-9A-Fa-f:.]+) as (?P<number>[0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A router that is told."""

    address: IPv6Address
    number: int
    "Of its autonomous system."
    port: int = PORT


def parse_neighbours(text: str) -> list[Neighbour]:
    """Of ``2001:db8:99::1 as 4200000001, 2001:db8:99::2 as 4200000002``. Raises ConfigError."""
    found = []
    for part in text.split(","):
        match = _NEIGHBOUR.fullmatch(part.strip())
        try:
            address = IPv6Address(match["address"]) if match else None
        except AddressValueError:
            address = None
        if match is None or address is None or not 1 <= int(match["number"]) <= AS_MAX:
            raise ConfigError(
                f"{part.strip()!r} is no neighbour: `ADDRESS as NUMBER`, as 2001:db8::1 as 65001"
            )
        found.append(Neighbour(address, int(match["number"])))
    if not 0 < len({neighbour.address for neighbour in found}) == len(found) <= NEIGHBOURS_MAX:
        raise ConfigError(f"1 to {NEIGHBOURS_MAX} neighbours, each once")
    return found


class BgpRoutes:
    """``env.Routes`` of what is announced. To be made on an event loop."""

    def __init__(self, neighbours: Sequence[Neighbour], *, number: int, source: IPv6Address) -> None:
        """``number``: of our autonomous system. ``source``: the node's address, where packets are to go."""
        self._announced: dict[str, Route] = {}
        self._prefixes: set[IPv6Network] = set()
        self._is_telling = False
        self._links = [_Link(neighbour, number, source) for neighbour in neighbours]
        self._tasks = [
            spawn(f"announce to {link.neighbour.address}", link.run(self._prefixes)) for link in self._links
        ]

    def installed(self) -> set[Route]:
        return set(self._announced.values())

    def add(self, route: Route) -> None:
        try:
            prefix, via = parse(route)
        except ValueError as error:
            raise RouteRefused(f"{route}: {error}") from error
        if via is not None:
            raise RouteRefused(f"{route}: who announces a prefix answers for it, and has no next hop")
        self._announced[route.prefix] = route
        self._prefixes.add(prefix)
        self._tell_soon()

    def remove(self, route: Route) -> None:
        if self._announced.pop(route.prefix, None) is not None:
            self._prefixes.discard(IPv6Network(route.prefix))
            self._tell_soon()

    def states(self) -> dict[IPv6Address, State]:
        """Of the session with each neighbour."""
        return {link.neighbour.address: link.state for link in self._links}

    @property
    def is_heard(self) -> bool:
        """Whether some router is told now."""
        return State.ESTABLISHED in self.states().values()

    def close(self) -> None:
        """End all sessions; the last words leave as far as the kernel takes them at once."""
        for task in self._tasks:
            task.cancel()
        for link in self._links:
            link.stop()

    def _tell_soon(self) -> None:
        """Once for all changes of a turn."""
        if not self._is_telling:
            self._is_telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._is_telling = False
        for link in self._links:
            link.tell(self._prefixes)


class _Link:
    """One neighbour, for ever: connect, talk, and again."""

    def __init__(self, neighbour: Neighbour, number: int, source: IPv6Address) -> None:
        self.neighbour = neighbour
        # Any 32 bits that differ within the system; an address of the link's /64 differs in its low ones.
        identifier = int(source) & 0xFFFFFFFF or 1
        self._peering = Peering(number, neighbour.number, identifier, source, HOLD_S)
        self._talk: _Talk | None = None

    @property
    def state(self) -> State:
        return State.CLOSED if self._talk is None else self._talk.session.state

    def tell(self, prefixes: set[IPv6Network]) -> None:
        if self._talk is not None:
            self._talk.session.tell(prefixes)
            self._talk.flush()

    def stop(self) -> None:
        if self._talk is not None:
            self._talk.session.stop()
            self._talk.flush()

    async def run(self, prefixes: set[IPv6Network]) -> None:
        """``prefixes`` is kept up to date by who calls."""
        loop, delay_s = asyncio.get_running_loop(), RETRY_BASE_S
        told = ""
        while True:
            began = loop.time()
            try:
                reason = await self._once(prefixes)
            except (OSError, TimeoutError) as error:
                reason = str(error) or "no answer"
            if reason != told:  # It is tried again and again.
                log.warning(
                    "neighbour.lost", extra={"neighbour": str(self.neighbour.address), "reason": reason}
                )
            told = reason
            is_steady = loop.time() - began > STEADY_S
            if is_steady:
                told, delay_s = "", RETRY_BASE_S
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_CAP_S)

    async def _once(self, prefixes: set[IPv6Network]) -> str:
        """One session; why it ended."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, _HOP_LIMIT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _watch(sock)
            # AnyIP accepts addresses of slices as well: none of them may become the source.
            sock.bind((str(self._peering.next_hop), 0))
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(sock, (str(self.neighbour.address), self.neighbour.port))
            session = Session(self._peering, loop.time())
            session.tell(prefixes)
            _, self._talk = await loop.create_connection(lambda: _Talk(session, self.neighbour), sock=sock)
        except BaseException:
            sock.close()
            raise
        self.tell(prefixes)  # As they are now: they may have changed while this waited.
        try:
            return await self._talk.ended
        finally:
            self._talk.close()
            self._talk = None


def _watch(sock: socket.socket) -> None:
    """Let the kernel end a connection whose other end is gone, or takes nothing any more.

    A peer that asks for no hold time (0, RFC 4271) sends nothing that would be missed.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, UNREAD_S // 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, UNREAD_S // 6)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)


class _Talk(asyncio.Protocol):
    """A session's octets and timers."""

    def __init__(self, session: Session, neighbour: Neighbour) -> None:
        self.session = session
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._neighbour = neighbour
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._was = session.state

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.session.receive(data, asyncio.get_running_loop().time())
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.lost(str(exc) if exc else "the peer closed the connection")
        self.flush()

    def flush(self) -> None:
        """Send what is to be sent, and see what has become of the session."""
        out, transport = self.session.take(), self._transport
        if out and transport is not None and not transport.is_closing():
            transport.write(out)
            if transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
                self.session.lost("the peer does not read what it is sent")
                transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.session.is_over():
            self.close()
            if not self.ended.done():
                self.ended.set_result(self.session.reason)
            return
        if self.session.state is not self._was and self.session.state is State.ESTABLISHED:
            log.info("neighbour.told", extra={"neighbour": str(self._neighbour.address)})
        self._was = self.session.state
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self.session.next_at, self._tick)

    def close(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.close()
            asyncio.get_running_loop().call_later(CLOSE_S, transport.abort)

    def _tick(self) -> None:
        self._timer = None
        self.session.tick(asyncio.get_running_loop().time())
        self.flush()
