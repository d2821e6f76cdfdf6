"""Which parts an object was made of: numbers, sizes and checksums, so that one can be read by its number.

Encoded as one msgpack array

    [[[first number, count, bytes], ...], checksums]

with one row for a run of parts that follow one another and are of one size, and the
checksums of all parts joined, or nothing.  It lies with the object's metadata (``extra["layout"]``)
while it is small, else in a blob that the object's segments name (``SegmentKind.PARTS``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from ssastore.core.content import Blobs
from ssastore.core.metadata import Metadata, Segment, SegmentKind
from ssastore.errors import CorruptObject, ObjectNotFound
from ssastore.limits import PARTS_MAX

IN_METADATA_BYTES_MAX = 512
"What of it lies with the metadata, which is read by many who ask for no part."


@dataclass(frozen=True, slots=True)
class PartOf:
    """One part of an object."""

    number: int
    size: int
    checksum: bytes = b""
    "Of the object's algorithm; of the same length in all parts, or empty in all."


async def keep_parts(
    blobs: Blobs, parts: Sequence[PartOf], reference: bytes
) -> tuple[dict[str, Any], list[Segment]]:
    """What an object's ``extra`` and its segments get, so that ``parts_of`` finds the parts again."""
    packed = encode_parts(parts)
    extra: dict[str, Any] = {"parts": len(parts)}
    if len(packed) <= IN_METADATA_BYTES_MAX:
        return extra | {"layout": packed}, []
    return extra, [Segment(SegmentKind.PARTS, await blobs.put(packed, reference), 0)]


async def parts_of(blobs: Blobs, metadata: Metadata) -> list[PartOf]:
    """The parts of an object, in order; none for one that was not made of parts. Raises CorruptObject."""
    if "parts" not in metadata.extra:
        return []
    packed = metadata.extra.get("layout")
    for segment in metadata.segments:
        if segment.kind == SegmentKind.PARTS:
            try:
                packed = await blobs.get(segment.digest)
            except ObjectNotFound:
                raise CorruptObject("the list of an object's parts is missing") from None
    if packed is None:
        raise CorruptObject("an object does not say which parts it has")
    return decode_parts(packed)


def encode_parts(parts: Sequence[PartOf]) -> bytes:
    """Numbers must ascend."""
    runs: list[list[int]] = []
    for part in parts:
        if runs and part.size == runs[-1][2] and part.number == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([part.number, 1, part.size])
    packed: bytes = msgpack.packb([runs, b"".join(part.checksum for part in parts)])
    return packed


def decode_parts(packed: bytes | memoryview) -> list[PartOf]:
    """Raises CorruptObject."""
    try:
        runs, checksums = msgpack.unpackb(packed, max_ext_len=0, max_map_len=0)
        count = sum(times for _, times, _ in runs)
        if not 0 < count <= PARTS_MAX or len(checksums) % count:
            raise CorruptObject("a list of parts is not one")
        width = len(checksums) // count
        spread = [(first + at, size) for first, times, size in runs for at in range(times)]
        return [
            PartOf(number, size, bytes(checksums[at * width : (at + 1) * width]))
            for at, (number, size) in enumerate(spread)
        ]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptObject("a list of parts has an unknown shape") from error
