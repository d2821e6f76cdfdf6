"""Versions: a bucket's setting, the listing, and what answers about one object say of them."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from ssastore.core.buckets import Bucket
from ssastore.core.keeping import ENABLED, SUSPENDED
from ssastore.core.objects import CommonPrefix, ObjectInfo, Objects
from ssastore.core.users import ROOT
from ssastore.core.versionlist import ListedVersion, Wanted
from ssastore.core.versionnames import NULL, is_id
from ssastore.errors import MarkerFound, ObjectNotFound
from ssastore.limits import LIST_KEYS_MAX, XML_BYTES_MAX
from ssastore.s3 import locks, xml, xmlsettings
from ssastore.s3.access import has_acls
from ssastore.s3.buckets import bounded
from ssastore.s3.entity import http_date
from ssastore.s3.errors import S3Error
from ssastore.s3.names import parse_number
from ssastore.s3.pages import Page, page_of
from ssastore.s3.request import Request, Response
from ssastore.s3.xmlread import read_tree

VERSION_ID = "x-amz-version-id"
DELETE_MARKER = "x-amz-delete-marker"

T = TypeVar("T")


def wanted_version(query: Mapping[str, str]) -> str | None:
    """The version that a request is about; None for the current one. S3Error InvalidArgument."""
    version_id = query.get("versionId")
    if version_id is not None and not is_id(version_id):
        text = "Invalid version id specified" if version_id else "Version id cannot be the empty string"
        raise S3Error("InvalidArgument", text, ArgumentName="versionId", ArgumentValue=version_id[:64])
    return version_id


def written_version(version: str) -> dict[str, str]:
    """What the answer to a write says: a version without an id of its own is not mentioned, as in S3."""
    return {VERSION_ID: version} if version not in ("", NULL) else {}


def read_version(bucket: Bucket | None, info: ObjectInfo) -> dict[str, str]:
    """What the answer to a read says: the id "null" only where there may be others."""
    version = info.version or (NULL if bucket is not None and bucket.versioning else "")
    return {VERSION_ID: version} if version else {}


async def of_versions(
    objects: Objects, bucket: str, key: str, version_id: str | None, work: Awaitable[T]
) -> T:
    """The result of a read; that there is a marker is said with its failure.

    Raises:
        S3Error: MethodNotAllowed for a marker, NoSuchKey where one is what is current.
    """
    try:
        return await work
    except MarkerFound as error:
        headers = {
            DELETE_MARKER: "true",
            VERSION_ID: version_id or "",
            "Allow": "DELETE",
            "Last-Modified": http_date(error.modified_ms // 1000),
        }
        raise S3Error(
            "MethodNotAllowed", headers=headers, Method="GET", ResourceType="DeleteMarker"
        ) from None
    except ObjectNotFound:
        marker = await objects.marker(bucket, key)
        if marker is None:
            raise
        raise S3Error("NoSuchKey", headers={DELETE_MARKER: "true", VERSION_ID: marker}, Key=key) from None


def parse_versioning(body: bytes) -> str:
    """The status that PutBucketVersioning sets. S3Error."""
    wanted = read_tree(body, "VersioningConfiguration")
    if wanted.value("MfaDelete") not in (None, "Disabled"):
        raise S3Error("NotImplemented", "MFA delete is not implemented by this server.")
    status = wanted.value("Status")
    if status is None:
        raise S3Error("IllegalVersioningConfigurationException")
    if status not in (ENABLED, SUSPENDED):
        raise S3Error("MalformedXML", "Status must be Enabled or Suspended.")
    return status


def _last_name(page: Page[ListedVersion]) -> tuple[str, str]:
    """Key and id of the last entry, or a common prefix and nothing."""
    last = page.last
    assert last is not None
    return (last.prefix, "") if isinstance(last, CommonPrefix) else (last.key, last.version)


class VersionOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def get_bucket_versioning(self, request: Request) -> Response:
        """Whether the bucket makes versions."""
        assert request.bucket is not None
        bucket = await self._objects.buckets.read(request.bucket)
        return Response.xml(xmlsettings.versioning(bucket.versioning))

    async def put_bucket_versioning(self, request: Request) -> Response:
        """Let the bucket make versions, or no more."""
        assert request.bucket is not None
        if "x-amz-mfa" in request.headers:
            raise S3Error("NotImplemented", "MFA delete is not implemented by this server.")
        status = parse_versioning(await request.small_body(XML_BYTES_MAX))

        def change(bucket: Bucket) -> dict[str, Any]:
            if not bucket.is_indexed:
                raise S3Error("InvalidRequest", "A hashed bucket makes no versions.")
            if status != ENABLED and locks.SETTING in bucket.config:
                text = "Versioning cannot be suspended where an Object Lock configuration is present."
                raise S3Error("InvalidBucketState", text)
            return bucket.config | {"versioning": status}

        await self._objects.buckets.configure(request.bucket, change)
        return Response(200)

    async def list_object_versions(self, request: Request) -> Response:
        """One page of versions and markers."""
        assert request.bucket is not None
        query = request.query
        encoding = xml.check_encoding_type(query.get("encoding-type"))
        limit = min(
            parse_number("max-keys", query.get("max-keys", str(LIST_KEYS_MAX)), least=0), LIST_KEYS_MAX
        )
        id_marker = query.get("version-id-marker", "")
        wanted = Wanted(
            bounded(query, "prefix"), bounded(query, "delimiter"), bounded(query, "key-marker"), id_marker
        )
        if id_marker and not wanted.key_marker:
            raise S3Error(
                "InvalidArgument",
                "A version-id marker cannot be specified without a key marker.",
                ArgumentName="version-id-marker",
            )
        if id_marker and not is_id(id_marker):
            raise S3Error("InvalidArgument", "Invalid version id specified", ArgumentName="version-id-marker")
        page = await self._page(request.bucket, wanted, limit)
        bucket = await self._objects.buckets.current(request.bucket)
        return Response.xml(
            xml.list_versions(
                bucket=request.bucket,
                wanted=wanted,
                max_keys=limit,
                entries=page.entries
                if has_acls(bucket)
                else [replace(one, owner="") for one in page.entries],
                owner=bucket.owner or ROOT,
                common_prefixes=page.prefixes,
                encoding_type=encoding,
                next_marker=_last_name(page) if page.is_truncated else None,
            )
        )

    async def _page(self, bucket: str, wanted: Wanted, limit: int) -> Page[ListedVersion]:
        if limit == 0:
            await self._objects.buckets.read(bucket)
            return Page()
        async with aclosing(self._objects.list_versions(bucket, wanted, page_size=limit + 1)) as entries:
            return await page_of(([entry] async for entry in entries), limit)
