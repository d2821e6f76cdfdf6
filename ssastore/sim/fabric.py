"""The network as slices move: routes follow the owners that the control store names, each host a bit later.

    owner changes   the new owner accepts the addresses, and is announced (some hosts hear of it later)
    GOAWAY_MS later the former owner accepts them no more

What production does with the routes of nodes and router (``core.routekeeper``), by a simpler
way: one slice after the other, from outside of all processes.  At the moment at which the
control store has decided, what the new owner holds is compared with what the old one held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssastore.core.groups import ACTIVE, GROUP_PREFIX, GroupRecord, PlaneOwner, group_key
from ssastore.env import spawn
from ssastore.keyspace import GROUP_BITS, GROUPS, slice_of
from ssastore.limits import GOAWAY_MS
from ssastore.rebalance import Move
from ssastore.sim.clock import NS_PER_MS
from ssastore.sim.seeds import Stream

if TYPE_CHECKING:
    from ssastore.sim.cluster import SimCluster, StoreHost


class Fabric:
    """Routes and accepted addresses of a simulated cluster."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._known: dict[int, PlaneOwner] = {}
        "By slice, what its group's record says, of those that are not as at the beginning."
        self.moves = 0
        "Slices that changed their owner."
        self._task = spawn("fabric", self._follow())

    def _learn(self, record: GroupRecord) -> None:
        self._known.update({p << GROUP_BITS | record.group: found for p, found in enumerate(record.planes)})

    async def _follow(self) -> None:
        control, cluster_groups = self._cluster.control.another_client(), self._cluster.layout.cluster.groups
        async for event in control.watch(GROUP_PREFIX, 1):
            assert event.value is not None
            record = GroupRecord.decode(event.value)
            for plane, found in enumerate(record.planes):
                slice16 = plane << GROUP_BITS | record.group
                before = self._known.get(slice16) or cluster_groups[record.group].planes[plane]
                if found.owner != before.owner:
                    self._switch(slice16, before, found)
            self._learn(record)

    def _switch(self, slice16: int, before: PlaneOwner, found: PlaneOwner) -> None:
        cluster, piece = self._cluster, slice_of(slice16 >> GROUP_BITS, slice16 & 0xFFF)
        loop = cluster.world.loop
        self.moves += 1
        loop.note(f"slice {slice16:04x} goes from {before.owner} to {found.owner}, epoch {found.epoch}")
        assert found.state == ACTIVE
        self._compare(slice16, before, found)
        for node in cluster.named(found.owner):
            node.host.accept(piece)
        cluster.world.network.routing.announce(piece, found.owner)
        loop.at(loop.now_ns + GOAWAY_MS * NS_PER_MS, self._give_up, slice16, before.owner)

    def _give_up(self, slice16: int, former: str) -> None:
        if self._known[slice16].owner != former:
            for node in self._cluster.named(former):
                node.host.reject(slice_of(slice16 >> GROUP_BITS, slice16 & 0xFFF))

    def _compare(self, slice16: int, before: PlaneOwner, found: PlaneOwner) -> None:
        source, target = self._disk_of(before), self._disk_of(found)
        if source is not None and target is not None:
            self._cluster.invariants.handed_over(slice16, source.disk.contents, target.disk.contents)

    def _disk_of(self, owner: PlaneOwner) -> StoreHost | None:
        """The node whose disk is the environment that a record names."""
        nodes = self._cluster.named(owner.owner)
        if not owner.env:
            return nodes[0]  # The first environment.
        return next((node for node in nodes if node.env_id == owner.env), None)


async def draw_moves(cluster: SimCluster, draw: Stream, slices_max: int) -> list[Move]:
    """Moves of some slices that hold something, each to a node that has no plane of its group."""
    replicas, names = cluster.layout.cluster.record.replicas, [node.name for node in cluster.nodes]
    keys = [key for node in cluster.nodes for key in node.disk.contents.keys]
    held = sorted({int.from_bytes(key[:2], "big") for key in keys})
    held = [slice16 for slice16 in held if slice16 >> GROUP_BITS < replicas]
    moves: dict[int, Move] = {}
    for slice16 in draw.sample(held, min(len(held), draw.randint(1, slices_max))):
        item = await cluster.control.get(group_key(slice16 % GROUPS))
        assert item is not None
        owners = GroupRecord.decode(item.value).owners
        # Of a group one at most: with four nodes there is one place for it.
        move = Move(slice16, draw.choice([name for name in names if name not in owners]))
        moves.setdefault(slice16 % GROUPS, move)
    return list(moves.values())
