"""CopyObject and UploadPartCopy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from ssastore.core.buckets import Bucket
from ssastore.core.content import Content, ContentWriter
from ssastore.core.contentcopy import content_tag, copy_content, copy_range, from_fresh_read
from ssastore.core.demand import Demand
from ssastore.core.found import Found
from ssastore.core.metadata import SegmentKind
from ssastore.core.objects import ObjectReader, Objects, of_one_attempt
from ssastore.core.records import reference_name
from ssastore.core.registers import Once
from ssastore.core.versionnames import shown_ms
from ssastore.errors import MarkerFound
from ssastore.limits import COPY_BYTES_MAX, PARTS_MAX
from ssastore.s3 import xml
from ssastore.s3.access import Access, acl_to_keep
from ssastore.s3.attempts import Attempts, attempt_of
from ssastore.s3.checksums import ALGORITHMS, FULL_OBJECT, Algorithm, encode_digest
from ssastore.s3.conditions import check_copy_source
from ssastore.s3.entity import (
    check_storage_class,
    checksum_type,
    copied_headers,
    entity_headers,
    upload_extra,
)
from ssastore.s3.errors import S3Error
from ssastore.s3.locks import lock_to_keep
from ssastore.s3.names import parse_copy_range, parse_copy_source, parse_number, user_metadata
from ssastore.s3.request import Request, Response
from ssastore.s3.uploadsums import UploadSum
from ssastore.s3.versioning import VERSION_ID, read_version, wanted_version, written_version

_COPIED = ("checksum", "checksum_type", "parts", "layout")
"What is kept beside headers and tags, and says as much of the same bytes elsewhere."


@dataclass(frozen=True, slots=True)
class CopySource:
    """What ``x-amz-copy-source`` names."""

    bucket: str
    key: str
    version: str | None

    @staticmethod
    def of(request: Request) -> CopySource:
        """Raises S3Error: InvalidArgument and what names may raise."""
        return CopySource(*parse_copy_source(request.headers["x-amz-copy-source"]))


def directive(request: Request, what: str) -> str:
    """COPY or REPLACE, as ``x-amz-{what}-directive`` says. S3Error InvalidArgument."""
    name = f"x-amz-{what}-directive"
    value = request.headers.get(name, "COPY")
    if value not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", f"Unknown {what} directive.", ArgumentName=name)
    return value


def check_changes_something(request: Request, source: CopySource) -> None:
    """S3Error InvalidRequest for an object that is copied onto itself as it is."""
    if (source.bucket, source.key) != (request.bucket, request.key) or source.version not in (None, "null"):
        return
    changing = ("x-amz-storage-class", "x-amz-website-redirect-location")
    if directive(request, "metadata") == "COPY" and not any(name in request.headers for name in changing):
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing "
            "the object's metadata, storage class, website redirect location or encryption attributes.",
        )


def check_copy_size(size: int) -> None:
    """S3Error InvalidRequest for what S3 copies in parts only: a copy's time is bounded."""
    if size > COPY_BYTES_MAX:
        raise S3Error(
            "InvalidRequest",
            "The specified copy source is larger than the maximum allowable size for a copy source: "
            f"{COPY_BYTES_MAX}",
        )


def wanted_algorithm(request: Request) -> Algorithm | None:
    """The algorithm that a copy's checksum is to be by. S3Error InvalidRequest."""
    name = request.headers.get("x-amz-checksum-algorithm", "").upper()
    if name and name not in ALGORITHMS:
        raise S3Error("InvalidRequest", "Checksum algorithm provided is unsupported.")
    return ALGORITHMS.get(name)


def _has_checksum(extra: dict[str, Any], wanted: Algorithm) -> bool:
    return wanted.name in extra.get("checksum", {}) and checksum_type(extra) == FULL_OBJECT


class CopyOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects, attempts: Attempts, access: Access) -> None:
        self._objects = objects
        self._attempts = attempts
        self._access = access

    async def _read(self, request: Request, source: CopySource) -> Found:
        """The source, if it is as the request's conditions demand. Raises S3Error, SsaStoreError."""
        await self._access.check_source_owner(request, source.bucket)
        if not await self._access.may(request, "GetObject", source.bucket, source.key, source.version):
            raise S3Error("AccessDenied")
        version = None if source.version is None else wanted_version({"versionId": source.version})
        try:
            found = await self._objects.find(source.bucket, source.key, version)
        except MarkerFound:
            text = "The source of a copy request may not specifically refer to a delete marker by version id."
            raise S3Error("InvalidRequest", text) from None
        check_copy_source(request.headers, found.metadata.etag, shown_ms(found))
        return found

    async def copy_object(self, request: Request) -> Response:
        """Make an object of another one's bytes, which stay where they are."""
        assert request.bucket is not None and request.key is not None
        source = CopySource.of(request)
        demand = request.demand()
        check_storage_class(request)
        check_changes_something(request, source)
        replaced: tuple[dict[str, str], dict[str, str]] | None = None
        if directive(request, "metadata") == "REPLACE":
            replaced = entity_headers(request), user_metadata(request.headers)
        wanted = wanted_algorithm(request)
        kept = _COPIED if directive(request, "tagging") == "REPLACE" else (*_COPIED, "tags")
        said = upload_extra(request) if "tags" not in kept else {}
        key = request.key.encode()

        async def keep(found: Found) -> tuple[Found, Content]:
            check_copy_size(found.metadata.size)
            place = (await self._objects.bucket(request.bucket or "")).place
            reference = reference_name(place.bucket, place.shards, key)
            return found, await copy_content(self._objects.blobs, found, reference)

        with of_one_attempt(1 if demand.is_empty else attempt_of(request.headers)):
            found, content = await from_fresh_read(lambda: self._read(request, source), keep)
            known = found.metadata
            headers, metadata = replaced or (copied_headers(request, known.headers), known.user)
            extra = {name: known.extra[name] for name in kept if name in known.extra} | said
            bucket = await self._objects.bucket(request.bucket)
            extra |= acl_to_keep(request, bucket)
            extra |= lock_to_keep(request.headers, bucket, request.received_ms)
            if wanted and not _has_checksum(extra, wanted):
                extra, content = await self._recount(found, content, extra, wanted)
            made = await self._objects.commit(
                request.bucket,
                request.key,
                content,
                known.etag,
                headers=headers,
                metadata=metadata,
                extra=extra,
                once=self._once(request, demand, source),
                demand=demand,
            )
        checksum = made.extra.get("checksum", {})
        document = xml.copied_object(made.etag, made.modified_ms, checksum, checksum_type(made.extra))
        response = Response.xml(document)
        response.headers |= written_version(made.version) | self._copied_version(source, found)
        return response

    async def _recount(
        self, found: Found, content: Content, extra: dict[str, Any], wanted: Algorithm
    ) -> tuple[dict[str, Any], Content]:
        """The same for an object with a checksum of its bytes by another algorithm, which are read for it.

        Those of its parts would contradict it: to S3 a copy is not made of parts.
        """
        hasher = wanted.new()
        async for piece in self._objects.reader("", found):
            hasher.update(bytes(piece))
        dropped = ("checksum_type", "parts", "layout")
        extra = {name: value for name, value in extra.items() if name not in dropped}
        extra["checksum"] = {wanted.name: encode_digest(hasher.digest())}
        segments = [segment for segment in content.segments if segment.kind != SegmentKind.PARTS]
        return extra, replace(content, segments=segments)

    def _copied_version(self, source: CopySource, found: Found) -> dict[str, str]:
        info = self._objects.reader(source.key, found).info
        known = read_version(self._objects.buckets.cached(source.bucket), info)
        return {"x-amz-copy-source-version-id": known[VERSION_ID]} if known else {}

    def _once(self, request: Request, demand: Demand, source: CopySource) -> Once | None:
        """What makes the attempts of a conditional copy one operation."""
        assert request.bucket is not None and request.key is not None
        if demand.is_empty:
            return None
        name = request.bucket, request.key
        payload = f"copy of {source}"
        return self._attempts.once(request.principal, request.method, name, request.headers, payload)

    async def upload_part_copy(self, request: Request) -> Response:
        """Make a part of an object's bytes, or of a range of them."""
        assert request.bucket is not None and request.key is not None
        number = parse_number("partNumber", request.query.get("partNumber", ""), least=1, most=PARTS_MAX)
        source = CopySource.of(request)
        bucket = await self._objects.bucket(request.bucket)
        multipart = self._objects.multipart(bucket)
        key, upload_id = request.key.encode(), request.query["uploadId"]
        upload_sum = UploadSum.of_upload((await multipart.read(key, upload_id)).metadata.extra)
        algorithm = upload_sum.algorithm if upload_sum else None

        async def copy(found: Found) -> _Part:
            # The upload holds the part's blobs until a completion names them.
            return await self._copy_part(request, found, bucket, key + b"\0" + upload_id.encode(), algorithm)

        part = await from_fresh_read(lambda: self._read(request, source), copy)
        modified_ms = await multipart.put_part(key, upload_id, number, part.etag, part.content, part.checksum)
        checksum = {algorithm.name: encode_digest(part.checksum)} if algorithm else {}
        response = Response.xml(xml.copied_part(part.etag, modified_ms, checksum))
        if source.version is not None:
            response.headers["x-amz-copy-source-version-id"] = source.version
        return response

    async def _copy_part(
        self, request: Request, found: Found, bucket: Bucket, owner: bytes, algorithm: Algorithm | None
    ) -> _Part:
        """The part that a source becomes."""
        size = found.metadata.size
        span = request.headers.get("x-amz-copy-source-range")
        first, last = (0, size - 1) if span is None else parse_copy_range(span, size)
        check_copy_size(last + 1 - first)
        reference = reference_name(bucket.place.bucket, bucket.place.shards, owner)
        content = await copy_range(self._objects.blobs, found, first, last + 1, reference)
        if content is not None and algorithm is None:
            # The parts of the object to be are named by ETags that only have to tell them apart.
            return _Part(content_tag(content), content, b"")
        reader = self._objects.reader("", found).narrow(first, last + 1 - first)
        writer = None if content else self._objects.writer(bucket, owner, inline_bytes_max=0)
        return await _read_part(reader, content, writer, algorithm)


@dataclass(frozen=True, slots=True)
class _Part:
    etag: str
    content: Content
    checksum: bytes


async def _read_part(
    reader: ObjectReader, content: Content | None, writer: ContentWriter | None, algorithm: Algorithm | None
) -> _Part:
    """A part whose bytes are read for its checksum, and written when they are not kept where they are."""
    md5 = hashlib.md5(usedforsecurity=False)
    hasher = algorithm.new() if algorithm else None
    try:
        async for piece in reader:
            md5.update(piece)
            if hasher:
                hasher.update(bytes(piece))
            if writer:
                await writer.write(piece)
        if writer:
            content = await writer.finish()
    except BaseException:
        if writer:
            await writer.cancel()
        raise
    assert content is not None
    return _Part(md5.hexdigest(), content, hasher.digest() if hasher else b"")
