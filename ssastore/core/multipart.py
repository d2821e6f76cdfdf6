"""Multipart uploads: parts beside their object's key, one register change at the end.

    UPLOAD  key NUL upload-id            open -> completing -> gone
    PART    key NUL upload-id number     ETag, size, segments of one part

Completion is safe to repeat: the object is written under an operation id made from
the upload id, and names the upload, so a repeated call finds its own result; a version's
name is made from the upload id, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from blake3 import blake3

from ssastore.core.buckets import Bucket
from ssastore.core.content import Blobs, Content, fold_segments
from ssastore.core.demand import NOTHING, Demand
from ssastore.core.found import Found
from ssastore.core.listing import Page, merge_shards
from ssastore.core.metadata import Metadata, Segment
from ssastore.core.parts import PartOf, keep_parts
from ssastore.core.records import reference_name
from ssastore.core.registers import IF_ABSENT, Once, Registers, When
from ssastore.core.versionnames import id_of, name_in, shown_ms, version_key
from ssastore.core.versions import Versions
from ssastore.env import Clock, Randomness
from ssastore.errors import (
    InvalidPart,
    InvalidPartOrder,
    ObjectNotFound,
    ObjectTooLarge,
    PartTooSmall,
    PreconditionFailed,
    QuotaExceeded,
    SsaStoreError,
    StoreFull,
    UploadNotFound,
    VersionKept,
)
from ssastore.keyspace import shard_of_key
from ssastore.limits import OBJECT_BYTES_MAX, PART_BYTES_MIN, PARTS_MAX
from ssastore.messages import OP_ID_BYTES, Condition, Kind

log = logging.getLogger(__name__)

_READS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One uploaded part."""

    number: int
    etag: str
    size: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class Upload:
    """An open upload."""

    key: bytes
    upload_id: str
    started_ms: int


@dataclass(frozen=True, slots=True)
class Completed:
    """What a completion made."""

    etag: str
    size: int
    modified_ms: int
    version: str = ""
    "Its id; empty when the bucket makes no versions."
    extra: dict[str, Any] = field(default_factory=dict)
    "What is kept with the object."


Judge = Callable[[dict[str, Any], Sequence[PartOf]], dict[str, Any]]
"""What a front end makes of an upload's ``extra`` and the parts that it is completed of: what is kept with
the object besides. It raises what it likes when they are not as they should be; then nothing has happened."""


def _judge_nothing(extra: dict[str, Any], parts: Sequence[PartOf]) -> dict[str, Any]:
    return {}


def _origin(upload_id: str) -> bytes:
    """What a version that an upload makes is made from."""
    return b"complete" + upload_id.encode()


def _upload_key(key: bytes, upload_id: str) -> bytes:
    # A forged id cannot reach another record: after the NUL only hexadecimal digits are accepted.
    if len(upload_id) != 32 or not set(upload_id) <= set("0123456789abcdef"):
        raise UploadNotFound("no such upload")
    return key + b"\0" + upload_id.encode()


def _part_key(key: bytes, upload_id: str, number: int) -> bytes:
    return _upload_key(key, upload_id) + number.to_bytes(2, "big")


