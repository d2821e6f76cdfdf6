"""Uploads by an HTML form (POST Object): it is read, who signed it is found out, and then it is a put."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from urllib.parse import quote, urlencode

from ssastore.core.objects import Objects
from ssastore.core.users import ANYBODY
from ssastore.limits import POST_BYTES_MAX
from ssastore.s3 import xml
from ssastore.s3.access import Access
from ssastore.s3.encryption import check_headers, said_headers
from ssastore.s3.errors import S3Error
from ssastore.s3.form import Fields, FormReader, Head, parse_boundary
from ssastore.s3.names import check_key
from ssastore.s3.objects import ObjectOperations
from ssastore.s3.postpolicy import Claim, SizeRange, check_policy
from ssastore.s3.principal import PayloadMode
from ssastore.s3.request import Request, Response
from ssastore.s3.tags import parse_tagging
from ssastore.s3.versioning import written_version

SecretOf = Callable[[str], Awaitable[tuple[str, str] | None]]
"Secret and user of an access key; None when there is no such key."

_STATUSES = ("200", "201", "204")
_FILENAME = "${filename}"
_URL_CHARACTERS_MAX = 2048


class FileBody:
    """The file of a form as the body of a put. Implements ``request.RawBody``."""

    length = None

    def __init__(self, reader: FormReader, bounds: SizeRange) -> None:
        self._reader = reader
        self._bounds = bounds

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, as many as the policy allows. S3Error EntityTooLarge, EntityTooSmall."""
        size = 0
        async for piece in self._reader.file():
            size += len(piece)
            if size > self._bounds.most:
                self._bounds.check(size)
            yield piece
        self._bounds.check(size)


def redirect_to(fields: Fields, bucket: str, key: str, etag: str) -> str | None:
    """Where the browser is to go; None when the form names no URL that a header can carry."""
    url = fields.get("success_action_redirect", fields.get("redirect", ""))
    is_url = url.startswith(("http://", "https://")) and url.isascii() and url.isprintable()
    if not is_url or " " in url or len(url) > _URL_CHARACTERS_MAX:
        return None
    told = urlencode({"bucket": bucket, "key": key, "etag": f'"{etag}"'}, quote_via=quote)
    return f"{url}{'&' if '?' in url else '?'}{told}"


class PostOperations:
    """Handlers; one method an operation."""

    def __init__(
        self, objects: Objects, single: ObjectOperations, access: Access, region: str, secret_of: SecretOf
    ) -> None:
        self._objects = objects
        self._single = single
        self._access = access
        self._region = region
        self._secret_of = secret_of

    async def post_object(self, request: Request) -> Response:
        """Store a form's file. Who may do so is decided here: the form says who asks."""
        assert request.bucket is not None
        reader = FormReader(request.body.pieces(), parse_boundary(request.headers.get("Content-Type")))
        found, head = await reader.fields()
        if "key" not in found:
            message = (
                "Bucket POST must contain a field named 'key'.  If it is specified, please check the order "
                "of the fields."
            )
            raise S3Error("InvalidArgument", message, ArgumentName="key", ArgumentValue="")
        found["key"] = found["key"].replace(_FILENAME, _base_name(head))
        check_key(found["key"])
        user, bounds = await self._signer(request, found)
        fields = Fields(_headers(found))
        put = replace(
            request,
            key=found["key"],
            headers=fields,
            user=user,
            body=FileBody(reader, bounds),
            principal=replace(request.principal, payload=PayloadMode.UNSIGNED, payload_sha256=None),
        )
        await self._access.check(put, "PostObject")
        check_headers("PutObject", fields, {})
        info = await self._single.store(put, put.upload())
        response = self._answer(request.bucket, found["key"], info.etag, Fields(found))
        response.headers |= written_version(info.version) | said_headers(info.extra, fields)
        return response

    async def _signer(self, request: Request, found: dict[str, str]) -> tuple[str, SizeRange]:
        """Whose upload a form is, and the bounds of its file. S3Error for a bad signature or policy."""
        assert request.bucket is not None
        claim = Claim.of_form(found, self._region)
        if claim is None:
            return ANYBODY, SizeRange(0, POST_BYTES_MAX)
        known = await self._secret_of(claim.access_key)
        if known is None:
            raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=claim.access_key[:128])
        secret, user = known
        claim.verify(secret)
        fields = found | {"bucket": request.bucket}
        return user, check_policy(claim.policy, fields, request.received_ms, POST_BYTES_MAX)

    @staticmethod
    def _answer(bucket: str, key: str, etag: str, fields: Fields) -> Response:
        url = f"/{bucket}/{quote(key)}"
        headers = {"ETag": f'"{etag}"', "Location": url}
        target = redirect_to(fields, bucket, key, etag)
        if target is not None:
            return Response(303, b"", headers | {"Location": target})
        status = fields.get("success_action_status", "204")
        if status == "201":
            response = Response.xml(xml.posted_object(url=url, bucket=bucket, key=key, etag=etag), 201)
            response.headers |= headers
            return response
        return Response(int(status) if status in _STATUSES else 204, b"", headers)


def _base_name(head: Head) -> str:
    """The file's name without the directories that some browsers send."""
    return (head.filename or "").replace("\\", "/").rpartition("/")[2]


def _headers(found: dict[str, str]) -> dict[str, str]:
    """The fields of a form as the headers of a put. S3Error as ``parse_tagging``."""
    headers = {name: value for name, value in found.items() if name not in ("acl", "tagging")}
    if "acl" in found:
        headers["x-amz-acl"] = found["acl"]
    if "tagging" in found:
        headers["x-amz-tagging"] = urlencode(parse_tagging(found["tagging"].encode()))
    return headers
