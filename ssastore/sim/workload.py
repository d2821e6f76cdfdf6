"""Clients that read and write registers of a simulated cluster, and what they were told.

A key is a register; a client calls it through ``core.objects``, as every application
does.  The value of a put is its own name and its etag, so a get tells which put it read,
and a value whose bytes are not those of its etag is noticed at once (I14).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ssastore.core.content import Content
from ssastore.core.demand import Demand
from ssastore.core.objects import Objects
from ssastore.errors import (
    BucketAlreadyExists,
    BucketNotFound,
    CorruptObject,
    EnvironmentProblem,
    ObjectNotFound,
    OutcomeUnknown,
    PeerError,
    PreconditionFailed,
    TryLater,
)
from ssastore.judge.history import Condition, Kind, Op, Outcome
from ssastore.sim.clock import NS_PER_S
from ssastore.sim.seeds import Stream

BUCKET = "photos"
_PAUSE_NS = 50_000_000
"Mean of what a client waits between two calls, when it waits."


@dataclass(slots=True)
class Shape:
    """What clients do: how often on which keys, and what."""

    keys: int = 12
    clients: int = 4
    operations: int = 72
    "Of all clients together."
    callers: int = 1
    "Of each client, at the same time."
    hot_percent: int = 60
    "Share of the calls that go to the first three keys, where the clients meet."
    weights: tuple[int, int, int] = (4, 5, 1)
    "Of gets, puts and deletes."
    conditional_percent: int = 60
    "Of the puts."
    pause_percent: int = 30
    nodes: int = 0
    "Of the cluster; 0: as many as the scenario says."

    def describe(self) -> str:
        """One line for a failure's report."""
        return (
            f"{self.operations} calls of {self.clients} clients with {self.callers} callers each, "
            f"on {self.keys} keys, "
            f"{self.hot_percent} % on the hot ones; "
            f"gets:puts:deletes {self.weights}, {self.conditional_percent} % conditional; "
            f"{self.nodes or 'the usual'} nodes"
        )


_HOT_KEYS = 3


@dataclass(slots=True)
class Told:
    """What all clients of a run were told."""

    histories: dict[str, list[Op]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    @property
    def operations(self) -> int:
        """Calls with an answer, or of unknown outcome."""
        return sum(map(len, self.histories.values()))


class Register:
    """The keys as one client uses them: calls, answers, and when they were."""

    def __init__(
        self, objects: Objects, told: Told, client: int, draw: Stream, now_ns: Callable[[], int]
    ) -> None:
        self._objects = objects
        self._told = told
        self._client = client
        self._draw = draw
        self._now_ns = now_ns
        self._count = 0
        self._seen: dict[str, str] = {}
        "By key, the value that this client last saw."

    async def some_operations(self, shape: Shape, count: int) -> None:
        """Random calls, one after the other."""
        for _ in range(count):
            is_hot = self._draw.below(100) < shape.hot_percent
            key = f"key{self._draw.below(min(_HOT_KEYS, shape.keys) if is_hot else shape.keys)}"
            await self.some_operation(key, shape)
            if self._draw.below(100) < shape.pause_percent:
                await asyncio.sleep(self._draw.span_ns(_PAUSE_NS) / NS_PER_S)

    async def some_operation(self, key: str, shape: Shape) -> Op | None:
        """One random call."""
        kind = self._draw.choices((Kind.GET, Kind.PUT, Kind.DELETE), shape.weights)[0]
        seen = self._seen.get(key, "")
        condition = Condition.NONE
        if kind is Kind.PUT and self._draw.below(100) < shape.conditional_percent:
            condition = self._draw.choices(tuple(Condition)[1:4], (1, 1, 3 if seen else 0))[0]
        elif kind is Kind.DELETE and seen and self._draw.chance(0.3):
            condition = Condition.IF_VALUE
        return await self.call(key, kind, condition, seen if condition is Condition.IF_VALUE else "")

    async def call(
        self, key: str, kind: Kind, condition: Condition = Condition.NONE, expected: str = ""
    ) -> Op | None:
        """One call; None when nobody took it, so that it had no effect.

        If it had one all the same, the values that it left will tell.
        """
        self._count += 1
        value = f"{self._client}.{self._count}" if kind is Kind.PUT else ""
        called_ns = self._now_ns()
        try:
            outcome, value = await self._answer(key, kind, value, condition, expected)
        except (TryLater, EnvironmentProblem, CorruptObject, PeerError) as error:
            self._told.outcomes["unavailable" if isinstance(error, TryLater) else type(error).__name__] += 1
            return None
        except BucketNotFound:
            self._told.violations.append(f"I7: {key} was refused as if there were no bucket")
            return None
        self._told.outcomes[outcome.value] += 1
        op = Op(self._client, kind, called_ns, self._now_ns(), outcome, value, condition, expected)
        self._told.histories.setdefault(key, []).append(op)
        if outcome is Outcome.DONE and value:
            self._seen[key] = value
        return op

    async def _answer(
        self, key: str, kind: Kind, value: str, condition: Condition, expected: str
    ) -> tuple[Outcome, str]:
        try:
            if kind is Kind.GET:
                return Outcome.DONE, await self._read(key)
            if kind is Kind.DELETE:
                removed = await self._objects.delete(BUCKET, key, demand=Demand(expected or None))
                return Outcome.DONE if removed.existed else Outcome.ABSENT, value
            if_match = {Condition.IF_PRESENT: "*", Condition.IF_VALUE: expected}.get(condition)
            if_none_match = "*" if condition is Condition.IF_ABSENT else None
            await self._write(key, value, if_match, if_none_match)
            return Outcome.DONE, value
        except ObjectNotFound:
            return Outcome.ABSENT, "" if kind is Kind.GET else value
        except PreconditionFailed:
            return Outcome.FAILED, value
        except OutcomeUnknown:
            return Outcome.UNKNOWN, value

    async def _write(self, key: str, value: str, if_match: str | None, if_none_match: str | None) -> None:
        data = value.encode()
        await self._objects.commit(
            BUCKET, key, Content(len(data), data), value, demand=Demand(if_match, if_none_match)
        )

    async def _read(self, key: str) -> str:
        reader = await self._objects.open(BUCKET, key)
        value = (await reader.read()).decode()
        if reader.info.etag != value:
            self._told.violations.append(
                f"I14: {key} was served {value!r} with the etag {reader.info.etag!r}"
            )
        return value


async def make_bucket(objects: Objects) -> None:
    """Make the bucket that all keys are in, however often it takes."""
    while True:
        try:
            await objects.buckets.create(BUCKET)
            return
        except BucketAlreadyExists:
            return  # by the attempt before, whose answer did not come
        except (OutcomeUnknown, TryLater):
            continue
