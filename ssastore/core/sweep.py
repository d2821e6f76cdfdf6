"""Which blobs may go: references that stand no more, and blobs without any. Coroutines.

A reference is examined when it is older than the grace time.  It stands while its
record, an object's or that of a version which was kept, names the blob, itself or through its
manifests, or while the upload is open that the blob was stored for.  That it does not stand is
found out by a round that changes nothing but buries what a minority may have accepted; a reader's
"no" would not do, since a write that stopped half way can still come up.  No answer means that it stands.

It goes in a transaction that sees that nobody has stored the blob for it again; the
blob goes with its last reference, after the other planes were asked for references that
are not here.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import msgpack

from ssastore.core.blobstore import (
    UNKNOWN_REFERENCE,
    Reference,
    adopt,
    drop_reference,
    is_good_blob,
    mark_orphan,
    references_of,
)
from ssastore.core.content import Blobs
from ssastore.core.metadata import Metadata, SegmentKind, decode_manifest, decode_metadata
from ssastore.core.names import RecordName
from ssastore.core.place import Place, expected_position, place_key
from ssastore.core.records import blob_key, split_reference_name
from ssastore.core.tools import Tools
from ssastore.errors import BadFrame, ObjectNotFound, SsaStoreError, Unavailable
from ssastore.keyspace import iid_of, position_of_blob
from ssastore.messages import Kind, References

_MANIFEST_DIGESTS_MAX = 300_000
"Digests of manifests that are kept between two questions about one object."


class Manifests:
    """What manifest blobs name; they never change, so what was read is remembered."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._named: OrderedDict[bytes, frozenset[bytes]] = OrderedDict()
        self._size = 0

    async def names(self, metadata: Metadata, digest: bytes) -> bool:
        """Whether an object needs a blob. Raises SsaStoreError: it cannot be told."""
        if any(segment.digest == digest for segment in metadata.segments):
            return True
        for segment in metadata.segments:
            if segment.kind == SegmentKind.MANIFEST and digest in await self._all_of(segment.digest):
                return True
        return False

    async def _all_of(self, manifest: bytes) -> frozenset[bytes]:
        known = self._named.get(manifest)
        if known is not None:
            self._named.move_to_end(manifest)
            return known
        found: set[bytes] = set()
        for segment in decode_manifest(await self._blobs.get(manifest)):
            found.add(segment.digest)
            if segment.kind == SegmentKind.MANIFEST:
                found |= await self._all_of(segment.digest)
        self._named[manifest] = frozenset(found)
        self._size += len(found)
        while self._size > _MANIFEST_DIGESTS_MAX and len(self._named) > 1:
            self._size -= len(self._named.popitem(last=False)[1])
        return frozenset(found)


