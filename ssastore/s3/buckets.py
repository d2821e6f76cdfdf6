"""Bucket operations and listings."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import aclosing
from typing import Any

from ssastore.core.buckets import Bucket
from ssastore.core.objects import CommonPrefix, Listed, Objects
from ssastore.core.users import ROOT, Users
from ssastore.errors import BucketAlreadyExists, BucketNotFound
from ssastore.limits import KEY_BYTES_MAX, LIST_KEYS_MAX, XML_BYTES_MAX
from ssastore.s3 import xml, xmlread
from ssastore.s3.access import check_grantees, has_acls
from ssastore.s3.acl import OWNERSHIPS, Acl, of_headers
from ssastore.s3.errors import S3Error
from ssastore.s3.locks import enabled_by
from ssastore.s3.names import parse_number
from ssastore.s3.pages import Page, page_of
from ssastore.s3.request import Request, Response

_TOKEN_VERSION = b"1"
_BUCKETS_MAX = 10_000
"Largest page of buckets, as in AWS."
_BUCKETS_PARAMETERS = frozenset({"prefix", "continuation-token", "max-buckets", "bucket-region"})
"Who sends one knows of regions of buckets."


def encode_token(last: str) -> str:
    """A continuation token: opaque to clients, the last entry of the page to us."""
    return urlsafe_b64encode(_TOKEN_VERSION + last.encode()).decode()


def decode_token(token: str) -> str:
    """The entry that a page goes on after. S3Error InvalidArgument for what is no token of ours."""
    try:
        raw = urlsafe_b64decode(token.encode("ascii"))
        if (
            raw[:1] == _TOKEN_VERSION
            and len(raw) <= KEY_BYTES_MAX + 1
            and urlsafe_b64encode(raw).decode() == token
        ):
            return raw[1:].decode()
    except ValueError:
        pass
    raise S3Error(
        "InvalidArgument", "The continuation token provided is incorrect", ArgumentName="continuation-token"
    )


def bounded(query: dict[str, str], name: str, most: int = KEY_BYTES_MAX) -> str:
    """A parameter that is compared with stored names, empty if absent. S3Error InvalidArgument."""
    value = query.get(name, "")
    if len(value.encode()) > most:
        raise S3Error("InvalidArgument", f"{name} must not be above {most} bytes.", ArgumentName=name)
    return value


_MADE_WITH = ("acl", "ownershipControls")
"What CreateBucket sets by headers, and is told apart by."


def _shown(entries: list[Listed], bucket: Bucket) -> list[Listed]:
    """Entries as they are listed: with their owners only where ACLs count."""
    if not has_acls(bucket):
        for entry in entries:
            entry.owner = ""
    return entries


def _last_name(page: Page[Listed]) -> str:
    """Where the next page goes on."""
    last = page.last
    assert last is not None
    return last.prefix if isinstance(last, CommonPrefix) else last.key


class BucketOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects, users: Users, region: str) -> None:
        self._objects = objects
        self._users = users
        self._region = region

    async def list_buckets(self, request: Request) -> Response:
        """The user's buckets; all of them for root. In pages when the request says how long."""
        query = request.query
        prefix, token = bounded(query, "prefix"), query.get("continuation-token")
        after = decode_token(token) if token else ""
        limit = parse_number(
            "max-buckets", query.get("max-buckets", str(_BUCKETS_MAX)), least=1, most=_BUCKETS_MAX
        )
        page: list[tuple[str, int]] = []
        next_token = None
        if query.get("bucket-region") in (None, self._region):
            async with aclosing(self._objects.buckets.all(prefix, after)) as found:
                async for bucket in found:
                    if request.user not in (bucket.owner, ROOT):
                        continue
                    if len(page) == limit and "max-buckets" in query:
                        next_token = encode_token(page[-1][0])
                        break
                    page.append((bucket.name, bucket.created_ms))
        region = self._region if _BUCKETS_PARAMETERS.intersection(query) else None
        document = xml.list_buckets(request.user, page, prefix=prefix, next_token=next_token, region=region)
        return Response.xml(document)

    async def create_bucket(self, request: Request) -> Response:
        """Create a bucket; 409 BucketAlreadyOwnedByYou when it exists."""
        assert request.bucket is not None
        wanted = xmlread.parse_bucket_configuration(await request.small_body(XML_BYTES_MAX))
        if wanted not in (None, "", self._region):
            raise S3Error("InvalidLocationConstraint", LocationConstraint=str(wanted)[:64])
        config: dict[str, Any] = enabled_by(request.headers)
        acl = of_headers(request.headers, request.user, request.user)
        if acl is not None and acl != Acl.private(request.user):
            await check_grantees(self._users, acl)
            config["acl"] = acl.encode()
        ownership = request.headers.get("x-amz-object-ownership")
        if ownership is not None:
            if ownership not in OWNERSHIPS:
                raise S3Error("InvalidArgument", ArgumentName="x-amz-object-ownership")
            if ownership == "BucketOwnerEnforced" and "acl" in config:
                raise S3Error("InvalidBucketAclWithObjectOwnership")
            config["ownershipControls"] = ownership
        try:
            await self._objects.buckets.create(request.bucket, owner=request.user, config=config)
        except BucketAlreadyExists:
            await self._check_taken(request, config)
        return Response(200, b"", {"Location": f"/{request.bucket}"})

    async def _check_taken(self, request: Request, config: dict[str, Any]) -> None:
        """Who makes a bucket again that is his own, in us-east-1, is told that it is there, as by AWS.

        Raises:
            S3Error: BucketAlreadyOwnedByYou elsewhere; BucketAlreadyExists: it is somebody else's, or has
                other settings, which stay.
        """
        assert request.bucket is not None
        try:
            found = await self._objects.buckets.read(request.bucket)
        except BucketNotFound:
            raise S3Error("OperationAborted") from None
        if (found.owner or ROOT) != request.user:
            raise S3Error("BucketAlreadyExists")
        if any(found.config.get(name) != config.get(name) for name in _MADE_WITH):
            raise S3Error("BucketAlreadyExists", "The bucket is yours, and was made with other settings.")
        if self._region != "us-east-1":
            raise S3Error("BucketAlreadyOwnedByYou")

    async def head_bucket(self, request: Request) -> Response:
        """Whether the bucket exists."""
        assert request.bucket is not None
        await self._objects.buckets.read(request.bucket)
        return Response(200, b"", {"x-amz-bucket-region": self._region})

    async def delete_bucket(self, request: Request) -> Response:
        """Delete an empty bucket."""
        assert request.bucket is not None
        await self._objects.buckets.delete(request.bucket)
        return Response(204)

    async def get_bucket_location(self, request: Request) -> Response:
        """The region."""
        assert request.bucket is not None
        await self._objects.buckets.read(request.bucket)
        return Response.xml(xml.location(self._region))

    async def list_objects(self, request: Request) -> Response:
        """ListObjects (V1) or, with ``list-type=2``, ListObjectsV2."""
        query = request.query
        version = query.get("list-type", "1")
        if version not in ("1", "2"):
            raise S3Error("InvalidArgument", "Invalid list type", ArgumentName="list-type")
        encoding = xml.check_encoding_type(query.get("encoding-type"))
        most = parse_number("max-keys", query.get("max-keys", str(LIST_KEYS_MAX)), least=0)
        limit = min(most, LIST_KEYS_MAX)
        assert request.bucket is not None
        prefix, delimiter = bounded(query, "prefix"), bounded(query, "delimiter") or None
        if delimiter and query.get("allow-unordered") == "true":
            raise S3Error("InvalidArgument", "A listing with a delimiter is in order.")
        bucket = await self._objects.buckets.current(request.bucket)
        owner = bucket.owner or ROOT
        if version == "1":
            marker = bounded(query, "marker")
            page = await self._page(request.bucket, prefix, delimiter, marker, limit)
            return Response.xml(
                xml.list_objects_v1(
                    bucket=request.bucket,
                    prefix=prefix,
                    marker=marker,
                    max_keys=limit,
                    is_truncated=page.is_truncated,
                    objects=_shown(page.entries, bucket),
                    owner=owner,
                    common_prefixes=page.prefixes,
                    delimiter=delimiter,
                    encoding_type=encoding,
                    next_marker=_last_name(page) if page.is_truncated and delimiter else None,
                )
            )
        token = query.get("continuation-token")
        start_after = bounded(query, "start-after")
        after = decode_token(token) if token else start_after
        page = await self._page(request.bucket, prefix, delimiter, after, limit)
        return Response.xml(
            xml.list_objects_v2(
                bucket=request.bucket,
                prefix=prefix,
                max_keys=limit,
                objects=_shown(page.entries, bucket),
                common_prefixes=page.prefixes,
                delimiter=delimiter,
                encoding_type=encoding,
                start_after=start_after or None,
                continuation_token=token,
                next_token=encode_token(_last_name(page)) if page.is_truncated else None,
                owner=owner if query.get("fetch-owner") == "true" else None,
            )
        )

    async def _page(
        self, bucket: str, prefix: str, delimiter: str | None, after: str, limit: int
    ) -> Page[Listed]:
        """One page: up to ``limit`` entries after ``after``, and whether more follow."""
        if limit == 0:
            await self._objects.buckets.read(bucket)
            return Page()
        runs = self._objects.runs(
            bucket, prefix=prefix, delimiter=delimiter or "", start_after=after, page_size=limit + 1
        )
        return await page_of(runs, limit)
