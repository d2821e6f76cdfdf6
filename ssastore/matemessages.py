"""Requests that nodes send to one another and that nobody else may send. Pure.

Votes on records, and what planes ask each other to find out what they lack.
``messages.py`` has all messages together; import from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssastore.limits import STORED_KEY_BYTES_MAX, SURVEY_SLICES_MAX
from ssastore.message import (
    BALLOT_BYTES,
    DIGEST_BYTES,
    HOLD_BYTES,
    RECORD_KINDS,
    STAND_BYTES,
    STANDS_MAX,
    U64_END,
    Message,
    check_place,
    check_replicas,
    require,
)

_PLACE_BYTES = 5
"Locator and kind, which open a stored key."


@dataclass(slots=True)
class Prepare(Message):
    """Node to node: phase 1. Reply: cfg, accepted ballot, floor, the shard's hold and its state if it is
    under one (``core.holds``); body: the value accepted under that ballot."""

    TYPE = 40
    TYPES = (int, int, int, int, int, int, bytes, int, bytes)
    iid: int
    kind: int
    bucket: int
    shards: int
    key: bytes
    cfg: int
    ballot: bytes

    def check(self) -> None:
        check_place(self.bucket, self.shards, self.key)
        require(self.kind in RECORD_KINDS, "no such kind of record")
        require(len(self.ballot) == BALLOT_BYTES, "ballot of the wrong length")


@dataclass(slots=True)
class Accept(Message):
    """Node to node: phase 2; the body is the value. ``reserved`` is promised along, or all zero.

    ``hold`` is the one that the value was counted under, where a bucket has a quota; else empty.
    """

    TYPE = 41
    TYPES = (int, int, int, int, int, int, bytes, int, bytes, bytes, bytes)
    iid: int
    kind: int
    bucket: int
    shards: int
    key: bytes
    cfg: int
    ballot: bytes
    reserved: bytes
    hold: bytes = b""

    def check(self) -> None:
        check_place(self.bucket, self.shards, self.key)
        require(self.kind in RECORD_KINDS, "no such kind of record")
        require(len(self.ballot) == len(self.reserved) == BALLOT_BYTES, "ballot of the wrong length")
        require(len(self.hold) in (0, HOLD_BYTES), "hold of the wrong length")


@dataclass(slots=True)
class Collect(Message):
    """Node to node: drop a record that says "no object" and that all planes hold under ``ballot``."""

    TYPE = 42
    TYPES = (int, int, int, int, int, int, bytes, int, bytes)
    iid: int
    kind: int
    bucket: int
    shards: int
    key: bytes
    cfg: int
    ballot: bytes

    def check(self) -> None:
        check_place(self.bucket, self.shards, self.key)
        require(self.kind in RECORD_KINDS, "no such kind of record")
        require(len(self.ballot) == BALLOT_BYTES, "ballot of the wrong length")


@dataclass(slots=True)
class Survey(Message):
    """Node to node: what a slice holds after a key, for comparing planes (``core.survey``).

    ``after`` and ``end`` are stored keys as in plane 0, exclusive and inclusive; an empty ``end`` leaves it
    to the answer.  Reply: last key of the range, count, digest, whether there is more; with ``listing`` the
    body has a row for each entry.
    """

    TYPE = 43
    TYPES = (int, int, int, bytes, bytes, bool)
    iid: int
    after: bytes
    end: bytes
    listing: bool

    def check(self) -> None:
        require(max(len(self.after), len(self.end)) <= STORED_KEY_BYTES_MAX, "key too long")


@dataclass(slots=True)
class SurveySlices(Message):
    """Node to node: digests of whole slices, as many as the worker behind ``iid`` serves and as are small.

    ``slices`` are 16-bit numbers.  Reply body: a msgpack array of [slice, count, digest].
    """

    TYPE = 45
    TYPES = (int, int, int, bytes)
    iid: int
    slices: bytes

    def check(self) -> None:
        require(len(self.slices) % 2 == 0, "slice numbers have two bytes")
        require(len(self.slices) <= 2 * SURVEY_SLICES_MAX, "too many slices")


@dataclass(slots=True)
class References(Message):
    """Node to node: the references that a plane holds to a blob. Reply: whether the blob is there; body: a
    msgpack array of [time, reference]."""

    TYPE = 44
    TYPES = (int, int, int, bytes)
    iid: int
    digest: bytes

    def check(self) -> None:
        require(len(self.digest) == DIGEST_BYTES, "digest of the wrong length")


@dataclass(slots=True)
class Recheck(Message):
    """Node to node: the copy of ``key``, a stored key as in plane 0, may be missing or old at the plane of
    ``iid``; it finds out soon. Reply: whether anything is stored there, mere promises too."""

    TYPE = 49
    TYPES = (int, int, int, bytes)
    iid: int
    key: bytes

    def check(self) -> None:
        require(_PLACE_BYTES < len(self.key) <= STORED_KEY_BYTES_MAX, "not a stored key")


@dataclass(slots=True)
class Fence(Message):
    """Node to node: talk to no lower cfg than these any more. ``stands``: part u32 | cfg u64, each.

    Reply: the parts (u32 each) for which that is durable; only slices that vote are among them.
    """

    TYPE = 46
    TYPES = (int, int, int, bytes)
    iid: int
    stands: bytes

    def check(self) -> None:
        _check_stands(self.stands)


@dataclass(slots=True)
class Pull(Message):
    """Node to node: records of the slices of ``stands`` after a key, in order (``core.pages``).

    Answered only under exactly the cfgs of ``stands``. Reply: truncated, last key, checksum; body: the page.
    """

    TYPE = 47
    TYPES = (int, int, int, bytes, bytes)
    iid: int
    stands: bytes
    after: bytes

    def check(self) -> None:
        _check_stands(self.stands)
        require(len(self.after) <= STORED_KEY_BYTES_MAX, "key too long")


@dataclass(slots=True)
class Mark(Message):
    """Node to node: how far an environment has come; boot 0 only asks. Reply: the highest boot and sequence
    that were told here."""

    TYPE = 48
    TYPES = (int, int, int, int, int, int)
    iid: int
    env: int
    boot: int
    sequence: int

    def check(self) -> None:
        require(0 < self.env < 1 << 32 and 0 <= self.boot < 1 << 32, "environment or boot out of range")
        require(0 <= self.sequence < U64_END, "sequence out of range")


@dataclass(slots=True)
class Copy(Message):
    """Node to node: records of slices that are handed over, after a key, in order (``core.pages``).

    ``moves``: part u32 | number of the handover u64, each; answered while all of them are undecided.
    ``session`` 0 begins one: from before the first page on the source remembers what changes.  Reply:
    session, truncated, last key, checksum; body: the page.
    """

    TYPE = 50
    TYPES = (int, int, int, bytes, int, bytes)
    iid: int
    moves: bytes
    session: int
    after: bytes

    def check(self) -> None:
        _check_stands(self.moves)
        require(0 <= self.session < U64_END and len(self.after) <= STORED_KEY_BYTES_MAX, "out of range")


@dataclass(slots=True)
class Changes(Message):
    """Node to node: what was changed in the slices of a session since the change with number ``seen``; that
    and all before it are forgotten.

    Reply: number of the last one, whether there are more, checksum; body: a page, some rows without a value.
    """

    TYPE = 51
    TYPES = (int, int, int, bytes, int, int)
    iid: int
    moves: bytes
    session: int
    seen: int

    def check(self) -> None:
        _check_stands(self.moves)
        require(0 < self.session < U64_END and 0 <= self.seen < U64_END, "out of range")


@dataclass(slots=True)
class Seal(Message):
    """Node to node: vote no more for slices whose handovers are undecided. Reply: the parts (u32 each) for
    which that is durable."""

    TYPE = 52
    TYPES = (int, int, int, bytes)
    iid: int
    moves: bytes

    def check(self) -> None:
        _check_stands(self.moves)


@dataclass(slots=True)
class Total(Message):
    """Node to node: what sealed slices hold in all. Reply body: rows (``core.totals``)."""

    TYPE = 53
    TYPES = (int, int, int, bytes)
    iid: int
    moves: bytes

    def check(self) -> None:
        _check_stands(self.moves)


@dataclass(slots=True)
class CountSlices(Message):
    """Node to node: go on counting what slices hold that will be sealed, so that Total has little left to do.
    Reply: whether all are counted; if not, ask again."""

    TYPE = 56
    TYPES = (int, int, int, bytes)
    iid: int
    moves: bytes

    def check(self) -> None:
        _check_stands(self.moves)


@dataclass(slots=True)
class Fetch(Message):
    """Node to node: what is stored under a key of a slice that is handed over. Reply: whether there is
    anything; body: it."""

    TYPE = 54
    TYPES = (int, int, int, bytes, bytes)
    iid: int
    moves: bytes
    key: bytes

    def check(self) -> None:
        _check_stands(self.moves)
        require(_PLACE_BYTES < len(self.key) <= STORED_KEY_BYTES_MAX, "not a stored key")


@dataclass(slots=True)
class Hold(Message):
    """Node to node: from now on a shard takes only values that were counted under ``hold`` (``core.holds``).
    Reply: cfg. HELD, with the mark that is there in hexadecimal, if that is of a later one.

    ``step``: 0 lifts it, 1 sets it, 2 says that all that the plane holds under it was counted.
    """

    TYPE = 55
    TYPES = (int, int, int, int, int, int, bytes, int, int)
    iid: int
    bucket: int
    shards: int
    shard: int
    hold: bytes
    step: int
    replicas: int

    def check(self) -> None:
        check_place(self.bucket, self.shards, b"-")
        check_replicas(self.replicas)
        require(0 <= self.shard < self.shards, "no such shard")
        require(len(self.hold) == HOLD_BYTES, "hold of the wrong length")
        require(0 <= self.step <= 2, "no such step")


def _check_stands(stands: bytes) -> None:
    count, rest = divmod(len(stands), STAND_BYTES)
    require(not rest and 0 < count <= STANDS_MAX, "not a list of parts and cfgs")
