"""What a worker says that it serves. Pure.

Bits, not runs: workers share a node by lane, so where there are several no two slices of one are side by
side, and who is connected to all of a cluster would have thousands of runs to compare with one another.
The bits of all slices of a plane are half a kibibyte, and to compare them takes no longer than a few slices.
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

    whole: int = 0
    "A bit for each slice, by its number."
    parts: frozenset[range] = frozenset()

    @staticmethod
    def decode(body: Body) -> Coverage:
        """Of the body of a COVERAGE frame (``core.acceptor.encode_coverage``). Raises BadFrame."""
        try:
            _, runs, *rest = msgpack.unpackb(body, max_ext_len=0, max_map_len=0)
            whole = at = 0
            for first, end in sorted((first, end) for first, end in runs if 0 <= first < end <= 1 << 16):
                if at < end:
                    whole |= bits(range(max(first, at), end))
                    at = end
            parts = frozenset(
                range(first, end) for some in rest for first, end in some if 0 <= first < end <= 1 << 32
            )
        except (TypeError, ValueError, msgpack.UnpackException) as error:
            raise BadFrame("coverage is not a list of ranges") from error
        return Coverage(whole, parts)

    def holds(self, iid: int) -> bool:
        """Whether an address is served."""
        locator = locator_of(iid)
        return bool(self.whole >> (locator >> _BITS_BELOW) & 1) or any(locator in run for run in self.parts)

    def beyond(self, whole: int, parts: Set[range], wrong: int) -> Coverage:
        """What is in none of these slices and parts, nor in a slice that is ``wrong``; slices are bits.

        Of a part that is there in other pieces all may be left.
        """
        told = whole | wrong
        left = frozenset(run for run in self.parts - parts if bits(_slices_of(run)) & ~told)
        return Coverage(self.whole & ~told, left)


def bits(slices: range) -> int:
    """A bit for each of these slices."""
    return (1 << slices.stop) - (1 << slices.start)


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
