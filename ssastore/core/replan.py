"""From the owners of now and the nodes of now to the owners that should be. Pure and deterministic.

One way for everything that changes: a node added, drained, removed, lost, of another weight or
zone; planes added; a first layout, in which nobody owns anything yet.

1. What has no owner among the nodes goes to the *pool*, and so does what breaks a rule.
2. Nodes far below their share (new ones) take what they lack from the pool, in pieces that are
   powers of two: the large ones first, so that everything lies on round numbers, as in a buddy allocator.
3. The rest of the pool goes to the emptiest, in the largest pieces that they have room for.
4. Nodes still far below their share take from the fullest, and no more than they lack.
5. Nodes still too far above it give to the emptiest.

Nothing moves twice, nothing moves whose owner is within the bounds of the ``Policy``, and
targets never meet another plane's owner of before or after (``core.cells``).

Nodes beyond what 4096 groups can balance get parts of groups: groups are cut where an owner's
piece ends, in all planes alike, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from ssastore.core.cells import Cells, Ranking
from ssastore.core.cluster import NodeRecord
from ssastore.core.goals import Goals, Policy, cell_bits_for, goals_of, grain_for
from ssastore.core.layout import NOBODY, Layout, Part, empty_layout, merge_equals
from ssastore.core.planner import check_count, turned_circle
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS, SLICE_DEPTH_MAX, SLICE_DEPTH_MIN, Slice

_PIECES_TRIED = 64
_NODES_TRIED = 16
_FINER_BITS = 2
"How much finer cells may be than the count of nodes asks for, when the layout has finer parts."


def replan(
    layout: Layout,
    nodes: Sequence[NodeRecord],
    replicas: int,
    policy: Policy | None = None,
    *,
    only_ownerless: bool = False,
) -> Layout:
    """The layout that the nodes should have; parts are cut where needed and never merged.

    Args:
        nodes: all that may own something after, in any order; who drains or is gone is not listed.
        replicas: planes after; more than now makes new planes.
        only_ownerless: nothing but what owners had that are not listed gets another one, however far from
            its share a node is then. A plane that is not there yet stays nobody's.

    Raises:
        ConfigError: fewer nodes than replicas, or fewer planes than now.
    """
    check_count(nodes, replicas)
    layout.check()
    layout = layout.with_planes(replicas)
    worktable = _Worktable(layout, nodes, policy or Policy(), keeps_owners=only_ownerless)
    worktable.run()
    return worktable.result()


def first_layout(nodes: Sequence[NodeRecord], replicas: int, policy: Policy | None = None) -> Layout:
    """A layout from nothing, with groups cut where the count of nodes asks for it.

    Packing pieces into free planes gives the fewest prefixes, but may leave nodes out where zones or
    weights leave no choice; there the turned circle of ``core.planner`` is taken, which always fits.
    """
    policy = policy or Policy()
    check_count(nodes, replicas)
    worktable = _Worktable(empty_layout(replicas), nodes, policy)
    worktable.fill_low()
    if worktable.is_as_planned():
        return worktable.result()
    bits, grain = worktable.bits, worktable.grain
    owners = list(zip(*turned_circle(nodes, replicas, (GROUPS << bits) // grain), strict=True))
    step = 1 << (64 - SLICE_DEPTH_MIN - bits)
    cells = (Slice(at * step, SLICE_DEPTH_MIN + bits) for at in range(GROUPS << bits))
    return merge_equals(Layout(tuple(Part(cell, owners[at // grain]) for at, cell in enumerate(cells))))


class _Worktable:
    """One call's state: cells, goals, and the parts that the cells were made from."""

    def __init__(
        self, layout: Layout, nodes: Sequence[NodeRecord], policy: Policy, *, keeps_owners: bool = False
    ) -> None:
        replicas = layout.replicas
        needed = cell_bits_for(len(nodes), replicas, policy.grains)
        deepest = max(part.piece.depth for part in layout.parts) - SLICE_DEPTH_MIN
        self.bits = min(max(needed, deepest), needed + _FINER_BITS, SLICE_DEPTH_MAX - SLICE_DEPTH_MIN)
        self.grain = grain_for(len(nodes), replicas, self.bits, policy.grains)
        self.layout, self.policy, self.replicas = layout, policy, replicas
        self.keeps_owners = keeps_owners
        self.goals: Goals = goals_of(nodes, replicas, self.bits, self.grain)
        self.number = {name: at for at, name in enumerate(self.goals.names)}
        self.cells = Cells(*self._owners(), self.goals.units, self.goals.shares)
        planes = range(replicas)
        self.emptiest: list[Ranking] = [self.cells.ranking(plane, fullest_first=False) for plane in planes]
        self.fullest: list[Ranking] = [self.cells.ranking(plane, fullest_first=True) for plane in planes]

    def run(self) -> None:
        """Steps 2 to 5; to 3 where nobody gives what it has."""
        low = self.fill_low()
        for plane in range(self.replicas):
            for first, size in sorted(self.cells.blocks[self.cells.pool][plane].items()):
                self._spread(plane, first, size)
        if self.keeps_owners:
            return
        for node in low:
            for plane in range(self.replicas):
                self._fill_from_others(node, plane)
        for node in range(len(self.goals.names)):
            self._relieve(node)

    def fill_low(self) -> list[int]:
        """Step 2; the nodes that were far below their share."""
        low = [node for node in range(len(self.goals.names)) if self._lack(node) > 0 and self._is_low(node)]
        for plane in range(self.replicas):
            self._fill_from_pool(plane, low)
        return low

    def is_as_planned(self) -> bool:
        """Whether every node has exactly its goal."""
        return all(self.cells.total(node) == self.goals.total(node) for node in range(len(self.goals.names)))

    # -- from parts to cells and back --------------------------------------------------------------

    def _owners(self) -> tuple[list[list[int]], list[list[int]]]:
        """By plane and cell: owners as far as they may stay, and owners as they are."""
        mixed = len(self.number) + 1
        own: list[list[int]] = [[] for _ in range(self.replicas)]
        was: list[list[int]] = [[] for _ in range(self.replicas)]
        inside: list[Part] = []
        shift = 64 - SLICE_DEPTH_MIN - self.bits
        for part in self.layout.parts:
            inside.append(part)
            if part.piece.end & ((1 << shift) - 1):
                continue
            count = max(1, (part.piece.end - part.piece.first) >> shift)
            is_mixed = any(other.owners != part.owners for other in inside)
            numbers = [mixed if is_mixed else self._number_of(owner) for owner in part.owners]
            for plane, number in enumerate(self._without_repeats(numbers)):
                own[plane].extend([number] * count)
                was[plane].extend([numbers[plane]] * count)
            inside.clear()
        return own, was

    def _number_of(self, owner: str) -> int:
        pool, mixed = len(self.number), len(self.number) + 1
        # What is not there is no loss: like what is mixed it is left as it is.
        return mixed if self._is_left_out(owner) else self.number.get(owner, pool)

    def _name_of(self, number: int) -> str:
        # Parts that are whole have mixed cells only in planes that are not there.
        return NOBODY if number == self.cells.mixed else self.goals.names[number]

    def _is_left_out(self, owner: str) -> bool:
        return self.keeps_owners and owner == NOBODY

    def _without_repeats(self, numbers: Sequence[int]) -> list[int]:
        """Of owners in one zone (a label may be new) only the first is left; the pool has the others."""
        if self.keeps_owners:
            return list(numbers)
        nodes = len(self.goals.units)
        units = [self.goals.units[number] if number < nodes else -1 for number in numbers]
        return [nodes if unit >= 0 and unit in units[:at] else numbers[at] for at, unit in enumerate(units)]

    def result(self) -> Layout:
        """Parts of now, cut where owners inside differ, with their new owners."""
        parts: list[Part] = []
        shift = 64 - SLICE_DEPTH_MIN - self.bits
        mixed_load = [0.0] * len(self.goals.names)
        for part in self.layout.parts:
            first = part.piece.first >> shift
            if self.cells.own[0][first] == self.cells.mixed:
                parts.append(self._mixed_part(part, mixed_load))
            else:
                self._cut(part, first, max(1, part.piece.size >> shift), parts)
        return Layout(tuple(parts))

    def _cut(self, part: Part, first: int, count: int, parts: list[Part]) -> None:
        own = self.cells.own
        if all(plane[first : first + count].count(plane[first]) == count for plane in own):
            parts.append(Part(part.piece, tuple(self._name_of(plane[first]) for plane in own)))
            return
        for at, half in enumerate(part.piece.split()):
            self._cut(Part(half, part.owners), first + at * count // 2, count // 2, parts)

    def _mixed_part(self, part: Part, load: list[float]) -> Part:
        """A part finer than a cell: only planes whose owner is gone get another one."""
        owners = list(part.owners)
        units, cell_units = self.goals.units, 1 << (SLICE_DEPTH_MAX - SLICE_DEPTH_MIN - self.bits)
        for plane, owner in enumerate(owners):
            if owner in self.number or self._is_left_out(owner):
                continue
            kept = {units[self.number[name]] for name in owners if name in self.number}
            target = min(
                (node for node in range(len(units)) if units[node] not in kept),
                key=lambda node: ((self.cells.total(node) + load[node]) / self.goals.shares[node], node),
            )
            load[target] += part.units / cell_units
            owners[plane] = self.goals.names[target]
        return Part(part.piece, tuple(owners))

    # -- who lacks, who has room -------------------------------------------------------------------

    def _lack(self, node: int) -> int:
        return self.goals.total(node) - self.cells.total(node)

    def _is_low(self, node: int) -> bool:
        return self.cells.total(node) < self.goals.shares[node] * (1 - self.policy.under)

    def _lack_in(self, node: int, plane: int) -> int:
        return max(0, min(self._lack(node), self.goals.cells[node][plane] - self.cells.load[node][plane]))

    def _most(self, node: int) -> int:
        """Cells that it may have: its goal, or its share and the tolerance."""
        return max(self.goals.total(node), int(self.goals.shares[node] * (1 + self.policy.over)))

    def _room(self, node: int) -> int:
        return self._most(node) - self.cells.total(node)

    def _spare(self, node: int) -> int:
        """Cells that it can give and not be low after."""
        return int(self.cells.total(node) - self.goals.shares[node] * (1 - self.policy.under))

    # -- the steps ---------------------------------------------------------------------------------

    def _fill_from_pool(self, plane: int, low: Sequence[int]) -> None:
        if not self.cells.load[self.cells.pool][plane]:
            return
        waiting: dict[int, list[int]] = {}
        # Every plane begins elsewhere in the order of nodes, so the same places have other nodes.
        turn = plane * len(self.goals.names) // self.replicas
        for node in sorted(low, key=lambda node: (node - turn) % len(self.goals.names)):
            lack = self._lack_in(node, plane)
            for bit in range(lack.bit_length()):
                if lack >> bit & 1 and 1 << bit >= self.grain:
                    waiting.setdefault(1 << bit, []).append(node)
        size = max(waiting, default=0)
        while size >= self.grain:
            for node in waiting.get(size, ()):
                first = self._place(self.cells.pool, plane, size, node)
                if first is not None:
                    self.cells.take(plane, first, size, node)
                else:
                    waiting.setdefault(size // 2, []).extend((node, node))
            size //= 2

    def _spread(self, plane: int, first: int, size: int) -> None:
        """A piece that must have another owner goes to the emptiest that has room, whole or in halves."""
        target = self._taker(plane, first, size)
        if target is not None:
            self.cells.take(plane, first, size, target)
        elif size > self.grain or (target := self._any_taker(plane, first, size)) is None:
            self._spread(plane, first, size // 2)
            self._spread(plane, first + size // 2, size // 2)
        else:
            self.cells.take(plane, first, size, target)

    def _fill_from_others(self, node: int, plane: int) -> None:
        largest = max(self.grain, self.goals.cells[node][plane] // self.policy.pieces)
        while (lack := self._lack_in(node, plane)) >= self.grain:
            sources = [source for source in self.fullest[plane].first(_NODES_TRIED) if source != node]
            # Who is above the bounds must give anyway: what it gives to others would be moved besides.
            obliged = [source for source in sources if self._room(source) < 0]
            found = [
                offer
                for source in obliged or sources
                if (offer := self._offer(source, plane, min(lack, largest), node))
            ]
            if not found:
                return
            # The largest piece; of equals the one that cuts the least, then the one of the fullest.
            size, first = max(
                found, key=lambda offer: (offer[0], self._saved(plane, offer[1], offer[0], node))
            )
            self.cells.take(plane, first, size, node)

    def _relieve(self, node: int) -> None:
        planes = range(self.replicas)
        while (excess := -self._room(node)) > 0:
            size = max(self.grain, 1 << (excess.bit_length() - 1))
            while size >= self.grain:
                plane = max(planes, key=lambda plane: (self.cells.load[node][plane], -plane))
                moved = self._give(node, plane, size) or any(
                    self._give(node, other, size) for other in planes if other != plane
                )
                if moved:
                    break
                size //= 2
            else:
                return

    def _give(self, node: int, plane: int, size: int) -> bool:
        for first in islice(self.cells.pieces(node, plane, size), _NODES_TRIED):
            if not self.cells.is_untouched(node, plane, first, size):
                continue
            target = self._taker(plane, first, size)
            if target is not None:
                self.cells.take(plane, first, size, target)
                return True
        return False

    # -- choosing ----------------------------------------------------------------------------------

    def _place(self, source: int, plane: int, size: int, target: int) -> int | None:
        """First cell of a piece that ``source`` has and ``target`` may get."""
        is_pool = source == self.cells.pool
        for first in islice(self.cells.pieces(source, plane, size), _PIECES_TRIED):
            is_free = is_pool or self.cells.is_untouched(source, plane, first, size)
            if is_free and self.cells.fits(target, plane, first, size):
                return first
        return None

    def _offer(self, source: int, plane: int, lack: int, target: int) -> tuple[int, int] | None:
        """Size and first cell of the largest piece that can go from one node to another."""
        most = min(lack, self._spare(source), self.cells.load[source][plane])
        size = 1 << (most.bit_length() - 1) if most > 0 else 0
        while size >= self.grain:
            first = self._place(source, plane, size, target)
            if first is not None:
                return size, first
            size //= 2
        return None

    def _saved(self, plane: int, first: int, size: int, target: int) -> int:
        """Prefixes that moving the piece saves, or costs where negative."""
        source = self.cells.own[plane][first]
        block = size
        while self.cells.blocks[source][plane].get(first & -block) != block:
            block *= 2
        cut = block.bit_length() - size.bit_length()
        return (0 if cut else 1) - cut + self.cells.is_beside(target, plane, first, size)

    def _taker(self, plane: int, first: int, size: int) -> int | None:
        """An empty one with room for the piece; best one that has its sibling."""
        found = [
            node
            for node in self.emptiest[plane].first(_NODES_TRIED)
            if self._room(node) >= size and self.cells.fits(node, plane, first, size)
        ]
        return max(found, key=lambda node: self.cells.is_beside(node, plane, first, size), default=None)

    def _any_taker(self, plane: int, first: int, size: int) -> int | None:
        """The emptiest that may have a piece that must go somewhere; None: it must be cut."""
        for node in self.emptiest[plane].first(len(self.goals.names)):
            if self.cells.fits(node, plane, first, size):
                return node
        if size == 1:
            raise ConfigError(f"no node may own cell {first} of plane {plane}: each has another plane of it")
        return None


__all__ = ["NOBODY", "Policy", "first_layout", "replan"]
