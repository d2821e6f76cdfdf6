"""What is done to every target: the same keys, values, and number of callers.

``inflight`` callers each do one operation after the other; there is no pipelining
that the caller would see, as in a program that serves many users at once.  Every
answer to a GET is checked.  A round ends after ``seconds``, or after ``count_max``
operations, so that memory and disk stay bounded.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Literal, Protocol

from bench.errors import BenchError

Op = Literal["get", "put", "overwrite"]
"""Read a key, write a new one, write one again that was written lately."""

MIB = 1 << 20

GETS_MAX = 1_000_000
PUT_BYTES_MAX = 256 * MIB
"Of one round: Redis keeps all of it in memory."

FILL_BYTES_MAX = 64 * MIB
FILL_COUNT_MAX = 2_000
"Keys that GETs go round: far more than are in flight, and still in the caches of every target."

INDEX_BYTES = 8
"Every value begins with the number of its key; the rest is random and the same for all."


class Client(Protocol):
    """A target as the load generator sees it."""

    async def put(self, key: str, data: bytes) -> None:
        """Store; what it means that it returns is the target's to say."""

    async def get(self, key: str) -> bytes:
        """The value."""

    async def close(self) -> None:
        """Close all connections."""


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
    """What the load generator saw of one round. ``client_us`` is its own CPU time for one operation."""

    ops: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    client_us: float


def round_of(op: Op, *, size: int, inflight: int, seconds: float) -> Round:
    """A round with its bounds."""
    fill_count = max(inflight, min(FILL_COUNT_MAX, FILL_BYTES_MAX // size))
    count_max = GETS_MAX if op == "get" else max(inflight, PUT_BYTES_MAX // size)
    return Round(op, size, inflight, seconds, fill_count, count_max)


def percentile(ordered: list[float], share: float) -> float:
    """The value below which ``share`` of a sorted, non-empty list lies (nearest rank)."""
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[min(rank, len(ordered)) - 1]


class Load:
    """The callers of one target. Keys of PUTs are new in every round."""

    def __init__(self, client: Client, size: int) -> None:
        self._client = client
        self._rest = os.urandom(size - INDEX_BYTES)
        self._written = 0

    async def fill(self, count: int, inflight: int) -> None:
        """Write what GETs will read."""
        indexes = iter(range(count))

        async def caller() -> None:
            for index in indexes:
                await self._client.put(_get_key(index), self._value(index))

        await _together(inflight, caller)

    async def run(self, wanted: Round) -> Measured:
        """One round.

        Raises:
            BenchError: a wrong answer, or not a single one.
        """
        operations = {"get": self._gets, "put": self._puts, "overwrite": self._overwrites}
        operation = operations[wanted.op](wanted.fill_count)
        latencies: list[float] = []
        started = time.perf_counter()
        end = started + wanted.seconds

        async def caller() -> None:
            before = time.perf_counter()
            while before < end and len(latencies) < wanted.count_max:
                await operation()
                after = time.perf_counter()
                latencies.append(after - before)
                before = after

        cpu_started = time.process_time()
        await _together(wanted.inflight, caller)
        cpu_s, seconds = time.process_time() - cpu_started, time.perf_counter() - started
        return summarise(latencies, seconds, cpu_s)

    def _value(self, index: int) -> bytes:
        return index.to_bytes(INDEX_BYTES, "big") + self._rest

    def _gets(self, count: int) -> Operation:
        get, rest_bytes, turn = self._client.get, len(self._rest), 0

        async def one() -> None:
            nonlocal turn
            index = turn % count
            turn += 1
            value = await get(_get_key(index))
            if len(value) != INDEX_BYTES + rest_bytes or int.from_bytes(value[:INDEX_BYTES], "big") != index:
                raise BenchError(f"the answer for key {index} is another value")

        return one

    def _overwrites(self, count: int) -> Operation:
        put, turn = self._client.put, 0

        async def one() -> None:
            nonlocal turn
            index = turn % count
            turn += 1
            await put(_get_key(index), self._value(index))

        return one

    def _puts(self, count: int) -> Operation:
        put = self._client.put

        async def one() -> None:
            index = self._written
            self._written += 1
            await put(f"put/{index:08d}", self._value(index))

        return one


class Operation(Protocol):
    """One GET or PUT."""

    async def __call__(self) -> None: ...


def _get_key(index: int) -> str:
    return f"get/{index:08d}"


async def _together(count: int, caller: Operation) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(caller())


def summarise(latencies_s: list[float], seconds: float, cpu_s: float) -> Measured:
    """The figures of one round. Raises BenchError when there is none."""
    if not latencies_s:
        raise BenchError("not one operation ended")
    ordered = sorted(latencies_s)
    p50, p99, p999 = (percentile(ordered, share) * 1e3 for share in (0.5, 0.99, 0.999))
    return Measured(len(ordered), seconds, p50, p99, p999, cpu_s * 1e6 / len(ordered))
