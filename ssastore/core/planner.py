"""Which node owns which slice: the first layout of a cluster. Pure and deterministic.

One plane's 4096 groups are a circle, cut into one arc per node; an arc's length is
the node's share.  Every plane has the same circle, turned by its *offset*:

    plane 0   |--- a ---|--- b ---|--- c ---|--- d ---|
    plane 1   |--- d ---|--- a ---|--- b ---|--- c ---|      offset 1024
    plane 2   |--- c ---|--- d ---|--- a ---|--- b ---|      offset 2048

Seen from one group, the planes ask the same circle at points that lie as far apart
as the offsets do.  So when no two offsets are closer (around the circle) than the
longest arc, no node can own two planes of a group.  Offsets a R-th of the circle
apart always satisfy that, since nobody gets more than an R-th; smaller steps that
are a power of two, or one arc of equals, leave the arcs on round numbers and need
fewer prefixes.  Of those that are wide enough the one with the fewest prefixes wins.

Where at least R zones are labelled, zones take the place of nodes in that argument:
the nodes of a zone lie side by side on the circle.

Lengths and offsets are exact fractions.  A group belongs to the arc that holds its
number, so every arc has its share rounded up or down: less than one group off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, groupby, pairwise
from math import ceil

from ssastore.core.cluster import NodeRecord
from ssastore.core.groups import GroupRecord, PlaneOwner
from ssastore.core.numbers import numbered_slice, slice_number
from ssastore.errors import ConfigError
from ssastore.keyspace import (
    GROUPS,
    REPLICAS_ALLOWED,
    Slice,
    range_cover,
)

Owners = list[list[str]]
"Owner's name by plane and cell; the cells of a first layout are groups."


@dataclass(frozen=True, slots=True)
class Unit:
    """What must not meet itself in a group: a node, or the nodes of a zone."""

    name: str
    nodes: tuple[NodeRecord, ...]

    @property
    def weight(self) -> int:
        return sum(node.weight for node in self.nodes)


def initial_layout(nodes: Sequence[NodeRecord], replicas: int) -> list[GroupRecord]:
    """All 4096 groups with their owners, in order; the order of ``nodes`` does not matter.

    In each plane a node gets its share of the groups, rounded up or down.  The share is by weight,
    but at most one ``replicas``-th, because a node can own only one slice of a group; what a node
    (or zone, where at least ``replicas`` are labelled) cannot take goes to the others by weight.

    Raises:
        ConfigError: fewer nodes than replicas, two nodes of one name, or no such replica count.
    """
    check_count(nodes, replicas)
    first = {node.name: PlaneOwner(node.name) for node in nodes}
    by_group = zip(*turned_circle(nodes, replicas, GROUPS), strict=True)
    return [
        GroupRecord(group, tuple([first[name] for name in names])) for group, names in enumerate(by_group)
    ]


def check_count(nodes: Sequence[NodeRecord], replicas: int) -> None:
    """ConfigError: fewer nodes than replicas, two nodes of one name, or no such replica count."""
    if replicas not in REPLICAS_ALLOWED:
        raise ConfigError(f"replicas must be one of {REPLICAS_ALLOWED}, got {replicas!r}")
    if len({node.name for node in nodes}) != len(nodes):
        raise ConfigError("two nodes have the same name")
    if len(nodes) < replicas:
        raise ConfigError(
            f"{replicas} replicas need as many nodes, got {len(nodes)}: add nodes or form with fewer replicas"
        )


def turned_circle(nodes: Sequence[NodeRecord], replicas: int, cells: int) -> Owners:
    """Owner's name by plane and cell, where a plane is cut into ``cells``: groups, or equal parts of them."""
    return min(_candidates(units_of(nodes, replicas), replicas, cells), key=_prefix_count)


def owned_slices(groups: Iterable[GroupRecord], node: str) -> list[Slice]:
    """The slices that ``node`` owns, /80s and parts of them, in address order."""
    return sorted(numbered_slice(number) for number in owned_numbers(groups, node))


def owned_numbers(groups: Iterable[GroupRecord], node: str) -> list[int]:
    """The same as numbers, in the order of the groups."""
    return [
        slice_number(plane, view.part)
        for record in groups
        for view in record.views()
        for plane, found in enumerate(view.planes)
        if found.owner == node
    ]


def units_of(nodes: Sequence[NodeRecord], replicas: int) -> list[Unit]:
    """Zones where enough are labelled, else nodes; the heavy ones first.

    Heavy first because big arcs then begin on round numbers, as in a buddy allocator.
    """
    members: dict[str, list[NodeRecord]] = {}
    are_zones_apart = len({node.zone for node in nodes if node.zone}) >= replicas
    for node in sorted(nodes, key=lambda node: (-node.weight, node.name)):
        # A node without label counts as a zone of its own; no name holds a slash.
        zone = node.zone if are_zones_apart and node.zone else f"/{node.name}"
        members.setdefault(zone, []).append(node)
    units = [Unit(name, tuple(inside)) for name, inside in members.items()]
    return sorted(units, key=lambda unit: (-unit.weight, unit.name))


def lengths_of(units: Sequence[Unit], replicas: int, cells: int) -> list[Fraction]:
    """Cells of a plane for each unit, the heaviest first: by weight, but at most a ``replicas``-th."""
    longest = Fraction(cells, replicas)
    lengths: list[Fraction] = []
    left, weight = Fraction(cells), sum(unit.weight for unit in units)
    for at, unit in enumerate(units):
        if left * unit.weight < longest * weight:
            # Heaviest first: once one stays below the bound, all that follow do.
            each = left / weight
            return lengths + [each * other.weight for other in units[at:]]
        lengths.append(longest)
        left, weight = left - longest, weight - unit.weight
    return lengths


def _candidates(units: Sequence[Unit], replicas: int, cells: int) -> list[Owners]:
    """The layouts to choose from; never empty, the same for the same input."""
    lengths = lengths_of(units, replicas, cells)
    arcs = [
        (node.name, length * node.weight / unit.weight)
        for unit, length in zip(units, lengths, strict=True)
        for node in unit.nodes
    ]
    widest = max(lengths)
    power = 1 << (ceil(widest) - 1).bit_length()
    steps = dict.fromkeys((Fraction(power), widest, Fraction(cells, replicas)))
    # Between the last plane and the first lies what the steps leave of the circle.
    wide_enough = [step for step in steps if widest <= step <= cells - step * (replicas - 1) or replicas == 1]
    return [[_plane(arcs, step * plane, cells) for plane in range(replicas)] for step in wide_enough]


def _plane(arcs: Sequence[tuple[str, Fraction]], offset: Fraction, cells: int) -> list[str]:
    """Owner by cell of one plane whose circle is turned by ``offset`` cells."""
    owners = [""] * cells
    bounds = [ceil(bound) for bound in accumulate((length for _, length in arcs), initial=offset)]
    for (name, _), (first, end) in zip(arcs, pairwise(bounds), strict=True):
        for cell in range(first, end):
            owners[cell % cells] = name
    return owners


def _prefix_count(owners: Owners) -> int:
    """Prefixes that all nodes together must announce."""
    count = 0
    for by_cell in owners:
        first = 0
        for _, run in groupby(by_cell):
            end = first + len(list(run))
            # A cover is the same wherever the plane lies and however long its cells are.
            count += len(range_cover(first, end))
            first = end
    return count
