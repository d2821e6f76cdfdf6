"""Cost: what a call takes, in round trips, syncs and messages, with nothing else going on.

Every packet takes exactly one unit of time and every sync exactly fifty, so how long
a call took says how many of each lay one after the other on its way: the client's
own round trip to the proposer, then one between the nodes for each round.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from ssastore.core.content import Content
from ssastore.sim.clock import NS_PER_MS
from ssastore.sim.links import Weather
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import BUCKET, Shape

LATENCY_MS = 1
COMMIT_MS = 50

_WARM_KEYS = 40
"So many that everybody has a connection to everybody: a dial is no part of a call's cost."

EXPECTED = {
    # name: (round trips between nodes, or of a get: to the planes; syncs one after the other)
    "a new name": (2, 2),
    "overwrite": (1, 1),
    "get": (1, 0),
    "delete": (1, 1),
}


async def play(stage: Stage) -> None:
    await stage.open()
    objects = stage.objects[0]
    for number in range(_WARM_KEYS):
        await stage.on(0, "warm up", objects.commit(BUCKET, f"warm{number}", Content(1, b"w"), "w"))
        await stage.on(0, "warm up", _get(stage, f"warm{number}"))
    for name, work in (
        ("a new name", objects.commit(BUCKET, "key", Content(1, b"a"), "a")),
        ("overwrite", objects.commit(BUCKET, "key", Content(1, b"b"), "b")),
        ("get", _get(stage, "key")),
        ("delete", objects.delete(BUCKET, "key")),
    ):
        await _measure(stage, name, work)
    for name, (trips, syncs) in EXPECTED.items():
        found = stage.figures[f"{name}: round trips"], stage.figures[f"{name}: syncs"]
        if found != (trips, syncs):
            stage.broken.append(
                f"{name} took {found[0]:g} round trips and {found[1]:g} syncs, not {trips} and {syncs}"
            )


async def _get(stage: Stage, key: str) -> bytes:
    reader = await stage.objects[0].open(BUCKET, key)
    return await reader.read()


async def _measure(stage: Stage, name: str, work: Coroutine[Any, Any, Any]) -> None:
    started_ns = stage.world.loop.now_ns
    messages, commits = stage.cluster.messages, stage.cluster.commits
    await stage.on(0, name, work)
    took_ms = (stage.world.loop.now_ns - started_ns) // NS_PER_MS
    trips = took_ms % COMMIT_MS // (2 * LATENCY_MS)
    # A get asks the planes itself; a write is passed on by the proposer that it was sent to.
    stage.figures[f"{name}: round trips"] = trips if name == "get" else trips - 1
    stage.figures[f"{name}: syncs"] = took_ms // COMMIT_MS
    # The slowest plane is not waited for: let it finish before the next call is measured.
    await stage.pause(5)
    stage.figures[f"{name}: requests"] = stage.cluster.messages - messages
    stage.figures[f"{name}: commits of all planes"] = stage.cluster.commits - commits


def swarm(seed: int) -> Swarm:
    """Nothing fails; times are exact."""
    weather = Weather(latency_ns=LATENCY_MS * NS_PER_MS, jitter_ns=0, split_share=0.0)
    return Swarm(weather, commit_ms=COMMIT_MS)


SCENARIO = Scenario(
    "cost",
    "round trips, syncs and messages of each kind of call",
    play,
    swarm,
    lambda seed: Shape(clients=1, operations=0),
    deadline_ms=30_000,
)
