"""What the scenarios about forgetting and healing have in common.

Times are short: a delete is remembered for seconds.  Clients repeat their calls for
longer than that, so that a call meets what was forgotten since it was first sent, and
faults last longer than that.  In the end nothing fails any more, and the planes must
hold the same, with nothing left of what was deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ssastore.core.content import Content
from ssastore.core.demand import Demand
from ssastore.core.records import BOOKKEEPING_FIRST, in_plane, split_place
from ssastore.core.register import LIVE, NO_BALLOT, decode_slot, decode_value
from ssastore.core.survey import survey, walk
from ssastore.core.tools import UpkeepRules
from ssastore.errors import CorruptObject
from ssastore.judge.history import Kind
from ssastore.messages import RECORD_KINDS
from ssastore.messages import Kind as Stored
from ssastore.sim.clock import NS_PER_MS, NS_PER_S
from ssastore.sim.cluster import StoreHost
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Stage
from ssastore.sim.swarm import NETWORK_FAULTS, Swarm, draw_swarm
from ssastore.sim.workload import BUCKET, Register, Shape

KEPT_MS = 20_000
GRACE_MS = 60_000
RULES = UpkeepRules(tombstone_kept_ms=KEPT_MS, blob_grace_ms=GRACE_MS, scrub_first_s=3.0, scrub_every_s=40.0)
DEADLINE_MS = 40_000
_LASTING_S = (2, 12, 40)
_FAULTS = (*NETWORK_FAULTS, "pause", "kill", "power_off", "disk_full", "disk_error", "disk_stall")
_CONTENTS = 3
HEALED_S = 30.0 + GRACE_MS / 1000
"""When nothing else is wrong, until what is rotten was found and is good: a pass may wait for who was away.
A blob that nothing names may have no good copy left to be repaired from; it goes after the grace time."""
EQUAL_S = 4 * GRACE_MS / 1000
_SCRUB_EVERY = 8


class UpkeepRegister(Register):
    """Every other key is an object in a blob, of a few contents; its ETag is the value."""

    contents = _CONTENTS
    "So many, so that objects share blobs."

    async def _write(self, key: str, value: str, if_match: str | None, if_none_match: str | None) -> None:
        if not _is_blob(key):
            await super()._write(key, value, if_match, if_none_match)
            return
        bucket = await self._objects.bucket(BUCKET)
        writer = self._objects.writer(bucket, key.encode(), inline_bytes_max=0)
        await writer.write(content_of(value, self.contents))
        content: Content = await writer.finish()
        await self._objects.commit(BUCKET, key, content, value, demand=Demand(if_match, if_none_match))

    async def _read(self, key: str) -> str:
        if not _is_blob(key):
            return await super()._read(key)
        reader = await self._objects.open(BUCKET, key)
        value = reader.info.etag
        try:
            served = await reader.read()
        except CorruptObject as error:
            if "missing" in str(error):
                self._told.violations.append(f"I12: a blob of {key} is gone: {error}")
            raise
        if served != content_of(value, self.contents):
            self._told.violations.append(f"I14: {key} was served {served!r} with the etag {value!r}")
        return value


def _is_blob(key: str) -> bool:
    return int(key.removeprefix("key")) % 2 == 1


def content_of(value: str, contents: int) -> bytes:
    """The bytes of the object whose ETag is ``value``, one of so many contents."""
    return b"content %d" % (int.from_bytes(value.encode(), "big") % contents)


def shape(seed: int) -> Shape:
    """Few keys and many deletes, so that names come and go."""
    draw = Stream(seed, "upkeep shape")
    return Shape(keys=draw.randint(2, 6), clients=3, operations=draw.randint(60, 100), weights=(4, 5, 5))


def swarm(seed: int) -> Swarm:
    """Few faults that last: nodes are away for longer than a delete is remembered."""
    drawn = draw_swarm(seed, _FAULTS)
    draw = Stream(seed, "upkeep swarm")
    drawn.lasting_ns = draw.choice(_LASTING_S) * NS_PER_S
    drawn.every_ns = max(drawn.every_ns, drawn.lasting_ns // 4)
    drawn.drift_ppm = min(drawn.drift_ppm, 100)
    drawn.lag_ns_max = 0
    return drawn


async def work_in_bursts(stage: Stage) -> None:
    """All clients do their share of the calls, with silences in which things are forgotten."""
    share = stage.shape.operations // len(stage.clients)

    async def bursts(client: int) -> None:
        draw = stage.world.stream(f"bursts {client}")
        left = share
        while left > 0:
            count = min(left, draw.randint(2, 8))
            await stage.registers[client].some_operations(stage.shape, count)
            left -= count
            await asyncio.sleep(draw.span_ns(KEPT_MS * NS_PER_MS) / NS_PER_S)

    await asyncio.gather(*[stage.on(index, "bursts", bursts(index)) for index in range(len(stage.clients))])


async def settle_down(stage: Stage) -> None:
    """The end of a run: everything heals, is read once more, and is forgotten where it should be."""
    nodes = stage.cluster.nodes
    await asyncio.sleep(5)
    await _until(
        stage, "nothing is rotten", HEALED_S, lambda: [k for node in nodes for k in rotten_keys(node)]
    )

    async def read(client: int) -> None:
        for number in range(stage.shape.keys):
            if await stage.registers[client].call(f"key{number}", Kind.GET) is None:
                stage.broken.append(f"key{number} cannot be read although nothing fails")

    await asyncio.gather(*[stage.on(index, "read", read(index)) for index in range(len(stage.clients))])
    await _until(stage, "planes are equal and clean", EQUAL_S, lambda: differing(nodes))


async def _until(stage: Stage, claim: str, within_s: float, wrong: Callable[[], list[object]]) -> None:
    """Wait until nothing is wrong; scrubs run meanwhile."""
    turn = 0
    began_s = stage.now_s
    while found := wrong():
        if stage.now_s - began_s > within_s:
            stage.stuck.append(f"{claim}: not within {within_s:g} virtual s: {found[:4]}")
            return
        if turn % _SCRUB_EVERY == 0:
            for node in stage.cluster.nodes:
                if node.engine is not None:
                    node.engine.upkeep.scrub.request()
        turn += 1
        await asyncio.sleep(1)
    stage.figures[claim] = stage.now_s - began_s


# -- what is on the disks ---------------------------------------------------------------------------


def stored(node: StoreHost) -> list[tuple[bytes, bytes | None]]:
    """Everything but bookkeeping that a node holds; what is rotten with None."""
    with node.disk.read() as txn:
        found = walk(txn, b"\0", BOOKKEEPING_FIRST)
        return [(key, None if value is None else bytes(value)) for key, value in found]


def rotten_keys(node: StoreHost) -> list[object]:
    """What fails its checksum at a node."""
    return [f"{node.host.name} {key.hex()}" for key, value in stored(node) if value is None]


def differing(nodes: list[StoreHost]) -> list[object]:
    """What the planes do not hold alike, and records that should have been forgotten."""
    wrong: list[object] = []
    planes: dict[int, dict[bytes, bytes]] = {}
    for node in nodes:
        records = stored(node)
        for key, value in records:
            if value is None:
                wrong.append(f"{node.host.name} has {key.hex()} rotten")
            elif split_place(key)[1] in RECORD_KINDS:
                slot = decode_slot(value, NO_BALLOT)
                if decode_value(slot.value).state != LIVE:
                    wrong.append(f"{node.host.name} still has {key.hex()} under {slot.seen.hex()}")
        with node.disk.read() as txn:
            for slice16 in sorted({int.from_bytes(key[:2], "big") for key, _ in records}):
                page = survey(txn, slice16, b"", b"")
                planes.setdefault(slice16 >> 12, {}).update(page.rows)
    first = planes.get(0, {})
    for plane, rows in sorted(planes.items()):
        keys = [key for key in sorted(first.keys() | rows.keys()) if first.get(key) != rows.get(key)]
        wrong += [f"plane {plane} differs in {in_plane(key, plane).hex()}" for key in keys]
    return wrong


class Damage:
    """Damages one record after the other, never two at once: two of three copies are a lost majority."""

    every_ns = 10 * NS_PER_S

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._draw = stage.world.stream("damage")

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._draw.span_ns(self.every_ns) / NS_PER_S)
            self.damage()

    def damage(self) -> None:
        """One bit of a record, blob or reference flips; or a blob is gone."""
        nodes = self._stage.cluster.nodes
        if any(map(rotten_keys, nodes)):
            return
        node = self._draw.choice(nodes)
        keys = [key for key, _ in stored(node)]
        if not keys:
            return
        key = self._draw.choice(keys)
        kind = Stored(split_place(key)[1])
        if kind == Stored.BLOB and self._draw.chance(0.4):
            node.disk.lose(key)
            self._count("blob lost")
        else:
            node.disk.rot(key)
            self._count(f"{kind.name.lower()} rotten")

    def _count(self, what: str) -> None:
        happened = self._stage.faults.happened
        happened[what] = happened.get(what, 0) + 1
