"""Requests and replies of the native protocol, as typed values. Pure.

A request is a frame whose header is ``[type, request id, IID, fields ...]``; its
reply is ``[status, request id, fields ...]``.  A status other than OK carries one
text.  Types are exact: a field of another type, a missing or an extra field is a
``BadFrame``.  All integers are unsigned and big endian inside byte strings.

``message.py`` has what they share, ``matemessages.py`` those between nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ssastore.errors import BadFrame
from ssastore.limits import STORED_KEY_BYTES_MAX
from ssastore.matemessages import (
    Accept,
    Changes,
    Collect,
    Copy,
    CountSlices,
    Fence,
    Fetch,
    Hold,
    Mark,
    Prepare,
    Pull,
    Recheck,
    References,
    Seal,
    Survey,
    SurveySlices,
    Total,
)
from ssastore.message import (
    BALLOT_BYTES,
    DIGEST_BYTES,
    HOLD_BYTES,
    MAC_BYTES,
    NONCE_BYTES,
    OP_ID_BYTES,
    PROTOCOL_VERSION,
    RECORD_KINDS,
    STAND_BYTES,
    STANDS_MAX,
    U64_END,
    Condition,
    Kind,
    Message,
    Status,
    check_operation,
    check_place,
    check_replicas,
    require,
)
from ssastore.wire import Header

__all__ = [
    "BALLOT_BYTES",
    "DIGEST_BYTES",
    "HOLD_BYTES",
    "MAC_BYTES",
    "NONCE_BYTES",
    "OP_ID_BYTES",
    "PROTOCOL_VERSION",
    "RECORD_KINDS",
    "REQUESTS",
    "STANDS_MAX",
    "STAND_BYTES",
    "Accept",
    "Changes",
    "Collect",
    "Condition",
    "Copy",
    "Count",
    "CountSlices",
    "Delete",
    "Fence",
    "Fetch",
    "Get",
    "GetBlob",
    "Hello",
    "Hold",
    "Kind",
    "Mark",
    "Message",
    "Prepare",
    "Proof",
    "Pull",
    "Put",
    "PutBlob",
    "Read",
    "Recheck",
    "References",
    "Report",
    "Scan",
    "Seal",
    "Shut",
    "StartScrub",
    "Status",
    "Survey",
    "SurveySlices",
    "Total",
    "Welcome",
    "decode_request",
]

# -- greeting ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Hello(Message):
    """Client's first frame: what it believes, who it is. ``replicas`` 0 means "tell me"."""

    TYPE = 1
    TYPES = (int, int, int, str, int, int, str, str, bytes, str)
    protocol: int
    hash_name: str
    rule_version: int
    replicas: int
    role: str
    key_id: str
    nonce: bytes
    cluster_id: str

    def check(self) -> None:
        require(self.role in ("client", "node"), "unknown role")
        require(len(self.nonce) == NONCE_BYTES, "nonce of the wrong length")
        require(len(self.key_id) <= 128 and len(self.cluster_id) <= 64, "name too long")


@dataclass(slots=True)
class Welcome(Message):
    """Node's answer: what the cluster is, and its challenge."""

    TYPE = 2
    TYPES = (int, int, int, str, int, int, str, bytes)
    protocol: int
    hash_name: str
    rule_version: int
    replicas: int
    cluster_id: str
    nonce: bytes

    def check(self) -> None:
        require(len(self.nonce) == NONCE_BYTES, "nonce of the wrong length")


@dataclass(slots=True)
class Proof(Message):
    """Both directions: a MAC over the greeting with the shared secret (``transport.greeting``)."""

    TYPE = 3
    TYPES = (int, int, bytes)
    mac: bytes

    def check(self) -> None:
        require(len(self.mac) == MAC_BYTES, "MAC of the wrong length")


