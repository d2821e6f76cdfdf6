"""Links over TCP: the kernel's routes decide which node an address reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from typing import TypeVar

from ssastore.keyspace import Slice
from ssastore.limits import DIAL_TIMEOUT_MS

P = TypeVar("P", bound=asyncio.Protocol)


class TcpLinks:
    """Dial the address itself."""

    async def dial(self, address: IPv6Address, port: int, protocol: Callable[[], P]) -> P:
        """See ``env.Links.dial``."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_MS / 1000):
                _, made = await loop.create_connection(protocol, str(address), port)
        except TimeoutError:
            raise OSError(f"no answer from [{address}]:{port} in {DIAL_TIMEOUT_MS} ms") from None
        return made


class LoopbackLinks:
    """A simulated network for hosts that forbid namespaces: every node is a port of ``::1``.

    The one place where an address is rewritten; never used in tests or benches of the network.
    """

    def __init__(self, ports: Mapping[Slice, int]) -> None:
        """``ports`` says on which local port the owner of each slice listens."""
        self._ports = dict(ports)
        self._tcp = TcpLinks()

    async def dial(self, address: IPv6Address, port: int, protocol: Callable[[], P]) -> P:
        """See ``env.Links.dial``; ``port`` is replaced by the owner's."""
        iid = int(address) & ((1 << 64) - 1)
        for piece, local_port in self._ports.items():
            if iid in piece:
                return await self._tcp.dial(IPv6Address("::1"), local_port, protocol)
        raise OSError(f"no owner of {address} in the simulated network")
