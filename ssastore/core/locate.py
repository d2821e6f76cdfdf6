"""Where a name is, worked out from the name alone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Any

from xxhash import xxh3_64_intdigest

from ssastore.core.place import Place, expected_position
from ssastore.keyspace import (
    address_of,
    group_of,
    iid_of,
    lane_of,
    position_of_blob,
    shard_of_key,
    slice_of,
)


@dataclass(frozen=True, slots=True)
class Location:
    """The addresses of a name, and the numbers on the way to them.

    ``position`` is the 60 bits below the plane digit; ``addresses`` are those of planes 0, 1, ...
    """

    name: str
    position: int
    group: int
    lane: int
    shard: int | None
    key_hash: int | None
    slices: list[str]
    prefixes: list[str]
    addresses: list[str]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: numbers that do not fit a double are hexadecimal text."""
        return {
            "schema": "ssastore.location/1",
            "name": self.name,
            "position": f"{self.position:015x}",
            "group": f"{self.group:03x}",
            "lane": f"{self.lane:x}",
            "shard": self.shard,
            "key_hash": None if self.key_hash is None else f"{self.key_hash:016x}",
            "slices": self.slices,
            "prefixes": self.prefixes,
            "addresses": self.addresses,
        }


def _location(
    name: str, service: IPv6Network, position: int, replicas: int, shard: int | None, key_hash: int | None
) -> Location:
    iids = [iid_of(position, plane) for plane in range(replicas)]
    pieces = [slice_of(plane, group_of(iids[0])) for plane in range(replicas)]
    return Location(
        name,
        position,
        group_of(iids[0]),
        lane_of(iids[0]),
        shard,
        key_hash,
        [str(piece) for piece in pieces],
        [str(piece.network(service)) for piece in pieces],
        [str(address_of(service, iid)) for iid in iids],
    )


def locate_object(service: IPv6Network, place: Place, key: bytes, replicas: int) -> Location:
    """Where an object's record is."""
    position = expected_position(place.bucket, place.shards, key)
    shard = shard_of_key(key, place.shards) if place.shards else None
    key_hash = xxh3_64_intdigest(key) if place.shards else None
    return _location(key.decode(), service, position, replicas, shard, key_hash)


def locate_blob(service: IPv6Network, digest: bytes, replicas: int) -> Location:
    """Where a blob is."""
    return _location(digest.hex(), service, position_of_blob(digest), replicas, None, None)
