"""Where things live: name -> position -> interface identifier -> address -> slice.

Pure integer arithmetic.  Nothing here opens a socket, reads a clock or knows
which node is alive.

    2001:db8:5a:1 : p ggg : hhhh : tttt : tttt
    `- service /64  | |     |      `---------- tail, 32 bits
                    | |     `----------------- 16 more bits of the locator
                    | `----------------------- group, 12 bits
                    `------------------------- plane, 4 bits

A *position* is the 60 bits below the plane digit: group, 16 bits, tail.  It is
the same in every plane, so all replicas of a name have the same address but
for one digit.  An *IID* is plane and position together: the low 64 bits.

Invariants: ``address_of`` is inside the service prefix for every IID; no name
ever gets an IID that RFC 4291, RFC 2526 or RFC 5453 reserve, in any plane.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Generic, TypeVar

from xxhash import xxh3_64_intdigest

HASH_NAME = "xxh3-64"
RULE_NAME = "content"
RULE_VERSION = 1

IID_BITS = 64
PLANE_BITS = 4
GROUP_BITS = 12
POSITION_BITS = IID_BITS - PLANE_BITS
LOCATOR_BITS = 32
TAIL_BITS = IID_BITS - LOCATOR_BITS
ANY_TAIL = 0x7FFFFFFF
"Of an IID that stands for its slice or shard: all ones but for the first bit, which nothing reserves."
SLICE_BITS = PLANE_BITS + GROUP_BITS

PLANES = 1 << PLANE_BITS
GROUPS = 1 << GROUP_BITS
LANES = 16
FRONT_PLANE = 0xF
REPLICAS_ALLOWED = (1, 3, 5)
PLANES_MAX = max(REPLICAS_ALLOWED)
"Planes from here on hold no data."

SLICE_DEPTH_MIN = SLICE_BITS
SLICE_DEPTH_MAX = LOCATOR_BITS
"A slice is a /80 at first and can be split down to a /96, where the locator ends."

_POSITION_MASK = (1 << POSITION_BITS) - 1
_TAIL_MASK = (1 << TAIL_BITS) - 1
_IID_END = 1 << IID_BITS

# (first, last) IIDs that no interface may use: subnet-router anycast (RFC 4291 2.6.1), the IANA
# Ethernet block with Proxy Mobile IPv6 inside (RFC 5453), reserved subnet anycast (RFC 2526).
RESERVED_IIDS = (
    (0, 0),
    (0x02005EFFFE000000, 0x02005EFFFEFFFFFF),
    (0xFDFFFFFFFFFFFF80, 0xFDFFFFFFFFFFFFFF),
)
_RESERVED_LOCATORS = frozenset(
    (first & _POSITION_MASK) >> TAIL_BITS for first, _ in RESERVED_IIDS
)  # each of the three ranges has one locator


def is_reserved_iid(iid: int) -> bool:
    """Whether RFC 4291, RFC 2526 or RFC 5453 keep this interface identifier for other uses."""
    return any(first <= iid <= last for first, last in RESERVED_IIDS)


def is_reserved_position(position: int) -> bool:
    """Whether ``position`` gives a reserved IID in any plane, so that no plane may use it."""
    return any(first & _POSITION_MASK <= position <= last & _POSITION_MASK for first, last in RESERVED_IIDS)


# -- canonical names --------------------------------------------------------------------------------


def object_name(bucket_id: int, key: bytes) -> bytes:
    """Canonical name of an object in a hashed bucket."""
    return b"o" + bucket_id.to_bytes(8, "big") + key


def shard_name(bucket_id: int, shard: int) -> bytes:
    """Canonical name of one shard of an indexed bucket."""
    return b"s" + bucket_id.to_bytes(8, "big") + shard.to_bytes(4, "big")


def blob_name(digest: bytes) -> bytes:
    """Canonical name of a blob; ``digest`` is BLAKE3-256, 32 bytes."""
    return b"d" + digest


def position_of_name(name: bytes) -> int:
    """The 60-bit position of a canonical name: the top 60 bits of its XXH3-64.

    A name that lands on a reserved position is hashed again with a zero byte appended.
    """
    position = xxh3_64_intdigest(name) >> PLANE_BITS
    # Nearly every position is told apart by its locator bits; this runs twice for every request.
    if position >> TAIL_BITS in _RESERVED_LOCATORS:
        while is_reserved_position(position):
            name += b"\0"
            position = xxh3_64_intdigest(name) >> PLANE_BITS
    return position


def shard_of_key(key: bytes, shards: int) -> int:
    """Which of ``shards`` shards of an indexed bucket holds ``key``."""
    return xxh3_64_intdigest(key) % shards


def shard_locator(bucket_id: int, shard: int) -> int:
    """The 28 locator bits (below the plane digit) that all keys of a shard share."""
    return xxh3_64_intdigest(shard_name(bucket_id, shard)) >> (64 - (LOCATOR_BITS - PLANE_BITS))


def position_in_shard(locator: int, key: bytes) -> int:
    """Position of ``key`` in the shard with these 28 locator bits; the tail is the key's own hash."""
    position = locator << TAIL_BITS | xxh3_64_intdigest(key) & _TAIL_MASK
    if locator in _RESERVED_LOCATORS:
        while is_reserved_position(position):
            key += b"\0"
            position = locator << TAIL_BITS | xxh3_64_intdigest(key) & _TAIL_MASK
    return position


