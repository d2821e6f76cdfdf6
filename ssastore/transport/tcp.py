"""Links over TCP: the kernel's routes decide which node an address reaches."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from typing import Any, TypeVar, cast

from ssastore.core.cluster import Cluster
from ssastore.core.planner import owned_slices
from ssastore.core.requestid import REQUEST
from ssastore.env import spawn
from ssastore.keyspace import Slice
from ssastore.limits import DIAL_TIMEOUT_MS
from ssastore.transport.tls import Tls, dial_tls

_IPV6_RECVERR = 25  # ipv6(7); the socket module does not name it

P = TypeVar("P", bound=asyncio.BaseProtocol)


class TcpLinks:
    """Dial the address itself."""

    def __init__(self, tls: Tls | None = None) -> None:
        """With ``tls`` whoever is dialled has to be the service of its name."""
        self._tls = tls

    async def dial(self, address: IPv6Address, port: int, protocol: Callable[[], P]) -> P:
        """See ``env.Links.dial``."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # "Unreachable" may come back while connect() still holds the socket, and is then lost until
            # a SYN is sent again, a second later; with this it is an error at once. Only while
            # connecting: afterwards such a message must not end a connection that works.
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            async with asyncio.timeout(DIAL_TIMEOUT_MS / 1000):
                await loop.sock_connect(sock, (str(address), port))
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 0)
        except TimeoutError:
            sock.close()
            raise OSError(f"no answer from [{address}]:{port} in {DIAL_TIMEOUT_MS} ms") from None
        except BaseException:
            sock.close()
            raise
        connecting = spawn("take a connection over", self._take_over(sock, protocol, f"[{address}]:{port}"))
        try:
            _, made = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # Cancelled itself, uvloop closes the socket under a protocol that believes to be connected.
            connecting.add_done_callback(_close)
            raise
        return made

    async def _take_over(
        self, sock: socket.socket, protocol: Callable[[], P], where: str
    ) -> tuple[asyncio.BaseTransport, P]:
        # A connection outlives the request that dials it, and has the context of its beginning.
        REQUEST.set(0)
        if self._tls is not None:
            return await dial_tls(self._tls, protocol, sock, where)
        return await asyncio.get_running_loop().create_connection(protocol, sock=sock)


def _close(connecting: asyncio.Task[tuple[asyncio.BaseTransport, Any]]) -> None:
    """Nobody waits for it any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        cast(asyncio.Transport, connecting.result()[0]).abort()


class LoopbackLinks:
    """A simulated network for hosts that forbid namespaces: every node is a port of ``::1``.

    The one place where an address is rewritten; never used in tests or benches of the network.
    """

    def __init__(
        self,
        ports: Mapping[Slice, int],
        nodes: Mapping[IPv6Address, int] | None = None,
        tls: Tls | None = None,
    ) -> None:
        """On which local port the owner of each slice listens, and the node of each node address."""
        self._ports = dict(ports)
        self._nodes = dict(nodes or {})
        self._tcp = TcpLinks(tls)

    async def dial(self, address: IPv6Address, port: int, protocol: Callable[[], P]) -> P:
        """See ``env.Links.dial``; ``port`` is replaced by the owner's."""
        if address in self._nodes:
            return await self._tcp.dial(IPv6Address("::1"), self._nodes[address], protocol)
        iid = int(address) & ((1 << 64) - 1)
        for piece, local_port in self._ports.items():
            if iid in piece:
                return await self._tcp.dial(IPv6Address("::1"), local_port, protocol)
        raise OSError(f"no owner of {address} in the simulated network")


def simulated_links(cluster: Cluster, tls: Tls | None = None) -> LoopbackLinks:
    """Links of a simulated network: every owner, and every node address, is a port of ``::1``."""
    ports = {piece: node.port for node in cluster.nodes for piece in owned_slices(cluster.groups, node.name)}
    return LoopbackLinks(ports, {IPv6Address(node.address): node.port for node in cluster.nodes}, tls)
