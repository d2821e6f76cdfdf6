"""What a put costs in a bucket with a quota: while its share suffices, and with a share that grows."""

from __future__ import annotations

from ssastore.core.content import Content
from ssastore.core.objects import Objects
from ssastore.sim.scenarios import cost
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.workload import Shape

_WARM_KEYS = 40
_PUTS = 40
_TRIES = 8

MORE_MAX = 3
"Requests that a put takes more, on an average, when a share grows by four objects each time."


async def play(stage: Stage) -> None:
    await stage.open()
    objects = stage.objects[0]
    for bucket in ("without", "with"):
        await stage.on(0, "make", objects.buckets.create(bucket, shards=2))
        for number in range(_WARM_KEYS):
            await stage.on(0, "warm up", _put(objects, bucket, f"warm{number}"))
    await stage.on(0, "set", objects.quotas.set("with", size=None, objects=40 * _PUTS))
    await stage.pause(5)
    for bucket in ("without", "with"):
        messages = stage.cluster.messages
        for number in range(_PUTS):
            await stage.on(0, "put", _put(objects, bucket, f"new{number}"))
        await stage.pause(5)
        stage.figures[f"{bucket}: requests of a new name"] = (stage.cluster.messages - messages) / _PUTS
    await _measure_overwrite(stage, objects)
    more = stage.figures["with: requests of a new name"] - stage.figures["without: requests of a new name"]
    if not 0 < more <= MORE_MAX:
        stage.broken.append(f"a put in a bucket with a quota takes {more:g} requests more")


async def _measure_overwrite(stage: Stage, objects: Objects) -> None:
    """A name that is overwritten with as much costs what it costs without a quota."""
    requests = []
    for bucket in ("without", "with"):
        found = []
        for _ in range(_TRIES):
            messages = stage.cluster.messages
            await stage.on(0, "overwrite", _put(objects, bucket, "new1"))
            await stage.pause(0.2)
            found.append(stage.cluster.messages - messages)
        requests.append(min(found))  # Now and then nodes tell each other how far they are.
        stage.figures[f"{bucket}: requests of an overwrite"] = requests[-1]
    if requests[0] != requests[1]:
        stage.broken.append(f"an overwrite takes {requests[1]} requests, and {requests[0]} without a quota")


async def _put(objects: Objects, bucket: str, name: str) -> None:
    await objects.commit(bucket, name, Content(1, b"x"), "e" * 32)


SCENARIO = Scenario(
    "quotacost",
    "what a put takes in a bucket with a quota",
    play,
    cost.swarm,
    lambda seed: Shape(clients=1, operations=0),
    deadline_ms=30_000,
)
