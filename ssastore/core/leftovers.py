"""Parts whose upload is not open: what an upload has left, or what never was of any. Coroutines on Registers.

A completion drops its parts when the object is there; one that broke off then has left them, and a part that
was on its way comes after it.  They are of no use: nobody can read or complete them, and their blobs go, as
nothing refers to them that is there.  Who counts a shard of a bucket with a quota meets them, and drops
them, so that they are no place to keep bytes that do not count.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ssastore.core.place import Place
from ssastore.core.registers import Registers
from ssastore.errors import ObjectNotFound, SsaStoreError
from ssastore.messages import Kind

_AT_ONCE = 16
_PART_NUMBER_BYTES = 2


def upload_of(part: bytes) -> bytes:
    """Stored name of the upload that a part is of, by its own."""
    return part[:-_PART_NUMBER_BYTES]


async def drop_parts(registers: Registers, place: Place, parts: list[bytes]) -> None:
    """Delete those of some parts whose upload is not open, which is certain: an id is never used again.

    What cannot be deleted now is found by the next count.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def drop(part: bytes) -> None:
        async with gate:
            with suppress(SsaStoreError):
                try:
                    await registers.get(place, Kind.UPLOAD, upload_of(part), head_only=True)
                except ObjectNotFound:
                    await registers.delete(place, Kind.PART, part)

    await asyncio.gather(*[drop(part) for part in parts])
