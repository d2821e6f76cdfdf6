"""A sidecar: unmodified programs reach a service by the rule of its front plane.

    ssastore sidecar store.example:80 --listen 127.0.0.1:9000

A program connects to the local address; the sidecar connects to an address that the rule allows this host,
and passes bytes on, both ways.  There is no state but the connections: each is dialled by the rule of its
moment.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network
from struct import pack

from ssastore.env import spawn
from ssastore.errors import SsaStoreError
from ssastore.keyspace import FRONT_PLANE, TAIL_BITS, address_of, iid_of
from ssastore.rules.address import UNBOUND_END
from ssastore.transport.ruled import RuledLinks

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 4096
_DIALS = 3
"Of one connection: another choice, moment or site may be let through."
_PIECE_BYTES = 64 * 1024
_PLACE = iid_of(UNBOUND_END << TAIL_BITS, FRONT_PLANE)
"An address of the front plane that the rule binds: where in the plane, the rule says."

Sites = Callable[[], Awaitable[Sequence[IPv6Network]]]
"The service's prefixes at the moment, the nearest first; raises SsaStoreError."


@dataclass(slots=True)
class Counts:
    """What a sidecar has done: connections that it opened, refused for their number, or could not keep."""

    opened: int = 0
    refused: int = 0
    failed: int = 0


class Sidecar:
    """Accepts for one port of a service; ``links`` know the rule."""

    def __init__(self, sites: Sites, port: int, links: RuledLinks) -> None:
        self._sites = sites
        self._port = port
        self._links = links
        self._passing: dict[asyncio.Task[None], None] = {}
        self.counts = Counts()

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Begin. Raises OSError: the address cannot be had."""
        return await asyncio.start_server(self._accepted, host, port, limit=_PIECE_BYTES)

    async def close(self) -> None:
        """End all connections."""
        for task in list(self._passing):
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._passing) >= CONNECTIONS_MAX:
            self.counts.refused += 1
            writer.transport.abort()
            return
        task = spawn("sidecar connection", self._serve(reader, writer))
        self._passing[task] = None
        task.add_done_callback(self._passing.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            far_reader, far = await self._dial()
            ends.append(far)
            self.counts.opened += 1
            async with asyncio.TaskGroup() as passing:
                passing.create_task(_pass_on(reader, far))
                passing.create_task(_pass_on(far_reader, writer))
        except* (OSError, SsaStoreError) as errors:
            self.counts.failed += 1
            log.warning("sidecar.failed", extra={"reason": str(errors.exceptions[0])})
            for end in ends:
                _reset(end)
        finally:
            for end in ends:
                end.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        dial = 0
        while True:
            sites = await self._sites()
            address = await self._links.ruled_for(address_of(sites[dial % len(sites)], _PLACE))
            dial += 1
            try:
                return await asyncio.open_connection(str(address), self._port, limit=_PIECE_BYTES)
            except OSError:
                if dial == _DIALS:
                    raise


def _reset(end: asyncio.StreamWriter) -> None:
    """What came may be a part, and an end of data would say that it is all; closed at once means a reset."""
    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("=ii", 1, 0))
    end.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end of data, which is passed on as well: the other direction may go on."""
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
