"""What all messages of the native protocol share: their form, their numbers, their bounds. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, TypeVar

from ssastore.errors import BadFrame
from ssastore.keyspace import PLANES_MAX
from ssastore.limits import SHARDS_MAX, STORED_KEY_BYTES_MAX
from ssastore.wire import Header

PROTOCOL_VERSION = 4
NONCE_BYTES = 16
OP_ID_BYTES = 16
DIGEST_BYTES = 32
BALLOT_BYTES = 16
HOLD_BYTES = 24
"Serial of a quota, then a ballot: in this order the later one is higher."
MAC_BYTES = 32
STAND_BYTES = 12
"A group and the cfg that is meant for it."
STANDS_MAX = 128
"Groups of one Fence or Pull: as many as one transaction of the control store changes."

U64_END = 1 << 64
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
    SILENT = 15
    "The slice is this node's, and it does not vote for it: its state was lost, or is not checked yet."
    STALE = 16
    "The group has a later configuration than the request; the text is its cfg."
    BEHIND = 17
    "The request has a later cfg than this acceptor knows; the text is the acceptor's."
    RECOUNT = 18
    "The group has another number of planes than the request was made for; the text is how many."
    VERSIONED = 19
    "The object is a version that must be kept: a write has to say which state of the record it replaces."
    HELD = 20
    "The shard's bucket has a quota, and the value was not counted as it must be; the text is the hold."
    QUOTA = 21
    "The bucket's quota does not allow the write; nothing was written."
    COVERAGE = 100
    "Not a reply: the node says which slices this connection's worker serves now (body: Coverage)."


class Kind(IntEnum):
    """What a record is; the byte after the locator in its stored key."""

    SHUT = 0x08
    OBJECT = 0x10
    VERSION = 0x11
    "An earlier version of an object, or a mark that it was deleted (``core.versions``)."
    UPLOAD = 0x20
    PART = 0x21
    BLOB = 0x40
    REF = 0x41


RECORD_KINDS = frozenset(map(int, (Kind.OBJECT, Kind.VERSION, Kind.UPLOAD, Kind.PART)))
"Kinds that clients read and write as registers."


class Condition(IntEnum):
    """Precondition of a write; evaluated in the transaction that decides it."""

    NONE = 0
    IF_ABSENT = 1
    IF_PRESENT = 2
    IF_ETAG = 3
    IF_SAME = 4
    """The record is in the very state that was read, be it that there is none: the text is its stamp
    (``core.register.stamp_of``).  The record's time then grows, and a delete of nothing renews that."""
    AMEND = 5
    "As IF_SAME, and the record keeps its time: the object stays, what is said of it changes."


_CONDITION_MAX = max(map(int, Condition))

BIRTH_END = 1 << 63
"Births lie between this and its negative, in ms."


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


def check_replicas(replicas: int) -> None:
    """A number of planes that a request was made for; 0: its answer is of this plane and counts alone."""
    if not 0 <= replicas <= PLANES_MAX:
        raise BadFrame("no such number of planes")


def require(claim: bool, what: str) -> None:
    """Raise BadFrame unless ``claim``."""
    if not claim:
        raise BadFrame(what)


def check_place(bucket: int, shards: int, key: bytes) -> None:
    """The fields that say where a record is."""
    if not (0 <= bucket < U64_END and 0 <= shards <= SHARDS_MAX):
        raise BadFrame("bucket or shard count out of range")
    if not 0 < len(key) <= _RECORD_KEY_BYTES_MAX:
        raise BadFrame("key is empty or too long")


def check_operation(kind: int, op_id: bytes, condition: int, attempt: int, born_ms: int) -> None:
    """The fields that a write of a record has besides."""
    if kind not in RECORD_KINDS:
        raise BadFrame("no such kind of record")
    if len(op_id) != OP_ID_BYTES:
        raise BadFrame("operation id of the wrong length")
    if not 0 <= condition <= _CONDITION_MAX:
        raise BadFrame("no such condition")
    if attempt < 1 or abs(born_ms) >= BIRTH_END:
        raise BadFrame("attempt or birth out of range")
