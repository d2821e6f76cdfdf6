"""Quotas as records of the system bucket: read, and changed by compare-and-set. Coroutines on Registers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from blake3 import blake3

from ssastore.core.buckets import SYSTEM
from ssastore.core.metadata import Metadata
from ssastore.core.quota import Quota, decode_quota, quota_key
from ssastore.core.registers import Registers, When
from ssastore.env import Randomness
from ssastore.errors import ObjectNotFound, OutcomeUnknown, PreconditionFailed, TryLater
from ssastore.messages import Condition, Kind

_TRIES = 30
_PAUSE_MS = 4
_PAUSE_MS_MAX = 60


class QuotaPool:
    """The records of quotas. Methods raise as ``Registers``."""

    def __init__(self, registers: Registers, randomness: Randomness) -> None:
        self._registers = registers
        self._randomness = randomness

    async def read(self, bucket: int) -> Quota | None:
        """The quota of a bucket; None when it never had one."""
        found = await self._registers.state(SYSTEM, Kind.OBJECT, quota_key(bucket))
        return decode_quota(bytes(found.data)) if found.is_live else None

    async def change(self, bucket: int, change: Callable[[Quota | None], Quota | None]) -> Quota | None:
        """Write what ``change`` makes of it, however often others are faster; what there is then.

        Where an outcome is not known it is written again, so ``change`` says what is to be, not what more.
        None from ``change`` leaves all as it is, and is returned. Raises what ``change`` raises, TryLater.
        """
        for turn in range(_TRIES):
            found = await self._registers.state(SYSTEM, Kind.OBJECT, quota_key(bucket))
            known = decode_quota(bytes(found.data)) if found.is_live else None
            changed = change(known)
            if changed is None or changed == known:
                return changed
            packed = changed.encode()
            metadata = Metadata(blake3(packed).hexdigest(length=16), len(packed))
            try:
                await self._registers.put(
                    SYSTEM,
                    Kind.OBJECT,
                    quota_key(bucket),
                    metadata,
                    packed,
                    condition=When(Condition.IF_SAME, found.stamp),
                )
            except (PreconditionFailed, ObjectNotFound, OutcomeUnknown):
                longest_ms = min(_PAUSE_MS << turn, _PAUSE_MS_MAX)
                await asyncio.sleep(self._randomness.below(longest_ms * 1000) / 1e6)
                continue
            return changed
        raise TryLater("the record of a quota is changed by others all the time")

    async def forget(self, bucket: int) -> None:
        """Drop the record, of a bucket that is deleted."""
        await self._registers.delete(SYSTEM, Kind.OBJECT, quota_key(bucket))
