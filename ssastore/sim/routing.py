"""Which host the network takes an address to: longest-prefix match, later at some hosts than at others.

A change of a route is known everywhere only when routing has settled.  Until then
each host sends by what it has heard, so an address can lead to its former owner, to
nobody, or to the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ssastore.keyspace import PrefixTable, Slice
from ssastore.sim.loop import VirtualLoop
from ssastore.sim.seeds import Stream


class Routing:
    """The routes of the service prefix, as each host sees them.

    ``lag_ns_max`` is the longest that a change takes to reach a host; 0: all know it at once.
    """

    def __init__(self, loop: VirtualLoop, draw: Stream, lag_ns_max: int = 0) -> None:
        self.lag_ns_max = lag_ns_max
        self._loop = loop
        self._draw = draw
        self._settled: PrefixTable[str] = PrefixTable()
        self._hosts: list[str] = []
        self._views: dict[str, PrefixTable[str]] = {}
        "Of hosts that may have heard less than what is settled; the others see that."
        self._heard: dict[tuple[str, Slice], int] = {}
        "Number of the last change of a prefix that a host has heard of."
        self._changes = 0
        self._instead: dict[tuple[str, str], str] = {}
        self._lost: dict[tuple[str, str], int] = {}
        "How many reasons there are that one host finds no way to another."

    def add_host(self, name: str) -> None:
        """A host that knows what is settled now."""
        self._hosts.append(name)

    def settle(self, routes: PrefixTable[str]) -> None:
        """Begin with these routes, which all hosts know."""
        self._settled = routes.copy()

    def announce(self, piece: Slice, target: str) -> None:
        """Send what is for ``piece`` to the host ``target``."""
        self._change(piece, target)

    def withdraw(self, piece: Slice) -> None:
        """Have no route for exactly this prefix; a covering one holds again. Raises KeyError."""
        self._change(piece, None)

    def withdraw_inside(self, piece: Slice) -> None:
        """Have no routes for prefixes inside of this one any more: it is one again."""
        inside = [prefix for prefix, _ in self._settled.items() if prefix != piece and piece.covers(prefix)]
        for prefix in inside:
            self._change(prefix, None)

    def lookup(self, source: str, iid: int) -> str | None:
        """Where ``source`` sends packets for ``iid``: the name of a host, or None when there is no route."""
        target = self._views.get(source, self._settled).lookup(iid)
        if target is None or (source, target) in self._lost:
            return None
        return self._instead.get((source, target), target)

    def mislead(self, source: str, name: str, target: str) -> Callable[[], None]:
        """Let one host send what is for ``name`` to ``target`` instead; returns what ends it."""
        self._instead[source, name] = target

        def end() -> None:
            self._instead.pop((source, name), None)

        return end

    def follow(self, source: str, other: str) -> None:
        """Let one host be misled as another one is now: it comes up beside it."""
        for (misled, name), target in list(self._instead.items()):
            if misled == other:
                self._instead[source, name] = target

    def lose(self, source: str, target: str) -> Callable[[], None]:
        """Let one host have no route to what another announces; returns what brings it back, once."""
        self._lost[source, target] = self._lost.get((source, target), 0) + 1

        def find() -> None:
            self._lost[source, target] -= 1
            if not self._lost[source, target]:
                del self._lost[source, target]

        return find

    def _change(self, piece: Slice, target: str | None) -> None:
        if self.lag_ns_max:
            for source in self._hosts:
                self._views.setdefault(source, PrefixTable(self._settled.items()))
        if target is None:
            del self._settled[piece]
        else:
            self._settled[piece] = target
        self._changes += 1
        self._loop.note(f"route {piece} to {target}")
        for source in self._views:
            if self.lag_ns_max:
                due_ns = self._loop.now_ns + self._draw.randrange(self.lag_ns_max + 1)
                self._loop.at(due_ns, self._hear, source, piece, target, self._changes)
            else:
                self._hear(source, piece, target, self._changes)

    def _hear(self, source: str, piece: Slice, target: str | None, number: int) -> None:
        if number < self._heard.get((source, piece), 0):
            return  # overtaken by a later change of the same prefix
        self._heard[source, piece] = number
        view = self._views[source]
        if target is not None:
            view[piece] = target
        else:
            with suppress(KeyError):  # it may never have heard of the prefix
                del view[piece]
