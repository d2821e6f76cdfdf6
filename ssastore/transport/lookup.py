"""Where a service with a name is: looked up when somebody must be dialled, and again when that is too old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from ssastore.env import spawn
from ssastore.errors import SsaStoreError

log = logging.getLogger(__name__)

NOWHERE = IPv6Network("::/64")
"The prefix of a service whose name was not looked up yet; none can have it (``service_network``)."


@dataclass(frozen=True, slots=True)
class Found:
    """What a name says: ``services`` in the order of preference, ``holes`` that nobody serves, the port.

    ``valid_s`` is how long it may be believed, in seconds; two answers that differ in it alone say the same.
    """

    services: tuple[IPv6Network, ...]
    port: int
    holes: tuple[IPv6Network, ...] = ()
    valid_s: float = field(default=3600.0, compare=False)


Find = Callable[[], Awaitable[Found]]


class Lookup:
    """One client's look-ups of one name: one at a time, each answer kept for as long as it says.

    ``changed`` is called with the first answer, and with each later one that says something else.
    """

    def __init__(self, find: Find, changed: Callable[[Found], Awaitable[None]]) -> None:
        self._find = find
        self._changed = changed
        self._found: Found | None = None
        self._is_settled = False
        "The first answer has been acted upon."
        self._until = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Return when there is an answer. An old one is good enough while a new one is asked for.

        Raises:
            what the first look-up raises; a later one that fails is logged, and tried again at the next dial.
        """
        if asyncio.get_running_loop().time() < self._until:
            return
        if self._asking is None:
            self._asking = spawn("look a name up", self._ask())
            self._asking.add_done_callback(self._asked)
        if not self._is_settled:
            # Many calls wait for the first one; who of them is cancelled must not cancel it for the others.
            asking = self._asking
            await asyncio.wait({asking})
            if asking.cancelled():
                raise ConnectionAbortedError("the client was closed")
            asking.result()

    def is_hole(self, address: IPv6Address) -> bool:
        """Whether the name says that nobody serves this address."""
        return self._found is not None and any(address in hole for hole in self._found.holes)

    def close(self) -> None:
        """End a look-up under way."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        found = await self._find()
        former, self._found = self._found, found
        if found != former:
            await self._changed(found)
        self._is_settled = True
        self._until = asyncio.get_running_loop().time() + found.valid_s

    def _asked(self, asking: asyncio.Task[None]) -> None:
        self._asking = None
        if asking.cancelled() or asking.exception() is None or not self._is_settled:
            return  # Of the first one its callers hear.
        if not isinstance(asking.exception(), SsaStoreError):
            asking.result()
        log.warning("name.not_found", extra={"reason": str(asking.exception())})
