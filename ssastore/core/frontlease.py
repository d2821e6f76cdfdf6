"""A gateway's record that it is there, under a name that no other gateway has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ssastore.core.front import GateRecord, gate_key
from ssastore.core.membership import Leased
from ssastore.env import Compare, ControlStore, Item, Write
from ssastore.errors import ConfigError, Conflict
from ssastore.limits import LEASE_MS

_CLAIM_EVERY_S = 0.5
_CLAIM_S = LEASE_MS / 1000 + 2
"A gateway that gives no sign is gone by then."


class GateLease(Leased):
    """Keeps it, and takes no other gateway's place. One that died here, by the same address, is none."""

    def __init__(self, control: ControlStore, gate: GateRecord, is_here: Callable[[], bool]) -> None:
        """``is_here``: whether this host has the gateway's address."""
        super().__init__(control, gate_key(gate.name), gate.encode())
        self._gate = gate
        self._is_here = is_here

    async def claim(self) -> None:
        """Be there from now on, in the place of an earlier life of this gateway at once.

        Raises:
            Unavailable: the control store does not answer.
            ConfigError: another gateway has the name, and gives signs of life.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _CLAIM_S
        while True:
            try:
                await self.beat()
                return
            except Conflict as error:
                if loop.time() > until_s:
                    raise ConfigError(f"name: {error}") from None
            await asyncio.sleep(_CLAIM_EVERY_S)

    async def _is_written(self) -> bool:
        item = await self._control.get(self._key)
        return item is not None and self._others_address(item) is None

    async def _write(self) -> None:
        item = await self._control.get(self._key)
        other = None if item is None else self._others_address(item)
        if other is not None:
            raise Conflict(f"another gateway is called {self._gate.name}, at {other}")
        unchanged = Compare(self._key, item.revision if item is not None else 0)
        written = Write(self._key, self._value, self._lease)
        if await self._control.transact([unchanged], [written]) is None:
            raise Conflict(f"another gateway was called {self._gate.name} at the same moment")

    def _others_address(self, item: Item) -> str | None:
        """Where the gateway is that has the name, if it is not this one."""
        try:
            address = GateRecord.decode(item.value).address
        except ConfigError:
            return "an address that a newer version wrote"
        return None if address == self._gate.address and self._is_here() else address
