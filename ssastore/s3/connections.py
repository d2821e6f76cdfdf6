"""Who is connected: let in or not, and sent elsewhere when addresses get another gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from aiohttp import web

from ssastore.core.networks import Networks
from ssastore.s3.answers import limit_unread

_HEAD_S = 60.0
"Until a connection has sent the headers of its first request."
_RETIRED_IDLE_S = 5.0
"How long a connection that is to end waits for one more request, whose answer says that it ends."
_AT_A_TIME = 500
"Connections, between two looks of the event loop: some 0.2 ms."

LetsIn = Callable[[Any, Any], bool]
"Whether a connection may go on, by ``getpeername`` and ``getsockname``."


class Connections(web.Server):
    """aiohttp's server, but who connects and sends nothing, or half of a request's headers, does not stay.

    aiohttp looks after the pause between two requests, not after the time before the first one.
    """

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        lets_in: LetsIn | None = None,
        **options: Any,
    ) -> None:
        super().__init__(self._handle, **options)
        self._answer = handle
        self._lets_in = lets_in
        self._silent: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        "Connections on which no request has come, and what will end them."
        self._own: dict[web.RequestHandler, int] = {}
        "The address that each dialled, of those who came by IPv6."
        self._answering: dict[web.RequestHandler, None] = {}
        self._retired: dict[web.RequestHandler, float] = {}
        "Since when each is to end."

    def is_retired(self, connection: web.RequestHandler) -> bool:
        """Whether a connection is to end with the answer to what it asks now."""
        return connection in self._retired

    async def retire(self, networks: Collection[IPv6Network]) -> set[IPv6Network]:
        """Let connections to these addresses end, and all others go on; which networks still have some.

        Each is answered what it asks, and told with the next answer that there will be no other.  Of many,
        some are looked at at a time, and others are answered meanwhile.
        """
        now_s, busy, known = asyncio.get_running_loop().time(), set(), Networks(networks)
        for at, (connection, own) in enumerate(list(self._own.items()) if networks or self._retired else ()):
            if at % _AT_A_TIME == _AT_A_TIME - 1:
                await asyncio.sleep(0)
            if connection not in self._own:
                continue  # It has ended meanwhile.
            network = known.around(own)
            if network is None:
                self._retired.pop(connection, None)
                continue
            busy.add(network)
            since_s = self._retired.setdefault(connection, now_s)
            if connection not in self._answering and now_s - since_s > _RETIRED_IDLE_S:
                connection.force_close()
        return busy

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        connection = http.protocol
        self._forget(connection)
        self._answering[connection] = None
        try:
            return await self._answer(http)
        finally:
            self._answering.pop(connection, None)

    def _forget(self, connection: web.RequestHandler) -> None:
        timer = self._silent.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        own = transport.get_extra_info("sockname")
        if self._lets_in is not None and not self._lets_in(transport.get_extra_info("peername"), own):
            # Not now: aiohttp has yet to begin what it ends when the connection does.
            asyncio.get_running_loop().call_soon(transport.abort)
            return
        limit_unread(transport)
        if own and ":" in own[0]:
            self._own[handler] = int(IPv6Address(own[0].partition("%")[0]))
        self._silent[handler] = asyncio.get_running_loop().call_later(_HEAD_S, transport.abort)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._forget(handler)
        self._own.pop(handler, None)
        self._retired.pop(handler, None)
        super().connection_lost(handler, exc)
