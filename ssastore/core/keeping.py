"""Steps of changing an object that has versions (``core.versions``). Coroutines.

Each step that meets somebody who was faster raises one of ``RACED``: then the caller reads again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from blake3 import blake3

from ssastore.core.content import Blobs, named_blobs
from ssastore.core.found import Found
from ssastore.core.metadata import Metadata, Version
from ssastore.core.place import Place
from ssastore.core.records import reference_name
from ssastore.core.registers import Once, Registers, When
from ssastore.core.versionnames import (
    NAME_LENGTH,
    ending_of,
    is_null,
    name_in,
    split_version_key,
    version_key,
)
from ssastore.env import Clock, Randomness
from ssastore.errors import CorruptObject, ObjectNotFound, PreconditionFailed, VersionKept
from ssastore.keyspace import shard_of_key
from ssastore.limits import LIST_KEYS_MAX
from ssastore.messages import OP_ID_BYTES, Condition, Kind
from ssastore.wire import Body

ENABLED = "Enabled"
SUSPENDED = "Suspended"

RACED = (PreconditionFailed, ObjectNotFound)

_REFERENCES_AT_ONCE = 64


def is_marker(metadata: Metadata) -> bool:
    """Whether a VERSION says that the object was deleted; every object has an ETag."""
    return metadata.version is not None and not metadata.etag


def digest_of(*parts: bytes) -> bytes:
    """An operation id made from what the operation is."""
    return blake3(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest(length=OP_ID_BYTES)


def same(found: Found) -> When:
    """The condition that nothing has changed."""
    return When(Condition.IF_SAME, found.stamp)


class Keeping:
    """Records of versions that were kept, and what happens between them and the object's own record."""

    def __init__(self, registers: Registers, blobs: Blobs, clock: Clock, randomness: Randomness) -> None:
        self._registers = registers
        self._blobs = blobs
        self._clock = clock
        self._randomness = randomness

    async def names(self, place: Place, key: bytes) -> AsyncIterator[str]:
        """Names of the versions that are kept, markers among them, from the newest to the oldest."""
        prefix = after = key + b"\0"
        shard = shard_of_key(key, place.shards)
        while True:
            page = await self._registers.shards.page(
                place, Kind.VERSION, shard, prefix=prefix, after=after, limit=LIST_KEYS_MAX
            )
            for stored, *_ in page.rows:
                yield split_version_key(stored)[1]
            if not page.truncated:
                return
            after = page.last

    async def newest(self, place: Place, key: bytes, *, but: str = "", has_null: bool = True) -> str | None:
        """Name of the newest version that was kept, but for one, or for those that are "null"."""
        async for name in self.names(place, key):
            if name != but and (has_null or not is_null(name)):
                return name
        return None

    async def leave(self, place: Place, key: bytes, found: Found, status: str, born_ms: int) -> Found:
        """Keep what is about to be replaced or deleted; the state that this is conditional on."""
        if not found.is_live:
            return found
        version = found.metadata.version
        if not status and version:
            raise VersionKept("the bucket makes versions by now")
        if status != ENABLED and not version:
            return found
        if not version:
            version = Version(ending_of(self._randomness.bytes(OP_ID_BYTES), is_null=True))
            found = await self._change(place, key, found, version)
        # Where one "null" version replaces another it is dropped afterwards: it must have been kept, so that
        # somebody slower does not do that then.
        await self._keep(place, key, found, born_ms)
        return found

    async def _change(self, place: Place, key: bytes, found: Found, version: Version) -> Found:
        """Another state of the object's record, with the same object."""
        metadata = replace(found.metadata, version=version)
        condition = When(Condition.AMEND, found.stamp)
        await self._registers.put(place, Kind.OBJECT, key, metadata, found.data, condition=condition)
        return Found(found.modified_ms, metadata.encode(), found.data)

    async def _keep(self, place: Place, key: bytes, found: Found, born_ms: int) -> None:
        """Let the current version, which has a name, be a VERSION as well."""
        name, metadata = name_in(found), found.metadata
        assert metadata.version is not None
        if len(metadata.version.name) < NAME_LENGTH:  # Else it was one before it became current again.
            await self._refer(place, key, name, metadata)
            await self.write_once(place, key, name, metadata, found.data, born_ms)
        if not metadata.version.amendments:
            return
        while True:  # It may have been kept before it was amended.
            kept = await self._registers.get(place, Kind.VERSION, version_key(key, name))
            version = kept.metadata.version
            if version is None or version.amendments >= metadata.version.amendments:
                return
            with suppress(PreconditionFailed):
                condition = When(Condition.AMEND, kept.stamp)
                amended = replace(metadata, version=replace(metadata.version, name=name))
                await self._registers.put(
                    place, Kind.VERSION, version_key(key, name), amended, found.data, condition=condition
                )

    async def write_once(
        self, place: Place, key: bytes, name: str, metadata: Metadata, data: Body, born_ms: int
    ) -> None:
        """Write a VERSION, unless anybody has done that since ``born_ms``."""
        stored = version_key(key, name)
        once = Once(digest_of(b"keep", stored), 2, born_ms)
        amendments = metadata.version.amendments if metadata.version else 0
        kept = replace(metadata, version=Version(name, amendments))
        await self._registers.put(place, Kind.VERSION, stored, kept, data, once=once)

    async def _refer(self, place: Place, key: bytes, name: str, metadata: Metadata) -> None:
        """Let a VERSION refer to the blobs of the object."""
        reference = reference_name(place.bucket, place.shards, version_key(key, name))

        async def refer(digest: bytes) -> None:
            # What is lost is lost for this version; it must not be what keeps others from replacing it.
            with suppress(ObjectNotFound, CorruptObject):
                await self._blobs.keep(digest, reference)

        batch: list[bytes] = []
        async for digest in named_blobs(self._blobs, metadata.segments):
            batch.append(digest)
            if len(batch) == _REFERENCES_AT_ONCE:
                await asyncio.gather(*map(refer, batch))
                batch.clear()
        await asyncio.gather(*map(refer, batch))

    async def leave_to_heir(self, place: Place, key: bytes, found: Found, born_ms: int) -> None:
        """Put the newest version that was kept in the place of the current one; a marker leaves it empty."""
        name = name_in(found)
        if name:
            await self._keep(place, key, found, born_ms)
        heir = await self.newest(place, key, but=name, has_null=not is_null(name))
        if heir is None or not await self._inherit(place, key, found, heir):
            await self._registers.delete(place, Kind.OBJECT, key, condition=same(found))

    async def _inherit(self, place: Place, key: bytes, found: Found, heir: str) -> bool:
        """Make a version that was kept the current one, instead of ``found``; False when it is a marker."""
        stored = version_key(key, heir)
        kept = await self._registers.get(place, Kind.VERSION, stored)
        metadata = kept.metadata
        if is_marker(metadata):
            return False
        assert metadata.version is not None
        marked = replace(metadata, version=replace(metadata.version, heir=found.stamp))
        condition = When(Condition.AMEND, kept.stamp)
        await self._registers.put(place, Kind.VERSION, stored, marked, kept.data, condition=condition)
        current = replace(metadata, version=replace(metadata.version, heir=""))
        await self._registers.put(place, Kind.OBJECT, key, current, kept.data, condition=same(found))
        return True

    async def promote(self, place: Place, key: bytes, behind: str) -> None:
        """Make the newest version current if there is no object, and no marker that says so.

        What was over it was deleted by several at once, of whom each has seen what the other took away.
        ``behind`` is the name of one of these: what is newer is being deleted by somebody who has not written
        his marker yet.
        """
        while True:
            found = await self._registers.state(place, Kind.OBJECT, key, head_only=True)
            heir = None if found.is_live else await self.newest(place, key)
            if heir is None or heir < behind:
                return
            with suppress(*RACED):
                await self._inherit(place, key, found, heir)
                return

    async def disinherit(self, place: Place, key: bytes, record: Found, found: Found) -> None:
        """Raise when a version may become current in the place of ``found``, which it cannot from then on."""
        version = record.metadata.version
        if version is None or version.heir != found.stamp:
            return
        if not found.is_live:
            await self._registers.delete(place, Kind.OBJECT, key, condition=same(found))
        elif found.metadata.version is None:
            await self.leave(place, key, found, ENABLED, self._clock.now_ms())
        else:
            amendments = found.metadata.version.amendments + 1
            await self._change(place, key, found, replace(found.metadata.version, amendments=amendments))
        raise PreconditionFailed("the object's record is in another state now")

    async def drop(self, place: Place, key: bytes, record: Found, found: Found) -> None:
        """Delete a VERSION. Behind a marker that goes the next version is the current one."""
        name = name_in(record)
        await self.disinherit(place, key, record, found)
        if is_null(name):
            await self.drop_nulls(place, key, after=name)
        if is_marker(record.metadata) and not found.is_live and await self.newest(place, key) == name:
            heir = await self.newest(place, key, but=name)
            if heir is not None:
                await self._inherit(place, key, found, heir)
        await self._registers.delete(place, Kind.VERSION, version_key(key, name), condition=same(record))

    async def drop_nulls(self, place: Place, key: bytes, *, after: str) -> None:
        """Delete "null" versions that are older than one which has replaced them."""
        names = [name async for name in self.names(place, key) if name > after and is_null(name)]
        for name in reversed(names):
            await self._registers.delete(place, Kind.VERSION, version_key(key, name))
