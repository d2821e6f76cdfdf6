"""Clients that put, get and delete, with and without conditions, and note what they were told.

    ssastore exec -- python -m ssastore.lab.load SETTINGS

Runs on a host of a lab, as an application would, until the file ``stop`` has content.  Every call goes
into the history, in nanoseconds of the machine's own clock, so that histories of several processes
can be judged together (``ssastore.judge.verdicts``).  At the end every key is read once more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from blake3 import blake3

from ssastore import AsyncClient
from ssastore.client import AsyncBucket, native_etag
from ssastore.env import spawn
from ssastore.errors import (
    BucketAlreadyExists,
    ObjectNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    SsaStoreError,
    TryLater,
)
from ssastore.judge.history import Condition, Kind, Op, Outcome
from ssastore.system import run

BUCKET = "mixed"

OPS_A_KEY = 85
"The checker takes 100 on a key: some are under way when a key is full, and one reads at the end."
CLIENTS_A_KEY = 4
FINAL = 1_000
"Number of the client that reads everything at the end."


@dataclass(frozen=True)
class Settings:
    """What one process of clients does."""

    history: str
    stop: str
    name: str = "a"
    clients: int = 8
    keys: int = 24
    "Under way at once; a key that has had enough operations is replaced."
    think_s: float = 0.02
    "Mean pause of a client between two calls."
    deadline_ms: int = 30_000
    reads_back: bool = True
    seed: int = 1


@dataclass
class Load:
    """The state that the clients of a process share."""

    settings: Settings
    history: IO[str]
    bucket_name: str = BUCKET
    answers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    slowest_ms: int = 0
    slowest_failure_ms: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    keys: list[str] = field(default_factory=list)
    made: int = 0
    values: int = 0

    def __post_init__(self) -> None:
        self.keys = [self._new_key() for _ in range(self.settings.keys)]

    def _new_key(self) -> str:
        self.made += 1
        return f"{self.settings.name}-{self.made:05}"

    def key_for(self, client: int, draw: random.Random) -> str:
        """One of the keys under way that this client may use."""
        clients = self.settings.clients
        slots = [s for s in range(len(self.keys)) if (client - s) % clients < CLIENTS_A_KEY]
        slot = draw.choice(slots or range(len(self.keys)))
        if self.counts[self.keys[slot]] >= OPS_A_KEY:
            self.keys[slot] = self._new_key()
        self.counts[self.keys[slot]] += 1
        return self.keys[slot]

    def record(self, key: str, op: Op) -> None:
        """Append to the history file; what is in it survives the end of this process."""
        fields = asdict(op) | {
            "key": key,
            "kind": op.kind.value,
            "outcome": op.outcome.value,
            "condition": op.condition.value,
        }
        self.history.write(json.dumps(fields) + "\n")


async def call(bucket: AsyncBucket, key: str, op: Op) -> Op:
    """Do one operation; it with its answer. Raises TryLater: nobody took it."""
    etag = native_etag(blake3(op.expected.encode()).hexdigest(length=16)) if op.expected else None
    try:
        if op.kind is Kind.GET:
            return replace(op, outcome=Outcome.DONE, value=(await bucket.get(key)).decode())
        if op.kind is Kind.DELETE:
            removed = await bucket.delete(key, if_match=etag)
            return replace(op, outcome=Outcome.DONE if removed else Outcome.ABSENT)
        if_match = "*" if op.condition is Condition.IF_PRESENT else etag
        if_none_match = "*" if op.condition is Condition.IF_ABSENT else None
        await bucket.put(key, op.value.encode(), if_match=if_match, if_none_match=if_none_match)
        return replace(op, outcome=Outcome.DONE)
    except ObjectNotFound:
        return replace(op, outcome=Outcome.ABSENT)
    except PreconditionFailed:
        return replace(op, outcome=Outcome.FAILED)
    except OutcomeUnknown:
        return op


async def client(load: Load, bucket: AsyncBucket, number: int, stop: asyncio.Event) -> None:
    """One client until the end."""
    settings = load.settings
    draw = random.Random(f"{settings.seed}/{settings.name}/{number}")  # noqa: S311  # a load, no secret
    seen: dict[str, str] = {}
    while not stop.is_set():
        key = load.key_for(number, draw)
        load.values += 1
        op = await one(load, bucket, key, an_operation(draw, number, load.values, seen.get(key, "")))
        if op is not None and op.outcome is Outcome.DONE and op.value:
            seen[key] = op.value
        await asyncio.sleep(draw.expovariate(1 / settings.think_s))


def an_operation(draw: random.Random, number: int, count: int, seen: str) -> Op:
    """A random call, not answered yet."""
    kind = draw.choices((Kind.GET, Kind.PUT, Kind.DELETE), (4, 5, 1))[0]
    condition = Condition.NONE
    if kind is Kind.PUT:
        condition = draw.choices(tuple(Condition), (3, 1, 1, 2 if seen else 0))[0]
    elif kind is Kind.DELETE and seen and draw.random() < 0.3:
        condition = Condition.IF_VALUE
    value = f"{number}.{count}" if kind is Kind.PUT else ""
    expected = seen if condition is Condition.IF_VALUE else ""
    return Op(number, kind, 0, 0, Outcome.UNKNOWN, value, condition, expected)


async def one(load: Load, bucket: AsyncBucket, key: str, op: Op) -> Op | None:
    """Call and note the answer; None when nobody took the call."""
    called_ns = time.monotonic_ns()
    failure: SsaStoreError | None = None
    answered: Op | None = None
    try:
        answered = await call(bucket, key, op)
    except TryLater as error:
        failure = error
    answered_ns = time.monotonic_ns()
    took_ms = (answered_ns - called_ns) // 1_000_000
    load.slowest_ms = max(load.slowest_ms, took_ms)
    if answered is None or answered.outcome is Outcome.UNKNOWN:
        load.slowest_failure_ms = max(load.slowest_failure_ms, took_ms)
    load.answers[answered.outcome.value if answered else "unavailable"] += 1
    if answered and answered.outcome is Outcome.DONE and op.kind is not Kind.GET:
        load.answers["writes"] += 1
    if failure is not None and len(load.errors) < 20:
        load.errors.append(f"{op.kind.value} {key} after {took_ms} ms: {failure}")
    if answered is None:
        return None
    answered = replace(answered, called_ns=called_ns, answered_ns=answered_ns)
    load.record(key, answered)
    return answered


async def read_back(load: Load, bucket: AsyncBucket) -> None:
    """Read every key that was ever used once more."""
    gate = asyncio.Semaphore(16)

    async def read(key: str) -> None:
        async with gate:
            op = Op(FINAL, Kind.GET, 0, 0, Outcome.UNKNOWN)
            assert await one(load, bucket, key, op) is not None, f"{key} cannot be read: {load.errors[-1:]}"

    await asyncio.gather(*[read(key) for key in sorted(load.counts)])


async def main(settings: Settings) -> dict[str, Any]:
    """The whole load; what it was told, in numbers."""
    stop = asyncio.Event()
    # To the file at once: what was acknowledged before a crash of this process counts too.
    with open(settings.history, "w", buffering=1, encoding="utf-8") as history:
        load = Load(settings, history)
        async with AsyncExitStack() as stack:
            connected = [
                await stack.enter_async_context(AsyncClient.from_env(deadline_ms=settings.deadline_ms))
                for _ in range(settings.clients)
            ]
            buckets = [a_client.bucket(load.bucket_name) for a_client in connected]
            with suppress(BucketAlreadyExists):
                await connected[0].create_bucket(load.bucket_name)
            print("started", flush=True)
            clients = [spawn(f"client {n}", client(load, b, n, stop)) for n, b in enumerate(buckets)]
            stop_file = Path(settings.stop)
            while not stop_file.exists() or not stop_file.read_text():
                if not stop_file.exists():  # So has whoever started us, who was killed.
                    raise SystemExit("the load ends: its directory has gone")
                await asyncio.sleep(0.05)
                for ended in clients:
                    if ended.done():
                        ended.result()
            stop.set()
            await asyncio.gather(*clients)
            if settings.reads_back:
                # One that worked: who did nothing meanwhile has perhaps no connection left over which workers
                # could have told it that the service is at another prefix.
                await read_back(load, buckets[0])
    return {
        "answers": dict(load.answers),
        "keys": len(load.counts),
        "slowest_ms": load.slowest_ms,
        "slowest_failure_ms": load.slowest_failure_ms,
        "errors": load.errors,
    }


if __name__ == "__main__":
    found = run(main(Settings(**json.loads(sys.argv[1]))))
    sys.stdout.write(json.dumps(found) + os.linesep)