class Sweeper:
    """Examines references of one environment."""

    def __init__(self, tools: Tools, blobs: Blobs) -> None:
        self._tools = tools
        self._manifests = Manifests(blobs)

    async def examine(self, stored_key: bytes, reference: Reference) -> bool:
        """Drop a reference if it is old and does not stand; whether it went."""
        tools = self._tools
        if tools.clock.now_ms() - reference.at_ms <= tools.rules.blob_grace_ms:
            return False
        digest = stored_key[5:37]
        try:
            if await self.stands(digest, reference.name):
                return False
            if await self._is_last(stored_key) and not await self._ask_others(stored_key, digest):
                return False
        except SsaStoreError:
            return False  # Not to know is no reason to collect.
        return await tools.store.submit(lambda txn: drop_reference(txn, stored_key, reference.at_ms))

    async def mark_orphan(self, stored_key: bytes) -> None:
        """A blob without any reference: its grace time starts now."""
        now_ms = self._tools.clock.now_ms()
        await self._tools.store.submit(lambda txn: mark_orphan(txn, stored_key, now_ms))

    async def is_wanted(self, digest: bytes, references: list[Reference]) -> bool:
        """Whether a blob is kept for any of these references. Raises SsaStoreError: it cannot be told."""
        now_ms, grace_ms = self._tools.clock.now_ms(), self._tools.rules.blob_grace_ms
        for ref in references:
            if now_ms - ref.at_ms <= grace_ms or await self.stands(digest, ref.name):
                return True
        return False

    async def stands(self, digest: bytes, name: bytes) -> bool:
        """Whether the record of a reference needs the blob. Raises SsaStoreError: it cannot be told."""
        if name == UNKNOWN_REFERENCE:
            return False
        try:
            bucket, shards, key = split_reference_name(name)
        except ValueError:
            return True  # Stored for its own sake, or by a program that knows more.
        place = Place(bucket, shards)
        base = place_key(key)
        # In this order: an upload ends only after its object is written, and what is current is kept as a
        # version before it is replaced. When a version becomes current again it stays among those kept.
        if base != key and await self._holds(place, Kind.UPLOAD, key, None):
            return True
        if base != key and await self._holds(place, Kind.VERSION, key, digest):
            return True
        return await self._holds(place, Kind.OBJECT, base, digest)

    async def _holds(self, place: Place, kind: Kind, key: bytes, digest: bytes | None) -> bool:
        """Whether a record is live and, with ``digest``, needs that blob."""
        if await self._read(place, kind, key, digest):
            return True
        settler, coordinator = self._tools.settler, self._tools.coordinator
        position = expected_position(place.bucket, place.shards, key)
        name = RecordName(position, int(kind), place.bucket, place.shards, key)
        planes = await coordinator.planes_anywhere(name)
        if planes.count == 1:
            return False  # With one replica what was read is all that there is.
        settled = await settler.settle(name.label, planes)
        if not settled.value.is_live:
            return False
        return digest is None or await self._manifests.names(decode_metadata(settled.value.metadata), digest)

    async def _read(self, place: Place, kind: Kind, key: bytes, digest: bytes | None) -> bool:
        """The cheap way to a yes: most references stand."""
        try:
            found = await self._tools.registers.get(place, kind, key, head_only=True)
        except ObjectNotFound:
            return False
        return digest is None or await self._manifests.names(found.metadata, digest)

    # -- the other planes ---------------------------------------------------------------------------

    async def _is_last(self, stored_key: bytes) -> bool:
        with self._tools.store.read() as txn:
            found = references_of(txn, int.from_bytes(stored_key[:4], "big"), stored_key[5:37])
        return all(key == stored_key for key, _ in found)

    async def _ask_others(self, stored_key: bytes, digest: bytes) -> bool:
        """Take references that stand from planes that have them; whether enough planes were asked.

        A blob that is stored again is known to a majority of planes, of which this one may not be.
        """
        tools = self._tools
        locator, answered = int.from_bytes(stored_key[:4], "big"), 0
        for plane in range(tools.replicas_of(stored_key)):
            if plane == locator >> 28:
                continue
            try:
                _, references = await self.references_at(digest, plane)
            except Unavailable:
                continue
            answered += 1
            standing = [ref for ref in references if await self.is_wanted(digest, [ref])]
            if standing:
                await tools.store.submit(
                    partial(adopt, locator=locator, digest=digest, body=None, references=standing)
                )
        return answered >= tools.replicas_of(stored_key) // 2

    def references_here(self, locator: int, digest: bytes) -> tuple[bool, list[Reference]]:
        """Whether the blob is here and good, and its references."""
        with self._tools.store.read() as txn:
            found = references_of(txn, locator, digest)
            is_there = is_good_blob(txn, blob_key(locator, digest))
        return is_there, [ref for _, ref in found if ref is not None]

    async def references_at(self, digest: bytes, plane: int) -> tuple[bool, list[Reference]]:
        """Whether another plane has a blob, and its references. Raises SsaStoreError."""
        message = References(iid_of(position_of_blob(digest), plane), digest)
        header, body = await self._tools.ask_mate(message)
        try:
            rows = msgpack.unpackb(body, max_ext_len=0, max_map_len=0)
            references = [Reference(at_ms, name) for at_ms, name in rows]
        except (ValueError, TypeError) as error:
            raise BadFrame("a reply to References has another body") from error
        if any(type(ref.at_ms) is not int or type(ref.name) is not bytes for ref in references):
            raise BadFrame("a reply to References has other fields")
        return bool(header[2]), references
