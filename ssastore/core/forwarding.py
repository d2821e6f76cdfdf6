"""Where a former owner sends what still arrives for a slice that it gave away. Pure.

Routers hear of a new owner later than it does.  What they send to the former one meanwhile goes on to
the new one, by a next hop on the link that both share: by way of a router it would come back at once.
After some seconds that ends, with the data (DESIGN, section 6).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv6Network

from ssastore.core.cluster import NodeRecord
from ssastore.core.groups import GroupRecord
from ssastore.core.ownership import OwnedPrefixes
from ssastore.env import Route
from ssastore.keyspace import IID_BITS, Slice, range_cover

_IID_MASK = (1 << IID_BITS) - 1


class Forwarding:
    """The prefixes that one node gave away of late, and the routes to those who have them now."""

    def __init__(self, node: str, keep_s: float) -> None:
        """``keep_s``: how long packets are sent on."""
        self._node = node
        self._keep_s = keep_s
        self._gone: dict[Slice, float] = {}
        "Until when each is sent on."
        self._owned: OwnedPrefixes | None = None
        "Kept while something is sent on."

    def give(self, prefixes: Iterable[str], now_s: float) -> None:
        """These were the node's until now. They may overlap what it still has: of a service prefix that is
        withdrawn it has all slices still, by another one."""
        for prefix in prefixes:
            network = IPv6Network(prefix)
            first = int(network.network_address) & _IID_MASK
            self._gone[Slice(first, network.prefixlen - (128 - IID_BITS))] = now_s + self._keep_s

    def forget(self) -> None:
        """Nothing of all that is sent on any more."""
        self._gone.clear()

    @property
    def next_at(self) -> float:
        """When the first of them is sent on no more; for ever, while there is none."""
        return min(self._gone.values(), default=math.inf)

    def routes(
        self,
        services: Collection[IPv6Network],
        groups: Iterable[GroupRecord],
        nodes: Iterable[NodeRecord],
        now_s: float,
    ) -> set[Route]:
        """The fewest routes, in every service prefix, that send what is still sent on to its owners."""
        self._gone = {piece: until for piece, until in self._gone.items() if until > now_s}
        if not self._gone:
            self._owned = None
            return set()
        if self._owned is None:
            self._owned = OwnedPrefixes()
        self._owned.show(groups)
        gone = _merged(self._gone)
        return {
            Route(str(piece.network(service)), node.address)
            for node in nodes
            if node.name != self._node
            for owned in self._owned.of(node.name)
            for piece in _common(gone, owned)
            for service in services
        }


def _merged(pieces: Iterable[Slice]) -> list[Slice]:
    """The fewest prefixes that are the same addresses, in order."""
    merged: list[Slice] = []
    first = end = 0
    for piece in sorted(pieces, key=lambda piece: piece.first):
        if piece.first > end:
            merged += range_cover(first, end)
            first = piece.first
        end = max(end, piece.end)
    return merged + range_cover(first, end)


def _common(gone: list[Slice], owned: Slice) -> Iterator[Slice]:
    """What is in both. Of two prefixes that have something in common one holds the other."""
    at = max(0, bisect_right(gone, owned.first, key=lambda piece: piece.first) - 1)
    for piece in gone[at:]:
        if piece.first >= owned.end:
            return
        if piece.end > owned.first:
            yield piece if piece.depth > owned.depth else owned
