"""Requests and replies of the native protocol, as typed values. Pure.

A request is a frame whose header is ``[type, request id, IID, fields ...]``; its
reply is ``[status, request id, fields ...]``.  A status other than OK carries one
text.  Types are exact: a field of another type, a missing or an extra field is a
``BadFrame``.  All integers are unsigned and big endian inside byte strings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from operator import attrgetter
from typing import Any, ClassVar, TypeVar

from ssastore.errors import BadFrame
from ssastore.limits import SHARDS_MAX, STORED_KEY_BYTES_MAX
from ssastore.wire import Header

PROTOCOL_VERSION = 1
NONCE_BYTES = 16
OP_ID_BYTES = 16
DIGEST_BYTES = 32
BALLOT_BYTES = 16
MAC_BYTES = 32

_U64_END = 1 << 64
_RECORD_KEY_BYTES_MAX = STORED_KEY_BYTES_MAX - 13
"A stored key has locator, kind and bucket id in front (``core.records``)."


class Status(IntEnum):
    """First item of a reply's header."""

    OK = 0
    NOT_FOUND = 1
    PRECONDITION_FAILED = 2
    NO_BUCKET = 3
    NOT_MINE = 4
    MISDIRECTED = 5
    FULL = 6
    OVERLOADED = 7
    CORRUPT = 8
    BAD_REQUEST = 9
    DENIED = 10
    INTERNAL = 11
    OUTRUN = 12
    "An acceptor has seen a higher ballot; the text is that ballot in hexadecimal."
    UNKNOWN = 13
    "A write was sent to the planes, and what became of it cannot be told."
    UNREACHED = 14
    "No majority of the planes answers the proposer; nothing was written."
    COVERAGE = 100
    "Not a reply: the node says which slices this connection's worker serves now (body: Coverage)."


class Kind(IntEnum):
    """What a record is; the byte after the locator in its stored key."""

    SHUT = 0x08
    OBJECT = 0x10
    UPLOAD = 0x20
    PART = 0x21
    BLOB = 0x40
    REF = 0x41


RECORD_KINDS = frozenset((Kind.OBJECT, Kind.UPLOAD, Kind.PART))
"Kinds that clients read and write as registers."


class Condition(IntEnum):
    """Precondition of a write; evaluated in the transaction that decides it."""

    NONE = 0
    IF_ABSENT = 1
    IF_PRESENT = 2
    IF_ETAG = 3


M = TypeVar("M", bound="Message")


@dataclass(slots=True)
class Message:
    """A frame header with named fields. ``TYPES`` are the exact types of all header items."""

    TYPE: ClassVar[int]
    TYPES: ClassVar[tuple[type, ...]]
    VALUES: ClassVar[Callable[[Message], Iterable[Any]]]
    "All fields of a message, in order; made below for every class."

    def header(self, request_id: int) -> Header:
        """The header items in order."""
        return [self.TYPE, request_id, *type(self).VALUES(self)]

    @classmethod
    def decode(cls: type[M], header: Header) -> M:
        """Raises BadFrame when fields are missing, extra, of another type or out of range."""
        if tuple(map(type, header)) != cls.TYPES:
            raise BadFrame(f"{cls.__name__} with fields of the wrong number or type")
        message = cls(*header[2:])
        message.check()
        return message

    def check(self) -> None:
        """Raise BadFrame when a field is out of its range."""


def _require(claim: bool, what: str) -> None:
    if not claim:
        raise BadFrame(what)


def _check_place(bucket: int, shards: int, key: bytes) -> None:
    _require(0 <= bucket < _U64_END and 0 <= shards <= SHARDS_MAX, "bucket or shard count out of range")
    _require(0 < len(key) <= _RECORD_KEY_BYTES_MAX, "key is empty or too long")


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
        _require(self.role in ("client", "node"), "unknown role")
        _require(len(self.nonce) == NONCE_BYTES, "nonce of the wrong length")
        _require(len(self.key_id) <= 128 and len(self.cluster_id) <= 64, "name too long")


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
        _require(len(self.nonce) == NONCE_BYTES, "nonce of the wrong length")


@dataclass(slots=True)
class Proof(Message):
    """Both directions: a MAC over the greeting with the shared secret (``transport.greeting``)."""

    TYPE = 3
    TYPES = (int, int, bytes)
    mac: bytes

    def check(self) -> None:
        _require(len(self.mac) == MAC_BYTES, "MAC of the wrong length")


# -- requests ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Get(Message):
    """Read what one plane has accepted. Reply: cfg, accepted ballot, state, modified_ms, metadata;
    body: inline data unless ``head_only``."""

    TYPE = 16
    TYPES = (int, int, int, int, int, int, bytes, bool)
    iid: int
    kind: int
    bucket: int
    shards: int
    key: bytes
    head_only: bool

    def check(self) -> None:
        _check_place(self.bucket, self.shards, self.key)
        _require(self.kind in RECORD_KINDS, "no such kind of record")


