"""Content for one more record, without moving its bytes. Coroutines on a Caller.

The blobs of a source get a reference in the target's name before the target's record is
written; then the source may go at any time.  What goes between the reading of
the source's record and the reference is missed here, and the copy begins again from a record
that is read anew: once, since a blob that is missing then is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from blake3 import blake3

from ssastore.core.content import Blobs, Content, fold_segments, named_blobs
from ssastore.core.found import Found
from ssastore.core.metadata import Segment, SegmentKind, decode_manifest
from ssastore.errors import CorruptObject, ObjectNotFound

_KEEPS_AT_ONCE = 16
"""A reference is a small request, but a plane that lacks the blob gets its bytes: 64 MiB when one plane
lacks all of them."""

T = TypeVar("T")


async def from_fresh_read(read: Callable[[], Awaitable[Found]], work: Callable[[Found], Awaitable[T]]) -> T:
    """Do ``work`` with a source; once more with what is read then if a blob of it was missing.

    Raises:
        CorruptObject: a blob is missing, and is not only gone with a source that was overwritten.
    """
    try:
        return await work(await read())
    except CorruptObject:
        return await work(await read())


async def copy_content(blobs: Blobs, source: Found, reference: bytes) -> Content:
    """The content of a record, kept for another one as well; small data is there again.

    Raises:
        CorruptObject: a blob of the source is missing.
    """
    segments = source.metadata.segments
    await keep_segments(blobs, segments, reference)
    data = b"" if segments else bytes(source.data)
    return Content(source.metadata.size, data, segments, reference)


async def copy_range(blobs: Blobs, source: Found, start: int, end: int, reference: bytes) -> Content | None:
    """Bytes ``start`` to ``end - 1`` of a source; None where they are not whole blobs, so must be moved.

    Raises:
        CorruptObject: a blob of the source is missing.
    """
    known = source.metadata
    if not known.segments or start == end:
        return None
    segments: list[Segment] | None = [one for one in known.segments if one.kind != SegmentKind.PARTS]
    if (start, end) != (0, known.size):
        segments = await _whole_segments(blobs, known.segments, start, end)
    if segments is None:
        return None
    await keep_segments(blobs, segments, reference)
    return Content(end - start, b"", await fold_segments(blobs, segments, reference), reference)


def content_tag(content: Content) -> str:
    """An ETag for bytes that nobody has read: 32 hexadecimal digits that follow from the blobs."""
    named = b"".join(segment.digest + segment.size.to_bytes(8, "big") for segment in content.segments)
    return blake3(named).hexdigest(length=16)


async def keep_segments(blobs: Blobs, segments: list[Segment], reference: bytes) -> None:
    """Let a record refer to all blobs that segments name, in manifests too. Raises CorruptObject."""
    several: dict[bytes, None] = {}  # A blob that comes again and again is kept once.
    async for digest in named_blobs(blobs, segments):
        several[digest] = None
        if len(several) == _KEEPS_AT_ONCE:
            await asyncio.gather(*[_keep(blobs, one, reference) for one in several])
            several.clear()
    await asyncio.gather(*[_keep(blobs, one, reference) for one in several])


async def _keep(blobs: Blobs, digest: bytes, reference: bytes) -> None:
    try:
        await blobs.keep(digest, reference)
    except ObjectNotFound:
        raise CorruptObject("a blob of the source is missing") from None


async def _listed(blobs: Blobs, manifest: Segment) -> list[Segment]:
    try:
        return decode_manifest(await blobs.get(manifest.digest))
    except ObjectNotFound:
        raise CorruptObject("a manifest of the source is missing") from None


async def _whole_segments(
    blobs: Blobs, segments: list[Segment], start: int, end: int
) -> list[Segment] | None:
    """The DATA segments that are exactly the bytes ``start`` to ``end - 1``; None when a blob is cut."""
    found: list[Segment] = []
    at = 0
    for segment in segments:
        low, high = max(start - at, 0), min(end - at, segment.size)
        at += segment.size
        if low >= high:
            continue
        if segment.kind == SegmentKind.MANIFEST:
            inner = await _whole_segments(blobs, await _listed(blobs, segment), low, high)
            if inner is None:
                return None
            found += inner
        elif (low, high) == (0, segment.size):
            found.append(segment)
        else:
            return None
    return found
