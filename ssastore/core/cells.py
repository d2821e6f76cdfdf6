"""The planner's worktable: planes cut into equal cells, and who has which. Mutable, but of one call.

    plane 0   | n1 n1 n1 n1 | n2 n2 n2 n2 | -- -- -- -- | ** n3 n3 n3 |
                                            ^ in the pool  ^ mixed: finer than a cell

Two names stand beside those of the nodes: the *pool* has what is free to be given, *mixed* has the
cells whose owners differ inside, which stay as they are.  What each has is kept as the prefixes
that it would announce, so that taking a piece and counting prefixes need no scan.

Invariants: a node never gets a cell of which it (or its zone) has another plane, or had one when
the call began.  So whatever the order of the moves that follow from it, no two planes meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import groupby

from ssastore.keyspace import IID_BITS, range_cover

Blocks = dict[int, int]
"First cell -> cells; each aligned to its size."


class Cells:
    """Owners by plane and cell, as numbers: nodes from 0, then the pool, then mixed."""

    def __init__(
        self, own: list[list[int]], was: list[list[int]], units: Sequence[int], shares: Sequence[float]
    ) -> None:
        """What is free already differs between ``own`` and ``was``, the owners when the call began.

        ``units`` and ``shares`` are by node: what must not meet itself, and the cells it should have in all.
        """
        self.own, self.was = own, was
        self.pool, self.mixed = len(units), len(units) + 1
        # Nobody's unit is equal to that of the pool or of mixed cells.
        self._units = [*units, -1, -2]
        self.shares = shares
        self.load = [[0] * len(own) for _ in range(len(units) + 2)]
        self.blocks: list[list[Blocks]] = [[{} for _ in own] for _ in range(len(units) + 2)]
        for plane, owners in enumerate(own):
            first = 0
            for node, run in groupby(owners):
                end = first + len(list(run))
                self.load[node][plane] += end - first
                for piece in range_cover(first, end):
                    self.blocks[node][plane][piece.first] = 1 << (IID_BITS - piece.depth)
                first = end
        self._rankings: list[Ranking] = []

    def total(self, node: int) -> int:
        """Cells of a node in all planes."""
        return sum(self.load[node])

    def fill(self, node: int, plane: int) -> float:
        """How full it is, the plane in question counting as much as all together."""
        return (len(self.own) * self.load[node][plane] + sum(self.load[node])) / self.shares[node]

    def fits(self, node: int, plane: int, first: int, size: int) -> bool:
        """Whether the node may get these cells."""
        unit, end = self._units[node], first + size
        for other, owners in enumerate(self.own):
            if other == plane:
                continue
            for found in set(owners[first:end]):
                if self._units[found] == unit:
                    return False
            if node in self.was[other][first:end]:
                return False
        return True

    def is_untouched(self, node: int, plane: int, first: int, size: int) -> bool:
        """Whether the node had all of it when the call began: nothing is moved twice."""
        return self.was[plane][first : first + size].count(node) == size

    def take(self, plane: int, first: int, size: int, target: int) -> None:
        """Give an aligned piece, which lies in one block of its owner, to ``target``."""
        source = self.own[plane][first]
        self.own[plane][first : first + size] = [target] * size
        self.load[source][plane] -= size
        self.load[target][plane] += size
        blocks, block = self.blocks[source][plane], size
        while blocks.get(first & -block) != block:
            block *= 2
        start = first & -block
        del blocks[start]
        while block > size:
            block //= 2
            if first & block:
                blocks[start] = block
                start += block
            else:
                blocks[start + block] = block
        blocks = self.blocks[target][plane]
        while blocks.get(first ^ size) == size:
            del blocks[first ^ size]
            first, size = first & ~size, size * 2
        blocks[first] = size
        for ranking in self._rankings:
            ranking.changed(source)
            ranking.changed(target)

    def ranking(self, plane: int, *, fullest_first: bool) -> Ranking:
        """A ranking that follows every ``take``."""
        made = Ranking(self, plane, fullest_first=fullest_first)
        self._rankings.append(made)
        return made

    def pieces(self, node: int, plane: int, size: int) -> Iterator[int]:
        """First cells of the pieces of ``size`` that it could give, those that cut the least first."""
        blocks = self.blocks[node][plane]
        for block, first in sorted((block, first) for first, block in blocks.items() if block >= size):
            yield from range(first, first + block, size)

    def is_beside(self, node: int, plane: int, first: int, size: int) -> bool:
        """Whether the piece would make one longer prefix with what the node has."""
        return self.blocks[node][plane].get(first ^ size) == size


class Ranking:
    """The nodes from the emptiest to the fullest, or the other way round, as seen from one plane."""

    def __init__(self, cells: Cells, plane: int, *, fullest_first: bool) -> None:
        self._cells, self._plane, self._sign = cells, plane, -1 if fullest_first else 1
        self._heap = [(self._key(node), node) for node in range(len(cells.shares))]
        heapify(self._heap)

    def first(self, count: int) -> list[int]:
        """Up to ``count`` nodes from the front."""
        found: dict[int, tuple[float, int]] = {}
        while self._heap and len(found) < count:
            key, node = heappop(self._heap)
            if node not in found:
                # What was changed since stands at its old place: put it where it belongs.
                now = self._key(node)
                if key != now:
                    heappush(self._heap, (now, node))
                else:
                    found[node] = (key, node)
        for entry in found.values():
            heappush(self._heap, entry)
        return list(found)

    def changed(self, node: int) -> None:
        """Its load is another now."""
        if node < len(self._cells.shares):
            heappush(self._heap, (self._key(node), node))

    def _key(self, node: int) -> float:
        return self._sign * self._cells.fill(node, self._plane)
