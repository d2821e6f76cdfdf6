"""Which prefix of a service a client uses: the one given, the one that its name or its workers say.

What is open goes on until somebody answers at another prefix.  Workers count their word up (ADR 0025); a name
says only something when it says something new, so that an old answer from a cache does not undo their word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from ssastore.env import spawn
from ssastore.errors import SsaStoreError
from ssastore.limits import RETRY_CAP_MS
from ssastore.transport.connection import Connection
from ssastore.transport.lookup import NOWHERE, Find, Found, Lookup

log = logging.getLogger(__name__)

_ASKED_OF_A_SITE = 8
"Places of a site that are asked whether it is there, where there is another one."


@dataclass(frozen=True, slots=True)
class Reach:
    """What a pool does for its prefixes: connect to some worker there, and use it from then on."""

    connect: Callable[[IPv6Network, int], Coroutine[Any, Any, Connection]]
    arrived: Callable[[Connection], None]
    is_connected: Callable[[], bool]
    is_heard: Callable[[], bool]
    "Whether anything has come lately; a site that is cut off leaves its connections open."


class Prefixes:
    """The prefix in use, and the way to another one."""

    def __init__(self, service: IPv6Network, port: int, reach: Reach, find: Find | None) -> None:
        self.service = service
        self.port = port
        self.serial = 0
        "Of the word of where the service is that was believed last: a lower one is an old word."
        self._reach = reach
        self._lookup = Lookup(find, self._found) if find else None
        self._is_by_workers = False
        "The prefix in use is workers' word."
        self._said: set[IPv6Network] = set()
        "All that the name ever said."
        self._sites: tuple[IPv6Network, ...] = ()
        "All prefixes that the service's name has."
        self._leaving: asyncio.Task[None] | None = None
        "Looks for somebody who answers at another prefix."
        self._ordered: set[IPv6Network] = set()
        "What workers said last."
        self._is_leaving_by_name = False
        "And does so because the name says so, not workers."
        self._is_trying = False
        "The first of the sites that answers is being looked for."
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
        self._ordered = {service}
        self._stay()
        if service == self.service:
            self._is_by_workers = True
            return
        if self._reach.is_connected():
            self._leave((service,), self.port)
        else:
            self.service, self._is_by_workers = service, True

    def unreached(self) -> None:
        """An address could not be dialled. When nothing else is open either, another site may answer."""
        others = tuple(site for site in self._sites if site != self.service)
        if others and not self._is_trying and not self._is_moving and not self._reach.is_heard():
            self._leave((self.service, *others), self.port, is_by_name=True)

    def close(self) -> None:
        """End what is under way."""
        self._stay()
        if self._lookup is not None:
            self._lookup.close()

    async def _found(self, found: Found) -> None:
        # Caches tell for a while what was true before workers said something newer: against their word only
        # what the name never said counts.
        has_news = not self._is_by_workers or not set(found.services) <= self._said
        self._said.update(found.services)
        self._sites = found.services
        if self.service is NOWHERE:
            self.service, self.port = found.services[0], found.port
            # Whether it answers is seen soon enough where there is no other.
            if len(found.services) > 1:
                self._is_trying = True
                try:
                    await self._try(found.services, self.port)
                finally:
                    self._is_trying = False
        elif self.service in found.services:
            # Where it is already; and if it was on its way elsewhere, the name has taken that back.
            self.port = found.port
            if self._is_leaving_by_name:
                self._stay()
        elif has_news:
            self._leave(found.services, found.port, is_by_name=True)

    @property
    def _is_moving(self) -> bool:
        """Whether sites are being tried already."""
        return self._is_leaving_by_name and self._leaving is not None and not self._leaving.done()

    async def _try(self, services: Sequence[IPv6Network], port: int) -> bool:
        """Use the first of these at which somebody answers. False: nobody does."""
        for service in services:
            try:
                connection = await self._reach_any(
                    service, port, 1 if len(services) == 1 else _ASKED_OF_A_SITE
                )
            except (OSError, SsaStoreError) as error:
                self._tell(service, error)
                continue
            self.port = port
            self._is_by_workers = service in self._ordered
            self._told.pop(service, None)
            if service != self.service:
                log.info("prefix.changed", extra={"from": str(self.service), "to": str(service)})
            self.service = service
            self._reach.arrived(connection)
            return True
        return False

    async def _reach_any(self, service: IPv6Network, port: int, count: int) -> Connection:
        """A connection to one of so many places of a site, asked side by side: a node of it may be down."""
        asked = {spawn("try a prefix", self._reach.connect(service, port)) for _ in range(count)}
        try:
            while True:
                done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                good = [task for task in done if task.exception() is None]
                if good or not asked:
                    return (good or list(done))[0].result()
        finally:
            for task in asked:
                task.cancel()

    def _leave(self, services: Sequence[IPv6Network], port: int, *, is_by_name: bool = False) -> None:
        self._stay()
        self._is_leaving_by_name = is_by_name
        self._leaving = spawn("go to another prefix", self._leave_for(services, port))

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    async def _leave_for(self, services: Sequence[IPv6Network], port: int) -> None:
        while not await self._try(services, port):
            await asyncio.sleep(RETRY_CAP_MS / 1000)
        if self._ordered and self.service not in self._ordered:
            # What workers said is not forgotten over another site: their word does not come twice.
            self._leave(tuple(self._ordered), self.port)

    def _tell(self, service: IPv6Network, error: Exception) -> None:
        """Once for each kind of error: it is tried again some times a second, at other addresses."""
        kind = f"{type(error).__name__} {getattr(error, 'errno', None)}"
        if self._told.get(service) != kind:
            log.warning("prefix.not_reached", extra={"service": str(service), "reason": str(error)})
        self._told[service] = kind
