"""Mend: everybody fights for a few records, and one copy at a time rots or is lost and is healed.

Nobody can tell what a rotten slot had promised; who heals it must not undo a vote that it gave.
"""

from __future__ import annotations

from ssastore.core.records import in_plane, split_place
from ssastore.core.register import NO_BALLOT, Ballot, decode_slot
from ssastore.env import spawn
from ssastore.messages import Kind
from ssastore.sim.clock import NS_PER_MS, NS_PER_S
from ssastore.sim.cluster import StoreHost
from ssastore.sim.scenarios import fight
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm
from ssastore.sim.upkeep import Damage, rotten_keys, stored

_EVERY_NS = 30 * NS_PER_MS
_FOUND_NS = 10 * NS_PER_MS


class RecordsRot(Damage):
    """Flips a bit in a copy of a client's record, best in one that has promised what no other has.

    A scrub finds it a moment later.
    """

    every_ns = _EVERY_NS

    def damage(self) -> None:
        nodes = self._stage.cluster.nodes
        if any(map(rotten_keys, nodes)):
            return
        slots: dict[bytes, list[tuple[Ballot, StoreHost, bytes]]] = {}
        for node in nodes:
            for key, value in stored(node):
                if value is not None and split_place(key)[1] == Kind.OBJECT:
                    promise = decode_slot(value, NO_BALLOT).promise
                    slots.setdefault(in_plane(key, 0), []).append((promise, node, key))
        alone = [held for held in (_alone(copies) for copies in slots.values()) if held is not None]
        if not alone or not self._draw.chance(0.5):
            return
        node, key = self._draw.choice(alone)
        node.disk.rot(key)
        self._count("record rotten")
        if node.engine is not None:
            node.host.spawn("find", self._find(node, key))

    async def _find(self, node: StoreHost, key: bytes) -> None:
        await self._stage.pause(self._draw.span_ns(_FOUND_NS) / NS_PER_S)
        if node.engine is not None:
            await node.engine.upkeep.mender.mend(key)


def _alone(copies: list[tuple[Ballot, StoreHost, bytes]]) -> tuple[StoreHost, bytes] | None:
    """The copy of a name that has promised more than the others, if there is one."""
    promises = sorted(promise for promise, *_ in copies)
    highest = max(copies, key=lambda copy: copy[0])
    return highest[1:] if len(copies) > 1 and promises[-2] < promises[-1] else None


async def play(stage: Stage) -> None:
    await stage.open()
    stage.faults.start()
    damage = spawn("damage", RecordsRot(stage).run())
    await stage.work()
    damage.cancel()
    stage.calm()


def swarm(seed: int) -> Swarm:
    """As in a fight, but nodes seldom go: a second copy that is away only makes all wait."""
    drawn = fight.swarm(seed)
    draw = Stream(seed, "mend swarm")
    for kind in ("kill", "power_off", "isolate"):
        drawn.weights.pop(kind, None)
    # A proposer whose own promise takes long is the one that goes on with the promise of another plane.
    drawn.weights["disk_stall"] = 3.0
    drawn.every_ns = draw.choice((20, 60)) * NS_PER_MS
    drawn.lasting_ns = 3 * NS_PER_S
    drawn.lost_percent = draw.choice((10, 20, 30))
    drawn.repeated_percent = draw.choice((10, 30))
    drawn.weather.late_share = draw.choice((0.05, 0.2))
    drawn.weather.late_ns = draw.choice((100, 300)) * NS_PER_MS
    return drawn


SCENARIO = Scenario(
    "mend",
    "copies rot one at a time, and are healed while everybody writes",
    play,
    swarm,
    fight.shape,
)
