"""Which piece of which slice should go where, so that the most loaded node has less to do. Pure.

Load is calls, or bytes: whatever is counted by slice and adds up.  One move at a time: the piece of the
node's heaviest slices that comes nearest to half of what it has more than the coolest node that may take it.
A slice that is too heavy as a whole is cut, where its load is, down to /96; what lies in one /96 cannot be
cut.  The move is worth it when the heavier of the two nodes is lighter after than before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ssastore.core.cluster import Cluster, NodeRecord
from ssastore.core.groups import GroupRecord
from ssastore.core.numbers import group_of_slice, numbered_slice, part_of_slice, plane_of_slice
from ssastore.errors import ConfigError
from ssastore.keyspace import LOCATOR_BITS, SLICE_DEPTH_MAX, TAIL_BITS, Slice

EVEN = 0.1
"A difference of so much of the higher load is none."
_NEAR = 0.25
"A piece that differs by so much of what is wanted is cut no further."
_GAIN = 0.9
"Of the difference a piece may weigh so much; with more the other node would be the loaded one."


class HeavySlice(NamedTuple):
    """A slice of a node that has much of its load."""

    number: int
    load: float
    pieces: tuple[tuple[Slice, float], ...]
    "Where in it, in address order."

    def of(self, piece: Slice) -> float:
        """The load of a piece; of what is told only coarser, its part by addresses."""
        load = 0.0
        for found, weight in self.pieces:
            if piece.covers(found):
                load += weight
            elif found.covers(piece):
                load += weight * piece.size / found.size
        return load


class Cooling(NamedTuple):
    """A move that evens loads, and what is expected of it."""

    piece: Slice
    source: str
    target: str
    load: float
    before: tuple[float, float]
    "Of source and target."

    @property
    def after(self) -> tuple[float, float]:
        return self.before[0] - self.load, self.before[1] + self.load


def heavy_slice(told: Any, unit: float) -> HeavySlice:
    """What ``core.heat`` tells of a slice, its weights worth ``unit`` each. ConfigError: it is not that."""
    try:
        number, weight, pieces = told
        found = tuple(
            (Slice(int(first) << TAIL_BITS, int(depth)), float(inside) * unit)
            for first, depth, inside in pieces
        )
        return HeavySlice(int(number), float(weight) * unit, found)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a node tells something else of its slices: {error}") from error


def cool(cluster: Cluster, loads: Mapping[str, float], heavy: Mapping[str, Sequence[HeavySlice]]) -> Cooling:
    """The move that is proposed.

    Args:
        loads: of all nodes that may own something.
        heavy: of each node the slices that have most of its load.

    Raises:
        ConfigError: nothing is to be gained; says why.
    """
    nodes = {node.name: node for node in cluster.nodes if node.name in loads}
    by_weight = {name: loads[name] / node.weight for name, node in nodes.items()}
    source = max(sorted(nodes), key=lambda name: by_weight[name])
    found = [
        cooling
        for slice_ in heavy.get(source, ())
        if (cooling := _of_slice(cluster, nodes, loads, source, slice_)) is not None
    ]
    if found:
        return min(found, key=lambda cooling: (max(cooling.after), cooling.piece))
    coolest = min(by_weight.values())
    if by_weight[source] - coolest <= EVEN * by_weight[source]:
        raise ConfigError(f"the nodes are about as loaded as one another; {source} most, by a tenth at most")
    raise ConfigError(
        f"{source} has most load, and no piece of its heaviest slices would even it: what lies in one /96 "
        "(a shard of an indexed bucket) cannot be cut, or no other node may have it"
    )


def _of_slice(
    cluster: Cluster,
    nodes: Mapping[str, NodeRecord],
    loads: Mapping[str, float],
    source: str,
    heavy: HeavySlice,
) -> Cooling | None:
    record = next((r for r in cluster.groups if r.group == group_of_slice(heavy.number)), None)
    view = record.at(part_of_slice(heavy.number)) if record is not None else None
    plane = plane_of_slice(heavy.number)
    if view is None or view.planes[plane].owner != source:
        return None
    free = list(_targets(nodes, view, plane))
    if not free:
        return None
    target = min(free, key=lambda name: (loads[name] / nodes[name].weight, name))
    weights = nodes[source].weight, nodes[target].weight
    # What must go so that both have as much by their weights; with equal ones half of the difference.
    wanted = (loads[source] * weights[1] - loads[target] * weights[0]) / sum(weights)
    if wanted <= EVEN / 2 * loads[source]:
        return None
    piece = _piece_near(heavy, wanted)
    load = heavy.of(piece)
    if not 0 < load <= 2 * wanted * _GAIN:
        return None
    return Cooling(piece, source, target, load, (loads[source], loads[target]))


def _targets(nodes: Mapping[str, NodeRecord], view: GroupRecord, plane: int) -> Iterator[str]:
    """Who may have the plane: no owner of another one, nor, where zones are apart, in the zone of one."""
    others = [owner for at, owner in enumerate(view.owners) if at != plane]
    zones = {nodes[owner].zone for owner in others if owner in nodes} - {""}
    is_apart = len({node.zone for node in nodes.values()} - {""}) >= len(view.planes)
    for name, node in nodes.items():
        if name not in view.owners and not (is_apart and node.zone in zones):
            yield name


def _piece_near(heavy: HeavySlice, wanted: float) -> Slice:
    """The piece whose load is nearest to what is wanted: always the busier half is looked into."""
    piece = best = numbered_slice(heavy.number)
    while heavy.of(piece) > wanted * (1 + _NEAR) and piece.depth < SLICE_DEPTH_MAX:
        piece = max(piece.split(), key=heavy.of)
        if abs(heavy.of(piece) - wanted) < abs(heavy.of(best) - wanted):
            best = piece
    return best


assert LOCATOR_BITS == SLICE_DEPTH_MAX, "a locator is as fine as a slice can be cut"
