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
from ssastore.s3.access import Access, check_initiator
from ssastore.s3.attempts import Attempts, attempt_of
from ssastore.s3.checksums import ALGORITHMS, FULL_OBJECT, Algorithm, encode_digest
from ssastore.s3.conditions import OF_COPY_SOURCE, check_copy_source
from ssastore.s3.encryption import SSE, CustomerKey, Encryption, Scheme, said_headers
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
    changing = ("x-amz-storage-class", "x-amz-website-redirect-location", SSE, f"{SSE}-customer-algorithm")
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


def _algorithm_anew(extra: dict[str, Any]) -> Algorithm | None:
    """That of a checksum of the parts, which a copy has not that is written anew; None where it can stay."""
    if checksum_type(extra) == FULL_OBJECT:
        return None
    return next((ALGORITHMS[name] for name in extra.get("checksum", ())), None)


class CopyOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects, attempts: Attempts, access: Access, encryption: Encryption) -> None:
        self._objects = objects
        self._attempts = attempts
        self._access = access
        self._encryption = encryption

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
        """Make an object of another one's bytes, which stay where they are unless they are encrypted anew."""
        assert request.bucket is not None and request.key is not None
        source = CopySource.of(request)
        demand = request.demand()
        check_storage_class(request)
        check_changes_something(request, source)
        replaced: tuple[dict[str, str], dict[str, str]] | None = None
        if directive(request, "metadata") == "REPLACE":
            replaced = entity_headers(request), user_metadata(request.headers)
        wanted = wanted_algorithm(request)
        keeps_tags = directive(request, "tagging") != "REPLACE"
        said = {} if keeps_tags else upload_extra(request)

        async def copy(found: Found) -> _Copy:
            check_copy_size(found.metadata.size)
            if keeps_tags and "tags" in found.metadata.extra:
                await self._check_tags(request, source, found.metadata.extra["tags"])
            return await self._copy(request, source, found, wanted)

        with of_one_attempt(1 if demand.is_empty else attempt_of(request.headers)):
            bucket = await self._objects.bucket(request.bucket)
            said |= await self._access.acl_to_keep(request, bucket)
            said |= lock_to_keep(request.headers, bucket, request.received_ms)
            copied = await from_fresh_read(lambda: self._read(request, source), copy)
            known = copied.found.metadata
            headers, metadata = replaced or (copied_headers(request, known.headers), known.user)
            if keeps_tags and "tags" in known.extra:
                said |= {"tags": known.extra["tags"]}
            made = await self._objects.commit(
                request.bucket,
                request.key,
                copied.content,
                copied.etag,
                headers=headers,
                metadata=metadata,
                extra=copied.extra | said,
                once=self._once(request, demand, source),
                demand=demand,
            )
        checksum = made.extra.get("checksum", {})
        document = xml.copied_object(made.etag, made.modified_ms, checksum, checksum_type(made.extra))
        response = Response.xml(document)
        response.headers |= written_version(made.version) | self._copied_version(source, copied.found)
        response.headers |= said_headers(made.extra, request.headers)
        return response

    async def _check_tags(self, request: Request, source: CopySource, tags: dict[str, str]) -> None:
        """That a copy may take the tags of its source along. S3Error AccessDenied."""
        where = source.bucket, source.key, source.version
        if not await self._access.may(request, "GetObjectTagging", *where):
            raise S3Error("AccessDenied")
        await self._access.check_brings(replace(request, tags=tags), "PutObjectTagging")

    def _source_scheme(self, request: Request, source: CopySource, found: Found) -> Scheme:
        known = found.metadata.extra
        return self._encryption.of(known, source.bucket, source.key, request.headers, OF_COPY_SOURCE)

    async def _copy(
        self, request: Request, source: CopySource, found: Found, wanted: Algorithm | None
    ) -> _Copy:
        """The bytes of the source for the object to be, and what is kept of them."""
        assert request.bucket is not None and request.key is not None
        bucket, key = await self._objects.bucket(request.bucket), request.key.encode()
        was = self._source_scheme(request, source, found)
        will = self._encryption.fresh(request.headers, bucket, request.key)
        known = found.metadata
        extra = {name: known.extra[name] for name in _COPIED if name in known.extra}
        has_all = wanted is None or _has_checksum(extra, wanted)
        if (was.is_by_server and will.is_by_server and has_all) or was.cipher is will.cipher is None:
            reference = reference_name(bucket.place.bucket, bucket.place.shards, key)
            content = await copy_content(self._objects.blobs, found, reference)
            if was.cipher is not None:
                extra |= self._encryption.again(was, request.bucket, request.key).extra
            elif wanted is not None and not has_all:
                extra, content = await self._recount(found, content, extra, wanted)
            return _Copy(found, content, known.etag, extra)
        # A key that has been somebody else's shall not open the copy, nor the copy's the source.
        algorithm = _algorithm_anew(extra) if has_all else wanted
        part = await _read_part(
            self._objects.reader(source.key, found, was.cipher),
            None,
            self._objects.writer(bucket, key, cipher=will.cipher),
            algorithm,
        )
        extra = {"checksum": extra["checksum"]} if "checksum" in extra else {}
        if algorithm is not None:
            extra = {"checksum": {algorithm.name: encode_digest(part.checksum)}}
        return _Copy(found, part.content, will.etag(part.etag), extra | will.extra)

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
        key = CustomerKey.of(request.headers)
        payload = f"copy of {source} under {key.md5 if key else 'none of his keys'}"
        return self._attempts.once(request.principal, request.method, name, request.headers, payload)

    async def upload_part_copy(self, request: Request) -> Response:
        """Make a part of an object's bytes, or of a range of them."""
        assert request.bucket is not None and request.key is not None
        number = parse_number("partNumber", request.query.get("partNumber", ""), least=1, most=PARTS_MAX)
        source = CopySource.of(request)
        bucket = await self._objects.bucket(request.bucket)
        multipart = self._objects.multipart(bucket)
        key, upload_id = request.key.encode(), request.query["uploadId"]
        upload = (await multipart.read(key, upload_id)).metadata.extra
        upload_sum = UploadSum.of_upload(upload)
        algorithm = upload_sum.algorithm if upload_sum else None
        check_initiator(request, upload["object"], bucket)
        scheme = self._encryption.of(upload["object"], request.bucket, request.key, request.headers)
        # The upload holds the part's blobs until a completion names them.
        target = _PartTo(bucket, key + b"\0" + upload_id.encode(), number, scheme, algorithm)

        async def copy(found: Found) -> _Part:
            return await self._copy_part(request, source, found, target)

        part = await from_fresh_read(lambda: self._read(request, source), copy)
        modified_ms = await multipart.put_part(key, upload_id, number, part.etag, part.content, part.checksum)
        checksum = {algorithm.name: encode_digest(part.checksum)} if algorithm else {}
        response = Response.xml(xml.copied_part(part.etag, modified_ms, checksum))
        response.headers |= said_headers(upload["object"], request.headers)
        if source.version is not None:
            response.headers["x-amz-copy-source-version-id"] = source.version
        return response

    async def _copy_part(self, request: Request, source: CopySource, found: Found, target: _PartTo) -> _Part:
        """The part that a source becomes."""
        size = found.metadata.size
        span = request.headers.get("x-amz-copy-source-range")
        first, last = (0, size - 1) if span is None else parse_copy_range(span, size)
        check_copy_size(last + 1 - first)
        was, will = self._source_scheme(request, source, found), target.scheme
        content = None
        if was.cipher is will.cipher is None:
            reference = reference_name(target.bucket.place.bucket, target.bucket.place.shards, target.owner)
            content = await copy_range(self._objects.blobs, found, first, last + 1, reference)
        if content is not None and target.algorithm is None:
            # The parts of the object to be are named by ETags that only have to tell them apart.
            return _Part(content_tag(content), content, b"")
        reader = self._objects.reader("", found, was.cipher).narrow(first, last + 1 - first)
        writer = None if content else target.writer(self._objects)
        part = await _read_part(reader, content, writer, target.algorithm)
        return replace(part, etag=will.etag(part.etag))


@dataclass(frozen=True, slots=True)
class _Copy:
    """What an object is made of that is a copy."""

    found: Found
    "The source."
    content: Content
    etag: str
    extra: dict[str, Any]
    "What is said of its bytes."


@dataclass(frozen=True, slots=True)
class _PartTo:
    """Where a copied part goes."""

    bucket: Bucket
    owner: bytes
    "Key of the upload's record, which holds the part's blobs."
    number: int
    scheme: Scheme
    algorithm: Algorithm | None
    "Of its checksum."

    def writer(self, objects: Objects) -> ContentWriter:
        cipher = self.scheme.cipher
        return objects.writer(self.bucket, self.owner, inline_bytes_max=0, cipher=cipher, part=self.number)


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
