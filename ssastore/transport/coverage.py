"""What a worker says that it serves. Pure.

Sets, not runs: workers share a node by lane, so where there are several no two slices of one are side by
side, and who is connected to all of a cluster would have thousands of runs to compare with one another.
"""

from __future__ import annotations

from collections.abc import Set
from ipaddress import IPv6Network
from typing import NamedTuple

import msgpack

from ssastore.core.cluster import SERIALS_END
from ssastore.errors import BadFrame
from ssastore.keyspace import locator_of, service_network
from ssastore.wire import Body

_PREFIX_BYTES = 8
_BITS_BELOW = 16
"Of a locator, below the /80."


class Coverage(NamedTuple):
    """Slices, and of those that are split the parts, as runs of locators: nearly always none."""

    whole: frozenset[int] = frozenset()
    parts: frozenset[range] = frozenset()

    @staticmethod
    def decode(body: Body) -> Coverage:
        """Of the body of a COVERAGE frame (``core.acceptor.encode_coverage``). Raises BadFrame."""
        try:
            _, runs, *rest = msgpack.unpackb(body, max_ext_len=0, max_map_len=0)
            whole: set[int] = set()
            at = 0
            for first, end in sorted((first, end) for first, end in runs if 0 <= first < end <= 1 << 16):
                whole.update(range(max(first, at), end))
                at = max(at, end)
            parts = frozenset(
                range(first, end) for some in rest for first, end in some if 0 <= first < end <= 1 << 32
            )
        except (TypeError, ValueError, msgpack.UnpackException) as error:
            raise BadFrame("coverage is not a list of ranges") from error
        return Coverage(frozenset(whole), parts)

    def holds(self, iid: int) -> bool:
        """Whether an address is served."""
        locator = locator_of(iid)
        return locator >> _BITS_BELOW in self.whole or any(locator in run for run in self.parts)

    def beyond(self, whole: Set[int], parts: Set[range], wrong: Set[int]) -> Coverage:
        """What is in none of these slices and parts, nor in a slice that is ``wrong``.

        Of a part that is there in other pieces all may be left.
        """
        left = frozenset(
            run
            for run in self.parts - parts
            if any(s not in whole and s not in wrong for s in _slices_of(run))
        )
        return Coverage(self.whole - whole - wrong, left)


def _slices_of(run: range) -> range:
    """The slices that a run of locators is in."""
    return range(run.start >> _BITS_BELOW, (run.stop - 1 >> _BITS_BELOW) + 1)


NOTHING = Coverage()


def encode_prefix(service: IPv6Network) -> bytes:
    """A service prefix as COVERAGE has it: its first 8 bytes."""
    return service.network_address.packed[:_PREFIX_BYTES]


def decode_prefix(serial: int, prefix: bytes) -> tuple[int, IPv6Network]:
    """Serial and service prefix of a COVERAGE frame. Raises BadFrame.

    A serial that no cluster can have is none: who believed it would follow no later one.
    """
    try:
        if not 0 < serial < SERIALS_END or len(prefix) != _PREFIX_BYTES:
            raise ValueError
        return serial, service_network(str(IPv6Network((prefix + bytes(_PREFIX_BYTES), 64))))
    except ValueError:
        raise BadFrame("coverage with no service prefix") from None
