"""A plan: what must happen for one layout to become another, as a file that people can review. Pure.

    splits    parts that are cut first, in all planes alike; no data moves
    changes   slices that get another owner: *move* (the old owner hands over), *recover* (it is gone,
              the other planes rebuild it) or *fill* (a new plane)
    merges    pieces that are joined last

The changes may be carried out in any order, and one after the other in a group, without two planes of a group
ever meeting on a node.  A change's slice is as short a prefix as can be, so it may hold many groups.

A plan is for one ownership, by its digest: for any other it is refused.  It also names the one it leads to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ssastore.core.cluster import NodeRecord
from ssastore.core.goals import goals_of
from ssastore.core.layout import NOBODY, PLANE_UNITS, Layout, Part, fullest
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS, POSITION_BITS, Slice, range_cover

MOVE = "move"
RECOVER = "recover"
FILL = "fill"
CHANGE_KINDS = (MOVE, RECOVER, FILL)


@dataclass(frozen=True, slots=True)
class Change:
    """Slices of one plane that get another owner."""

    kind: str
    piece: Slice
    source: str
    "Empty for a new plane."
    target: str


@dataclass(frozen=True, slots=True)
class Recut:
    """A part and its pieces: cut into them, or joined from them."""

    whole: Slice
    pieces: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """One node before and after."""

    name: str
    prefixes: tuple[int, int]
    loads: tuple[float, float]
    "Share of all slices in all planes, so that all nodes together have the number of planes."


@dataclass(frozen=True, slots=True)
class Figures:
    """What a plan costs and what it gives."""

    moved_groups: float
    "Slices that change their owner, counted in /80s."
    bytes: int | None
    "Bytes that are copied; None where sizes are not known."
    fullest: tuple[float, float]
    "Largest load measured by the node's share, before and after: max/mean where all weigh the same."
    nodes: tuple[NodeFigures, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps from one ownership to another."""

    made_for: str
    "Digest of the layout before."
    gives: str
    "Digest of the layout after."
    replicas: tuple[int, int]
    splits: tuple[Recut, ...]
    changes: tuple[Change, ...]
    merges: tuple[Recut, ...]
    figures: Figures = field(compare=False)

    def require(self, layout: Layout) -> None:
        """ConfigError unless the plan was made for this ownership."""
        found = layout.digest()
        if found != self.made_for:
            raise ConfigError(
                f"this plan was made for ownership {self.made_for}, and the cluster has {found}: plan again"
            )

    def undone(self, layout: Layout) -> Layout:
        """The ownership with what this plan has done to it so far taken back."""
        owners = {part.piece: list(part.owners) for part in layout.parts}
        for recut in self.merges:
            if recut.whole in owners:
                found = owners.pop(recut.whole)
                owners.update({piece: list(found) for piece in recut.pieces})
        for recut in self.splits:
            if recut.whole in owners:
                found = owners.pop(recut.whole)
                owners.update({piece: list(found) for piece in recut.pieces})
        for change, piece in _pieces_of(self.changes, sorted(owners)):
            # A plane that is to be made need not be there yet.
            if owners[piece][change.piece.plane : change.piece.plane + 1] == [change.target]:
                owners[piece][change.piece.plane] = change.source
        for recut in self.splits:
            pieces = [owners.get(piece) for piece in recut.pieces]
            if pieces[0] is not None and all(found == pieces[0] for found in pieces):
                for piece in recut.pieces:
                    del owners[piece]
                owners[recut.whole] = pieces[0]
        return Layout(tuple(Part(piece, tuple(owners[piece])) for piece in sorted(owners)))

    def parts_of_changes(self, layout: Layout) -> list[tuple[Change, Slice]]:
        """The changes of parts, as they are once everything is split that is; each with its part in plane 0.

        ConfigError: one ends inside a part.
        """
        pieces = {part.piece for part in layout.parts}
        for recut in self.splits:
            if recut.whole in pieces:
                pieces.discard(recut.whole)
                pieces.update(recut.pieces)
        return list(_pieces_of(self.changes, sorted(pieces)))

    def apply(self, layout: Layout) -> Layout:
        """The layout after. ConfigError: the plan was made for another one, or does not give what it says."""
        self.require(layout)
        owners = {part.piece: list(part.owners) for part in layout.with_planes(self.replicas[1]).parts}
        for recut in self.splits:
            found = owners.pop(recut.whole, None)
            if found is None:
                raise ConfigError(f"the plan splits {recut.whole}, which is no part")
            owners.update({piece: list(found) for piece in recut.pieces})
        for change, piece in _pieces_of(self.changes, sorted(owners)):
            if owners[piece][change.piece.plane] != change.source:
                raise ConfigError(f"the plan takes {change.piece} from {change.source}, who does not own it")
            owners[piece][change.piece.plane] = change.target
        for recut in self.merges:
            joined = [owners.pop(piece, None) for piece in recut.pieces]
            if not joined or joined[0] is None or any(found != joined[0] for found in joined):
                raise ConfigError(f"the plan merges {recut.whole}, whose pieces have different owners")
            owners[recut.whole] = joined[0]
        after = Layout(tuple(Part(piece, tuple(owners[piece])) for piece in sorted(owners)))
        after.check()
        if after.digest() != self.gives:
            raise ConfigError(f"the plan leads to ownership {after.digest()}, not {self.gives} as it says")
        return after


