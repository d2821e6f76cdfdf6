"""Clients of a slice that is handed over: fills a bucket of one group, then calls it until told to stop.

    python -m bench.stall OBJECTS SIZE CALLERS

Runs on the client host of a lab.  Prints the group as a line of JSON when all objects are
there, calls until its standard input ends, and prints every call: when it began (seconds of the wall
clock), how long it took (ms), and why it failed.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from itertools import count

from ssastore import AsyncClient
from ssastore.client import AsyncBucket
from ssastore.errors import SsaStoreError
from ssastore.system import loop_factory

_FILLING = 64
_PAUSE_S = 0.002

Call = tuple[float, float, str]
"When it began, how long it took, why it failed; empty when it did not."


def _name(number: int) -> str:
    return f"{number:08}"


async def fill(bucket: AsyncBucket, objects: int, size: int) -> None:
    """Write objects that do not compress, some at a time."""
    numbers = iter(range(objects))
    data = random.Random(1).randbytes(size)

    async def work() -> None:
        for number in numbers:
            await bucket.put(_name(number), number.to_bytes(8, "big") + data[8:])

    await asyncio.gather(*[work() for _ in range(_FILLING)])


async def call(bucket: AsyncBucket, objects: int, drawn: random.Random, stop: asyncio.Event) -> list[Call]:
    """Read and write in turn, one after the other."""
    calls: list[Call] = []
    data = drawn.randbytes(1000)
    for turn in count():
        if stop.is_set():
            return calls
        name = _name(drawn.randrange(objects))
        began, clock, reason = time.time(), time.perf_counter(), ""
        try:
            if turn % 2:
                await bucket.get(name)
            else:
                await bucket.put(f"w{name}", data)
        except SsaStoreError as error:
            reason = f"{type(error).__name__}: {error}"
        calls.append((began, 1000 * (time.perf_counter() - clock), reason))
        await asyncio.sleep(_PAUSE_S)
    raise AssertionError("count never ends")


async def run(objects: int, size: int, callers: int) -> None:
    """See the module's docstring."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket("handover", shards=1)
        await fill(bucket, objects, size)
        place = await bucket.locate(_name(0))
        print(json.dumps({"group": place.group}), flush=True)
        ended = loop.run_in_executor(None, sys.stdin.read)
        ended.add_done_callback(lambda _: stop.set())
        calling = [call(bucket, objects, random.Random(number), stop) for number in range(callers)]
        found = await asyncio.gather(*calling)
    print(json.dumps(sorted(one for calls in found for one in calls)), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run(*map(int, sys.argv[1:4])))
