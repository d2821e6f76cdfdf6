"""The speaker's connections: what changes at any moment of one is told. The peer is a few lines here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network

import pytest

from ssastore.env import Route
from ssastore.routes import bgpmessages, bgpspeaker
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


MUCH = 19 * 400_000
"Octets that the buffers of no kernel take."


class Peer:
    """A router that confirms a session and then reads, or does not."""

    def __init__(self, hold_s: int = 9) -> None:
        self._opening = bgpmessages.encode_open(65001, hold_s, 7) + bgpmessages.encode_keepalive()
        self.connections: list[socket.socket] = []
        self._listener = socket.create_server((str(HERE), 0), family=socket.AF_INET6)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]

    async def accept(self) -> socket.socket:
        """The next session that is begun here, confirmed; nothing of what it says is read."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            connection, _ = await loop.sock_accept(self._listener)
            self.connections.append(connection)
            connection.setblocking(False)
            await loop.sock_sendall(connection, self._opening)
        return connection

    def close(self) -> None:
        for sock in (self._listener, *self.connections):
            sock.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    found = Peer()
    yield found
    found.close()


async def established(routes: BgpRoutes) -> None:
    async with asyncio.timeout(5):
        while not routes.is_heard:
            await asyncio.sleep(0.01)


def begin(peer: Peer) -> BgpRoutes:
    return BgpRoutes([Neighbour(HERE, 65001, peer.port)], number=65002, source=HERE)


def tell_much(routes: BgpRoutes) -> None:
    """It goes with what is told next."""
    session = routes._links[0]._talk.session  # type: ignore[union-attr]
    session._out += bgpmessages.encode_keepalive() * (MUCH // 19)


async def test_a_peer_that_does_not_read_is_given_up_and_begun_again(peer: Peer) -> None:
    """What waits for it is bounded, and its connection does not stay."""
    routes = begin(peer)
    first = await peer.accept()
    await established(routes)
    tell_much(routes)
    routes.add(Route(str(PREFIX)))
    await peer.accept()
    await established(routes)
    taken = 0
    async with asyncio.timeout(5):
        while some := await asyncio.get_running_loop().sock_recv(first, 1 << 20):
            taken += len(some)
    assert 0 < taken < MUCH, "what waited for it is gone"
    routes.close()


async def test_last_words_to_a_peer_that_does_not_read_do_not_keep_the_connection(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bgpspeaker, "CLOSE_S", 0.2)
    monkeypatch.setattr(bgpspeaker, "UNREAD_BYTES_MAX", 1 << 30)
    routes = begin(peer)
    await peer.accept()
    await established(routes)
    tell_much(routes)
    routes.add(Route(str(PREFIX)))
    transport = routes._links[0]._talk._transport  # type: ignore[union-attr]
    await asyncio.sleep(0.05)
    routes.close()
    await asyncio.gather(*routes._tasks, return_exceptions=True)
    assert transport is not None and transport.is_closing() and transport.get_write_buffer_size() > 0
    await asyncio.sleep(0.4)
    assert transport.get_write_buffer_size() == 0


async def test_a_peer_without_a_hold_time_that_takes_nothing_any_more_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the kernel: nothing else would be missed of it."""
    monkeypatch.setattr(bgpspeaker, "UNREAD_S", 6)
    peer = Peer(hold_s=0)
    routes = begin(peer)
    await peer.accept()
    await established(routes)
    sock = routes._links[0]._talk._transport.get_extra_info("socket")  # type: ignore[union-attr]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [3, 1, 3, 6000]
    routes.close()
    peer.close()
