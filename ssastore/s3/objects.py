"""Object operations: PutObject, GetObject, HeadObject, DeleteObject, DeleteObjects."""

from __future__ import annotations

import asyncio

from ssastore.core.content import Content, ContentWriter
from ssastore.core.objects import Objects, of_one_attempt
from ssastore.core.registers import Once
from ssastore.errors import ObjectNotFound, SsaStoreError
from ssastore.limits import OBJECT_BYTES_MAX, XML_BYTES_MAX
from ssastore.s3 import xml, xmlread
from ssastore.s3.access import Access, acl_to_keep
from ssastore.s3.attempts import Attempts, attempt_of
from ssastore.s3.checksums import ALGORITHMS
from ssastore.s3.entity import (
    check_storage_class,
    checksum_headers,
    describe,
    entity_headers,
    kept_checksum,
    narrow,
)
from ssastore.s3.errors import S3Error, from_store_error
from ssastore.s3.names import parse_range, user_metadata
from ssastore.s3.request import Request, Response, VerifiedBody

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

    def __init__(self, objects: Objects, attempts: Attempts, access: Access) -> None:
        self._objects = objects
        self._attempts = attempts
        self._access = access

    def _once(self, request: Request, condition: dict[str, str], payload: str) -> Once | None:
        """What makes the attempts of a conditional write one operation."""
        assert request.bucket is not None and request.key is not None
        if not condition:
            return None
        name = request.bucket, request.key
        return self._attempts.once(request.principal, request.method, name, request.headers, payload)

    async def put_object(self, request: Request) -> Response:
        """Store a body as an object, when it is all that it claims to be."""
        assert request.bucket is not None and request.key is not None
        condition = request.precondition()
        check_storage_class(request)
        headers, metadata = entity_headers(request), user_metadata(request.headers)
        body = request.upload()
        check_size(body.size, OBJECT_BYTES_MAX)
        with of_one_attempt(attempt_of(request.headers) if condition else 1):
            bucket = await self._objects.bucket(request.bucket)
            content = await store_body(body, self._objects.writer(bucket, request.key.encode()))
            checksum = kept_checksum(body)
            extra = acl_to_keep(request, bucket)
            if checksum:
                extra["checksum"] = checksum
            info = await self._objects.commit(
                request.bucket,
                request.key,
                content,
                body.md5_hex(),
                headers=headers,
                metadata=metadata,
                extra=extra,
                once=self._once(request, condition, body.md5_hex()),
                **condition,
            )
        return Response(200, b"", {"ETag": f'"{info.etag}"', **checksum_headers(checksum)})

    async def get_object(self, request: Request) -> Response:
        """An object or a range of it."""
        assert request.bucket is not None and request.key is not None
        reader = await self._objects.open(request.bucket, request.key)
        response = describe(request, reader.info)
        if response.status == 304:
            return response
        span = parse_range(request.headers.get("Range"), reader.info.size)
        response.length = reader.info.size
        if span is not None:
            reader.narrow(span[0], span[1] - span[0] + 1)
            narrow(response, span, reader.info.size)
        response.stream = aiter(reader)
        return response

    async def head_object(self, request: Request) -> Response:
        """As GetObject, without the body."""
        assert request.bucket is not None and request.key is not None
        info = await self._objects.head(request.bucket, request.key)
        response = describe(request, info)
        response.length = info.size
        if response.status == 200 and (span := parse_range(request.headers.get("Range"), info.size)):
            narrow(response, span, info.size)
        return response

    async def delete_object(self, request: Request) -> Response:
        """Delete; 204 also when there was nothing."""
        assert request.bucket is not None and request.key is not None
        condition = request.precondition()
        if "if_none_match" in condition:
            raise S3Error("NotImplemented", "A delete takes If-Match only.")
        once = self._once(request, condition, "")
        await self._objects.delete(request.bucket, request.key, once=once, **condition)
        return Response(204)

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

        async def delete(entry: xmlread.DeleteEntry) -> S3Error | None:
            try:
                if entry.version_id not in (None, "null"):
                    raise S3Error("NotImplemented", "Versions are not implemented by this server.")
                async with gate:
                    if not await self._access.may(request, "DeleteObject", bucket, entry.key):
                        raise S3Error("AccessDenied")
                    await self._objects.delete(bucket, entry.key, if_match=entry.etag)
            except ObjectNotFound as error:
                return from_store_error(error) if entry.etag else None
            except SsaStoreError as error:
                return from_store_error(error)
            except S3Error as error:
                return error
            return None

        results = await asyncio.gather(*[delete(entry) for entry in entries])
        pairs = list(zip(entries, results, strict=True))
        deleted = [(e.key, e.version_id) for e, failure in pairs if failure is None and not is_quiet]
        failures = [xml.DeleteFailure(e.key, e.version_id, failure) for e, failure in pairs if failure]
        return Response.xml(xml.delete_result(deleted, failures))