def position_of_key(bucket_id: int, shards: int, key: bytes) -> int:
    """Position of an object: ``shards`` is the bucket's shard count, 0 for a hashed bucket."""
    if not shards:
        return position_of_name(object_name(bucket_id, key))
    return position_in_shard(shard_locator(bucket_id, shard_of_key(key, shards)), key)


def position_of_blob(digest: bytes) -> int:
    """Position of a blob by its BLAKE3-256 digest."""
    return position_of_name(blob_name(digest))


# -- identifiers and addresses ----------------------------------------------------------------------


def iid_of(position: int, plane: int) -> int:
    """The interface identifier of ``position`` in ``plane``."""
    return plane << POSITION_BITS | position


def plane_of(iid: int) -> int:
    """The plane digit of an IID."""
    return iid >> POSITION_BITS


def position_of(iid: int) -> int:
    """The 60 bits below the plane digit; inverse of ``iid_of`` together with ``plane_of``."""
    return iid & _POSITION_MASK


def group_of(iid: int) -> int:
    """The 12-bit placement group of an IID."""
    return iid >> (IID_BITS - SLICE_BITS) & (GROUPS - 1)


def slice16_of(iid: int) -> int:
    """Plane and group: the fifth hextet of the address, as 16 bits."""
    return iid >> (IID_BITS - SLICE_BITS)


def locator_of(iid: int) -> int:
    """The top 32 bits of an IID: what a slice can be split down to."""
    return iid >> TAIL_BITS


def lane_of(iid: int) -> int:
    """Last digit of the group, 0 to 15: ``lane % workers`` is the worker that serves it."""
    return iid >> (IID_BITS - SLICE_BITS) & (LANES - 1)


def service_network(text: str) -> IPv6Network:
    """Parse a service prefix.

    Raises:
        ValueError: it is not a unicast IPv6 /64, has bits set below it, or names a zone (``%eth0``).
    """
    network = IPv6Network(text)
    if network.prefixlen != 64:
        raise ValueError(f"the service prefix must be a /64, got {network}")
    if network.network_address.scope_id is not None:
        raise ValueError(f"the service prefix must not name a zone, got {network}")
    # ::/64 holds the loopback address and the IPv4-mapped ones; a network is "unspecified" only as ::/128.
    if network.is_multicast or network.is_link_local or int(network.network_address) == 0:
        raise ValueError(f"the service prefix must be unicast, got {network}")
    return network


