"""Who owns what, down to parts of a group: what the planner reads and what it decides. Pure.

A *part* is a group, or an aligned piece of one, in all planes alike:

    group a3f     one part of depth 16       owners (n1, n2, n3)
    or            a3f0/82 ... a3fc/82        four parts of depth 18, each with owners of its own

A part is written as its slice in plane 0.  The parts of a layout are in order and hold every
position exactly once.  An owner may be ``NOBODY``: a plane that is not there yet.

``layout_of`` reads the records of groups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from ssastore.core.groups import GroupRecord
from ssastore.core.numbers import part_piece
from ssastore.errors import ConfigError
from ssastore.keyspace import (
    GROUPS,
    IID_BITS,
    POSITION_BITS,
    SLICE_DEPTH_MAX,
    SLICE_DEPTH_MIN,
    Slice,
    minimal_cover,
    slice_of,
)

NOBODY = ""
PLANE_UNITS = 1 << (SLICE_DEPTH_MAX - SLICE_DEPTH_MIN + 12)
"Finest parts (/96) of a plane. Shares are counted in them, so that they are whole numbers."
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Part:
    """A group or a piece of one, and who owns it, plane 0 first."""

    piece: Slice
    "In plane 0."
    owners: tuple[str, ...]

    @property
    def units(self) -> int:
        """Its size in finest parts."""
        return 1 << (SLICE_DEPTH_MAX - self.piece.depth)

    def slice_in(self, plane: int) -> Slice:
        """What ``owners[plane]`` owns."""
        return Slice(plane << POSITION_BITS | self.piece.first, self.piece.depth)


@dataclass(frozen=True, slots=True)
class Layout:
    """Owners of everything."""

    parts: tuple[Part, ...]

    @property
    def replicas(self) -> int:
        return len(self.parts[0].owners)

    def check(self) -> None:
        """ConfigError unless the parts hold every position once and no node owns two planes of one."""
        at, planes = 0, self.replicas if self.parts else 0
        for part in self.parts:
            if part.piece.first != at or not SLICE_DEPTH_MIN <= part.piece.depth <= SLICE_DEPTH_MAX:
                raise ConfigError(f"part {part.piece} is not the next one, nor a group or a piece of one")
            owners = [owner for owner in part.owners if owner != NOBODY]
            if len(part.owners) != planes or len(set(owners)) != len(owners):
                raise ConfigError(f"part {part.piece} has owners {part.owners}")
            at = part.piece.end
        if at != 1 << POSITION_BITS:
            raise ConfigError("the parts do not reach the end of the plane: there is a hole")

    def digest(self) -> str:
        """What stands in a plan for "made for this ownership"; epochs and states do not count."""
        made = blake2b(digest_size=_DIGEST_BYTES)
        for part in self.parts:
            # No name holds a space or a line's end.
            made.update(f"{part.piece} {' '.join(owner or '-' for owner in part.owners)}\n".encode())
        return made.hexdigest()

    def slices(self) -> Iterator[tuple[str, Slice]]:
        """Every slice that has an owner, with it; plane by plane, in address order."""
        for plane in range(self.replicas):
            for part in self.parts:
                if part.owners[plane] != NOBODY:
                    yield part.owners[plane], part.slice_in(plane)

    def loads(self) -> dict[str, int]:
        """Finest parts that each owner has, in all planes together."""
        found: dict[str, int] = {}
        for part in self.parts:
            for owner in part.owners:
                if owner != NOBODY:
                    found[owner] = found.get(owner, 0) + part.units
        return found

    def plane_loads(self, plane: int) -> dict[str, int]:
        """Finest parts that each owner has in one plane."""
        return Layout(tuple(Part(part.piece, (part.owners[plane],)) for part in self.parts)).loads()

    def prefixes(self) -> dict[str, int]:
        """How many prefixes each owner announces: those of its minimal cover."""
        owned: dict[str, list[Slice]] = {}
        for owner, piece in self.slices():
            owned.setdefault(owner, []).append(piece)
        return {owner: len(minimal_cover(pieces)) for owner, pieces in owned.items()}

    def with_planes(self, replicas: int) -> Layout:
        """The same with more planes, which nobody owns yet. ConfigError: fewer than there are."""
        missing = replicas - self.replicas
        if missing < 0:
            raise ConfigError(f"{self.replicas} planes cannot become {replicas}: planes are only added")
        return Layout(tuple(Part(part.piece, part.owners + (NOBODY,) * missing) for part in self.parts))


def empty_layout(replicas: int) -> Layout:
    """All groups whole, and nobody owns any."""
    return Layout(tuple(Part(slice_of(0, group), (NOBODY,) * replicas) for group in range(GROUPS)))


def layout_of(groups: Iterable[GroupRecord]) -> Layout:
    """The layout that the records of a cluster say; they may come in any order.

    Of groups that have fewer planes than others nobody owns the rest.
    """
    records = sorted(groups, key=lambda record: record.group)
    found = [
        Part(part_piece(found.part), tuple([plane.owner for plane in found.planes]))
        for record in records
        for found in record.parts
    ]
    most = max([len(part.owners) for part in found], default=0)
    return Layout(
        tuple(
            part if len(part.owners) == most else Part(part.piece, _padded(part.owners, most))
            for part in found
        )
    )


def _padded(owners: tuple[str, ...], planes: int) -> tuple[str, ...]:
    return owners + (NOBODY,) * (planes - len(owners))


def split_part(layout: Layout, piece: Slice, depth: int) -> Layout:
    """The part cut into equal pieces of ``depth``, of the same owners. ConfigError: there is no such part."""
    at = _find(layout, piece)
    if not piece.depth < depth <= SLICE_DEPTH_MAX:
        raise ConfigError(f"{piece} can be split to /{64 + piece.depth + 1} ... /{64 + SLICE_DEPTH_MAX}")
    step, owners = 1 << (IID_BITS - depth), layout.parts[at].owners
    cut = [Part(Slice(first, depth), owners) for first in range(piece.first, piece.end, step)]
    return Layout((*layout.parts[:at], *cut, *layout.parts[at + 1 :]))


def merge_parts(layout: Layout, piece: Slice) -> Layout:
    """All parts inside ``piece`` as one, which the owners of the first get. ConfigError: it is no such piece.

    Where another part has a node in two planes on the way, whatever the order of the moves, it is refused.
    """
    if piece.plane != 0 or piece.depth < SLICE_DEPTH_MIN:
        raise ConfigError(f"{piece} is no group and no piece of one in plane 0")
    inside = [part for part in layout.parts if piece.covers(part.piece)]
    if len(inside) < 2:
        raise ConfigError(f"{piece} holds no parts to merge")
    owners = inside[0].owners
    for part in inside:
        for plane, owner in enumerate(owners):
            if owner in part.owners and part.owners[plane] != owner:
                raise ConfigError(
                    f"{part.piece} has {owner} in another plane than {inside[0].piece}: move it away first"
                )
    at = layout.parts.index(inside[0])
    return Layout((*layout.parts[:at], Part(piece, owners), *layout.parts[at + len(inside) :]))


def with_parts_of(layout: Layout, other: Layout, pieces: Collection[Slice]) -> Layout:
    """The same, but some parts of a coarser layout are as they are there."""
    taken = {part.piece.first: part for part in other.parts if part.piece in pieces}
    parts: list[Part] = []
    for part in layout.parts:
        if not parts or part.piece.first >= parts[-1].piece.end:
            parts.append(taken.get(part.piece.first, part))
    return Layout(tuple(parts))


def merge_equals(layout: Layout) -> Layout:
    """Every piece of a group merged with its sibling as far as both have the same owners. Moves nothing."""
    merged: list[Part] = []
    for part in layout.parts:
        merged.append(part)
        while len(merged) > 1 and _are_mergeable(merged[-2], merged[-1]):
            merged[-2:] = [Part(merged[-2].piece.parent(), part.owners)]
    return Layout(tuple(merged))


def move_part(layout: Layout, piece: Slice, target: str) -> Layout:
    """One slice to another node: ``piece`` names plane and part, and is cut out of its part if need be.

    ConfigError: it is no part nor inside one, or ``target`` owns another plane of it.
    """
    in_plane_0 = Slice(piece.first & ((1 << POSITION_BITS) - 1), piece.depth)
    if piece.plane >= layout.replicas or not SLICE_DEPTH_MIN <= piece.depth <= SLICE_DEPTH_MAX:
        raise ConfigError(f"{piece} is no slice of planes 0 to {layout.replicas - 1}")
    holder = next((part for part in layout.parts if part.piece.covers(in_plane_0)), None)
    if holder is None:
        raise ConfigError(f"{piece} holds several parts: move each, or merge them first")
    if target in holder.owners:
        raise ConfigError(f"{target} owns plane {holder.owners.index(target)} of {holder.piece} already")
    while holder.piece != in_plane_0:
        layout = split_part(layout, holder.piece, holder.piece.depth + 1)
        holder = next(part for part in layout.parts if part.piece.covers(in_plane_0))
    at = layout.parts.index(holder)
    owners = (*holder.owners[: piece.plane], target, *holder.owners[piece.plane + 1 :])
    return Layout((*layout.parts[:at], Part(in_plane_0, owners), *layout.parts[at + 1 :]))


def fullest(loads: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """How full the fullest node is, by its share; with equal weights that is largest load over mean."""
    return max((loads.get(name, 0) / share for name, share in shares.items()), default=0.0)


def _are_mergeable(low: Part, high: Part) -> bool:
    return (
        low.owners == high.owners
        and low.piece.depth == high.piece.depth > SLICE_DEPTH_MIN
        and low.piece.sibling() == high.piece
    )


def _find(layout: Layout, piece: Slice) -> int:
    for at, part in enumerate(layout.parts):
        if part.piece == piece:
            return at
    raise ConfigError(f"the layout has no part {piece}")
