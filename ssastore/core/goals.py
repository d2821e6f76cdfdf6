"""How much each node should have: shares by weight, in whole cells, plane by plane. Pure.

A *grain* is the smallest piece that a goal counts in: a power of two of cells.  A node's goal is
its share rounded to grains, such that all goals together are exactly what there is; no zone (or
node, where zones are not apart) gets more than fits into one plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from ssastore.core.cluster import NodeRecord
from ssastore.core.planner import lengths_of, units_of
from ssastore.keyspace import GROUPS, SLICE_DEPTH_MAX, SLICE_DEPTH_MIN

CELL_BITS_MAX = SLICE_DEPTH_MAX - SLICE_DEPTH_MIN


@dataclass(frozen=True, slots=True)
class Policy:
    """Where the plan stands between balance, prefixes and movement (scale.md has the curve)."""

    grains: int = 49
    "Grains that an average node has at least. 49: a goal is at most 1/49 above the share."
    under: float = 0.10
    "How far below its share a node may be before it is filled, or be left by what it gives."
    over: float = 0.04
    "How far above its share a node may be before it must give."
    pieces: int = 4
    "Into how many pieces, at least, a new node's share of a plane is cut, so that many give a little."


@dataclass(frozen=True, slots=True)
class Goals:
    """For the nodes in the planner's order: zone by zone, the heavy ones first."""

    names: tuple[str, ...]
    units: tuple[int, ...]
    "Number of what must not meet itself in a group: the zone, or the node."
    shares: tuple[float, ...]
    "Cells in all planes, by weight."
    cells: tuple[tuple[int, ...], ...]
    "By node and plane: whole cells."

    def total(self, node: int) -> int:
        return sum(self.cells[node])


def cell_bits_for(count: int, replicas: int, grains: int) -> int:
    """Into how many cells (a power of two) a group must be cut, that ``count`` nodes have so many each."""
    bits = 0
    while (replicas * GROUPS << bits) < grains * count and bits < CELL_BITS_MAX:
        bits += 1
    return bits


def grain_for(count: int, replicas: int, bits: int, grains: int) -> int:
    """The largest power of two of cells of which an average node has at least ``grains``; at least 1."""
    return 1 << max(0, ((replicas * GROUPS << bits) // (grains * count)).bit_length() - 1)


def goals_of(nodes: Sequence[NodeRecord], replicas: int, bits: int, grain: int) -> Goals:
    """Goals of the nodes for planes whose groups are cut into ``1 << bits`` cells."""
    per_plane = (GROUPS << bits) // grain
    units = units_of(nodes, replicas)
    lengths = [length * replicas for length in lengths_of(units, replicas, per_plane)]
    by_node: list[int] = []
    shares: list[float] = []
    for unit, length, whole in zip(units, lengths, rounded(lengths), strict=True):
        if len(unit.nodes) == 1:
            by_node.append(whole)
            shares.append(float(length * grain))
            continue
        parts = [Fraction(whole * node.weight, unit.weight) for node in unit.nodes]
        by_node.extend(rounded(parts))
        shares.extend(float(length * node.weight * grain / unit.weight) for node in unit.nodes)
    return Goals(
        tuple(node.name for unit in units for node in unit.nodes),
        tuple(number for number, unit in enumerate(units) for _ in unit.nodes),
        tuple(shares),
        _by_plane(by_node, replicas, grain),
    )


def rounded(parts: Sequence[Fraction]) -> list[int]:
    """Each rounded up or down, the largest remainders up, so that the sum (a whole number) stays."""
    whole = [floor(part) for part in parts]
    missing = int(sum(parts)) - sum(whole)
    order = sorted(range(len(parts)), key=lambda at: (whole[at] - parts[at], at))
    for at in order[:missing]:
        whole[at] += 1
    return whole


def _by_plane(grains: Sequence[int], replicas: int, grain: int) -> tuple[tuple[int, ...], ...]:
    """Each node's grains spread over the planes as evenly as can be, and so that every plane is full."""
    cells: list[tuple[int, ...]] = []
    plane = 0
    for count in grains:
        each, extra = divmod(count, replicas)
        more = {(plane + at) % replicas for at in range(extra)}
        plane = (plane + extra) % replicas
        cells.append(tuple((each + (at in more)) * grain for at in range(replicas)))
    return tuple(cells)
