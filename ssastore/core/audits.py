"""All shards of a bucket with a quota are asked to count, and to give back what they do not need. Coroutines.

What a worker that crashed had taken of a quota and not used is found by nobody else.  So
before a write is refused the others are asked, but not for every write.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ssastore.core.found import Found
from ssastore.core.leftovers import drop_parts
from ssastore.core.place import Place, place_key
from ssastore.core.quota import QUOTA_SHARDS_MAX
from ssastore.core.registers import Registers
from ssastore.env import spawn
from ssastore.errors import SsaStoreError
from ssastore.keyspace import shard_of_key
from ssastore.messages import Kind

_WAIT_S = 0.5
"How long a write waits for it."
_EVERY_S = 1.0
"How often a bucket of 16 shards or fewer is asked by one worker; one with more shards less often."
_PAUSE_S = 0.05
"Wait of who comes soon after: what was deleted just now is given back meanwhile."
_SHARDS_EACH_S = 16
_EVERY_S_MAX = QUOTA_SHARDS_MAX / _SHARDS_EACH_S
_AT_ONCE = 32


class Audits:
    """By whom is kept when a bucket was asked last."""

    def __init__(self, registers: Registers) -> None:
        self._registers = registers
        self._shards = registers.shards
        self._running: dict[int, asyncio.Task[None]] = {}
        self._ended_s: dict[int, float] = {}

    async def audit(self, place: Place) -> None:
        """Ask all shards of a bucket, or wait for who does; a moment, if they were asked just now."""
        loop = asyncio.get_running_loop()
        running = self._running.get(place.bucket)
        if running is None:
            every_s = max(_EVERY_S, place.shards / _SHARDS_EACH_S)
            if loop.time() - self._ended_s.get(place.bucket, -every_s) < every_s:
                await asyncio.sleep(_PAUSE_S)
                return
            running = self._running[place.bucket] = spawn("ask shards to count", self._ask_all(place))
        await asyncio.wait([running], timeout=_WAIT_S)

    async def _ask_all(self, place: Place) -> None:
        try:
            for first in range(0, place.shards, _AT_ONCE):
                last = min(first + _AT_ONCE, place.shards)
                await asyncio.gather(*[self._ask(place, shard) for shard in range(first, last)])
        finally:
            del self._running[place.bucket]
            now_s = asyncio.get_running_loop().time()
            self._ended_s = {key: at_s for key, at_s in self._ended_s.items() if now_s - at_s < _EVERY_S_MAX}
            self._ended_s[place.bucket] = now_s

    async def _ask(self, place: Place, shard: int) -> None:
        with suppress(SsaStoreError):
            await self._shards.count(place, shard)

    async def size_of_parts(self, place: Place, upload: bytes) -> int:
        """Bytes of all parts of an upload, by its stored name. Raises SsaStoreError."""
        shard, after, size, is_more = shard_of_key(place_key(upload), place.shards), b"", 0, True
        while is_more:
            page = await self._shards.page(place, Kind.PART, shard, prefix=upload, after=after, limit=1000)
            size += sum(row[3] for row in page.rows)
            after, is_more = page.last, page.truncated
        return size

    async def record(self, place: Place, kind: int, key: bytes) -> Found:
        """What is agreed of a record. Raises SsaStoreError."""
        return await self._registers.state(place, Kind(kind), key, head_only=True)

    async def drop_parts(self, place: Place, parts: list[bytes]) -> None:
        """Delete parts whose upload is not open."""
        await drop_parts(self._registers, place, parts)
