"""Multipart operations."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ssastore.core.buckets import Bucket
from ssastore.core.metadata import Metadata
from ssastore.core.multipart import Multipart, Upload
from ssastore.core.objects import Objects
from ssastore.core.parts import PartOf
from ssastore.core.users import ROOT
from ssastore.errors import UploadNotFound
from ssastore.limits import LIST_KEYS_MAX, PART_BYTES_MAX, PARTS_MAX, XML_BYTES_MAX
from ssastore.s3 import xml, xmlread
from ssastore.s3.access import Access, check_initiator, initiator_of, initiator_to_keep
from ssastore.s3.acl import Acl
from ssastore.s3.buckets import bounded
from ssastore.s3.checksums import encode_digest
from ssastore.s3.encryption import CustomerKey, Encryption, said_headers
from ssastore.s3.entity import (
    check_storage_class,
    checksum_headers,
    entity_headers,
    kept_checksum,
    upload_extra,
)
from ssastore.s3.errors import S3Error
from ssastore.s3.locks import lock_of_upload, lock_to_keep
from ssastore.s3.names import parse_number, user_metadata
from ssastore.s3.objects import check_size, store_body
from ssastore.s3.request import Request, Response
from ssastore.s3.uploadpage import UploadPage
from ssastore.s3.uploadsums import UploadSum, judge_completion
from ssastore.s3.versioning import written_version

_UPLOAD_ID_BYTES_MAX = 64
"Longer than ours are; a longer marker would not fit a request to a node behind the longest key."


_READS_AT_ONCE = 32


def people_of(bucket: Bucket, upload: Metadata) -> tuple[str, str]:
    """Whose the object of an upload will be, and who began it; nobody in particular is not named."""
    kept = upload.extra["object"]
    owner = Acl.decode(kept.get("acl"), bucket.owner or ROOT).owner
    return owner, initiator_of(kept, bucket) or owner


def multipart_etag(part_etags: list[str]) -> str:
    """S3's ETag of a multipart object: MD5 of the parts' MD5s, a hyphen, their number."""
    try:
        joined = b"".join(bytes.fromhex(etag) for etag in part_etags)
    except ValueError:
        raise S3Error("InvalidPart") from None
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(part_etags)}"


class UploadOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects, access: Access, encryption: Encryption) -> None:
        self._objects = objects
        self._access = access
        self._encryption = encryption

    async def _multipart(self, request: Request) -> Multipart:
        assert request.bucket is not None
        return self._objects.multipart(await self._objects.bucket(request.bucket))

    async def create_multipart_upload(self, request: Request) -> Response:
        """Open an upload."""
        assert request.bucket is not None and request.key is not None
        check_storage_class(request)
        headers, metadata = entity_headers(request), user_metadata(request.headers)
        extra = upload_extra(request)
        checksum = UploadSum.of_headers(request.headers)
        if checksum:
            extra |= checksum.kept()
        # Not from the cache: an upload lives long, and a bucket that was made again is another one.
        bucket = await self._objects.buckets.read(request.bucket)
        extra |= await self._access.acl_to_keep(request, bucket) | initiator_to_keep(request, bucket)
        extra |= lock_of_upload(request.headers, bucket, request.received_ms)
        extra |= self._encryption.fresh(request.headers, bucket, request.key).extra
        multipart = await self._multipart(request)
        upload_id = await multipart.create(request.key.encode(), headers, metadata, extra)
        document = xml.initiated_upload(bucket=request.bucket, key=request.key, upload_id=upload_id)
        response = Response.xml(document)
        response.headers |= said_headers(extra, request.headers)
        if checksum:
            response.headers |= checksum.headers()
        return response

    async def upload_part(self, request: Request) -> Response:
        """Store one part."""
        assert request.bucket is not None and request.key is not None
        number = parse_number("partNumber", request.query.get("partNumber", ""), least=1, most=PARTS_MAX)
        body = request.upload()
        check_size(body.size, PART_BYTES_MAX)
        multipart = await self._multipart(request)
        key, upload_id = request.key.encode(), request.query["uploadId"]
        upload = (await multipart.read(key, upload_id)).metadata.extra
        bucket = await self._objects.bucket(request.bucket)
        check_initiator(request, upload["object"], bucket)
        scheme = self._encryption.of(upload["object"], request.bucket, request.key, request.headers)
        wanted = UploadSum.of_upload(upload)
        if wanted:
            body.want(wanted.algorithm)
        # The upload holds the part's blobs until a completion names them.
        owner = key + b"\0" + upload_id.encode()
        writer = self._objects.writer(bucket, owner, inline_bytes_max=0, cipher=scheme.cipher, part=number)
        content = await store_body(body, writer)
        etag, checksum = scheme.etag(body.md5_hex()), body.checksum()
        kept = checksum[1] if wanted and checksum else b""
        await multipart.put_part(key, upload_id, number, etag, content, kept)
        said = said_headers(upload["object"], request.headers)
        return Response(200, b"", {"ETag": f'"{etag}"', **checksum_headers(kept_checksum(body)), **said})

    async def complete_multipart_upload(self, request: Request) -> Response:
        """Make the object of its parts, in one change."""
        assert request.bucket is not None and request.key is not None
        demand = request.demand()
        # A checksum header of this request is that of the object to be, not of the list of parts.
        body = await request.small_body(XML_BYTES_MAX, has_checksum=False)
        parts = xmlread.parse_complete_upload(body)
        key, upload_id = request.key.encode(), request.query["uploadId"]
        etag = multipart_etag([part.etag for part in parts])
        named = [(part.number, part.etag) for part in parts]

        def judge(bucket: Bucket, extra: dict[str, Any], made_of: Sequence[PartOf]) -> dict[str, Any]:
            check_initiator(request, extra["object"], bucket)
            self._check_key(request, extra)
            kept = judge_completion(request.headers, parts, extra, made_of)
            # What the bucket locks by default, it locks from when the object is there.
            default = {} if "lock" in extra["object"] else lock_to_keep({}, bucket, request.received_ms)
            return kept | default

        known = await self._objects.bucket(request.bucket)
        completed = await self._objects.buckets.use(
            request.bucket,
            lambda bucket: self._objects.multipart(bucket).complete(
                key, upload_id, named, etag, judge=partial(judge, bucket), demand=demand
            ),
        )
        # An earlier call's result was not judged now.
        check_initiator(request, completed.extra, known)
        self._check_key(request, {"object": completed.extra})
        response = Response.xml(
            xml.completed_upload(
                url=f"/{request.bucket}/{request.key}",
                bucket=request.bucket,
                key=request.key,
                etag=completed.etag,
                checksum=completed.extra.get("checksum", {}),
                checksum_type=completed.extra.get("checksum_type"),
            )
        )
        response.headers |= written_version(completed.version) | said_headers(
            completed.extra, request.headers
        )
        return response

    def _check_key(self, request: Request, upload: dict[str, Any]) -> None:
        """As AWS: where no bytes are read a key must be there only with checksums, but be right if it is."""
        assert request.bucket is not None and request.key is not None
        if CustomerKey.of(request.headers) is not None or UploadSum.of_upload(upload) is not None:
            self._encryption.of(upload["object"], request.bucket, request.key, request.headers)

    async def abort_multipart_upload(self, request: Request) -> Response:
        """Drop an upload and its parts."""
        assert request.key is not None
        multipart = await self._multipart(request)
        await multipart.abort(request.key.encode(), request.query["uploadId"])
        return Response(204)

    async def list_parts(self, request: Request) -> Response:
        """Parts of an open upload, in order."""
        assert request.bucket is not None and request.key is not None
        query = request.query
        most = parse_number("max-parts", query.get("max-parts", str(LIST_KEYS_MAX)), least=0)
        limit = min(most, LIST_KEYS_MAX)
        marker = parse_number("part-number-marker", query.get("part-number-marker", "0"), least=0)
        multipart = await self._multipart(request)
        key, upload_id = request.key.encode(), query["uploadId"]
        upload = await multipart.read(key, upload_id)
        self._check_key(request, upload.metadata.extra)
        wanted = UploadSum.of_upload(upload.metadata.extra)
        parts: list[xml.ListedPart] = []
        is_truncated = False
        async for part in multipart.parts(key, upload_id, min(marker, PARTS_MAX)):
            if len(parts) == limit:
                is_truncated = limit > 0  # a page of nothing has no place to go on from
                break
            parts.append(xml.ListedPart(part.number, part.modified_ms, part.etag, part.size))
        if wanted:
            found = await multipart.checksums(key, upload_id, [part.number for part in parts])
            texts = {number: {wanted.algorithm.name: encode_digest(one)} for number, one in found.items()}
            parts = [replace(part, checksum=texts.get(part.number, {})) for part in parts]
        owner, initiator = people_of(await self._objects.bucket(request.bucket), upload.metadata)
        response = Response.xml(
            xml.list_parts(
                bucket=request.bucket,
                key=request.key,
                upload_id=upload_id,
                owner=owner,
                initiator=initiator,
                part_number_marker=marker,
                max_parts=limit,
                is_truncated=is_truncated,
                parts=parts,
                encoding_type=xml.check_encoding_type(query.get("encoding-type")),
                checksum_of=(wanted.algorithm.name, wanted.type) if wanted else (None, None),
            )
        )
        response.headers |= said_headers(upload.metadata.extra["object"], request.headers)
        return response

    async def list_multipart_uploads(self, request: Request) -> Response:
        """Open uploads of a bucket, in order of key."""
        assert request.bucket is not None
        query = request.query
        most = parse_number("max-uploads", query.get("max-uploads", str(LIST_KEYS_MAX)), least=0)
        limit = min(most, LIST_KEYS_MAX)
        prefix, key_marker = bounded(query, "prefix"), bounded(query, "key-marker")
        id_marker = bounded(query, "upload-id-marker", _UPLOAD_ID_BYTES_MAX)
        delimiter = bounded(query, "delimiter")
        multipart = await self._multipart(request)
        page = UploadPage(prefix, delimiter, limit)
        await page.fill(multipart, key_marker, id_marker)
        return Response.xml(
            xml.list_uploads(
                bucket=request.bucket,
                prefix=prefix,
                key_marker=key_marker,
                upload_id_marker=id_marker,
                max_uploads=limit,
                uploads=await self._listed(request.bucket, multipart, page.uploads),
                common_prefixes=page.prefixes,
                delimiter=delimiter or None,
                encoding_type=xml.check_encoding_type(query.get("encoding-type")),
                next_marker=page.last if page.is_truncated else None,
            )
        )

    async def _listed(self, name: str, multipart: Multipart, uploads: list[Upload]) -> list[xml.ListedUpload]:
        """Uploads of a page that are still open, with whose they are: their records say it."""
        bucket, gate = await self._objects.bucket(name), asyncio.Semaphore(_READS_AT_ONCE)

        async def owned(upload: Upload) -> xml.ListedUpload | None:
            async with gate:
                try:
                    found = (await multipart.read(upload.key, upload.upload_id)).metadata
                except UploadNotFound:
                    return None  # completed or aborted since its row was read
            wanted = UploadSum.of_upload(found.extra)
            return xml.ListedUpload(
                upload.key.decode(),
                upload.upload_id,
                upload.started_ms,
                *people_of(bucket, found),
                (wanted.algorithm.name, wanted.type) if wanted else (None, None),
            )

        found = await asyncio.gather(*[owned(upload) for upload in uploads])
        return [upload for upload in found if upload is not None]