@dataclass(slots=True)
class Put(Message):
    """Write a record: metadata here, inline data in the body. Reply: modified_ms, True."""

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
    age_ms: int
    metadata: bytes

    def check(self) -> None:
        _check_place(self.bucket, self.shards, self.key)
        _require(self.kind in RECORD_KINDS, "no such kind of record")
        _require(len(self.op_id) == OP_ID_BYTES, "operation id of the wrong length")
        _require(0 <= self.condition <= 3, "no such condition")
        _require(self.attempt >= 1 and self.age_ms >= 0, "attempt or age out of range")


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
    age_ms: int

    def check(self) -> None:
        _check_place(self.bucket, self.shards, self.key)
        _require(self.kind in RECORD_KINDS, "no such kind of record")
        _require(len(self.op_id) == OP_ID_BYTES, "operation id of the wrong length")
        _require(0 <= self.condition <= 3, "no such condition")
        _require(self.attempt >= 1 and self.age_ms >= 0, "attempt or age out of range")


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
        _check_place(self.bucket, self.shards, self.key)
        _require(self.kind in RECORD_KINDS, "no such kind of record")


@dataclass(slots=True)
class Prepare(Message):
    """Node to node: phase 1. Reply: cfg, accepted ballot, floor; body: the value accepted under it."""

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
        _check_place(self.bucket, self.shards, self.key)
        _require(self.kind in RECORD_KINDS, "no such kind of record")
        _require(len(self.ballot) == BALLOT_BYTES, "ballot of the wrong length")


@dataclass(slots=True)
class Accept(Message):
    """Node to node: phase 2; the body is the value. ``reserved`` is promised along, or all zero."""

    TYPE = 41
    TYPES = (int, int, int, int, int, int, bytes, int, bytes, bytes)
    iid: int
    kind: int
    bucket: int
    shards: int
    key: bytes
    cfg: int
    ballot: bytes
    reserved: bytes

    def check(self) -> None:
        _check_place(self.bucket, self.shards, self.key)
        _require(self.kind in RECORD_KINDS, "no such kind of record")
        _require(len(self.ballot) == len(self.reserved) == BALLOT_BYTES, "ballot of the wrong length")


@dataclass(slots=True)
class Scan(Message):
    """A page of one shard in key order (``core.listing``). Reply: truncated; body: the page.

    ``after`` is exclusive; keys start with ``prefix``; with a ``delimiter`` keys that hold it
    after the prefix are rolled up.  ``with_witness`` adds ballots and tombstones, so that the pages of
    several planes can be merged.  ``shards`` 0: the slice of a hashed bucket, only counted.
    """

    TYPE = 19
    TYPES = (int, int, int, int, int, int, int, bytes, bytes, bytes, int, bool)
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

    def check(self) -> None:
        _check_place(self.bucket, self.shards, b"-")
        _require(self.kind in RECORD_KINDS, "no such kind of record")
        _require(0 <= self.shard < max(self.shards, 1), "no such shard")
        _require(self.limit > 0, "limit must be positive")
        _require(
            max(len(self.prefix), len(self.after), len(self.delimiter)) <= STORED_KEY_BYTES_MAX,
            "key too long",
        )


@dataclass(slots=True)
class Shut(Message):
    """Refuse (or, with ``shut`` false, take again) writes for a bucket id in the locator of ``iid``.

    ``attempt`` numbers the deletions of a bucket: a deletion that was overtaken by a later one
    changes nothing any more (PRECONDITION_FAILED).
    """

    TYPE = 20
    TYPES = (int, int, int, int, int, int, int, bool)
    iid: int
    bucket: int
    shards: int
    shard: int
    attempt: int
    shut: bool

    def check(self) -> None:
        _check_place(self.bucket, self.shards, b"-")
        _require(0 <= self.shard < max(self.shards, 1), "no such shard")
        _require(0 < self.attempt < _U64_END, "attempt out of range")


@dataclass(slots=True)
class PutBlob(Message):
    """Store the body under its digest; ``reference`` names the record that will point to it."""

    TYPE = 24
    TYPES = (int, int, int, bytes, bytes)
    iid: int
    digest: bytes
    reference: bytes

    def check(self) -> None:
        _require(len(self.digest) == DIGEST_BYTES, "digest of the wrong length")
        _require(len(self.reference) <= STORED_KEY_BYTES_MAX, "reference too long")


@dataclass(slots=True)
class GetBlob(Message):
    """Read a blob. Reply body: all of it; the reader verifies the digest."""

    TYPE = 25
    TYPES = (int, int, int, bytes)
    iid: int
    digest: bytes

    def check(self) -> None:
        _require(len(self.digest) == DIGEST_BYTES, "digest of the wrong length")


@dataclass(slots=True)
class Report(Message):
    """Figures of the worker behind ``iid``. Reply body: a msgpack map (``core.acceptor``)."""

    TYPE = 32
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
    Report,
    Prepare,
    Accept,
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
