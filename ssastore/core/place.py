"""Whether a request is at the right place: its name against its IID, its IID against what is served. Pure.

Every request is checked, inside its transaction: the connection that brought it only
picked node and worker.  This is also the one place that says under which cfg a slice
votes here, or that it does not vote (``core.custody`` decides it).
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ssastore.core.numbers import (
    WHOLE_SLICES,
    lane_of_slice,
    locators_of_slice,
    numbered_slice,
    slice_name,
    whole_of,
)
from ssastore.core.replies import Refusal
from ssastore.keyspace import (
    GROUPS,
    LOCATOR_BITS,
    PLANE_BITS,
    PLANES_MAX,
    SLICE_BITS,
    TAIL_BITS,
    locator_of,
    object_name,
    plane_of,
    position_in_shard,
    position_of,
    position_of_blob,
    position_of_name,
    shard_locator,
    shard_of_key,
    slice16_of,
)
from ssastore.messages import (
    Accept,
    Collect,
    Count,
    Delete,
    Get,
    GetBlob,
    Hold,
    Prepare,
    Put,
    PutBlob,
    Read,
    References,
    Scan,
    Shut,
    Status,
)

_BITS_BELOW_SLICE16 = LOCATOR_BITS - SLICE_BITS
_GROUP_MASK = GROUPS - 1
_LOCATOR_MASK = (1 << (LOCATOR_BITS - PLANE_BITS)) - 1
_shard_locator = lru_cache(maxsize=65536)(shard_locator)


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket as far as addresses go: its id, and its shard count (0: hashed)."""

    bucket: int
    shards: int


def place_key(key: bytes) -> bytes:
    """The part of a record's key that places it: uploads and parts stand beside their object's key."""
    end = key.find(b"\0")
    return key if end < 0 else key[:end]


def expected_position(bucket: int, shards: int, key: bytes) -> int:
    """The position that a record's key hashes to."""
    if b"\0" in key:
        key = place_key(key)
    if not shards:
        return position_of_name(object_name(bucket, key))
    return position_in_shard(_shard_locator(bucket, shard_of_key(key, shards)), key)


@lru_cache(maxsize=64)
def share_of(slices: frozenset[int], worker: int, workers: int) -> frozenset[int]:
    """Those of a node's slices that one of its workers answers for, by lane.

    Kept: there are thousands, and nodes of a simulation start again all the time.
    """
    return frozenset(s for s in slices if lane_of_slice(s) % workers == worker)


@lru_cache(maxsize=64)
def _parts_among(owned: frozenset[int]) -> Mapping[int, tuple[int, ...]]:
    """The parts of slices among these, by the /80 that they are in. Kept as ``share_of`` is."""
    found: dict[int, tuple[int, ...]] = {}
    if max(owned, default=0) < WHOLE_SLICES:
        return found  # Mostly so.
    for number in sorted([number for number in owned if number >= WHOLE_SLICES]):
        slice16 = whole_of(number)
        found[slice16] = (*found.get(slice16, ()), number)
    return found


