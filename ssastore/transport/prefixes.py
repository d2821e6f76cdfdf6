"""Which prefix of a service a client uses: the one given, the one that its name or its workers say.

What is open goes on until somebody answers at another prefix.  Workers count their word up (ADR 0025); a name
says only something when it says something new, so that an old answer from a cache does not undo their word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from ssastore.env import spawn
from ssastore.errors import SsaStoreError
from ssastore.limits import RETRY_CAP_MS
from ssastore.transport.connection import Connection
from ssastore.transport.lookup import NOWHERE, Find, Found, Lookup

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reach:
    """What a pool does for its prefixes: connect to some worker there, and use it from then on."""

    connect: Callable[[IPv6Network], Awaitable[Connection]]
    arrived: Callable[[Connection], None]
    is_connected: Callable[[], bool]


class Prefixes:
    """The prefix in use, and the way to another one."""

    def __init__(self, service: IPv6Network, port: int, reach: Reach, find: Find | None) -> None:
        self.service = service
        self.port = port
        self.serial = 0
        "Of the word of where the service is that was believed last: a lower one is an old word."
        self._reach = reach
        self._lookup = Lookup(find, self._found) if find else None
        self._sites: tuple[IPv6Network, ...] = ()
        "All prefixes that the service's name has."
        self._leaving: asyncio.Task[None] | None = None
        "Looks for somebody who answers at another prefix."
        self._told: dict[IPv6Network, str] = {}

    async def refresh(self) -> None:
        """Look the name up where that is due. Raises what ``find`` raises, the first time."""
        if self._lookup is not None:
            await self._lookup.refresh()

    def is_hole(self, address: IPv6Address) -> bool:
        """Whether the service's name says that nobody serves this address."""
        return self._lookup is not None and self._lookup.is_hole(address)

    def renumber(self, serial: int, service: IPv6Network) -> None:
        """A worker says where the service is; what has the highest serial counts."""
        if serial <= self.serial:
            return
        self.serial = serial
        self._stay()
        if service == self.service:
            return
        if self._reach.is_connected():
            self._leave((service,))
        else:
            self.service = service

    def unreached(self) -> None:
        """An address could not be dialled. When nothing else is open either, another site may answer."""
        others = tuple(site for site in self._sites if site != self.service)
        if others and not self._reach.is_connected() and (self._leaving is None or self._leaving.done()):
            self._leave((self.service, *others))

    def close(self) -> None:
        """End what is under way."""
        self._stay()
        if self._lookup is not None:
            self._lookup.close()

    async def _found(self, found: Found) -> None:
        self.port, self._sites = found.port, found.services
        if self.service is NOWHERE:
            self.service = found.services[0]
            # Whether it answers is seen soon enough where there is no other.
            if len(found.services) > 1:
                await self._try(found.services)
        elif self.service not in found.services:
            self._leave(found.services)

    async def _try(self, services: Sequence[IPv6Network]) -> bool:
        """Use the first of these at which somebody answers. False: nobody does."""
        for service in services:
            try:
                connection = await self._reach.connect(service)
            except (OSError, SsaStoreError) as error:
                self._tell(service, str(error))
                continue
            self._told.pop(service, None)
            if service != self.service:
                log.info("prefix.changed", extra={"from": str(self.service), "to": str(service)})
            self.service = service
            self._reach.arrived(connection)
            return True
        return False

    def _leave(self, services: Sequence[IPv6Network]) -> None:
        self._stay()
        self._leaving = spawn("go to another prefix", self._leave_for(services))

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    async def _leave_for(self, services: Sequence[IPv6Network]) -> None:
        while not await self._try(services):
            await asyncio.sleep(RETRY_CAP_MS / 1000)

    def _tell(self, service: IPv6Network, reason: str) -> None:
        """Once for each reason: it is tried again some times a second."""
        if self._told.get(service) != reason:
            log.warning("prefix.not_reached", extra={"service": str(service), "reason": reason})
        self._told[service] = reason
