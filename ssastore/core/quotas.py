"""Quotas of buckets, as operators set and see them. Coroutines on Buckets and Registers.

To set one is two steps: the record (``core.quota``), then every shard is asked to count under it.  It is
in force when the last one has: from then on no write is acknowledged with which the bucket would hold more.
Whoever repeats the second step ends what somebody else began.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ssastore.core.amounts import ZERO, Amount
from ssastore.core.buckets import SYSTEM, Bucket, Buckets
from ssastore.core.listing import Page, merge_shards
from ssastore.core.quota import QUOTA_PREFIX, Quota, no_quota
from ssastore.core.quotapool import QuotaPool
from ssastore.core.registers import Registers
from ssastore.env import Randomness
from ssastore.errors import BucketNotFound
from ssastore.messages import Kind

_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """A quota and what became of it. A limit of None is none."""

    bucket: str
    size_limit: int | None
    objects_limit: int | None
    used: Amount
    "What was counted in all shards."
    reserved: Amount
    "What is the shards' together: what is used, and what they may take without asking."


class Quotas:
    """The quotas of all buckets. Methods raise as ``Buckets`` and ``Registers``."""

    def __init__(self, registers: Registers, buckets: Buckets, randomness: Randomness) -> None:
        self._registers = registers
        self._buckets = buckets
        self._pool = QuotaPool(registers, randomness)

    async def set(self, bucket: str, *, size: int | None, objects: int | None) -> QuotaUse:
        """Let a bucket hold no more than so many bytes and objects; returns when that is in force.

        Of a bucket that holds more already nothing is deleted: it takes nothing that would make it larger.

        Raises:
            RequestError: a limit is out of range, or the bucket is hashed or has too many shards.
        """
        record = await self._buckets.read(bucket)
        fresh = no_quota(bucket, record.place.shards)
        quota = await self._pool.change(
            record.place.bucket, lambda known: (known or fresh).set(bucket, size, objects)
        )
        assert quota is not None
        return await self._use(record, quota)

    async def clear(self, bucket: str) -> None:
        """Let a bucket hold what it likes."""
        record = await self._buckets.read(bucket)

        def lift(known: Quota | None) -> Quota | None:
            return None if known is None else known.lifted()

        if await self._pool.change(record.place.bucket, lift) is not None:
            await self._count(record)

    async def show(self, bucket: str) -> QuotaUse | None:
        """The quota of a bucket, counted now; None when it has none."""
        record = await self._buckets.read(bucket)
        quota = await self._pool.read(record.place.bucket)
        return await self._use(record, quota) if quota is not None and quota.is_on else None

    async def all(self) -> AsyncIterator[QuotaUse]:
        """The same of all buckets that have one, by their ids."""

        async def fetch(shard: int, after: bytes, limit: int) -> Page:
            return await self._registers.shards.page(
                SYSTEM, Kind.OBJECT, shard, prefix=QUOTA_PREFIX, after=after, limit=limit
            )

        rows = merge_shards(fetch, SYSTEM.shards, b"", limit=1000, gather=asyncio.gather)
        async for key, *_ in rows:
            quota = await self._pool.read(int(key[len(QUOTA_PREFIX) :], 16))
            if quota is None or not quota.is_on:
                continue
            try:
                use = await self.show(quota.bucket)
            except BucketNotFound:
                continue  # deleted since
            if use is not None:
                yield use

    async def _use(self, record: Bucket, quota: Quota) -> QuotaUse:
        used = await self._count(record)
        after = await self._pool.read(record.place.bucket) or quota
        return QuotaUse(quota.bucket, quota.size, quota.objects, used, after.reserved)

    async def _count(self, record: Bucket) -> Amount:
        """Let all shards count under the quota as it is now."""
        used, shards = ZERO, range(record.place.shards)
        for first in range(0, len(shards), _AT_ONCE):
            counts = await asyncio.gather(
                *[
                    self._registers.shards.count(record.place, shard)
                    for shard in shards[first : first + _AT_ONCE]
                ]
            )
            used = sum((Amount(size, objects) for size, objects in counts), used)
        return used