class Multipart:
    """Uploads of one bucket."""

    def __init__(
        self,
        registers: Registers,
        blobs: Blobs,
        versions: Versions,
        bucket: Bucket,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._clock = clock
        self._registers = registers
        self._blobs = blobs
        self._versions = versions
        self._bucket = bucket
        self._place = bucket.place
        self._randomness = randomness

    async def create(
        self,
        key: bytes,
        headers: dict[str, str],
        user: dict[str, str],
        extra: dict[str, Any] | None = None,
    ) -> str:
        """Open an upload of an object that will have these headers and metadata; its id."""
        upload_id = self._randomness.bytes(16).hex()
        metadata = Metadata(
            self._randomness.bytes(8).hex(), 0, [], headers, user, {"state": "open", "object": extra or {}}
        )
        stored_key = _upload_key(key, upload_id)
        await self._registers.put(self._place, Kind.UPLOAD, stored_key, metadata, condition=IF_ABSENT)
        return upload_id

    async def read(self, key: bytes, upload_id: str) -> Found:
        """The upload's record. Raises UploadNotFound."""
        try:
            return await self._registers.get(self._place, Kind.UPLOAD, _upload_key(key, upload_id))
        except ObjectNotFound:
            raise UploadNotFound("no such upload: completed, aborted, or never opened") from None

    async def put_part(
        self, key: bytes, upload_id: str, number: int, etag: str, content: Content, checksum: bytes = b""
    ) -> int:
        """Record a part whose content is stored; replaces an earlier one of that number.

        ``checksum`` is by the upload's algorithm, if it has one.
        """
        assert not content.data, "the object lists blobs: a part is written with inline_bytes_max=0"
        extra = {"checksum": checksum} if checksum else {}
        metadata = Metadata(etag, content.size, content.segments, extra=extra)
        return await self._registers.put(
            self._place, Kind.PART, _part_key(key, upload_id, number), metadata, content.data
        )

    async def parts(self, key: bytes, upload_id: str, after: int = 0) -> AsyncIterator[Part]:
        """Uploaded parts with numbers above ``after``, in order."""
        prefix = _upload_key(key, upload_id)
        shard = shard_of_key(key, self._place.shards)
        start = prefix + after.to_bytes(2, "big")
        while True:
            page = await self._registers.shards.page(
                self._place, Kind.PART, shard, prefix=prefix, after=start, limit=1000
            )
            for stored_key, modified_ms, etag, size in page.rows:
                yield Part(int.from_bytes(stored_key[len(prefix) :], "big"), etag, size, modified_ms)
            if not page.truncated:
                return
            start = page.last

    async def checksums(self, key: bytes, upload_id: str, numbers: Sequence[int]) -> dict[int, bytes]:
        """The checksums that parts were recorded with; parts that have none, or are gone, are left out."""

        async def read(number: int) -> bytes:
            with suppress(ObjectNotFound):
                part = _part_key(key, upload_id, number)
                found = await self._registers.get(self._place, Kind.PART, part, head_only=True)
                return bytes(found.metadata.extra.get("checksum", b""))
            return b""

        found: list[bytes] = []
        for at in range(0, len(numbers), _READS_AT_ONCE):
            found += await asyncio.gather(*[read(number) for number in numbers[at : at + _READS_AT_ONCE]])
        return {number: checksum for number, checksum in zip(numbers, found, strict=True) if checksum}

    async def uploads(self, prefix: bytes, after: bytes) -> AsyncIterator[Upload]:
        """Open uploads in order of key, then id. ``after`` is key NUL id, or empty."""

        async def fetch(shard: int, start: bytes, limit: int) -> Page:
            return await self._registers.shards.page(
                self._place, Kind.UPLOAD, shard, prefix=prefix, after=start, limit=limit
            )

        rows = merge_shards(fetch, self._place.shards, after, limit=1000, gather=asyncio.gather)
        async for stored_key, modified_ms, *_ in rows:
            key, _, upload_id = stored_key.partition(b"\0")
            yield Upload(key, upload_id.decode(), modified_ms)

    async def abort(self, key: bytes, upload_id: str) -> None:
        """Drop an open upload and its parts. Raises UploadNotFound, also while it is completing."""
        found = await self.read(key, upload_id)
        if found.metadata.extra.get("state") != "open":
            raise UploadNotFound("the upload is being completed")
        condition = When(Condition.IF_ETAG, found.metadata.etag)
        try:
            await self._registers.delete(
                self._place, Kind.UPLOAD, _upload_key(key, upload_id), condition=condition
            )
        except (PreconditionFailed, ObjectNotFound):
            raise UploadNotFound("the upload was completed or aborted meanwhile") from None
        await self._drop_parts(key, upload_id)

    async def complete(
        self,
        key: bytes,
        upload_id: str,
        parts: Sequence[tuple[int, str]],
        etag: str,
        *,
        judge: Judge = _judge_nothing,
        demand: Demand = NOTHING,
    ) -> Completed:
        """Make the object of the named parts, in one register change.

        Args:
            key: the object's.
            upload_id: from ``create``.
            parts: (number, ETag) in ascending order.
            etag: of the object to be.
            judge: see ``Judge``.
            demand: of the object that is replaced.

        Raises:
            UploadNotFound, InvalidPart, InvalidPartOrder, PartTooSmall, PreconditionFailed, QuotaExceeded.
            VersionKept: the bucket's record is older than its versions.
        """
        numbers = [number for number, _ in parts]
        if numbers != sorted(set(numbers)):
            raise InvalidPartOrder("parts must be in ascending order, each once")
        if not 0 < len(parts) <= PARTS_MAX:
            raise InvalidPart(f"a completion names 1 to {PARTS_MAX} parts")
        try:
            return await self._complete(key, upload_id, parts, etag, judge, demand)
        except (UploadNotFound, InvalidPart) as error:
            # A call that is repeated, or that another one overtook, finds what the other has made.
            try:
                return await self._completed_before(key, upload_id)
            except UploadNotFound:
                raise error from None

    # -- steps --------------------------------------------------------------------------------------

    async def _complete(
        self,
        key: bytes,
        upload_id: str,
        parts: Sequence[tuple[int, str]],
        etag: str,
        judge: Judge,
        demand: Demand,
    ) -> Completed:
        upload = await self.read(key, upload_id)
        records = await self._read_parts(key, upload_id, parts)
        made_of = [
            PartOf(number, record.size, record.extra.get("checksum", b""))
            for (number, _), record in zip(parts, records, strict=True)
        ]
        extra = upload.metadata.extra["object"] | judge(upload.metadata.extra, made_of)
        metadata = await self._assemble(key, upload_id, upload, records, made_of)
        metadata = replace(metadata, etag=etag, extra=extra | metadata.extra)
        metadata.encode()  # What is too large for an object is refused while the upload is open.
        tag, born_ms, attempt = await self._set_completing(key, upload_id, upload, etag)
        op_id = blake3(b"complete" + upload_id.encode() + tag.encode()).digest(length=OP_ID_BYTES)
        once = Once(op_id, attempt, born_ms)
        try:
            written = await self._versions.write(
                self._bucket, key, metadata, demand=demand, once=once, origin=_origin(upload_id)
            )
        except (PreconditionFailed, ObjectNotFound, VersionKept, QuotaExceeded):
            await self._reopen(key, upload_id, upload, tag)
            raise
        except StoreFull:
            if attempt == 1:  # Else it says nothing of an earlier one.
                await self._reopen(key, upload_id, upload, tag)
            raise
        try:
            await self._registers.delete(self._place, Kind.UPLOAD, _upload_key(key, upload_id))
            await self._drop_parts(key, upload_id)
        except SsaStoreError as error:
            # The object is there: what cannot be cleared up now must not make its completion a failure.
            log.warning("upload.not_cleared", extra={"upload": upload_id, "reason": str(error)})
        version = id_of(written.name) if written.name else ""
        return Completed(etag, metadata.size, written.modified_ms, version, metadata.extra)

    async def _completed_before(self, key: bytes, upload_id: str) -> Completed:
        """The result of an earlier call of this completion, if the object, or a version, is still its own."""
        found = await self._registers.state(self._place, Kind.OBJECT, key, head_only=True)
        is_own = found.is_live and found.metadata.extra.get("upload") == upload_id
        if not is_own and self._bucket.versioning:
            written = await self._versions.written(self._place, key, _origin(upload_id))
            if written is not None:
                stored = version_key(key, written.name)
                found = await self._registers.state(self._place, Kind.VERSION, stored, head_only=True)
                is_own = found.is_live
        if not is_own:
            raise UploadNotFound("no such upload: completed, aborted, or never opened")
        known = found.metadata
        version = id_of(name_in(found)) if known.version else ""
        return Completed(known.etag, known.size, shown_ms(found), version, known.extra)

    async def _read_parts(
        self, key: bytes, upload_id: str, parts: Sequence[tuple[int, str]]
    ) -> list[Metadata]:
        async def read(number: int, etag: str) -> Metadata:
            try:
                found = await self._registers.get(
                    self._place, Kind.PART, _part_key(key, upload_id, number), head_only=True
                )
            except ObjectNotFound:
                raise InvalidPart(f"part {number} was not uploaded") from None
            if found.metadata.etag != etag:
                raise InvalidPart(f"part {number} has another ETag")
            return found.metadata

        records: list[Metadata] = []
        for at in range(0, len(parts), _READS_AT_ONCE):
            records += await asyncio.gather(*[read(*part) for part in parts[at : at + _READS_AT_ONCE]])
        for number, record in zip([number for number, _ in parts], records[:-1], strict=False):
            if record.size < PART_BYTES_MIN:
                raise PartTooSmall(f"part {number} has {record.size} bytes, below {PART_BYTES_MIN}")
        return records

    async def _assemble(
        self,
        key: bytes,
        upload_id: str,
        upload: Found,
        records: list[Metadata],
        made_of: Sequence[PartOf],
    ) -> Metadata:
        """The object's metadata: the parts' segments one after the other."""
        size = sum(record.size for record in records)
        if size > OBJECT_BYTES_MAX:
            raise ObjectTooLarge(f"the parts have {size} bytes, an object at most {OBJECT_BYTES_MAX}")
        segments: list[Segment] = [segment for record in records for segment in record.segments]
        place = self._place
        reference = reference_name(place.bucket, place.shards, _upload_key(key, upload_id))
        extra, listed = await keep_parts(self._blobs, made_of, reference)
        segments = listed + await fold_segments(self._blobs, segments, reference, others=len(listed))
        known = upload.metadata
        return Metadata("", size, segments, known.headers, known.user, {"upload": upload_id, **extra})

    async def _set_completing(
        self, key: bytes, upload_id: str, upload: Found, etag: str
    ) -> tuple[str, int, int]:
        """After this no abort wins, nor a completion of other parts. One that stopped half way goes on.

        The upload's new tag, since when it has had it, and which attempt at the object comes now: if another
        call gave the tag it may have gone on and made the object, and others may have replaced it.
        """
        wanted = {**upload.metadata.extra, "state": "completing", "etag": etag}
        extra = upload.metadata.extra
        if extra.get("state") == "completing":
            if extra != wanted:
                raise UploadNotFound("the upload is being completed with other parts")
            return upload.metadata.etag, upload.modified_ms, 2
        condition = When(Condition.IF_ETAG, upload.metadata.etag)
        try:
            return *await self._set_state(key, upload_id, upload.metadata, wanted, condition), 1
        except (PreconditionFailed, ObjectNotFound):
            raced = await self.read(key, upload_id)
            if raced.metadata.extra != wanted:
                raise UploadNotFound("the upload was completed or aborted meanwhile") from None
            # The same call, repeated while it is still under way.
            return raced.metadata.etag, raced.modified_ms, 2

    async def _reopen(self, key: bytes, upload_id: str, upload: Found, tag: str) -> None:
        """There is no object: its condition was false, or there is no room for it.

        Parts may be added or left out, or the upload aborted.
        """
        condition = When(Condition.IF_ETAG, tag)
        opened = {**upload.metadata.extra, "state": "open"}
        opened.pop("etag", None)
        with suppress(PreconditionFailed, ObjectNotFound, StoreFull):
            await self._set_state(key, upload_id, upload.metadata, opened, condition)

    async def _set_state(
        self, key: bytes, upload_id: str, old: Metadata, extra: dict[str, Any], condition: When
    ) -> tuple[str, int]:
        """The upload's new tag, and when it got it."""
        tag = self._randomness.bytes(8).hex()
        metadata = Metadata(tag, 0, [], old.headers, old.user, extra)
        modified_ms = await self._registers.put(
            self._place, Kind.UPLOAD, _upload_key(key, upload_id), metadata, condition=condition
        )
        return tag, modified_ms

    async def _drop_parts(self, key: bytes, upload_id: str) -> None:
        numbers = [part.number async for part in self.parts(key, upload_id)]
        for at in range(0, len(numbers), _READS_AT_ONCE):
            await asyncio.gather(
                *[
                    self._registers.delete(self._place, Kind.PART, _part_key(key, upload_id, number))
                    for number in numbers[at : at + _READS_AT_ONCE]
                ]
            )