# -- requests ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Get(Message):
    """Read what one plane has accepted. Reply: cfg, accepted ballot, state, modified_ms, metadata;
    body: inline data unless ``head_only``.

    ``replicas``, here and below: of how many planes the answer is to be one. Who knows another number
    refuses (RECOUNT), so that no majority is one of a number of planes that the group no longer has.
    """

    TYPE = 16
    TYPES = (int, int, int, int, int, int, bytes, bool, int)
    iid: int
    kind: int
    bucket: int
    shards: int
    key: bytes
    head_only: bool
    replicas: int = 0

    def check(self) -> None:
        check_place(self.bucket, self.shards, self.key)
        check_replicas(self.replicas)
        require(self.kind in RECORD_KINDS, "no such kind of record")


@dataclass(slots=True)
class Put(Message):
    """Write a record: metadata here, inline data in the body. Reply: modified_ms, True.

    ``attempt`` counts from 1.  ``born_ms`` is a birth as ``core.birth`` has it, below zero when only a time
    that it is not after is known; a first attempt without one takes the time of the node it is sent to.
    """

    TYPE = 17
    TYPES = (int, int, int, int, int, int, bytes, bytes, int, str, int, int, bytes)
    iid: int
    kind: int
    bucket: int
    shards: int
    key: bytes
    op_id: bytes
    condition: int
    etag: str
    attempt: int
    born_ms: int
    metadata: bytes

    def check(self) -> None:
        check_place(self.bucket, self.shards, self.key)
        check_operation(self.kind, self.op_id, self.condition, self.attempt, self.born_ms)


@dataclass(slots=True)
class Delete(Message):
    """Write a tombstone. Reply: modified_ms, whether there was something to delete."""

    TYPE = 18
    TYPES = (int, int, int, int, int, int, bytes, bytes, int, str, int, int)
    iid: int
    kind: int
    bucket: int
    shards: int
    key: bytes
    op_id: bytes
    condition: int
    etag: str
    attempt: int
    born_ms: int

    def check(self) -> None:
        check_place(self.bucket, self.shards, self.key)
        check_operation(self.kind, self.op_id, self.condition, self.attempt, self.born_ms)


@dataclass(slots=True)
class Read(Message):
    """Read the agreed value of a replicated record through its proposer. Reply and body as ``Get``."""

    TYPE = 21
    TYPES = (int, int, int, int, int, int, bytes, bool)
    iid: int
    kind: int
    bucket: int
    shards: int
    key: bytes
    head_only: bool

    def check(self) -> None:
        check_place(self.bucket, self.shards, self.key)
        require(self.kind in RECORD_KINDS, "no such kind of record")


@dataclass(slots=True)
class Scan(Message):
    """A page of one shard in key order (``core.listing``). Reply: truncated, last key, cfg; body: the page.

    ``after`` is exclusive; keys start with ``prefix``; with a ``delimiter`` keys that hold it
    after the prefix are rolled up.  ``with_witness`` adds ballots and tombstones, so that the pages of
    several planes can be merged.  ``shards`` 0: the slice of a hashed bucket, only counted;
    reply: whether it holds anything, cfg, last locator of that slice.
    """

    TYPE = 19
    TYPES = (int, int, int, int, int, int, int, bytes, bytes, bytes, int, bool, int)
    iid: int
    kind: int
    bucket: int
    shards: int
    shard: int
    prefix: bytes
    after: bytes
    delimiter: bytes
    limit: int
    with_witness: bool
    replicas: int = 0

    def check(self) -> None:
        check_place(self.bucket, self.shards, b"-")
        check_replicas(self.replicas)
        require(self.kind in RECORD_KINDS, "no such kind of record")
        require(0 <= self.shard < max(self.shards, 1), "no such shard")
        require(self.limit > 0, "limit must be positive")
        require(
            max(len(self.prefix), len(self.after), len(self.delimiter)) <= STORED_KEY_BYTES_MAX,
            "key too long",
        )


