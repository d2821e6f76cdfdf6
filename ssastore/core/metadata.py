"""What a record says of its object: ETag, size, headers, and where the bytes are. Pure.

Encoded as one msgpack array, so that the node can read ETag and size without
knowing the rest:

    [etag, size, segments, headers, user, extra]
    [etag, size, segments, headers, user, extra, [name, amendments, heir]]    a version

``segments`` is empty when the data is inline; else a list of [kind, digest, bytes].  That there is
a seventh element shows in the first byte: a write looks at that before it replaces something.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgpack

from ssastore.errors import CorruptObject, ObjectTooLarge
from ssastore.limits import CHUNK_BYTES, METADATA_BYTES_MAX, SEGMENTS_MAX
from ssastore.messages import DIGEST_BYTES

_unpackb = msgpack.unpackb
_pack = msgpack.Packer().pack
"As in ``wire``: one packer for all of them."
ACL = "acl"
"In ``extra``, of an object that is not its bucket's owner's alone: its ``owner``, and ``grants``."
_VERSION_ARRAY = b"\x97"
"First byte of a msgpack array of seven."


class SegmentKind(IntEnum):
    """What the blob of a segment holds."""

    DATA = 0
    MANIFEST = 1
    "A msgpack list of segments, which may be manifests again."
    PARTS = 2
    "Which parts the object was made of (``core.parts``); no bytes of the object, so its size is 0."


_KINDS = frozenset(map(int, SegmentKind))


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of an object's bytes: the blob that holds it (or lists it), and how many bytes it is."""

    kind: int
    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Version:
    """What makes a record a version of its object (``core.versions``).

    ``name`` is all of its name, or what follows the time when that is the record's own.
    """

    name: str
    amendments: int = 0
    "How often what is said of it has changed."
    heir: str = ""
    "Stamp of the object's record that this version is to take the place of; empty: of none."


@dataclass(slots=True)
class Metadata:
    """A record's metadata.

    ``headers`` are HTTP entity headers in lower case (content-type, cache-control ...), ``user``
    the caller's own names, ``extra`` what a front end keeps for itself (checksums, part sizes).
    """

    etag: str
    size: int
    segments: list[Segment] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    user: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    version: Version | None = None

    def encode(self) -> bytes:
        """Raises ObjectTooLarge when headers and user metadata are above METADATA_BYTES_MAX."""
        if self.headers or self.user or self.extra:  # A small write mostly has none.
            described: bytes = msgpack.packb([self.headers, self.user, self.extra])
            if len(described) > METADATA_BYTES_MAX:
                raise ObjectTooLarge(f"metadata of {len(described)} bytes is above {METADATA_BYTES_MAX}")
        if len(self.segments) > SEGMENTS_MAX:
            raise ObjectTooLarge(f"{len(self.segments)} segments belong into a manifest")
        segments = [(s.kind, s.digest, s.size) for s in self.segments]
        fields: list[Any] = [self.etag, self.size, segments, self.headers, self.user, self.extra]
        if self.version is not None:
            fields.append([self.version.name, self.version.amendments, self.version.heir])
        packed: bytes = _pack(fields)
        return packed


def _unpack(packed: bytes | memoryview) -> Any:
    try:
        return _unpackb(packed, max_ext_len=0)
    except Exception as error:
        raise CorruptObject(f"stored metadata is not msgpack: {type(error).__name__}") from error


def _segments(rows: Any) -> list[Segment]:
    segments = [Segment(kind, digest, size) for kind, digest, size in rows]
    for segment in segments:
        if segment.kind not in _KINDS or len(segment.digest) != DIGEST_BYTES or segment.size < 0:
            raise CorruptObject("a stored segment is not one")
        if segment.kind == SegmentKind.PARTS and segment.size:
            raise CorruptObject("a stored list of parts has bytes of the object")
    return segments


def decode_metadata(packed: bytes | memoryview) -> Metadata:
    """Raises CorruptObject when the bytes are not metadata."""
    try:
        etag, size, rows, headers, user, extra, *more = _unpack(packed)
        version = Version(*more[0]) if more else None
        return Metadata(etag, size, _segments(rows), headers, user, extra, version)
    except (TypeError, ValueError) as error:
        raise CorruptObject("stored metadata has an unknown shape") from error


def summary(packed: bytes | memoryview) -> tuple[str, int]:
    """(ETag, size in bytes) of encoded metadata, for listings and preconditions. Raises CorruptObject."""
    fields = _unpack(packed)
    if type(fields) is list and len(fields) in (6, 7):
        etag, size = fields[0], fields[1]
        if type(etag) is str and type(size) is int:
            return etag, size
    raise CorruptObject("stored metadata has an unknown shape")


def is_version(packed: bytes | memoryview) -> bool:
    """Whether encoded metadata are a version's."""
    return packed[:1] == _VERSION_ARRAY


def listed_packed(packed: bytes | memoryview) -> list[Any]:
    """``listed`` for encoded metadata. Raises CorruptObject."""
    fields = _unpack(packed)
    try:
        if len(fields) in (6, 7):
            etag, size = fields[0], fields[1]
            if type(etag) is str and type(size) is int:
                return _listed(etag, size, fields[6][0] if len(fields) == 7 else None, fields[5])
    except (TypeError, LookupError) as error:
        raise CorruptObject("stored metadata has an unknown shape") from error
    raise CorruptObject("stored metadata has an unknown shape")


def listed(metadata: Metadata) -> list[Any]:
    """What a listing says of a record besides its key and time (``core.listing``)."""
    name = metadata.version.name if metadata.version else None
    return _listed(metadata.etag, metadata.size, name, metadata.extra)


def _listed(etag: str, size: int, name: str | None, extra: dict[str, Any]) -> list[Any]:
    if ACL in extra:
        return [etag, size, name, extra[ACL]["owner"]]
    return [etag, size] if name is None else [etag, size, name]


def encode_manifest(segments: list[Segment]) -> bytes:
    """A manifest blob. Raises ObjectTooLarge when it does not fit a blob."""
    packed: bytes = msgpack.packb([(s.kind, s.digest, s.size) for s in segments])
    if len(packed) > CHUNK_BYTES:
        raise ObjectTooLarge(f"a manifest of {len(segments)} segments does not fit a blob")
    return packed


def decode_manifest(packed: bytes | memoryview) -> list[Segment]:
    """Raises CorruptObject when the bytes are no manifest."""
    try:
        return _segments(_unpack(packed))
    except (TypeError, ValueError) as error:
        raise CorruptObject("a manifest has an unknown shape") from error