class Served:
    """What one worker answers for: its slices with their cfg, and how many planes their groups have.

    Args:
        replicas: planes of all groups that nothing else was said of.
        worker: index of this worker; ``workers`` is how many share the node by lane.
    """

    def __init__(self, *, replicas: int, worker: int, workers: int) -> None:
        self.replicas = replicas
        self.worker = worker
        self.workers = workers
        self.owned: frozenset[int] = frozenset()
        "Numbers of the slices, those that do not vote included (``core.numbers``)."
        self._parts: Mapping[int, tuple[int, ...]] = {}
        "Of slices that are split, those of ``owned`` by the /80 that they are in."
        self.cfgs: dict[int, int] = {}
        "The slices that vote, with the configuration that they vote under."
        self.sealed: dict[int, int] = {}
        "Those that are being handed over and vote no more, with theirs: calls are still proposed for them."
        self.odd: dict[int, int] = {}
        "By group, the number of planes where it is another one than ``replicas``: nearly always none."

    def count(self, groups: Iterable[int], planes: int) -> None:
        """From now on groups have so many planes. Said before any of their slices votes under a new cfg."""
        if planes != self.replicas:
            self.odd.update(dict.fromkeys(groups, planes))
        elif self.odd:
            for group in groups:
                self.odd.pop(group, None)

    def count_alike(self, groups: int) -> bool:
        """Of so many groups, whether all have as many planes as the others, and more than before."""
        if not self.odd or len(self.odd) < groups or len(set(self.odd.values())) > 1:
            return False
        _, self.replicas = self.odd.popitem()
        self.odd.clear()
        return True

    def count_of(self, group: int) -> int:
        """How many planes a group has, which is the majority's measure."""
        return self.odd.get(group, self.replicas)

    def count_at(self, iid: int) -> int:
        """The same of the group that an IID is in."""
        if not self.odd:
            return self.replicas
        return self.odd.get(slice16_of(iid) & _GROUP_MASK, self.replicas)

    def check_count(self, request: Get | Scan | Shut | PutBlob | GetBlob | Hold) -> None:
        """Refuse what is to be one of another number of planes. The slice is known to vote."""
        count = self.count_at(request.iid)
        if request.replicas != count and request.replicas:
            raise Refusal(Status.RECOUNT, str(count))

    @property
    def active(self) -> KeysView[int]:
        """The slices that vote."""
        return self.cfgs.keys()

    def own(self, slices: Iterable[int]) -> None:
        """Set which slices are this node's; other lanes than ours are left out. None of them votes yet."""
        self.owned = share_of(frozenset(slices), self.worker, self.workers)
        self._parts = _parts_among(self.owned)
        self.cfgs = {}
        self.sealed = {}

    def slice_at(self, iid: int) -> int:
        """The number of the slice that an IID is in: of the part here, where its /80 is split here."""
        slice16 = slice16_of(iid)
        for number in self._parts.get(slice16, ()):
            if iid in numbered_slice(number):
                return number
        return slice16

    def is_of_lane(self, number: int) -> bool:
        """Whether a slice of this node is this worker's."""
        return lane_of_slice(number) % self.workers == self.worker

    def gain(self, number: int) -> None:
        """A slice is this worker's from now on; it does not vote yet."""
        self.owned |= {number}
        if number >= WHOLE_SLICES:
            self._parts = _parts_among(self.owned)

    def lose(self, number: int) -> None:
        """A slice is not this worker's any more."""
        self.hush(number)
        self.owned -= {number}
        if number >= WHOLE_SLICES:
            self._parts = _parts_among(self.owned)

    def vote(self, number: int, cfg: int) -> None:
        """From now on the slice votes, under ``cfg``; a lower one than before is a bug."""
        assert number in self.owned and cfg >= self.cfgs.get(number, 0)
        self.sealed.pop(number, None)
        self.cfgs[number] = cfg

    def vote_first(self, cfgs: Mapping[int, int]) -> None:
        """From now on these slices of our own vote, under these configurations; none did before."""
        self.cfgs.update(cfgs)

    def hush(self, number: int) -> None:
        """From now on the slice does not vote."""
        self.cfgs.pop(number, None)
        self.sealed.pop(number, None)

    def seal(self, number: int, cfg: int) -> None:
        """From now on the slice does not vote, and calls for it are proposed to the other planes."""
        self.cfgs.pop(number, None)
        self.sealed[number] = cfg

    def call_cfg_of(self, iid: int) -> int:
        """The configuration that calls for an IID are proposed under: its slice votes, or is sealed."""
        cfg = self.sealed.get(self.slice_at(iid)) if self.sealed else None
        return self.cfg_of(iid) if cfg is None else cfg

    def cfg_of(self, iid: int) -> int:
        """The configuration that an IID's slice votes under. Raises Refusal when it does not vote."""
        slice16 = slice16_of(iid)
        cfg = self.cfgs.get(slice16)
        if cfg is not None:
            return cfg
        return self._part_cfg(self.slice_at(iid))

    def _part_cfg(self, number: int) -> int:
        """The same of a slice that is none whole that votes."""
        cfg = self.cfgs.get(number)
        if cfg is not None:
            return cfg
        name = slice_name(number)
        if number in self.owned:
            raise Refusal(
                Status.SILENT, f"slice {name} does not vote: it is checked, recovered or handed over"
            )
        raise Refusal(Status.NOT_MINE, f"slice {name} is not served here")

    def check_cfg(self, iid: int, cfg: int) -> None:
        """Refuse what belongs to another configuration than the slice's."""
        own = self.cfg_of(iid)
        if cfg != own:
            raise Refusal(Status.STALE if cfg < own else Status.BEHIND, str(own))

    def check_record(self, request: Get | Read | Put | Delete | Prepare | Accept | Collect) -> int:
        """The locator of a record's request, after the checks that every request gets."""
        iid = request.iid
        if expected_position(request.bucket, request.shards, request.key) != position_of(iid):
            raise Refusal(Status.MISDIRECTED, "the key does not hash to the address it was sent to")
        return self._check_iid(iid)

    def check_call(self, request: Put | Delete | Read) -> None:
        """The same for a call, which only starts a proposer: a sealed slice takes it as well."""
        if not self.sealed or self.slice_at(request.iid) not in self.sealed:
            self.check_record(request)
        elif expected_position(request.bucket, request.shards, request.key) != position_of(request.iid):
            raise Refusal(Status.MISDIRECTED, "the key does not hash to the address it was sent to")

    def check_shard(self, request: Scan | Shut | Hold | Count) -> int:
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
        """The number of a slice that a request is for as a whole."""
        self._check_iid(iid)
        return self.slice_at(iid)

    def mark_locator(self, iid: int, shards: int) -> int:
        """Where the mark of a shut bucket stands: in its shard's locator; once in a slice if it is hashed."""
        if shards:
            return iid >> TAIL_BITS
        if not self._parts:  # Every write comes by here.
            return iid >> TAIL_BITS & ~0xFFFF
        return locators_of_slice(self.slice_at(iid))[0]

    def last_locator(self, iid: int) -> int:
        """The last locator of the slice that an IID is in, without the plane."""
        return (locators_of_slice(self.slice_at(iid))[1] - 1) & _LOCATOR_MASK

    def check_plane(self, iid: int) -> int:
        """The plane of an IID, which must be one that holds data."""
        plane = plane_of(iid)
        if not 0 <= plane < PLANES_MAX:
            raise Refusal(Status.MISDIRECTED, f"plane {plane:x} holds no data here")
        return plane

    def _check_iid(self, iid: int) -> int:
        locator = locator_of(iid)
        # Of nearly every request, in one step: a whole slice that votes.
        if locator >> _BITS_BELOW_SLICE16 not in self.cfgs:
            self.check_plane(iid)
            self.cfg_of(iid)
        return locator
