"""Whether a request is at the right place: its name against its IID, its IID against what is served. Pure.

Every request is checked, inside its transaction: the connection that brought it only
picked node and worker.
"""

from __future__ import annotations

from functools import lru_cache

from ssastore.core.replies import Refusal
from ssastore.keyspace import (
    TAIL_BITS,
    locator_of,
    plane_of,
    position_in_shard,
    position_of,
    position_of_blob,
    position_of_key,
    shard_locator,
    shard_of_key,
    slice16_of,
)
from ssastore.messages import (
    Accept,
    Collect,
    Delete,
    Get,
    GetBlob,
    Prepare,
    Put,
    PutBlob,
    Read,
    References,
    Scan,
    Shut,
    Status,
)

_shard_locator = lru_cache(maxsize=65536)(shard_locator)


def place_key(key: bytes) -> bytes:
    """The part of a record's key that places it: uploads and parts stand beside their object's key."""
    end = key.find(b"\0")
    return key if end < 0 else key[:end]


def expected_position(bucket: int, shards: int, key: bytes) -> int:
    """The position that a record's key hashes to."""
    key = place_key(key)
    if not shards:
        return position_of_key(bucket, 0, key)
    return position_in_shard(_shard_locator(bucket, shard_of_key(key, shards)), key)


class Served:
    """What one worker answers for: the planes that hold data, and the /80 slices ACTIVE here.

    Args:
        replicas: planes 0 to ``replicas - 1`` hold data.
        worker: index of this worker; ``workers`` is how many share the node by lane.
    """

    def __init__(self, *, replicas: int, worker: int, workers: int) -> None:
        self.replicas = replicas
        self.worker = worker
        self.workers = workers
        self.active: set[int] = set()
        "16-bit numbers of the slices."

    def activate(self, slice16s: set[int]) -> None:
        """Set which slices are ACTIVE at this node; other lanes than ours are left out."""
        self.active = {s for s in slice16s if s % 16 % self.workers == self.worker}

    def check_record(self, request: Get | Read | Put | Delete | Prepare | Accept | Collect) -> int:
        """The locator of a record's request, after the checks that every request gets."""
        iid = request.iid
        if expected_position(request.bucket, request.shards, request.key) != position_of(iid):
            raise Refusal(Status.MISDIRECTED, "the key does not hash to the address it was sent to")
        return self._check_iid(iid)

    def check_shard(self, request: Scan | Shut) -> int:
        """The locator of a request that is for a whole shard; the tail of its IID is free."""
        if request.shards:
            locator = _shard_locator(request.bucket, request.shard)
            if position_of(request.iid) >> TAIL_BITS != locator:
                raise Refusal(Status.MISDIRECTED, "the shard does not hash to the address it was sent to")
        return self._check_iid(request.iid)

    def check_blob(self, request: PutBlob | GetBlob | References) -> int:
        """The locator of a blob's request."""
        if position_of_blob(request.digest) != position_of(request.iid):
            raise Refusal(Status.MISDIRECTED, "the digest does not hash to the address it was sent to")
        return self._check_iid(request.iid)

    def check_slice(self, iid: int) -> int:
        """The 16-bit number of a slice that a request is for as a whole."""
        self._check_iid(iid)
        return slice16_of(iid)

    def _check_iid(self, iid: int) -> int:
        if not 0 <= plane_of(iid) < self.replicas:
            raise Refusal(Status.MISDIRECTED, f"plane {plane_of(iid):x} holds no data here")
        if slice16_of(iid) not in self.active:
            raise Refusal(Status.NOT_MINE, f"slice {slice16_of(iid):04x} is not served here")
        return locator_of(iid)