def address_of(service: IPv6Network, iid: int) -> IPv6Address:
    """The address of an IID in the service /64."""
    assert 0 <= iid < _IID_END
    return IPv6Address(int(service.network_address) | iid)


def iid_of_address(service: IPv6Network, address: IPv6Address) -> int:
    """Inverse of ``address_of``.

    Raises:
        ValueError: the address is outside the service prefix.
    """
    if address not in service:
        raise ValueError(f"{address} is not in {service}")
    return int(address) & (_IID_END - 1)


# -- slices -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Slice:
    """An aligned sub-prefix of the service /64: the unit of ownership and of movement.

    ``first`` is its lowest IID, ``depth`` the number of IID bits it fixes, 0 to 64; its
    prefix length is 64 + depth.  Order is by first IID, the shorter prefix first.
    """

    first: int
    depth: int

    def __post_init__(self) -> None:
        if not 0 <= self.depth <= IID_BITS:
            raise ValueError(f"depth must be 0 to {IID_BITS}, got {self.depth}")
        if not 0 <= self.first < _IID_END or self.first & (self.size - 1):
            raise ValueError(f"{self.first:#018x} is not aligned to depth {self.depth}")

    @property
    def size(self) -> int:
        """How many IIDs the slice holds."""
        return 1 << (IID_BITS - self.depth)

    @property
    def end(self) -> int:
        """First IID after the slice."""
        return self.first + self.size

    # A slice shorter than a /80 holds several groups and lanes, one shorter than a /68 several planes:
    # the next three are then those of its first IID.

    @property
    def plane(self) -> int:
        return plane_of(self.first)

    @property
    def group(self) -> int:
        return group_of(self.first)

    @property
    def lane(self) -> int:
        return lane_of(self.first)

    def __contains__(self, iid: int) -> bool:
        return self.first <= iid < self.first + self.size

    def covers(self, other: Slice) -> bool:
        """Whether ``other`` lies inside this slice (equal counts)."""
        return self.depth <= other.depth and other.first in self

    def parent(self) -> Slice:
        """The slice one bit shorter that holds this one. ValueError for the whole /64."""
        if self.depth == 0:
            raise ValueError("the whole service prefix has no parent")
        return Slice(self.first & ~(self.size * 2 - 1), self.depth - 1)

    def sibling(self) -> Slice:
        """The other half of the parent."""
        if self.depth == 0:
            raise ValueError("the whole service prefix has no sibling")
        return Slice(self.first ^ self.size, self.depth)

    def split(self) -> tuple[Slice, Slice]:
        """Lower and upper half. ValueError for a single address."""
        if self.depth == IID_BITS:
            raise ValueError("one address cannot be split")
        low = Slice(self.first, self.depth + 1)
        return low, low.sibling()

    def merge(self, other: Slice) -> Slice:
        """The parent of two siblings. ValueError if they are not siblings."""
        if self.depth != other.depth or self.depth == 0 or self.sibling() != other:
            raise ValueError(f"{self} and {other} are not siblings")
        return self.parent()

    def network(self, service: IPv6Network) -> IPv6Network:
        """The slice as a prefix of the service /64."""
        return IPv6Network((int(service.network_address) | self.first, 64 + self.depth))

    def __str__(self) -> str:
        """Short form: ``1a3f`` for a /80, else the fixed hex digits and the prefix length."""
        if self.depth == SLICE_BITS:
            return f"{self.first >> (IID_BITS - SLICE_BITS):04x}"
        digits = (self.depth + 3) // 4
        shown = f"{self.first >> (IID_BITS - 4 * digits):0{digits}x}" if digits else ""
        return f"{shown}/{64 + self.depth}"


def slice_of(plane: int, group: int) -> Slice:
    """The /80 of a plane and a group."""
    if not (0 <= plane < PLANES and 0 <= group < GROUPS):
        raise ValueError(f"no such slice: plane {plane}, group {group}")
    return Slice((plane << GROUP_BITS | group) << (IID_BITS - SLICE_BITS), SLICE_BITS)


