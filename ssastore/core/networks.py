"""Which of some prefixes an address is in, for many addresses. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from ipaddress import IPv6Network


class Networks:
    """Prefixes of which none is inside another."""

    def __init__(self, networks: Collection[IPv6Network]) -> None:
        self._networks = sorted(networks)
        self._firsts = [int(network.network_address) for network in self._networks]
        self._lasts = [int(network.broadcast_address) for network in self._networks]

    def around(self, address: int) -> IPv6Network | None:
        """The prefix that an address of 128 bits is in."""
        at = bisect_right(self._firsts, address) - 1
        return self._networks[at] if at >= 0 and address <= self._lasts[at] else None
