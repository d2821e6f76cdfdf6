"""Load for a measurement: what callers do, with which keys and values, and how long it took them.

``inflight`` callers each do one operation after the other; there is no pipelining
that the caller would see, as in a program that serves many users at once.  Every
answer to a GET is checked, its number and its length.  A round ends after ``seconds``, or after ``count_max``
operations, so that memory and disk stay bounded.

The client may be that of any store: ``ssastore bench`` measures a cluster with it, and the benchmarks of the
repository ours beside others.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, cycle, pairwise, repeat
from typing import Literal, Protocol, get_args, runtime_checkable

from ssastore.errors import CorruptObject, OutcomeUnknown, SsaStoreError, Unavailable

Op = Literal["get", "hot", "one", "put", "overwrite", "mixed", "list"]
"""Read the keys one after the other; read them as Zipf's law has it; read only one of them; write a new one;
write one again that was written lately; seven reads and three writes again in ten; read a listing's page."""

OPS: tuple[Op, ...] = get_args(Op)

BUCKET_OPS: tuple[Op, ...] = tuple(op for op in OPS if op != "list")
"What every bucket can do: a hashed one has no listing."

MIB = 1 << 20

GETS_MAX = 1_000_000
"Of one round; and of PUTs of very small values."

PUT_BYTES_MAX = 256 * MIB
"Of one round: Redis keeps all of it in memory."

FILL_BYTES_MAX = 64 * MIB
FILL_COUNT_MAX = 2_000
"Keys that GETs go round: far more than are in flight, and still in the caches of every target."

INFLIGHT_BYTES_MAX = 256 * MIB
"Fewer callers than asked for keep more than that in the air."

ZIPF_EXPONENT = 1.1
"The first of 2,000 keys then gets 17 % of all reads, the first ten of them 45 %."

FILL_TRIES = 5
"Of a key that is put before anything is measured."

AFTER_FAILURE_S = 0.05
"A caller's rest after a failure: who refuses at once is not asked all the time."

READS_OF_TEN = 7
"In a mixed load."

INDEX_BYTES = 8
"Every value begins with the number of its key, or what has room of it; the rest is random and the same."

PAGE_KEYS = 1000
"Of a listing: what S3 gives at once."

_SCATTER = 0x9E37_79B1
"""Odd, and 2 ** 32 over the golden ratio: the products of all numbers are all numbers, and those of
neighbours are far apart. So keys are written and read out of their order, and lie evenly in it."""


class Bucket(Protocol):
    """Where load goes: a bucket of ours, or what another store has in its place."""

    async def put(self, key: str, data: bytes) -> object:
        """Store; what it means that it returns is the store's to say."""
        ...

    async def get(self, key: str) -> bytes:
        """The value."""
        ...


@runtime_checkable
class ListedBucket(Bucket, Protocol):
    """One that has a listing."""

    async def page(self, prefix: str, after: str, count: int) -> list[str]:
        """The first ``count`` keys with this prefix behind ``after``, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Round:
    """One round of load."""

    op: Op
    size: int
    inflight: int
    seconds: float
    fill_count: int
    count_max: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What the callers saw of one round.

    ``ops`` counts what was answered, ``failed`` what was not; ``reason`` is that of the first failure.
    ``client_us`` is the CPU time of this process for one operation.
    """

    ops: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    client_us: float
    failed: int = 0
    reason: str = ""


