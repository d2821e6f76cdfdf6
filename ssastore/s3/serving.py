"""One S3 server on its sockets, from the first connection to the last answer."""

from __future__ import annotations

import asyncio
import socket

from ssastore.config import parse_listen
from ssastore.errors import ConfigError
from ssastore.limits import LISTEN_BACKLOG
from ssastore.s3.connections import LetsIn
from ssastore.s3.server import S3Server

_DRAIN_S = 10
"For requests under way when it ends."


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

    def __init__(self, server: S3Server, lets_in: LetsIn | None = None) -> None:
        self.connections = server.http_server(lets_in)
        self._servers: list[asyncio.Server] = []

    async def begin(self, listener: socket.socket) -> None:
        """Accept from this socket too, and own it from now on."""
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
