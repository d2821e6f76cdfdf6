"""One S3 server on its sockets, from the first connection to the last answer."""

from __future__ import annotations

import asyncio
import socket

from ssastore.config import parse_listen
from ssastore.errors import ConfigError
from ssastore.limits import LISTEN_BACKLOG
from ssastore.s3.connections import LetsIn
from ssastore.s3.server import S3Server
from ssastore.transport.secure import SecureListener
from ssastore.transport.tls import Tls

_DRAIN_S = 10
"For requests under way when it ends."
_TEXT = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InvalidRequest</Code>'
    b"<Message>This port speaks HTTPS, and the request came without.</Message></Error>"
)
_SPEAK_HTTPS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


def listening(text: str) -> socket.socket:
    """A socket that listens at HOST:PORT. Raises ConfigError."""
    host, port = parse_listen(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"{text}: {error.strerror}") from None
    listener.listen(LISTEN_BACKLOG)
    return listener


class Serving:
    """Answers what comes by its sockets until it is closed."""

    def __init__(self, server: S3Server, lets_in: LetsIn | None = None, tls: Tls | None = None) -> None:
        """With ``tls`` it speaks HTTPS, on every socket."""
        self._tls = tls
        # Who may connect is asked before a handshake.
        self._lets_in = lets_in
        self.connections = server.http_server(lets_in if tls is None else None)
        self._servers: list[asyncio.Server | SecureListener] = []

    async def begin(self, listener: socket.socket) -> None:
        """Accept from this socket too, and own it from now on."""
        if self._tls is not None:
            made = SecureListener(
                listener, self._tls, self.connections, plainly=_SPEAK_HTTPS, lets_in=self._lets_in
            )
            self._servers.append(made)
            return
        loop = asyncio.get_running_loop()
        self._servers.append(
            await loop.create_server(self.connections, sock=listener, backlog=LISTEN_BACKLOG)
        )

    async def close(self) -> None:
        """Accept nothing more, give what is under way its time, and end."""
        for server in self._servers:
            server.close()
        # Connections that are idle now are closed at once; shutdown alone would wait for their next request.
        self.connections.pre_shutdown()
        await self.connections.shutdown(_DRAIN_S)
