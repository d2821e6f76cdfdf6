"""Who gives up dialling leaves nothing behind, on either event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

import pytest
import uvloop

from ssastore.core.requestid import REQUEST
from ssastore.transport.tcp import TcpLinks

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


class Protocol(asyncio.Protocol):
    """Writes soon after it was told of its connection, as a greeting does."""

    def __init__(self, on_made: Callable[[], object]) -> None:
        self.on_made = on_made
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        asyncio.get_running_loop().call_soon(self._write)
        self.on_made()

    def _write(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"hello")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@LOOPS
def test_a_dial_that_is_cancelled_when_it_succeeds_closes_its_connection(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        complaints: list[Any] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        server = await loop.create_server(asyncio.Protocol, "::1", 0)
        port = server.sockets[0].getsockname()[1]
        made: list[Protocol] = []

        def protocol() -> Protocol:
            made.append(Protocol(dialling.cancel))
            return made[-1]

        dialling = asyncio.ensure_future(TcpLinks().dial(IPv6Address("::1"), port, protocol))
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await asyncio.sleep(0.05)
        assert complaints == [] and made[0].lost
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


@LOOPS
def test_a_connection_is_of_no_request(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """It outlives the one that dialled: what is logged of it must not have that one's id."""
    seen: list[int] = []

    class Told(Protocol):
        def data_received(self, data: bytes) -> None:
            seen.append(REQUEST.get())

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            seen.append(REQUEST.get())

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(b"hello")
            asyncio.get_running_loop().call_later(0.05, transport.close)

    async def scenario() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "::1", 0)
        port = server.sockets[0].getsockname()[1]
        REQUEST.set(5)
        made = await TcpLinks().dial(
            IPv6Address("::1"), port, lambda: Told(lambda: seen.append(REQUEST.get()))
        )
        assert REQUEST.get() == 5
        while not made.lost:
            await asyncio.sleep(0.01)
        assert seen == [0, 0, 0]
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
