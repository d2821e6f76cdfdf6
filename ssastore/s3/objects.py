"""Object operations: PutObject, GetObject, HeadObject, DeleteObject, DeleteObjects."""

from __future__ import annotations

import asyncio

from ssastore.core.content import Content, ContentWriter
from ssastore.core.demand import Demand
from ssastore.core.found import Found
from ssastore.core.objects import ObjectInfo, Objects, of_one_attempt
from ssastore.core.parts import parts_of
from ssastore.core.registers import Once
from ssastore.core.versionnames import is_id, shown_ms
from ssastore.core.versions import Deleted, Guard
from ssastore.errors import ObjectNotFound, SsaStoreError
from ssastore.limits import OBJECT_BYTES_MAX, XML_BYTES_MAX
from ssastore.s3 import xml, xmlread
from ssastore.s3.access import Access
from ssastore.s3.attempts import Attempts, attempt_of
from ssastore.s3.attributes import read_part
from ssastore.s3.checksums import ALGORITHMS
from ssastore.s3.conditions import is_range_wanted
from ssastore.s3.encryption import Encryption, Scheme, said_headers
from ssastore.s3.entity import (
    TAGS_COUNTED,
    check_storage_class,
    describe,
    entity_headers,
    kept_checksum,
    narrow,
    object_checksum_headers,
    upload_extra,
)
from ssastore.s3.errors import S3Error, from_store_error
from ssastore.s3.lifecycle import expiration_header
from ssastore.s3.locking import deletion_guard
from ssastore.s3.locks import lock_headers, lock_to_keep
from ssastore.s3.names import parse_range, user_metadata
from ssastore.s3.request import Request, Response, VerifiedBody
from ssastore.s3.versioning import (
    DELETE_MARKER,
    VERSION_ID,
    of_versions,
    read_version,
    wanted_version,
    written_version,
)

_DELETES_AT_ONCE = 32


def check_size(size: int | None, most: int) -> None:
    """S3Error MissingContentLength or EntityTooLarge."""
    if size is None:
        raise S3Error("MissingContentLength")
    if size > most:
        raise S3Error("EntityTooLarge", ProposedSize=size, MaxSizeAllowed=most)


async def store_body(body: VerifiedBody, writer: ContentWriter) -> Content:
    """Store an upload's bytes; nothing is visible yet. Raises S3Error when the body is not as claimed."""
    try:
        async for piece in body.pieces():
            await writer.write(piece)
        return await writer.finish()
    except BaseException:
        await writer.cancel()
        raise


class ObjectOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects, attempts: Attempts, access: Access, encryption: Encryption) -> None:
        self._objects = objects
        self._attempts = attempts
        self._access = access
        self._encryption = encryption

    def _once(self, request: Request, demand: Demand, payload: str) -> Once | None:
        """What makes the attempts of a conditional write one operation."""
        assert request.bucket is not None and request.key is not None
        if demand.is_empty:
            return None
        name = request.bucket, request.key
        return self._attempts.once(request.principal, request.method, name, request.headers, payload)

    async def put_object(self, request: Request) -> Response:
        """Store a body as an object, when it is all that it claims to be."""
        body = request.upload()
        check_size(body.size, OBJECT_BYTES_MAX)
        info = await self.store(request, body)
        headers = {
            "ETag": f'"{info.etag}"',
            **object_checksum_headers(info.extra),
            **said_headers(info.extra, request.headers),
            **written_version(info.version),
            **expiration_header(self._objects.buckets.cached(request.bucket or ""), info),
        }
        return Response(200, b"", headers)

    async def store(self, request: Request, body: VerifiedBody) -> ObjectInfo:
        """As ``put_object``, for a body that may come in another way."""
        assert request.bucket is not None and request.key is not None
        demand = request.demand()
        check_storage_class(request)
        headers, metadata = entity_headers(request), user_metadata(request.headers)
        extra = upload_extra(request)
        with of_one_attempt(1 if demand.is_empty else attempt_of(request.headers)):
            bucket = await self._objects.bucket(request.bucket)
            # All that can be refused before a byte of the body is read.
            extra |= await self._access.acl_to_keep(request, bucket)
            extra |= lock_to_keep(request.headers, bucket, request.received_ms)
            scheme = self._encryption.fresh(request.headers, bucket, request.key)
            writer = self._objects.writer(bucket, request.key.encode(), cipher=scheme.cipher)
            content = await store_body(body, writer)
            etag = scheme.etag(body.md5_hex())
            checksum = kept_checksum(body)
            extra |= scheme.extra
            if checksum:
                extra["checksum"] = checksum
            return await self._objects.commit(
                request.bucket,
                request.key,
                content,
                etag,
                headers=headers,
                metadata=metadata,
                extra=extra,
                once=self._once(request, demand, etag),
                demand=demand,
            )

    async def get_object(self, request: Request) -> Response:
        """An object or a range of it."""
        found, scheme = await self._read(request, head_only=False)
        reader = self._objects.reader(request.key or "", found, scheme.cipher)
        response, span = await self._tell(request, found, reader.info)
        if response.status == 304:
            return response
        if span is not None:
            # An empty part at the end begins where there is no byte.
            reader.narrow(span[0] if response.length else 0, response.length)
        if reader.is_small:
            response.body = await reader.read()
        else:
            response.stream = aiter(reader)
        return response

    async def head_object(self, request: Request) -> Response:
        """As GetObject, without the body."""
        found, _ = await self._read(request, head_only=True)
        response, _ = await self._tell(request, found, self._objects.reader(request.key or "", found).info)
        return response

    async def _read(self, request: Request, *, head_only: bool) -> tuple[Found, Scheme]:
        """The record of an object, of which nothing is told to who has not its key, not even in an error."""
        assert request.bucket is not None and request.key is not None
        version = wanted_version(request.query)
        finding = self._objects.find(request.bucket, request.key, version, head_only=head_only)
        found = await of_versions(self._objects, request.bucket, request.key, version, finding)
        known = found.metadata.extra
        return found, self._encryption.of(known, request.bucket, request.key, request.headers)

    async def _tell(
        self, request: Request, found: Found, info: ObjectInfo
    ) -> tuple[Response, tuple[int, int] | None]:
        """What is told of an object, and the ``_span`` that is asked for."""
        response = self._describe(request, info)
        if TAGS_COUNTED in response.headers and not await self._access.may(
            request, "GetObjectTagging", request.bucket or "", request.key, request.query.get("versionId")
        ):
            del response.headers[TAGS_COUNTED]
        if response.status == 304:
            response.length = found.metadata.size
            return response, None
        return response, await self._span(request, found, response)

    async def _span(self, request: Request, found: Found, response: Response) -> tuple[int, int] | None:
        """First and last byte that a read asks for, of which ``response`` tells from now on; None for all."""
        size = found.metadata.size
        response.length = size
        if "partNumber" in request.query:
            return read_part(request, response, size, await parts_of(self._objects.blobs, found.metadata))
        known = found.metadata
        if not is_range_wanted(request.headers, known.etag, shown_ms(found)):
            return None
        span = parse_range(request.headers.get("Range"), size)
        if span is not None:
            narrow(response, span, size)
        return span

    def _describe(self, request: Request, info: ObjectInfo) -> Response:
        response = describe(request, info)
        bucket = self._objects.buckets.cached(request.bucket or "")
        response.headers |= read_version(bucket, info)
        if info.extra:
            response.headers |= lock_headers(info.extra)
            response.headers |= said_headers(info.extra, request.headers)
        if "versionId" not in request.query:
            response.headers |= expiration_header(bucket, info)
        return response

    async def delete_object(self, request: Request) -> Response:
        """Delete an object, or one of its versions; 204 also when there was nothing."""
        assert request.bucket is not None and request.key is not None
        demand, version = request.deletion_demand(), wanted_version(request.query)
        once = self._once(request, demand, "") if version is None else None
        await self._objects.bucket(request.bucket)
        guard = await deletion_guard(self._access, request, request.key)
        deleted = await self._delete(request.bucket, request.key, version, demand, guard, once)
        headers = {DELETE_MARKER: "true"} if deleted.marker else {}
        if version or deleted.marker:
            headers[VERSION_ID] = version or deleted.marker
        return Response(204, b"", headers)

    async def _delete(
        self,
        bucket: str,
        key: str,
        version: str | None,
        demand: Demand,
        guard: Guard,
        once: Once | None = None,
    ) -> Deleted:
        try:
            return await self._objects.delete(bucket, key, version, demand=demand, guard=guard, once=once)
        except ObjectNotFound:
            return Deleted(False)  # What is not there need not be as the condition demands.

    async def delete_objects(self, request: Request) -> Response:
        """Delete up to 1000 keys; each has its own result."""
        assert request.bucket is not None
        if "Content-MD5" not in request.headers and not any(
            f"x-amz-checksum-{name.lower()}" in request.headers for name in ALGORITHMS
        ):
            raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5")
        is_quiet, entries = xmlread.parse_delete(await request.small_body(XML_BYTES_MAX))
        bucket = (await self._objects.bucket(request.bucket)).name
        gate = asyncio.Semaphore(_DELETES_AT_ONCE)

        async def delete(entry: xmlread.DeleteEntry) -> xml.DeletedObject | xml.DeleteFailure:
            key, version = entry.key, entry.version_id
            try:
                if version is not None and not is_id(version):
                    raise S3Error("NoSuchVersion")
                async with gate:
                    if not await self._access.may(request, "DeleteObject", bucket, key, version):
                        raise S3Error("AccessDenied")
                    guard = await deletion_guard(self._access, request, key)
                    deleted = await self._delete(bucket, key, version, entry.demand, guard)
            except SsaStoreError as error:
                return xml.DeleteFailure(key, version, from_store_error(error))
            except S3Error as error:
                return xml.DeleteFailure(key, version, error)
            return xml.DeletedObject(key, version, deleted.marker)

        results = await asyncio.gather(*[delete(entry) for entry in entries])
        deleted = [one for one in results if isinstance(one, xml.DeletedObject) and not is_quiet]
        failures = [one for one in results if isinstance(one, xml.DeleteFailure)]
        return Response.xml(xml.delete_result(deleted, failures))
