"""The standings of one environment's slices: as they are known, and how they become durable.

What is known runs ahead of the disk: a cfg counts from the moment that it is learnt, and whoever
promises it to others waits for ``make_durable`` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from ssastore.core.heirs import Legacy
from ssastore.core.numbers import WHOLE_SLICES, whole_of
from ssastore.core.standing import UNTOUCHED, Standing, read_standings, write_standing
from ssastore.env import Store, WriteTxn


class Standings:
    """How far the data of each slice has come; those that are not UNTOUCHED, or may not be."""

    def __init__(self, store: Store) -> None:
        self._store = store
        with store.read() as txn:
            self.by_slice = read_standings(txn)
        self._parts: dict[int, set[int]] = {}
        "Those that are parts, by the /80 that they are in: nearly never any."
        self._note_parts(self.by_slice)
        self._adopting: dict[int, asyncio.Future[None]] = {}

    def of(self, number: int) -> Standing:
        """How far a slice's data here has come."""
        return self.by_slice.get(number, UNTOUCHED)

    def know(self, standings: Mapping[int, Standing]) -> None:
        """From now on these are so, durable or not."""
        self.by_slice.update(standings)
        self._note_parts(standings)

    def beside(self, number: int) -> Mapping[int, Standing]:
        """Those of a slice and of the parts of its /80; none where no part has one."""
        parts = self._parts.get(whole_of(number)) if self._parts else None
        if not parts:
            return {}
        return {known: self.by_slice[known] for known in {number, *parts} if known in self.by_slice}

    def suspect(self, numbers: Iterable[int]) -> None:
        """There is data of these slices, whatever it is."""
        for number in numbers:
            self.by_slice.setdefault(number, UNTOUCHED)

    def inherit(self, legacy: Legacy) -> None:
        """Parts stand where what they were cut from, or merged of, stood."""
        self.by_slice.update(legacy.standings)
        self._note_parts(legacy.standings)
        for number in legacy.gone:
            del self.by_slice[number]
            self._parts[whole_of(number)].remove(number)

    def adopt(self, number: int, standing: Standing) -> None:
        """Know a new cfg or seal and begin to make it durable.

        Until that is done only the control store's word keeps the old one away.
        """
        self.know({number: standing})
        self._adopting[number] = self._store.submit(lambda txn: write_standing(txn, number, standing))

    async def make_durable(self, number: int) -> None:
        """Wait until what was adopted is durable; when that fails, the next one to ask tries again."""
        adopting = self._adopting.get(number)
        if adopting is None:
            return
        if adopting.done() and adopting.exception() is not None:
            self.adopt(number, self.by_slice[number])
            adopting = self._adopting[number]
        await asyncio.shield(adopting)
        if self._adopting.get(number) is adopting:
            del self._adopting[number]

    async def write(self, standings: Mapping[int, Standing], more: Callable[[WriteTxn], None]) -> None:
        """Make standings durable in one transaction, with whatever else is written in it before."""

        def write_all(txn: WriteTxn) -> None:
            more(txn)
            for number, standing in standings.items():
                write_standing(txn, number, standing)

        await self._store.submit(write_all)

    def _note_parts(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number >= WHOLE_SLICES:
                self._parts.setdefault(whole_of(number), set()).add(number)
