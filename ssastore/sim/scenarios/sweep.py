"""Sweep: puts that stop half way, and what they alone name is swept while their node is away.

Each round a node proposes some objects in blobs, accepts them itself, and tells nobody else; the clients are
gone.  Then the node is away, for longer than blobs are kept.  When it is back and another one goes,
what it has accepted may come up: then the blobs must be there.
"""

from __future__ import annotations

import asyncio
from typing import Any

from blake3 import blake3

from ssastore.core.place import expected_position
from ssastore.core.tools import UpkeepRules
from ssastore.errors import OutcomeUnknown
from ssastore.judge.history import Kind, Op, Outcome
from ssastore.keyspace import iid_of, position_of_blob, slice16_of
from ssastore.messages import Accept, Message
from ssastore.sim.clock import NS_PER_MS
from ssastore.sim.cluster import StoreHost
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm, draw_swarm
from ssastore.sim.upkeep import UpkeepRegister, content_of
from ssastore.sim.workload import BUCKET, Shape

DEADLINE_MS = 3_000
GRACE_MS = 6_000
SCRUB_S = 2.0
ROUNDS = 3
PUTS = 4
_TRIES = 1000
"Numbers of a round: a bucket's few shards may have no place at all on a node."
RULES = UpkeepRules(
    tombstone_kept_ms=60_000, blob_grace_ms=GRACE_MS, scrub_first_s=SCRUB_S, scrub_every_s=SCRUB_S
)
_AWAY_S = GRACE_MS / 1000 + 45.0
"Two passes of all others: with a node away each waits some twenty seconds for it."
_BACK_S = 3.0


class OwnContents(UpkeepRegister):
    """Objects that share no blob."""

    contents = 1_000_003


async def play(stage: Stage) -> None:
    await stage.open()
    draw = stage.world.stream("sweep")
    written: list[str] = []
    for number in range(ROUNDS):
        nodes = stage.cluster.nodes
        gone, other = draw.sample(nodes, 2)
        for key in await _keys_for(stage, gone, 1000 * (number + 1)):
            await _put_half_way(stage, gone, key)
            written.append(key)
        gone.host.power_off()
        await stage.pause(_AWAY_S)
        other.host.power_off()
        gone.host.start()
        while gone.engine is None:
            await stage.pause(0.05)
        await _read(stage, written)
        other.host.start()
        await stage.pause(_BACK_S)
    await _read(stage, written)
    stage.calm()


async def _keys_for(stage: Stage, node: StoreHost, first: int) -> list[str]:
    """Fresh keys of which a node has plane 0, and no plane of the blob; few or none where there are few."""
    assert node.engine is not None
    owned = node.engine.acceptor.owned
    bucket = await stage.on(0, "bucket", stage.objects[0].bucket(BUCKET))
    found: list[str] = []
    for number in range(first + 1, first + _TRIES, 2):
        key = f"key{number}"
        place = expected_position(bucket.place.bucket, bucket.place.shards, key.encode())
        blob = position_of_blob(blake3(content_of(_value(key), OwnContents.contents)).digest())
        planes = [slice16_of(iid_of(blob, plane)) for plane in range(stage.scenario.replicas)]
        if slice16_of(iid_of(place, 0)) in owned and owned.isdisjoint(planes):
            found.append(key)
        if len(found) == PUTS:
            break
    return found


def _value(key: str) -> str:
    return f"half of {key}"


async def _put_half_way(stage: Stage, node: StoreHost, key: str) -> None:
    """A put whose proposer and whose client stop when the first plane has accepted it."""
    assert node.engine is not None
    pool: Any = node.engine.mates
    call, sent = pool.call, asyncio.Event()

    async def lossy(message: Message, *arguments: Any, **options: Any) -> Any:
        if isinstance(message, Accept) and message.key == key.encode():
            sent.set()
            raise OutcomeUnknown("the request was lost")
        return await call(message, *arguments, **options)

    pool.call = lossy
    began_ns = stage.world.loop.now_ns
    put = stage.on(0, "put", stage.registers[0]._write(key, _value(key), None, None))
    await sent.wait()
    put.cancel()
    await asyncio.wait([put])
    op = Op(0, Kind.PUT, began_ns, stage.world.loop.now_ns, Outcome.UNKNOWN, _value(key))
    stage.told.histories.setdefault(key, []).append(op)
    await stage.pause(0.5)
    pool.call = call


async def _read(stage: Stage, keys: list[str]) -> None:
    async def read() -> None:
        for key in keys:
            await stage.registers[0].call(key, Kind.GET)

    await stage.on(0, "read", read())


def swarm(seed: int) -> Swarm:
    """No fault but those of the script."""
    drawn = draw_swarm(seed, ())
    drawn.lag_ns_max = drawn.drift_ppm = drawn.offset_ms = 0
    drawn.astray = drawn.repeated_percent = drawn.lost_percent = 0
    drawn.commit_ms = min(drawn.commit_ms, 5)
    drawn.weather.late_share = drawn.weather.refused_share = 0.0
    drawn.weather.latency_ns = min(drawn.weather.latency_ns, NS_PER_MS)
    return drawn


SCENARIO = Scenario(
    "sweep",
    "puts that stop half way, and blobs that are swept meanwhile",
    play,
    swarm,
    lambda seed: Shape(clients=1, operations=0),
    nodes=4,
    deadline_ms=DEADLINE_MS,
    rules=RULES,
    register=OwnContents,
)
