"""Addresses among prefixes."""

from __future__ import annotations

from ipaddress import IPv6Network
from random import Random

import pytest

from ssastore.core.networks import Networks

SERVICE = IPv6Network("2001:db8:5a:1::/64")
PIECES = [piece for at, piece in enumerate(SERVICE.subnets(new_prefix=72)) if at % 3]


@pytest.mark.parametrize("networks", [[], [SERVICE], PIECES])
def test_the_prefix_around_an_address_is_found(networks: list[IPv6Network]) -> None:
    random, known = Random(7), Networks(networks)
    edges = [int(end) + off for piece in PIECES for end in (piece[0], piece[-1]) for off in (-1, 0, 1)]
    drawn = [int(SERVICE.network_address) + random.getrandbits(65) for _ in range(500)]
    for address in [0, (1 << 128) - 1, *edges, *drawn]:
        found = [piece for piece in networks if int(piece[0]) <= address <= int(piece[-1])]
        assert known.around(address) == (found[0] if found else None)
