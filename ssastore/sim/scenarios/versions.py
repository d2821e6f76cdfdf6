"""Versions: writers and deleters of one or two keys, and everything fails meanwhile.

Every version that was acknowledged is there under its id until it is deleted by that id, and what was
deleted by its id stays away; what is current is the newest that is left, or nothing behind a marker.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ssastore.core.content import Content
from ssastore.core.demand import Demand
from ssastore.core.objects import Objects
from ssastore.core.versionlist import ListedVersion, Wanted
from ssastore.errors import NotFound, OutcomeUnknown, PreconditionFailed, StoreFull, TryLater, VersionNotFound
from ssastore.sim.scenarios import safety
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import BUCKET, Shape

CLIENTS = 4
TURNS = 8
"Calls of each client."
SETTLED_S = 60
"So long after the last fault everything can be read."


@dataclass(slots=True)
class _Key:
    """What clients know of one key."""

    alive: dict[str, bytes] = field(default_factory=dict)
    "Versions that were acknowledged, and that nobody has tried to delete."
    gone: set[str] = field(default_factory=set)
    "Versions that were deleted by their id."


class _Clients:
    """Everybody's work, and what all of them were told."""

    def __init__(self, stage: Stage, keys: int) -> None:
        self._stage = stage
        self._keys = {f"key{number}": _Key() for number in range(keys)}
        self.unknown = self.done = 0

    async def work(self, number: int) -> None:
        """The calls of one client."""
        objects, draw = self._stage.objects[number], self._stage.world.stream(f"versions {number}")
        for turn in range(TURNS):
            name = draw.choice(sorted(self._keys))
            try:
                await self._call(objects, draw, name, b"%d.%d" % (number, turn))
                self.done += 1
            except (TryLater, OutcomeUnknown, StoreFull):
                self.unknown += 1
            except (PreconditionFailed, NotFound):
                continue

    async def _call(self, objects: Objects, draw: Stream, name: str, data: bytes) -> None:
        key, choice = self._keys[name], draw.random()
        if choice < 0.45:
            demand = Demand(if_none_match="*") if draw.chance(0.3) else Demand()
            info = await objects.commit(BUCKET, name, Content(len(data), data), data.decode(), demand=demand)
            if info.version in key.gone or info.version in key.alive:
                self._stage.broken.append(f"{name}: {info.version} was given twice")
            key.alive[info.version] = data
        elif choice < 0.55:
            await objects.delete(BUCKET, name)
        elif key.alive:
            # Names sort the newest first: who replaces the current one and who deletes it are to meet.
            version = min(key.alive) if draw.chance(0.7) else draw.choice(sorted(key.alive))
            del key.alive[version]  # Whatever comes of it, nobody can say that it is there.
            await objects.delete(BUCKET, name, version)
            key.gone.add(version)

    async def judge(self, objects: Objects) -> None:
        """Compare what is there with what was told."""
        for name, key in self._keys.items():
            for version, data in key.alive.items():
                try:
                    found = await (await objects.open(BUCKET, name, version)).read()
                except NotFound:
                    self._stage.broken.append(f"{name}: version {version} is lost")
                    continue
                if found != data:
                    self._stage.broken.append(f"{name}: version {version} is {found!r}, not {data!r}")
            for version in sorted(key.gone):
                try:
                    await objects.open(BUCKET, name, version)
                    self._stage.broken.append(f"{name}: version {version} is back")
                except VersionNotFound:
                    continue
            await self._judge_listing(objects, name, key)

    async def _judge_listing(self, objects: Objects, name: str, key: _Key) -> None:
        entries = [
            entry
            async for entry in objects.list_versions(BUCKET, Wanted(prefix=name))
            if isinstance(entry, ListedVersion)
        ]
        shown = [entry.version for entry in entries]
        if len(shown) != len(set(shown)) or not set(key.alive) <= set(shown) or key.gone & set(shown):
            self._stage.broken.append(f"{name}: the listing shows {shown}")
        try:
            current = (await objects.head(BUCKET, name)).version
        except NotFound:
            current = ""
        if current and current != shown[0]:
            self._stage.broken.append(f"{name}: {current} is current, and {shown[0]} is newer")


async def _make_versions(objects: Objects) -> None:
    """Let the bucket make versions, however often it takes."""
    while True:
        try:
            await objects.buckets.configure(BUCKET, lambda bucket: bucket.config | {"versioning": "Enabled"})
            return
        except (OutcomeUnknown, TryLater, StoreFull):
            continue


async def play(stage: Stage) -> None:
    await stage.open()
    objects = stage.objects[0]
    await stage.on(0, "make versions", _make_versions(objects))
    clients = _Clients(stage, stage.shape.keys)
    stage.faults.start()
    tasks = [stage.on(number, "work", clients.work(number)) for number in range(CLIENTS)]
    await stage.within(TURNS * 60, "calls", tasks)
    stage.calm()
    await stage.pause(SETTLED_S)
    await stage.within(SETTLED_S, "judgement", [stage.on(0, "judge", clients.judge(objects))])
    stage.figures = {"done": clients.done, "unknown": clients.unknown}


def swarm(seed: int) -> Swarm:
    """All faults, as in a small seed of safety."""
    return safety.swarm(seed)


SCENARIO = Scenario(
    "versions",
    "versions of a few keys are made and deleted while everything fails",
    play,
    swarm,
    lambda seed: Shape(keys=Stream(seed, "versions").randint(1, 2), clients=CLIENTS, operations=0, nodes=3),
)
