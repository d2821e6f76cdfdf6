"""The network as slices move: routes follow the owners that the control store names, each host a bit later.

    owner changes   the new owner accepts the addresses, and is announced (some hosts hear of it later)
    GOAWAY_MS later the former owner accepts them no more

What production does with the routes of nodes and router (``core.routekeeper``), by a simpler
way: one slice after the other, from outside of all processes.  At the moment at which the
control store has decided, what the new owner holds is compared with what the old one held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssastore.core.cluster import ACTIVE, GROUP_PREFIX, GroupRecord, PlaneOwner
from ssastore.env import spawn
from ssastore.keyspace import GROUP_BITS, slice_of
from ssastore.limits import GOAWAY_MS
from ssastore.sim.clock import NS_PER_MS

if TYPE_CHECKING:
    from ssastore.sim.cluster import SimCluster, StoreHost


class Fabric:
    """Routes and accepted addresses of a simulated cluster."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._known: dict[int, PlaneOwner] = {}
        "By slice, what its group's record says."
        for record in cluster.layout.cluster.groups:
            self._learn(record)
        self.moves = 0
        "Slices that changed their owner."
        self._task = spawn("fabric", self._follow())

    def _learn(self, record: GroupRecord) -> None:
        self._known.update({p << GROUP_BITS | record.group: found for p, found in enumerate(record.planes)})

    async def _follow(self) -> None:
        control = self._cluster.control.another_client()
        async for event in control.watch(GROUP_PREFIX, 1):
            assert event.value is not None
            record = GroupRecord.decode(event.value)
            for plane, found in enumerate(record.planes):
                slice16 = plane << GROUP_BITS | record.group
                before = self._known[slice16]
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
