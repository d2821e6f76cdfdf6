"""Which gateway owns which part of the front plane, and the plan for it. Pure.

    f0xx           for clients that know no rule          shared out by itself
    f100 ... ffff  bound by the rule of the front plane   shared out by itself

No data moves with a part, only its route: so there is no record for each group, but one for the plane.  Its
arcs are in order and hold each address once.  An arc that moves has two gateways:

    owner, target            the target is to accept its addresses
    owner, target, accepted  the owner sends on what is new, and answers what it has until that ends
    target                   is the owner now, and the routers send everything there

What an owner had that is gone is its target's, or somebody else's, at once.  The planner is that of data
slices, with one plane: ``core.replan``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from ssastore.core.cluster import NodeRecord
from ssastore.core.fields import decode_fields, encode_fields, require, require_int
from ssastore.core.layout import NOBODY, Layout, Part
from ssastore.core.replan import replan
from ssastore.keyspace import (
    FRONT_PLANE,
    LOCATOR_BITS,
    PLANE_BITS,
    POSITION_BITS,
    SLICE_DEPTH_MIN,
    TAIL_BITS,
    Slice,
    range_cover,
)
from ssastore.rules.address import UNBOUND_END

FRONT_KEY = "front/plane"
GATE_PREFIX = "front/gate/"

UNITS = 1 << LOCATOR_BITS - PLANE_BITS
"Of the plane: its /96s, numbered by their locator below the plane digit."
_ARCS_MAX = 100_000


def gate_key(name: str) -> str:
    """Key of the record of a gateway that is there."""
    return GATE_PREFIX + name


@dataclass(frozen=True, slots=True)
class GateRecord:
    """A gateway that owns, or is to own, a part of the front plane; gone with its lease."""

    name: str
    address: str
    "Of its host, outside the service prefix: next hop."
    weight: int = 1
    "Share of the plane, relative to other gateways."
    leaves: bool = False
    "It is about to end, and wants nothing any more."

    def __post_init__(self) -> None:
        NodeRecord(self.name, self.address, weight=self.weight)
        require(type(self.leaves) is bool, "leaves must be true or false", self.leaves)

    def encode(self) -> bytes:
        return encode_fields(asdict(self))

    @staticmethod
    def decode(value: bytes) -> GateRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        return GateRecord(**decode_fields(value, "gateway record", set(GateRecord.__dataclass_fields__)))


@dataclass(frozen=True, slots=True)
class Arc:
    """Addresses of the front plane with one owner: units ``first`` to ``end - 1``."""

    first: int
    end: int
    owner: str = NOBODY
    target: str = NOBODY
    is_accepted: bool = False
    "The target takes what is new."

    @property
    def holder(self) -> str:
        """Whose it is when the moves that go on are done."""
        return self.target or self.owner

    @property
    def slices(self) -> list[Slice]:
        """The fewest prefixes that are exactly it."""
        begin = FRONT_PLANE << POSITION_BITS
        return range_cover(begin + (self.first << TAIL_BITS), begin + (self.end << TAIL_BITS))

    def __contains__(self, iid: int) -> bool:
        return (
            FRONT_PLANE << (LOCATOR_BITS - PLANE_BITS) | self.first
            <= iid >> TAIL_BITS
            < (FRONT_PLANE << (LOCATOR_BITS - PLANE_BITS) | self.end)
        )


@dataclass(frozen=True, slots=True)
class FrontRecord:
    """Owners of the whole front plane."""

    epoch: int = 0
    "One more with every change."
    arcs: tuple[Arc, ...] = (Arc(0, UNITS),)

    def __post_init__(self) -> None:
        require_int("epoch", self.epoch, 0, 1 << 63)
        at = 0
        for arc in self.arcs:
            require(arc.first == at < arc.end, "the arcs of the front plane follow one another", arc)
            require(bool(arc.owner and arc.target != arc.owner) or not arc.target, "one target", arc)
            require(bool(arc.target) or not arc.is_accepted, "nobody accepts it", arc)
            at = arc.end
        require(at == UNITS, "the arcs of the front plane reach its end", at)

    def encode(self) -> bytes:
        rows = [[arc.end, arc.owner, arc.target, arc.is_accepted] for arc in self.arcs]
        return encode_fields({"epoch": self.epoch, "arcs": rows})

    @staticmethod
    @lru_cache(maxsize=16)
    def decode(value: bytes) -> FrontRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        found = decode_fields(value, "front record", {"epoch", "arcs"})
        rows = found["arcs"]
        require(type(rows) is list and 0 < len(rows) <= _ARCS_MAX, "arcs must be a list", type(rows))
        arcs, first = [], 0
        for row in rows:
            require(type(row) is list and len(row) == len(_ROW), "an arc has four values", row)
            require(all(type(cell) is kind for cell, kind in zip(row, _ROW, strict=True)), "an arc", row)
            arcs.append(Arc(first, *row))
            first = row[0]
        return FrontRecord(found["epoch"], tuple(arcs))

    def changed(self, arcs: Iterable[Arc]) -> FrontRecord:
        """The next record, with these arcs; this one when they say nothing new."""
        merged = tuple(_merged(arcs))
        return self if merged == self.arcs else FrontRecord(self.epoch + 1, merged)

    def slices_of(self, name: str) -> list[Slice]:
        """The fewest prefixes that routers send to a gateway."""
        return _slices(arc for arc in self.arcs if arc.owner == name)

    def slices_for(self, name: str) -> list[Slice]:
        """The fewest prefixes that it is to accept besides: those on their way to it."""
        return _slices(arc for arc in self.arcs if arc.target == name)

    @property
    def is_draining(self) -> bool:
        """Whether some arc has two gateways with connections."""
        return any(arc.is_accepted for arc in self.arcs)

    def names(self) -> set[str]:
        """Of all gateways that it has something for."""
        return {name for arc in self.arcs for name in (arc.owner, arc.target) if name}


_ROW = (int, str, str, bool)


def _merged(arcs: Iterable[Arc]) -> Iterator[Arc]:
    last: Arc | None = None
    for arc in arcs:
        if last is not None and replace(arc, first=last.first) == replace(last, end=arc.end):
            last = replace(last, end=arc.end)
            continue
        if last is not None:
            yield last
        last = arc
    if last is not None:
        yield last


def _slices(arcs: Iterable[Arc]) -> list[Slice]:
    return [piece for first, end in runs_of(arcs) for piece in Arc(first, end).slices]


def runs_of(arcs: Iterable[Arc]) -> Iterator[tuple[int, int]]:
    """Of arcs in order of their first units, what is contiguous; they may overlap."""
    first = end = -1
    for arc in arcs:
        if arc.first > end or end < 0:
            if end >= 0:
                yield first, end
            first = arc.first
        end = max(end, arc.end)
    if end >= 0:
        yield first, end


# -- plan -------------------------------------------------------------------------------------------


def planned(record: FrontRecord, gates: Collection[GateRecord]) -> FrontRecord:
    """The record with moves to what the gateways that are there should have; the same when they have that.

    What belongs to a gateway that is gone is its target's at once, or that of somebody who is there.
    """
    there = {gate.name for gate in gates}
    arcs = [_without_the_gone(arc, there) for arc in record.arcs]
    staying = sorted((gate for gate in gates if not gate.leaves), key=lambda gate: gate.name)
    if not staying:
        return record.changed(arcs)
    weights = {gate.name: gate.weight for gate in staying}
    wanted = [*_shared(arcs, weights, 0, UNBOUND_END), *_shared(arcs, weights, UNBOUND_END, UNITS)]
    return record.changed(_moved(arc, name) for arc, name in _overlaid(arcs, wanted))


_Range = tuple[int, int, str]
"First unit, the one behind the last, and whose it is."


def _without_the_gone(arc: Arc, there: Collection[str]) -> Arc:
    if arc.target and arc.target not in there:
        arc = replace(arc, target=NOBODY, is_accepted=False)
    if arc.owner not in there:
        return replace(arc, owner=arc.target, target=NOBODY, is_accepted=False)
    return arc


def _moved(arc: Arc, holder: str) -> Arc:
    """The arc on its way to a holder. One that drains goes on: its target has connections already."""
    if arc.is_accepted or holder == arc.holder:
        return arc
    if arc.owner in (NOBODY, holder):
        return replace(arc, owner=holder, target=NOBODY, is_accepted=False)
    return replace(arc, target=holder, is_accepted=False)


def _overlaid(arcs: Sequence[Arc], wanted: Sequence[_Range]) -> Iterator[tuple[Arc, str]]:
    """Arcs cut where one of the wanted ranges ends, with its name."""
    at = 0
    for arc in arcs:
        first = arc.first
        while first < arc.end:
            while wanted[at][1] <= first:
                at += 1
            end = min(arc.end, wanted[at][1])
            yield replace(arc, first=first, end=end), wanted[at][2]
            first = end


def _shared(arcs: Sequence[Arc], weights: Mapping[str, int], begin: int, after: int) -> list[_Range]:
    """A part of the plane shared out: to the planner it is a whole one.

    For the bound part that is the plane of what rules hash, before it is made to leave out the other
    (``rules.address.bound_locator``): so equal parts of it get equal numbers of clients.
    """
    size = after - begin
    inside = [(max(arc.first, begin), min(arc.end, after), arc.holder) for arc in arcs]
    layout = _layout(
        ((first - begin) * UNITS // size, (end - begin) * UNITS // size, name)
        for first, end, name in inside
        if first < end
    )
    nodes = [NodeRecord(name, "::1", weight=weight) for name, weight in weights.items()]
    return [
        (begin + first * size // UNITS, begin + end * size // UNITS, name)
        for first, end, name in _ranges(replan(layout, nodes, replicas=1))
    ]


def _layout(ranges: Iterable[_Range]) -> Layout:
    """Groups and pieces of groups, as the planner has them, in plane 0."""
    parts: list[Part] = []
    for first, end, name in ranges:
        for piece in range_cover(first << TAIL_BITS, end << TAIL_BITS):
            depth = max(piece.depth, SLICE_DEPTH_MIN)
            step = 1 << (64 - depth)
            parts += [Part(Slice(at, depth), (name,)) for at in range(piece.first, piece.end, step)]
    return Layout(tuple(parts))


def _ranges(layout: Layout) -> list[_Range]:
    found: list[_Range] = []
    for part in layout.parts:
        first, end, name = part.piece.first >> TAIL_BITS, part.piece.end >> TAIL_BITS, part.owners[0]
        if found and found[-1][2] == name:
            found[-1] = (found[-1][0], end, name)
        else:
            found.append((first, end, name))
    return found
