"""Duel: twenty clients count up one number by compare-and-set, at different proposers.

The number is what the count of successes says, however many proposers fight for the
name, and nobody starves.
"""

from __future__ import annotations

import asyncio

from ssastore.core.content import Content
from ssastore.core.demand import Demand
from ssastore.core.objects import Objects
from ssastore.errors import OutcomeUnknown, PreconditionFailed, TryLater
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import BUCKET, Shape

CLIENTS = 20
INCREMENTS = 3
"Successes of each client."

ATTEMPT_S_MAX = 10
"One call, however many proposers fight."

_KEY = "counter"


class _Counter:
    """What all clients know of the number."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.successes = self.unknown = self.calls = 0

    async def count(self, objects: Objects) -> None:
        """Count up, until it has worked a few times."""
        left = INCREMENTS
        while left:
            try:
                found = await objects.open(BUCKET, _KEY)
                value = int((await found.read()).decode())
                left -= await self._try(objects, value, found.info.etag)
            except (TryLater, OutcomeUnknown):
                continue

    async def _try(self, objects: Objects, value: int, etag: str) -> bool:
        """One compare-and-set; whether it worked. Raises what leaves that open."""
        self.calls += 1
        started_s = asyncio.get_running_loop().time()
        data = str(value + 1).encode()
        try:
            await objects.commit(BUCKET, _KEY, Content(len(data), data), data.decode(), demand=Demand(etag))
            self.successes += 1
            return True
        except PreconditionFailed:
            return False
        except OutcomeUnknown:
            self.unknown += 1
            raise
        finally:
            took_s = asyncio.get_running_loop().time() - started_s
            if took_s > ATTEMPT_S_MAX:
                self._stage.stuck.append(f"a call took {took_s:.1f} virtual s")


async def play(stage: Stage) -> None:
    await stage.open()
    counter = _Counter(stage)
    objects = stage.objects[0]
    await stage.on(0, "begin", objects.commit(BUCKET, _KEY, Content(1, b"0"), "0"))
    tasks = [stage.on(at, f"client{at}", counter.count(stage.objects[at])) for at in range(CLIENTS)]
    await stage.within(ATTEMPT_S_MAX * CLIENTS, "increments", tasks)
    reader = await stage.on(0, "end", objects.open(BUCKET, _KEY))
    total = int(await stage.on(0, "read", reader.read()))
    if not counter.successes <= total <= counter.successes + counter.unknown:
        stage.broken.append(
            f"the number is {total} after {counter.successes} successes and {counter.unknown} unknown"
        )
    stage.figures = {"calls": counter.calls, "successes": counter.successes, "unknown": counter.unknown}


def swarm(seed: int) -> Swarm:
    """No faults but that clients find their way to different proposers."""
    draw = Stream(seed, "duel")
    return Swarm(astray=2, commit_ms=draw.choice((0, 1, 5)))


SCENARIO = Scenario(
    "duel",
    f"{CLIENTS} clients count up one number through several proposers",
    play,
    swarm,
    lambda seed: Shape(keys=1, clients=CLIENTS, operations=0),
    deadline_ms=30_000,
)
