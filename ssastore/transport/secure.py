"""Connections of one listening socket that begin with a TLS handshake.

Not by the server of asyncio: who may not connect at all is not worth a handshake, whoever speaks without TLS
is told so in plain words, and each connection gets the context of its moment, so that a renewed certificate
needs no restart.  The first byte is looked at and left where it is (MSG_PEEK).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from ssastore.env import spawn
from ssastore.limits import CONNECTIONS_MAX, GREETING_TIMEOUT_MS, TLS_GOODBYE_MS
from ssastore.transport.seldom import Seldom
from ssastore.transport.tls import Tls, begins_tls

log = logging.getLogger(__name__)

_NO_ROOM_S = 0.2
"Until the next try when there are no descriptors left."
_READ_BYTES = 64 * 1024


class SecureListener:
    """Accepts from a socket that listens already, until it is closed."""

    def __init__(
        self,
        listener: socket.socket,
        tls: Tls,
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        plainly: bytes,
        lets_in: Callable[[Any, Any], bool] | None = None,
    ) -> None:
        """Begin; the socket is ours from now on.

        Args:
            listener: a TCP socket.
            tls: has a certificate to show.
            protocol: of a new connection.
            plainly: what whoever speaks without TLS is answered.
            lets_in: whether a connection may go on, by peer and own address; it is counted there.
        """
        listener.setblocking(False)
        self._listener = listener
        self._tls = tls
        self._protocol = protocol
        self._plainly = plainly
        self._lets_in = lets_in
        self._without_tls, self._refused = Seldom(), Seldom()
        self._beginning: dict[asyncio.Task[None], None] = {}
        self._accepting = spawn("accept by TLS", self._accept())
        # Not sooner: the loop still watches the socket while it waits there.
        self._accepting.add_done_callback(lambda _: listener.close())

    def close(self) -> None:
        """Accept nothing more. Connections that were made go on."""
        self._accepting.cancel()
        for task in list(self._beginning):
            task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(self._listener)
            except OSError as error:
                log.warning("connection.not_accepted", extra={"reason": error.strerror})
                await asyncio.sleep(_NO_ROOM_S)
                continue
            is_welcome = self._lets_in is None or self._lets_in(peer, sock.getsockname())
            if not is_welcome or len(self._beginning) >= CONNECTIONS_MAX:
                sock.close()
                continue
            task = spawn("begin TLS", self._begin(sock, peer[0]))
            self._beginning[task] = None
            task.add_done_callback(lambda ended: self._beginning.pop(ended, None))

    async def _begin(self, sock: socket.socket, peer: str) -> None:
        context = self._tls.server
        assert context is not None, "nobody listens for TLS without a certificate"
        loop = asyncio.get_running_loop()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(GREETING_TIMEOUT_MS / 1000):
                first = await _peek(sock)
            if not first:
                sock.close()
            elif not begins_tls(first):
                if count := self._without_tls.count(peer, loop.time()):
                    log.warning("connection.without_tls", extra={"peer": peer, "count": count})
                await self._answer_plainly(sock)
            else:
                await loop.connect_accepted_socket(
                    self._protocol,
                    sock,
                    ssl=context,
                    ssl_handshake_timeout=GREETING_TIMEOUT_MS / 1000,
                    ssl_shutdown_timeout=TLS_GOODBYE_MS / 1000,
                )
        except ssl.SSLError as error:
            if count := self._refused.count(peer, loop.time()):
                extra = {"peer": peer, "count": count, "reason": error.reason or str(error)}
                log.warning("tls.refused", extra=extra)
        except (OSError, TimeoutError):
            sock.close()  # Gone, or silent for too long: nothing is worth a line.
        except asyncio.CancelledError:
            sock.close()
            raise

    async def _answer_plainly(self, sock: socket.socket) -> None:
        """Say it, and take what comes still: else the kernel drops the answer at the end."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TLS_GOODBYE_MS / 1000):
                await loop.sock_recv(sock, _READ_BYTES)
                await loop.sock_sendall(sock, self._plainly)
                sock.shutdown(socket.SHUT_WR)
                while await loop.sock_recv(sock, _READ_BYTES):
                    pass
        finally:
            sock.close()


async def _peek(sock: socket.socket) -> bytes:
    """The first byte of a connection, which stays where it is; empty at its end. Raises OSError."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            pass
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(sock.fileno(), _wake, readable)
        try:
            await readable
        finally:
            loop.remove_reader(sock.fileno())


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
