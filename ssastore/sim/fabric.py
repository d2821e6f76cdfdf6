"""The network as slices move: routes follow the owners that the control store names, each host a bit later.

    owner changes   the new owner accepts the addresses, and is announced (some hosts hear of it later)
    GOAWAY_MS later the former owner accepts them no more

What production does with the routes of nodes and router (``core.routekeeper``), by a simpler
way: one slice after the other, from outside of all processes.  At the moment at which the
control store has decided, what the new owner holds is compared with what the old one held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssastore.core.groups import ACTIVE, GROUP_PREFIX, RECOVERING, GroupRecord, PlaneOwner, group_key
from ssastore.core.numbers import (
    group_of_slice,
    numbered_slice,
    overlaps,
    part_of_slice,
    part_piece,
    plane_of_slice,
    slice_name,
    slice_number,
)
from ssastore.env import spawn
from ssastore.keyspace import GROUP_BITS, GROUPS, SLICE_BITS
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
        self._known: dict[int, GroupRecord] = {}
        "Records of groups that are not as at the beginning."
        self.recuts = 0
        "Slices that were cut from another one or merged."
        self.moves = 0
        "Slices that changed their owner."
        self.added = 0
        "Slices of planes that groups did not have before."
        self._task = spawn("fabric", self._follow())

    async def _follow(self) -> None:
        control = self._cluster.control.another_client()
        async for event in control.watch(GROUP_PREFIX, 1):
            assert event.value is not None
            record = GroupRecord.decode(event.value)
            before = self._record_of(record.group)
            self._cluster.invariants.recorded(before, record)
            self._known[record.group] = record
            for view in record.views():
                if before.at(view.part) is None:
                    self._recut(view)
                for plane, found in enumerate(view.planes):
                    number = slice_number(plane, view.part)
                    if plane >= len(before.planes):
                        self._add(number, before.planes[0], found)
                        continue
                    former = _owner_of(before, number)
                    if found.owner != former.owner:
                        self._switch(number, former, found)

    def _record_of(self, group: int) -> GroupRecord:
        return self._known.get(group) or self._cluster.layout.cluster.groups[group]

    def _recut(self, view: GroupRecord) -> None:
        """A part is a slice of its own from now on, or again: what was told of parts inside is void."""
        self.recuts += 1
        routing, depth = self._cluster.world.network.routing, part_piece(view.part).depth
        for plane, found in enumerate(view.planes):
            piece = numbered_slice(slice_number(plane, view.part))
            self._cluster.world.loop.note(f"slice {piece} is one now")
            for node in self._cluster.nodes:
                if node.name == found.owner:
                    node.host.accept(piece)
                elif depth == SLICE_BITS:
                    node.host.reject(piece)
            routing.announce(piece, found.owner)
            routing.withdraw_inside(piece)
            for node in self._cluster.nodes:
                node.host.forget_inside(piece)

    def _add(self, number: int, first: PlaneOwner, found: PlaneOwner) -> None:
        """A group has a plane that it did not have."""
        cluster, piece = self._cluster, numbered_slice(number)
        self.added += 1
        cluster.world.loop.note(f"slice {slice_name(number)} is made at {found.owner}")
        if found.state == ACTIVE:
            self._compare(slice_number(0, part_of_slice(number)), first, found, number)
        for node in cluster.named(found.owner):
            node.host.accept(piece)
        cluster.world.network.routing.announce(piece, found.owner)

    def _switch(self, number: int, before: PlaneOwner, found: PlaneOwner) -> None:
        cluster, piece = self._cluster, numbered_slice(number)
        loop = cluster.world.loop
        self.moves += 1
        loop.note(
            f"slice {slice_name(number)} goes from {before.owner} to {found.owner}, epoch {found.epoch}"
        )
        if found.state == ACTIVE:
            self._compare(number, before, found)
        else:
            assert found.state == RECOVERING
        for node in cluster.named(found.owner):
            node.host.accept(piece)
        cluster.world.network.routing.announce(piece, found.owner)
        self._give_up_later(number, before.owner)

    def _give_up_later(self, number: int, former: str) -> None:
        loop = self._cluster.world.loop
        loop.at(loop.now_ns + GOAWAY_MS * NS_PER_MS, self._give_up, number, former)

    def _give_up(self, number: int, former: str) -> None:
        record = self._record_of(group_of_slice(number))
        if record.at(part_of_slice(number)) is not None and _owner_of(record, number).owner != former:
            for node in self._cluster.named(former):
                if node.line.is_down:  # It does not know.
                    self._give_up_later(number, former)
                else:
                    node.host.reject(numbered_slice(number))

    def _compare(self, number: int, before: PlaneOwner, found: PlaneOwner, made: int = -1) -> None:
        """``made``: the slice at the target, if it is one of another plane."""
        source, target = self._disk_of(before), self._disk_of(found)
        if source is not None and target is not None:
            made = number if made < 0 else made
            self._cluster.invariants.handed_over(number, source.disk.contents, made, target.disk.contents)

    def _disk_of(self, owner: PlaneOwner) -> StoreHost | None:
        """The node whose disk is the environment that a record names."""
        nodes = self._cluster.named(owner.owner)
        if not owner.env:
            return nodes[0]  # The first environment.
        return next((node for node in nodes if node.env_id == owner.env), None)


def _owner_of(record: GroupRecord, number: int) -> PlaneOwner:
    """Who owned a slice, by a record in which it may have been in another one, or several."""
    plane = plane_of_slice(number)
    return next(
        found.planes[plane] for found in record.parts if overlaps(slice_number(plane, found.part), number)
    )


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
        record = GroupRecord.decode(item.value)
        view = record if record.split is None else draw.choice(record.views())
        # Of a group one at most: with four nodes there is one place for it.
        target = draw.choice([name for name in names if name not in view.owners])
        moves.setdefault(slice16 % GROUPS, Move(slice_number(slice16 >> GROUP_BITS, view.part), target))
    return list(moves.values())