def round_of(op: Op, *, size: int, inflight: int, seconds: float) -> Round:
    """A round with its bounds."""
    heavy = max(size, 1)
    inflight = max(1, min(inflight, INFLIGHT_BYTES_MAX // heavy))
    fill_count = max(inflight, min(FILL_COUNT_MAX, FILL_BYTES_MAX // heavy))
    is_reading = op in ("get", "hot", "one", "list")
    count_max = GETS_MAX if is_reading else max(inflight, min(GETS_MAX, PUT_BYTES_MAX // heavy))
    return Round(op, size, inflight, seconds, fill_count, count_max)


def percentile(ordered: list[float], share: float) -> float:
    """The value below which ``share`` of a sorted, non-empty list lies (nearest rank)."""
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[min(rank, len(ordered)) - 1]


class Load:
    """The callers of one bucket. Keys of PUTs are new in every round."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._size = INDEX_BYTES
        self._rest = b""
        self._written: dict[int, int] = {}
        self._filled: dict[int, int] = {}
        self._turns: dict[tuple[Op, int, int], Iterator[int]] = {}
        "Where the rounds of an operation have come to: the next one goes on there."
        self.done = 0
        "Operations that were answered since the start; for a display."

    def keys(self) -> Iterator[str]:
        """All that may have been written, for who wants them gone."""
        for size, count in self._filled.items():
            yield from (_get_key(size, index) for index in range(count))
        for size, count in self._written.items():
            yield from (_put_key(size, index) for index in range(count))

    async def fill(self, wanted: Round) -> None:
        """Write what the GETs of a round will read and is not there yet. Raises what the bucket raises."""
        self._take_size(wanted.size)
        known = self._filled.get(wanted.size, 0)
        indexes = iter(range(known, wanted.fill_count))
        self._filled[wanted.size] = max(wanted.fill_count, known)

        async def caller() -> None:
            for index in indexes:
                await self._put_surely(_get_key(wanted.size, index), self._value(index))

        await _together(wanted.inflight, caller)

    async def _put_surely(self, key: str, value: bytes) -> None:
        """Nothing is measured yet: who is late is asked again, and to put the same again does no harm."""
        for _ in range(FILL_TRIES - 1):
            try:
                await self._bucket.put(key, value)
                return
            except (Unavailable, OutcomeUnknown):
                await asyncio.sleep(AFTER_FAILURE_S)
        await self._bucket.put(key, value)

    async def run(self, wanted: Round) -> Measured:
        """One round. What fails by the cluster's fault is counted, and its caller goes on.

        Raises:
            CorruptObject: a wrong answer.
            Unavailable: not a single operation was answered.
        """
        self._take_size(wanted.size)
        operation = self._operation(wanted)
        latencies: list[float] = []
        begun = failed = 0
        reason = ""  # And no exceptions: each would keep its operation's bytes.
        started = time.perf_counter()
        end = started + wanted.seconds

        async def caller() -> None:
            nonlocal begun, failed, reason
            before = time.perf_counter()
            while before < end and begun < wanted.count_max:
                begun += 1
                try:
                    await operation()
                except CorruptObject:
                    raise
                except (SsaStoreError, OSError) as error:
                    failed += 1
                    reason = reason or f"{type(error).__name__}: {error}"
                    await asyncio.sleep(AFTER_FAILURE_S)
                    before = time.perf_counter()
                    continue
                after = time.perf_counter()
                latencies.append(after - before)
                self.done += 1
                before = after

        cpu_started = time.process_time()
        await _together(wanted.inflight, caller)
        cpu_s, seconds = time.process_time() - cpu_started, time.perf_counter() - started
        return summarise(latencies, seconds, cpu_s, failed, reason)

    def _take_size(self, size: int) -> None:
        self._size = size
        if len(self._rest) != max(0, size - INDEX_BYTES):
            self._rest = os.urandom(max(0, size - INDEX_BYTES))

    def _value(self, index: int) -> bytes:
        return index.to_bytes(INDEX_BYTES, "little")[: self._size] + self._rest

    def _operation(self, wanted: Round) -> Operation:
        op, size, count = wanted.op, wanted.size, wanted.fill_count
        if op == "put":
            return self._puts(size)
        if op == "overwrite":
            return self._overwrites(size, self._turn(op, size, count))
        if op == "list":
            return self._pages(size, self._turn(op, size, count), min(PAGE_KEYS, count // 2))
        if op == "mixed":
            reads = self._gets(size, self._turn("get", size, count))
            return _mixed(reads, self._overwrites(size, self._turn("overwrite", size, count)))
        return self._gets(size, repeat(0) if op == "one" else self._turn(op, size, count))

    def _turn(self, op: Op, size: int, count: int) -> Iterator[int]:
        key = op, size, count
        if key not in self._turns:
            self._turns[key] = _by_zipf(count) if op == "hot" else cycle(range(count))
        return self._turns[key]

    def _gets(self, size: int, indexes: Iterator[int]) -> Operation:
        get, head = self._bucket.get, min(size, INDEX_BYTES)

        async def one() -> None:
            index = next(indexes)
            value = await get(_get_key(size, index))
            if len(value) != size or value[:head] != index.to_bytes(INDEX_BYTES, "little")[:head]:
                raise CorruptObject(f"the answer for key {index} is another value")

        return one

    def _pages(self, size: int, indexes: Iterator[int], count: int) -> Operation:
        bucket, prefix = self._bucket, f"get/{size}/"
        if not isinstance(bucket, ListedBucket):
            raise Unavailable("this bucket has no listing")

        async def one() -> None:
            # From somewhere in the first quarter: what follows is more than a page.
            after = f"{prefix}{_scattered(next(indexes)) >> 2:08x}"
            keys = await bucket.page(prefix, after, count)
            if len(keys) != count or keys[0] <= after or any(a >= b for a, b in pairwise(keys)):
                raise CorruptObject(f"the page after {after} has {len(keys)} keys, or they are not in order")

        return one

    def _overwrites(self, size: int, indexes: Iterator[int]) -> Operation:
        put = self._bucket.put

        async def one() -> None:
            index = next(indexes)
            await put(_get_key(size, index), self._value(index))

        return one

    def _puts(self, size: int) -> Operation:
        put = self._bucket.put
        again: list[int] = []

        async def one() -> None:
            index = again.pop() if again else self._written.get(size, 0)
            self._written[size] = max(index + 1, self._written.get(size, 0))
            try:
                await put(_put_key(size, index), self._value(index))
            except BaseException:
                again.append(index)  # Else there would be a key to remove for each refusal.
                raise

        return one


class Operation(Protocol):
    """One GET or PUT."""

    async def __call__(self) -> None: ...


def _scattered(index: int) -> int:
    return index * _SCATTER & 0xFFFF_FFFF


def _get_key(size: int, index: int) -> str:
    return f"get/{size}/{_scattered(index):08x}"


def _put_key(size: int, index: int) -> str:
    return f"put/{size}/{_scattered(index):08x}"


def _by_zipf(count: int) -> Iterator[int]:
    """Numbers below ``count``, the same in every run: k with a frequency of (k + 1) ** -ZIPF_EXPONENT."""
    drawn = random.Random(count)  # noqa: S311  # nobody has to be surprised
    sums = list(accumulate((index + 1) ** -ZIPF_EXPONENT for index in range(count)))
    while True:
        yield min(bisect(sums, drawn.random() * sums[-1]), count - 1)


def _mixed(read: Operation, write: Operation) -> Operation:
    turns = cycle([read] * READS_OF_TEN + [write] * (10 - READS_OF_TEN))

    async def one() -> None:
        await next(turns)()

    return one


async def _together(count: int, caller: Operation) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(caller())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def summarise(
    latencies_s: list[float], seconds: float, cpu_s: float, failed: int = 0, reason: str = ""
) -> Measured:
    """The figures of one round. Raises Unavailable when there is none."""
    if not latencies_s:
        raise Unavailable(f"not one operation was answered; {reason or 'none was begun in time'}")
    ordered = sorted(latencies_s)
    p50, p99, p999 = (percentile(ordered, share) * 1e3 for share in (0.5, 0.99, 0.999))
    client_us = cpu_s * 1e6 / len(ordered)
    return Measured(len(ordered), seconds, p50, p99, p999, client_us, failed, reason)
