"""Fills the bucket of ``bench.listing`` and goes on changing it: on the client host of a lab.

    python -m bench.listfill KEYS GONE

Puts KEYS small objects, deletes GONE others that it has put, prints how long the puts took and in which
groups the bucket's shards are, as a line of JSON; then puts and deletes under a prefix of its own until its
standard input ends, and prints how many calls that were and which failed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable

from bench.listing import BUCKET, CHANGING, gone_key, key_of
from ssastore import AsyncClient
from ssastore.client import AsyncBucket
from ssastore.errors import SsaStoreError
from ssastore.keyspace import shard_locator
from ssastore.system import loop_factory

_CALLERS = 64
_LOCATOR_BITS_INSIDE = 16
"Of a group."


async def _each(numbers: Iterable[int], work: Callable[[int], Awaitable[object]]) -> None:
    shared = iter(numbers)

    async def caller() -> None:
        for number in shared:
            await work(number)

    await asyncio.gather(*[caller() for _ in range(_CALLERS)])


async def _change(bucket: AsyncBucket, stop: asyncio.Event) -> tuple[int, list[str]]:
    calls, failed = 0, []
    while not stop.is_set():
        for work in (lambda key: bucket.put(key, b"x"), bucket.delete):
            calls += 1
            try:
                await work(f"{CHANGING}{calls % 100:02}")
            except SsaStoreError as error:
                failed.append(f"{type(error).__name__}: {error}")
        await asyncio.sleep(0.005)
    return calls, failed


async def _main(keys: int, gone: int) -> None:
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket(BUCKET)
        place = (await client.objects.buckets.read(BUCKET)).place
        started = time.perf_counter()
        await _each(range(keys), lambda number: bucket.put(key_of(number), b"x"))
        took_s = time.perf_counter() - started
        await _each(range(gone), lambda number: bucket.put(gone_key(number), b"x"))
        await _each(range(gone), lambda number: bucket.delete(gone_key(number)))
        locators = [shard_locator(place.bucket, shard) for shard in range(place.shards)]
        groups = sorted({locator >> _LOCATOR_BITS_INSIDE for locator in locators})
        print(json.dumps({"took_s": took_s, "groups": groups}), flush=True)
        stop = asyncio.Event()
        changing = asyncio.create_task(_change(bucket, stop))
        await asyncio.to_thread(sys.stdin.read)
        stop.set()
        calls, failed = await changing
        print(json.dumps({"calls": calls, "failed": failed}))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_main(int(sys.argv[1]), int(sys.argv[2])))
