"""A quota: clients fill a bucket, replace and delete, and everything fails meanwhile.

At no moment the bucket holds more than its quota, as the disks say it and whatever clients were told (I17).
When the faults are over a write is refused only if the bucket is full but for 1 %, and a delete never.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ssastore.core.amounts import Amount
from ssastore.core.buckets import Bucket
from ssastore.core.content import Content
from ssastore.core.objects import Objects
from ssastore.core.quotas import QuotaUse
from ssastore.core.versionlist import ListedVersion, Wanted
from ssastore.errors import (
    BucketAlreadyExists,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    QuotaExceeded,
    StoreFull,
    TryLater,
)
from ssastore.sim.scenarios import safety
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import Shape

BUCKET = "filled"
SHARDS = 3
"So few that each has several writers."

T = TypeVar("T")

CLIENTS = 4
TURNS = 8
"Calls of each client."
SETTLED_S = 60
_SIZE_MAX = 400
_FILL_TRIES = 8
_FILL_MAX = 400
"Twice as many as any quota here allows."


@dataclass(slots=True)
class _Limits:
    """What a seed allows; one of them mostly counts before the other."""

    size: int
    objects: int


def _limits(seed: int) -> _Limits:
    draw = Stream(seed, "quota")
    if draw.chance(0.5):
        return _Limits(1 << 40, draw.choice((3, 8, 12)))
    return _Limits(draw.choice((500, 2000, 4000)), 1 << 30)


class _Clients:
    """Everybody's work."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.done = self.refused = self.unknown = 0

    async def work(self, number: int) -> None:
        """The calls of one client."""
        objects, draw = self._stage.objects[number], self._stage.world.stream(f"quota {number}")
        for _ in range(TURNS):
            name = f"key{draw.below(self._stage.shape.keys)}"
            try:
                if draw.chance(0.7):
                    await put(objects, name, draw.below(_SIZE_MAX))
                elif draw.chance(0.5):
                    await objects.delete(BUCKET, name)
                elif (found := await _newest(objects, name)) is not None:
                    await objects.delete(BUCKET, name, found)
                self.done += 1
            except QuotaExceeded:
                self.refused += 1
            except (TryLater, OutcomeUnknown, StoreFull):
                self.unknown += 1
            except (PreconditionFailed, NotFound):
                continue


async def put(objects: Objects, name: str, size: int) -> None:
    """Write an object of so many bytes."""
    await objects.commit(BUCKET, name, Content(size, b"x" * size), f"{size:032x}")


async def _newest(objects: Objects, name: str) -> str | None:
    """Id of the newest version of a name, or marker."""
    async for entry in objects.list_versions(BUCKET, Wanted(prefix=name)):
        if isinstance(entry, ListedVersion) and entry.key == name:
            return entry.version
    return None


async def _delete_all(stage: Stage, objects: Objects) -> None:
    """Delete what a full bucket with versions holds: that needs no room."""
    for number in range(stage.shape.keys):
        name = f"key{number}"
        try:
            await _persist(partial(objects.delete, BUCKET, name))
        except QuotaExceeded:
            stage.broken.append(f"a full bucket refuses to delete {name}")


async def _persist(work: Callable[[], Awaitable[T]]) -> T:
    """What an operator does until it is done: no faults yet, but links may be bad from the beginning."""
    while True:
        with suppress(OutcomeUnknown, TryLater, StoreFull):
            return await work()
        await asyncio.sleep(0.5)


async def _set_again(objects: Objects, limits: _Limits) -> None:
    """An operator who sets what is set: all shards are counted under another serial."""
    with suppress(OutcomeUnknown, TryLater, StoreFull):
        await objects.quotas.set(BUCKET, size=limits.size, objects=limits.objects)


async def _fill(stage: Stage, objects: Objects, bucket: int, limits: _Limits) -> None:
    """Write until that is refused: then the bucket must be full."""
    size = max(1, limits.size // 200) if limits.size < 1 << 40 else 1
    number = refused = 0
    while refused < _FILL_TRIES and number < _FILL_MAX:
        try:
            await put(objects, f"fill{number}", size)
            number += 1
            refused = 0
        except QuotaExceeded:
            refused += 1
            # What a fault has left is found by the first who is refused, or a little later.
            await stage.pause(3)
        except (TryLater, OutcomeUnknown):
            await stage.pause(1)
    used = stage.cluster.invariants.used(bucket) + Amount(size, 1)
    is_full = used.size * 100 > limits.size * 99 or used.objects * 100 > limits.objects * 99
    if not is_full:
        stage.broken.append(f"refused {size} bytes, with which there would be {used} of {limits}")
    stage.figures["filled"] = number


async def play(stage: Stage) -> None:
    await stage.open()
    objects, limits, draw = stage.objects[0], _limits(stage.world.seed), stage.world.stream("quota")
    versioning = {"versioning": "Enabled"} if draw.chance(0.3) else {}

    async def make() -> Bucket:
        with suppress(BucketAlreadyExists):
            await objects.buckets.create(BUCKET, shards=SHARDS, config=versioning)
        return await objects.buckets.read(BUCKET)

    async def limit_it() -> QuotaUse:
        return await objects.quotas.set(BUCKET, size=limits.size, objects=limits.objects)

    bucket = await stage.on(0, "make", _persist(make))
    clients, invariants = _Clients(stage), stage.cluster.invariants
    early = [stage.on(number, "work", clients.work(number)) for number in range(CLIENTS // 2)]
    await stage.pause(draw.uniform(0, 0.3))
    setting = stage.on(0, "set", _persist(limit_it))
    await stage.within(300, "setting the quota", [setting])
    # What was there before stays.
    limit = Amount(limits.size, limits.objects).most(invariants.used(bucket.place.bucket))
    invariants.limit(bucket.place.bucket, limit)
    stage.faults.start()
    late = [stage.on(number, "work", clients.work(number)) for number in range(CLIENTS)]
    if draw.chance(0.3):
        late.append(stage.on(0, "set again", _set_again(objects, limits)))
    await stage.within(TURNS * 120, "calls", early + late)
    stage.calm()
    await stage.pause(SETTLED_S)
    filling = stage.on(1, "fill", _fill(stage, stage.objects[1], bucket.place.bucket, limits))
    await stage.within(SETTLED_S * 10, "filling", [filling])
    if versioning:
        deleting = stage.on(1, "delete", _delete_all(stage, stage.objects[1]))
        await stage.within(SETTLED_S * 10, "deleting", [deleting])
    stage.figures |= {"done": clients.done, "refused": clients.refused, "unknown": clients.unknown}


def swarm(seed: int) -> Swarm:
    """All faults, as in a small seed of safety; but not links that let nothing get on."""
    drawn = safety.swarm(seed)
    drawn.astray, drawn.lost_percent = min(drawn.astray, 1), min(drawn.lost_percent, 2)
    return drawn


SCENARIO = Scenario(
    "quota",
    "a bucket with a quota is filled while everything fails",
    play,
    swarm,
    lambda seed: Shape(
        keys=Stream(seed, "quota keys").randint(4, 20), clients=CLIENTS, operations=0, nodes=3
    ),
)
