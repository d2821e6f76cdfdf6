"""A dial that only wants to know whether somebody is there."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address
from typing import cast

from ssastore.env import Links
from ssastore.errors import Unproved
from ssastore.limits import RETRY_CAP_MS


class _Knock(asyncio.Protocol):
    """A connection that is given up as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def hang_up(self) -> None:
        """Not while it is being made: the loop still works on the socket then."""
        self._transport.abort()


async def knock(links: Links, address: IPv6Address, port: int) -> None:
    """Return when a dial is answered or refused. "Unreachable" is neither: routes may settle.

    Nor is who does not prove that it is the service: nothing that it says would count.
    """
    while True:
        try:
            made = await links.dial(address, port, _Knock)
        except OSError as error:
            if isinstance(error, ConnectionError) and not isinstance(error, Unproved):
                return
            await asyncio.sleep(RETRY_CAP_MS / 1000)
            continue
        made.hang_up()
        return
