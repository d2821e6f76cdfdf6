"""One of many: who holds a key of the control store by a lease, and changes that only the holder makes.

coordinator    name of the holder, under its lease; written once, so its revision is the fencing token

A holder may be paused, lose its lease and not know it.  So everything that it changes goes
through ``guarded``: each transaction compares the key's revision as well, and what comes late changes
nothing and raises ``Deposed``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from ssastore.core.fields import decode_fields, encode_fields
from ssastore.env import Compare, ControlStore, Event, Item, Write
from ssastore.errors import ConfigError, TryLater
from ssastore.limits import LEASE_MS

COORDINATOR_KEY = "coordinator"


class Deposed(TryLater):
    """Somebody else is the coordinator, or nobody is. Nothing was changed; stop."""


class Election:
    """One candidate. ``stand`` again and again, much more often than a lease lasts."""

    def __init__(self, control: ControlStore, name: str) -> None:
        self._control = control
        self._name = name
        self._lease = 0
        self._token = 0

    async def stand(self) -> int:
        """The token, if this candidate holds the key now; else 0. Raises Unavailable, Conflict."""
        if self._lease and not await self._control.keep_alive(self._lease):
            self._lease = self._token = 0
        if self._token:
            return self._token
        if not self._lease:
            if await self._control.get(COORDINATOR_KEY) is not None:
                return 0
            self._lease = await self._control.grant(LEASE_MS)
        # With the lease in it: so a claim of which the answer was lost is known again.
        claim = encode_fields({"node": self._name, "lease": self._lease})
        await self._control.transact(
            [Compare(COORDINATOR_KEY, 0)], [Write(COORDINATOR_KEY, claim, self._lease)]
        )
        item = await self._control.get(COORDINATOR_KEY)
        self._token = item.revision if item is not None and item.value == claim else 0
        return self._token

    def resign(self) -> None:
        """Hold it no more, as far as is known here: after Deposed."""
        self._lease = self._token = 0


async def coordinator_of(control: ControlStore) -> str:
    """Name of the node that coordinates now; empty when none does. Raises Unavailable."""
    item = await control.get(COORDINATOR_KEY)
    if item is None:
        return ""
    try:
        return str(decode_fields(item.value, "coordinator", {"node", "lease"})["node"])
    except ConfigError:
        return ""


class GuardedControl:
    """``env.ControlStore`` for as long as the coordinator's key has a revision."""

    def __init__(self, control: ControlStore, token: int) -> None:
        self._control = control
        self._guard = Compare(COORDINATOR_KEY, token)

    async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
        """As ``ControlStore.transact``. Raises Deposed as well."""
        revision = await self._control.transact([*compares, self._guard], writes)
        if revision is None:
            held = await self._control.get(COORDINATOR_KEY)
            if held is None or held.revision != self._guard.revision:
                raise Deposed("another one is the coordinator now")
        return revision

    async def get(self, key: str) -> Item | None:
        return await self._control.get(key)

    async def list(self, prefix: str) -> tuple[Sequence[Item], int]:
        return await self._control.list(prefix)

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Event]:
        return self._control.watch(prefix, after_revision)

    async def grant(self, ttl_ms: int) -> int:
        return await self._control.grant(ttl_ms)

    async def keep_alive(self, lease: int) -> bool:
        return await self._control.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self._control.revoke(lease)

    async def close(self) -> None:
        """Nothing: the control store is its owner's to close."""