@dataclass(slots=True)
class Shut(Message):
    """Refuse (or, with ``shut`` false, take again) writes for a bucket id in the locator of ``iid``.
    Reply: cfg, last locator of the slice that it was done for (28 bits).

    ``attempt`` numbers the deletions of a bucket: a deletion that was overtaken by a later one
    changes nothing any more (PRECONDITION_FAILED).
    """

    TYPE = 20
    TYPES = (int, int, int, int, int, int, int, bool, int)
    iid: int
    bucket: int
    shards: int
    shard: int
    attempt: int
    shut: bool
    replicas: int = 0

    def check(self) -> None:
        check_place(self.bucket, self.shards, b"-")
        check_replicas(self.replicas)
        require(0 <= self.shard < max(self.shards, 1), "no such shard")
        require(0 < self.attempt < U64_END, "attempt out of range")


@dataclass(slots=True)
class PutBlob(Message):
    """Store the body under its digest; ``reference`` names the record that will point to it.

    Without a body only the reference is stored, for a blob that is there; else NOT_FOUND.
    Reply: whether it was there, cfg.
    """

    TYPE = 24
    TYPES = (int, int, int, bytes, bytes, int)
    iid: int
    digest: bytes
    reference: bytes
    replicas: int = 0

    def check(self) -> None:
        check_replicas(self.replicas)
        require(len(self.digest) == DIGEST_BYTES, "digest of the wrong length")
        require(len(self.reference) <= STORED_KEY_BYTES_MAX, "reference too long")


@dataclass(slots=True)
class GetBlob(Message):
    """Read a blob. Reply body: all of it; the reader verifies the digest."""

    TYPE = 25
    TYPES = (int, int, int, bytes, int)
    iid: int
    digest: bytes
    replicas: int = 0

    def check(self) -> None:
        check_replicas(self.replicas)
        require(len(self.digest) == DIGEST_BYTES, "digest of the wrong length")


@dataclass(slots=True)
class Count(Message):
    """Count what a shard of a bucket with a quota holds, unless that is known (``core.counting``).

    Whatever of its share of the quota it does not need it gives back.  Reply: bytes, objects; both 0 when the
    bucket has no quota.
    """

    TYPE = 26
    TYPES = (int, int, int, int, int, int)
    iid: int
    bucket: int
    shards: int
    shard: int

    def check(self) -> None:
        check_place(self.bucket, self.shards, b"-")
        require(0 <= self.shard < self.shards, "no such shard of an indexed bucket")


@dataclass(slots=True)
class Report(Message):
    """Figures of the worker behind ``iid``. Reply body: a msgpack map (``core.acceptor``)."""

    TYPE = 32
    TYPES = (int, int, int)
    iid: int


@dataclass(slots=True)
class StartScrub(Message):
    """Begin a scrub pass at the worker behind ``iid``, or join the one that runs. Reply: number of the pass
    that covers everything from now on; the report says how far it is."""

    TYPE = 33
    TYPES = (int, int, int)
    iid: int


def _values(names: tuple[str, ...]) -> Callable[[Message], Iterable[Any]]:
    """The named attributes as a tuple, by the C accessor: every request is packed with it."""
    if len(names) == 1:
        return lambda message: (getattr(message, names[0]),)
    accessor: Callable[[Message], Iterable[Any]] = attrgetter(*names)
    return accessor


_REQUESTS: tuple[type[Message], ...] = (
    Get,
    Put,
    Delete,
    Scan,
    Shut,
    Read,
    PutBlob,
    GetBlob,
    Count,
    Report,
    StartScrub,
    Prepare,
    Accept,
    Collect,
    Survey,
    References,
    SurveySlices,
    Fence,
    Pull,
    Mark,
    Recheck,
    Copy,
    Changes,
    Seal,
    Total,
    Fetch,
    Hold,
    CountSlices,
)
for _message in (Hello, Welcome, Proof, *_REQUESTS):
    _message.VALUES = staticmethod(_values(_message.__slots__))  # type: ignore[attr-defined]

REQUESTS: dict[int, type[Message]] = {message.TYPE: message for message in _REQUESTS}


def decode_request(header: Header) -> Any:
    """The request of a frame header.

    Raises:
        BadFrame: unknown type, or fields that do not fit it.
    """
    message = REQUESTS.get(header[0])
    if message is None:
        raise BadFrame(f"unknown message type {header[0]}")
    return message.decode(header)
