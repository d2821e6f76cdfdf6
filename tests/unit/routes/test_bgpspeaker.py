"""The speaker's connections: what changes at any moment of one is told. The peer is a few lines here."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, IPv6Network

import pytest

from ssastore.env import Route
from ssastore.routes import bgpmessages
from ssastore.routes.bgpspeaker import BgpRoutes, Neighbour

HERE = IPv6Address("::1")
PREFIX = IPv6Network("fd5a::/68")
ENCODED = bytes([PREFIX.prefixlen]) + PREFIX.network_address.packed[:9]


@pytest.mark.parametrize("turns", range(14))
async def test_what_changes_while_a_session_is_begun_is_told(turns: int) -> None:
    """After so many turns of the event loop: before, while and after it connects."""
    heard = bytearray()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bgpmessages.encode_open(65001, 9, 7) + bgpmessages.encode_keepalive())
        while some := await reader.read(1 << 16):
            heard.extend(some)
        writer.close()

    server = await asyncio.start_server(peer, str(HERE), 0)
    port = server.sockets[0].getsockname()[1]
    routes = BgpRoutes([Neighbour(HERE, 65001, port)], number=65002, source=HERE)
    try:
        for _ in range(turns):
            await asyncio.sleep(0)
        routes.add(Route(str(PREFIX)))
        async with asyncio.timeout(5):
            while ENCODED not in heard:
                await asyncio.sleep(0.01)
    finally:
        routes.close()
        server.close()
        async with asyncio.timeout(5):
            await server.wait_closed()
            await asyncio.gather(*routes._tasks, return_exceptions=True)
            await asyncio.sleep(0.05)  # Until both ends have closed.