def make_plan(
    before: Layout,
    after: Layout,
    nodes: Sequence[NodeRecord],
    *,
    lost: Collection[str] = (),
    sizes: Mapping[int, int] | None = None,
) -> Plan:
    """The steps from ``before`` to ``after``.

    Args:
        nodes: those that may own something after; they give the shares that loads are measured by.
        lost: who is gone for good; what they own is recovered, not moved.
        sizes: bytes of one plane of a group, by group.
    """
    before.check()
    after.check()
    wide = before.with_planes(after.replicas)
    steps = list(common_pieces(wide, after))
    runs: dict[tuple[int, str, str], list[list[int]]] = {}
    units, copied = 0, 0.0
    for piece, old, new in steps:
        for plane, (source, target) in enumerate(zip(old, new, strict=True)):
            if source == target:
                continue
            units += _units(piece)
            copied += (sizes or {}).get(piece.group, 0) * _units(piece) * GROUPS / PLANE_UNITS
            spans = runs.setdefault((plane, source, target), [])
            if spans and spans[-1][1] == piece.first:
                spans[-1][1] = piece.end
            else:
                spans.append([piece.first, piece.end])
    return Plan(
        before.digest(),
        after.digest(),
        (before.replicas, after.replicas),
        _recuts(wide.parts, [piece for piece, _, _ in steps]),
        tuple(_changes(runs, frozenset(lost))),
        _recuts(after.parts, [piece for piece, _, _ in steps]),
        _figures(before, after, nodes, units, None if sizes is None else round(copied)),
    )


def _units(piece: Slice) -> int:
    return Part(piece, ()).units


def common_pieces(before: Layout, after: Layout) -> Iterator[tuple[Slice, tuple[str, ...], tuple[str, ...]]]:
    """The pieces that both layouts, of as many planes, can be cut into, with the owners in either."""
    olds, news = iter(before.parts), iter(after.parts)
    old, new = next(olds, None), next(news, None)
    while old and new:
        finer = max(old.piece, new.piece, key=lambda piece: piece.depth)
        yield finer, old.owners, new.owners
        if finer.end == old.piece.end == new.piece.end:
            old, new = next(olds, None), next(news, None)
        elif finer.end == old.piece.end:
            old = next(olds, None)
        elif finer.end == new.piece.end:
            new = next(news, None)
        else:
            raise AssertionError("aligned pieces end together or one inside the other")


def _recuts(parts: Sequence[Part], pieces: Sequence[Slice]) -> tuple[Recut, ...]:
    """The parts that are more than one piece."""
    inside: dict[Slice, list[Slice]] = {}
    at = 0
    for part in parts:
        while at < len(pieces) and part.piece.covers(pieces[at]):
            inside.setdefault(part.piece, []).append(pieces[at])
            at += 1
    return tuple(Recut(whole, tuple(found)) for whole, found in inside.items() if len(found) > 1)


def _changes(
    runs: Mapping[tuple[int, str, str], Sequence[Sequence[int]]], lost: frozenset[str]
) -> Iterator[Change]:
    found = [
        Change(
            FILL if source == NOBODY else RECOVER if source in lost else MOVE,
            Slice(plane << POSITION_BITS | piece.first, piece.depth),
            source,
            target,
        )
        for (plane, source, target), spans in runs.items()
        for first, end in spans
        for piece in range_cover(first, end)
    ]
    return iter(sorted(found, key=lambda change: change.piece))


def _pieces_of(changes: Sequence[Change], pieces: Sequence[Slice]) -> Iterator[tuple[Change, Slice]]:
    """Each change with the parts that it consists of. ConfigError: it ends inside a part."""
    starts = {piece.first: at for at, piece in enumerate(pieces)}
    for change in changes:
        first = change.piece.first & ((1 << POSITION_BITS) - 1)
        end, at = first + change.piece.size, starts.get(first)
        while first < end:
            if at is None or at >= len(pieces) or pieces[at].end > end:
                raise ConfigError(f"the plan changes {change.piece}, which ends inside a part")
            yield change, pieces[at]
            first, at = pieces[at].end, at + 1


def _figures(
    before: Layout, after: Layout, nodes: Sequence[NodeRecord], units: int, copied: int | None
) -> Figures:
    goals = goals_of(nodes, after.replicas, 0, 1)
    shares = {
        name: share * PLANE_UNITS / GROUPS for name, share in zip(goals.names, goals.shares, strict=True)
    }
    loads, prefixes = (before.loads(), after.loads()), (before.prefixes(), after.prefixes())
    names = sorted({*shares, *loads[0], *loads[1]})
    # With fewer planes every share was smaller.
    then = {name: share * before.replicas / after.replicas for name, share in shares.items()}
    return Figures(
        units * GROUPS / PLANE_UNITS,
        copied,
        (fullest(loads[0], then), fullest(loads[1], shares)),
        tuple(
            NodeFigures(
                name,
                (prefixes[0].get(name, 0), prefixes[1].get(name, 0)),
                (loads[0].get(name, 0) / PLANE_UNITS, loads[1].get(name, 0) / PLANE_UNITS),
            )
            for name in names
        ),
    )
