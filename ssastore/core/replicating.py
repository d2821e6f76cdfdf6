"""More replicas for a cluster that runs: what is ordered, and how far that is (ADR 0018). Coroutines.

The cluster's record says how many planes there are to be, and the planner who gets those that groups lack;
the workers that get them are told by orders, and make them (``core.widener``).  All of it can be done again:
what is ordered, or is there, is left as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ssastore.core.cluster import CLUSTER_KEY, Cluster, ClusterRecord, NodeRecord
from ssastore.core.clusterreading import read_cluster
from ssastore.core.groups import ACTIVE, GROUP_NAMES
from ssastore.core.layout import NOBODY, Layout, Part, layout_of
from ssastore.core.membership import read_presence
from ssastore.core.numbers import (
    lane_of_slice,
    number_of_part,
    part_of_slice,
    plane_of_slice,
    slice_number,
)
from ssastore.core.ordering import change_order, take_back, target_of
from ssastore.core.orders import WIDEN_PREFIX, MoveOrder, widen_name
from ssastore.core.replan import replan
from ssastore.env import Compare, ControlStore, Write
from ssastore.errors import ConfigError
from ssastore.keyspace import REPLICAS_ALLOWED


@dataclass(frozen=True, slots=True)
class Replicas:
    """How far a cluster is on the way to its number of replicas."""

    wanted: int
    groups: Mapping[int, int]
    "By number of planes that vote, how many groups have so many."
    ordered: int
    "Slices that are ordered and do not vote yet."

    @property
    def left(self) -> int:
        """Slices that do not vote yet."""
        return sum((self.wanted - planes) * count for planes, count in self.groups.items())


async def order_replicas(control: ControlStore, replicas: int) -> int:
    """Let every group have so many planes; how many slices are ordered with this call.

    What is ordered already goes on, unless who is to make it cannot: because it has got another plane of the
    group since, or is no member, or is absent while enough others are there.  That is ordered elsewhere.

    Raises:
        ConfigError: fewer than now, too few nodes, or groups that are split: nothing was ordered then.
        Unavailable: the control store does not answer.
    """
    cluster = await read_cluster(control)
    record = cluster.record
    if replicas not in REPLICAS_ALLOWED:
        raise ConfigError(f"replicas must be one of {REPLICAS_ALLOWED}, got {replicas}")
    if replicas < record.replicas:
        raise ConfigError(
            f"the cluster has {record.replicas} replicas and cannot have {replicas}: planes are only added. "
            "What is agreed is held by a majority of all planes, and those that stay need not be among them"
        )
    split = [GROUP_NAMES[found.group] for found in cluster.groups if found.split is not None]
    if split:
        raise ConfigError(
            f"{len(split)} groups are split, as {split[0]}: merge them first (ssastore merge {split[0]})"
        )
    absent = (await read_presence(control)).absent
    there = [node for node in cluster.nodes if node.name not in absent]
    nodes = there if len(there) >= replicas else cluster.nodes
    known = await _ordered(control)
    void = _void(cluster, known, {node.name for node in nodes})
    wanted = _targets(cluster, {s: target for s, target in known.items() if s not in void}, nodes, replicas)
    if replicas > record.replicas:
        await _record(control, record, replicas)
    if void:
        for item in (await control.list(WIDEN_PREFIX))[0]:
            await take_back(control, item, void)
    workers = {node.name: node.workers for node in cluster.nodes}
    orders: dict[str, dict[int, str]] = {}
    for number, target in wanted.items():
        key = widen_name(target, lane_of_slice(number) % workers[target])
        orders.setdefault(key, {})[number] = cluster.groups[part_of_slice(number)].owners[0]
    for key, slices in sorted(orders.items()):
        await change_order(control, key, added=slices)
    return len(wanted)


async def replica_state(control: ControlStore) -> Replicas:
    """How far it is. Raises ConfigError, Unavailable."""
    ordered = await _ordered(control)
    cluster = await read_cluster(control)
    groups = Counter(
        sum(plane.state == ACTIVE or plane.target != "" for plane in record.planes)
        for record in cluster.groups
    )
    return Replicas(cluster.record.replicas, dict(sorted(groups.items())), len(ordered))


async def _record(control: ControlStore, known: ClusterRecord, replicas: int) -> None:
    """Let the cluster's record say how many planes there are to be."""
    item = await control.get(CLUSTER_KEY)
    if item is None or ClusterRecord.decode(item.value) != known:
        raise ConfigError("the cluster was changed meanwhile: look, and try again")
    wanted = replace(known, replicas=replicas).encode()
    if await control.transact([Compare(item.key, item.revision)], [Write(item.key, wanted)]) is None:
        raise ConfigError("the cluster was changed meanwhile: look, and try again")


async def _ordered(control: ControlStore) -> dict[int, str]:
    """By slice that is ordered to be made, who makes it."""
    items, _ = await control.list(WIDEN_PREFIX)
    return {number: target_of(item.key) for item in items for number in MoveOrder.decode(item.value).slices}


def _void(cluster: Cluster, ordered: Mapping[int, str], names: Collection[str]) -> set[int]:
    """Slices that are not there and that who is to make them cannot make."""
    owners = {record.group: record.owners for record in cluster.groups}
    return {
        number
        for number, target in ordered.items()
        if plane_of_slice(number) >= len(has := owners[part_of_slice(number)])
        and (target not in names or target in has)
    }


def _targets(
    cluster: Cluster, ordered: Mapping[int, str], nodes: Sequence[NodeRecord], replicas: int
) -> dict[int, str]:
    """By slice that there is not and that nobody is to make, who of ``nodes`` gets it."""
    before = layout_of(cluster.groups).with_planes(replicas)
    after = replan(_as_ordered(before, ordered), nodes, replicas)
    found = {}
    for record, part in zip(cluster.groups, after.parts, strict=True):
        for plane in range(len(record.planes), replicas):
            number = slice_number(plane, number_of_part(part.piece))
            if number in ordered:
                continue
            target = part.owners[plane]
            if target in record.owners:
                raise ConfigError(
                    f"group {GROUP_NAMES[record.group]} has a plane at {target} that ought to be elsewhere: "
                    "bring the cluster in balance first (ssastore plan)"
                )
            found[number] = target
    return found


def _as_ordered(layout: Layout, ordered: Mapping[int, str]) -> Layout:
    """The layout as it will be when everybody has made what they are ordered to make."""
    parts = []
    for part in layout.parts:
        at = number_of_part(part.piece)
        owners = [
            ordered.get(slice_number(plane, at), NOBODY) if owner == NOBODY else owner
            for plane, owner in enumerate(part.owners)
        ]
        parts.append(Part(part.piece, tuple(owners)))
    return Layout(tuple(parts))