def slice_from_network(service: IPv6Network, network: IPv6Network) -> Slice:
    """Inverse of ``Slice.network``. ValueError if the prefix is outside the service."""
    if not network.subnet_of(service):
        raise ValueError(f"{network} is not in {service}")
    return Slice(int(network.network_address) & (_IID_END - 1), network.prefixlen - 64)


def minimal_cover(slices: Iterable[Slice]) -> list[Slice]:
    """The fewest slices that hold exactly the same addresses, in order.

    Duplicates and slices inside others are allowed; siblings are merged as far as they go.
    """
    cover: list[Slice] = []
    for piece in sorted(slices):
        if cover and cover[-1].covers(piece):
            continue
        cover.append(piece)
        while len(cover) > 1 and cover[-1].depth == cover[-2].depth and cover[-1].sibling() == cover[-2]:
            cover[-2:] = [cover[-1].parent()]
    return cover


def range_cover(first: int, end: int) -> list[Slice]:
    """The fewest slices that hold exactly the IIDs ``first`` to ``end - 1``."""
    if not 0 <= first <= end <= _IID_END:
        raise ValueError(f"no such range: {first:#x} to {end:#x}")
    cover: list[Slice] = []
    while first < end:
        size = first & -first or _IID_END
        while size > end - first:
            size >>= 1
        cover.append(Slice(first, IID_BITS - size.bit_length() + 1))
        first += size
    return cover


T = TypeVar("T")


class PrefixTable(Generic[T]):
    """A table from slices to values with longest-prefix match, like the kernel's.

    Built for few writes and many reads: look-ups bisect a flat list of ranges.
    """

    def __init__(self, entries: Iterable[tuple[Slice, T]] = ()) -> None:
        self._entries: dict[Slice, T] = dict(entries)
        self._starts: list[int] | None = None
        self._matches: list[tuple[Slice, T] | None] = []

    def copy(self) -> PrefixTable[T]:
        """Another table with the same entries."""
        if self._starts is None:
            self._flatten()
        other: PrefixTable[T] = PrefixTable()
        # The flat lists are never changed, only replaced.
        other._entries, other._starts, other._matches = dict(self._entries), self._starts, self._matches
        return other

    def __setitem__(self, prefix: Slice, value: T) -> None:
        self._entries[prefix] = value
        self._starts = None

    def __delitem__(self, prefix: Slice) -> None:
        del self._entries[prefix]
        self._starts = None

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> Iterator[tuple[Slice, T]]:
        """All entries in address order, the covering one before the more specific."""
        return iter(sorted(self._entries.items(), key=lambda entry: entry[0]))

    def match(self, iid: int) -> tuple[Slice, T] | None:
        """The most specific entry that holds ``iid``, or None."""
        if self._starts is None:
            self._flatten()
        assert self._starts is not None
        at = bisect_right(self._starts, iid)
        return self._matches[at - 1] if at else None

    def lookup(self, iid: int) -> T | None:
        """The value of ``match``, or None."""
        found = self.match(iid)
        return found[1] if found else None

    def _flatten(self) -> None:
        starts: list[int] = []
        matches: list[tuple[Slice, T] | None] = []

        def begin(at: int, match: tuple[Slice, T] | None) -> None:
            if starts and starts[-1] == at:
                matches[-1] = match
            else:
                starts.append(at)
                matches.append(match)

        covering: list[tuple[Slice, T]] = []
        for entry in self.items():
            while covering and covering[-1][0].end <= entry[0].first:
                ended = covering.pop()
                begin(ended[0].end, covering[-1] if covering else None)
            covering.append(entry)
            begin(entry[0].first, entry)
        while covering:
            ended = covering.pop()
            begin(ended[0].end, covering[-1] if covering else None)
        self._starts, self._matches = starts, matches
