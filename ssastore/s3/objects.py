"""Object operations: PutObject, GetObject, HeadObject, DeleteObject, DeleteObjects."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from ssastore.core.content import Content, ContentWriter
from ssastore.core.objects import ObjectInfo, Objects, of_one_attempt
from ssastore.core.registers import Once
from ssastore.errors import ObjectNotFound, SsaStoreError
from ssastore.limits import KIB, OBJECT_BYTES_MAX, XML_BYTES_MAX
from ssastore.s3 import xml, xmlread
from ssastore.s3.attempts import Attempts, attempt_of
from ssastore.s3.checksums import ALGORITHMS
from ssastore.s3.chunked import stored_content_encoding
from ssastore.s3.errors import S3Error, from_store_error
from ssastore.s3.names import parse_etags, parse_range, user_metadata
from ssastore.s3.request import Request, Response, VerifiedBody

_ENTITY_HEADERS = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
)
_ENTITY_HEADERS_BYTES_MAX = 4 * KIB
"All of them together; with S3's 2 KiB of user metadata they fit METADATA_BYTES_MAX."
_DEFAULT_TYPE = "binary/octet-stream"
_DELETES_AT_ONCE = 32


def entity_headers(request: Request) -> dict[str, str]:
    """The headers of an upload that are given back with the object."""
    kept = {name: request.headers[name] for name in _ENTITY_HEADERS if name in request.headers}
    encoding = stored_content_encoding(kept.pop("content-encoding", None))
    if encoding:
        kept["content-encoding"] = encoding
    for name, value in kept.items():
        if not value.isprintable() or not value.isascii():
            raise S3Error("InvalidArgument", f"{name} must be printable ASCII.", ArgumentName=name)
    size = sum(len(value) for value in kept.values())
    if size > _ENTITY_HEADERS_BYTES_MAX:
        raise S3Error("MetadataTooLarge", Size=size, MaxSizeAllowed=_ENTITY_HEADERS_BYTES_MAX)
    return kept


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


def checksum_headers(found: dict[str, str]) -> dict[str, str]:
    """Response headers for kept checksums: algorithm name to base64."""
    return {f"x-amz-checksum-{name.lower()}": value for name, value in found.items()}


def kept_checksum(body: VerifiedBody) -> dict[str, str]:
    """The declared checksum as it is kept."""
    checksum = body.checksum()
    return {checksum[0]: b64encode(checksum[1]).decode()} if checksum else {}


def narrow(response: Response, span: tuple[int, int], size: int) -> None:
    """Make the answer for a whole object of ``size`` bytes one for its bytes ``span[0]`` to ``span[1]``."""
    response.status = 206
    response.length = span[1] - span[0] + 1
    response.headers["Content-Range"] = f"bytes {span[0]}-{span[1]}/{size}"
    for algorithm in ALGORITHMS.values():  # SDKs would compare the range with the checksum of the whole
        response.headers.pop(algorithm.header, None)


class ObjectOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects, attempts: Attempts) -> None:
        self._objects = objects
        self._attempts = attempts

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
        headers, metadata = entity_headers(request), user_metadata(request.headers)
        body = request.upload()
        check_size(body.size, OBJECT_BYTES_MAX)
        with of_one_attempt(attempt_of(request.headers) if condition else 1):
            bucket = await self._objects.bucket(request.bucket)
            content = await store_body(body, self._objects.writer(bucket, request.key.encode()))
            checksum = kept_checksum(body)
            info = await self._objects.commit(
                request.bucket,
                request.key,
                content,
                body.md5_hex(),
                headers=headers,
                metadata=metadata,
                extra={"checksum": checksum} if checksum else {},
                once=self._once(request, condition, body.md5_hex()),
                **condition,
            )
        return Response(200, b"", {"ETag": f'"{info.etag}"', **checksum_headers(checksum)})

    async def get_object(self, request: Request) -> Response:
        """An object or a range of it."""
        assert request.bucket is not None and request.key is not None
        reader = await self._objects.open(request.bucket, request.key)
        response = self._describe(request, reader.info)
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
        response = self._describe(request, info)
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

    # -- reading ------------------------------------------------------------------------------------

    def _describe(self, request: Request, info: ObjectInfo) -> Response:
        """Status and headers of a read, after its conditions. S3Error PreconditionFailed."""
        modified = datetime.fromtimestamp(info.modified_ms // 1000, UTC)
        headers = {
            "ETag": f'"{info.etag}"',
            "Last-Modified": format_datetime(modified, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": _DEFAULT_TYPE,
        }
        if not self._is_modified(request, info, modified):
            return Response(304, b"", headers)
        headers |= {name.title(): value for name, value in info.headers.items()}
        headers |= {f"x-amz-meta-{name}": value for name, value in info.metadata.items()}
        for name in _ENTITY_HEADERS:
            if (override := request.query.get(f"response-{name}")) is not None:
                if not override.isprintable() or not override.isascii():
                    raise S3Error("InvalidArgument", ArgumentName=f"response-{name}")
                headers[name.title()] = override
        if request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            headers |= checksum_headers(info.extra.get("checksum", {}))
        return Response(200, b"", headers)

    @staticmethod
    def _is_modified(request: Request, info: ObjectInfo, modified: datetime) -> bool:
        """RFC 9110 section 13.2.2: ETags first, times only where no ETag was asked about."""
        wanted = parse_etags("If-Match", request.headers.get("If-Match"))
        unwanted = parse_etags("If-None-Match", request.headers.get("If-None-Match"))
        if wanted is not None:
            if not wanted.matches(info.etag):
                raise S3Error("PreconditionFailed", Condition="If-Match")
        elif (before := _http_date(request, "If-Unmodified-Since")) and modified > before:
            raise S3Error("PreconditionFailed", Condition="If-Unmodified-Since")
        if unwanted is not None:
            return not unwanted.matches_weakly(info.etag)
        since = _http_date(request, "If-Modified-Since")
        return since is None or modified > since


def _http_date(request: Request, name: str) -> datetime | None:
    """A date header; one that is no date is ignored, as RFC 9110 asks."""
    text = request.headers.get(name)
    if text is None:
        return None
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
