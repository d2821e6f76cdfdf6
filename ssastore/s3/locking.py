"""Operations of object lock: a bucket's default, retention and legal holds of versions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssastore.core.buckets import Bucket
from ssastore.core.keeping import ENABLED
from ssastore.core.metadata import Metadata
from ssastore.core.objects import Objects
from ssastore.core.versions import Guard
from ssastore.limits import XML_BYTES_MAX
from ssastore.s3 import locks, xmlsettings
from ssastore.s3.access import Access
from ssastore.s3.errors import S3Error
from ssastore.s3.request import Request, Response
from ssastore.s3.versioning import of_versions, wanted_version
from ssastore.s3.xmltext import iso8601

_BYPASS = "x-amz-bypass-governance-retention"


async def may_bypass(access: Access, request: Request, key: str) -> bool:
    """Whether the request overrules GOVERNANCE. S3Error AccessDenied: it wants to, and its user may not."""
    if request.headers.get(_BYPASS, "false").lower() != "true":
        return False
    assert request.bucket is not None
    if not await access.may(request, "BypassGovernanceRetention", request.bucket, key):
        raise S3Error("AccessDenied")
    return True


async def deletion_guard(access: Access, request: Request, key: str) -> Guard:
    """What refuses to delete versions that are locked."""
    return locks.guard(request.received_ms, may_bypass=await may_bypass(access, request, key))


class LockOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects, access: Access) -> None:
        self._objects = objects
        self._access = access

    async def get_object_lock_configuration(self, request: Request) -> Response:
        """The bucket's default."""
        assert request.bucket is not None
        bucket = await self._objects.buckets.read(request.bucket)
        if locks.SETTING not in bucket.config:
            raise S3Error("ObjectLockConfigurationNotFoundError", BucketName=request.bucket)
        return Response.xml(xmlsettings.lock_configuration(bucket.config[locks.SETTING].get("rule")))

    async def put_object_lock_configuration(self, request: Request) -> Response:
        """Set the bucket's default; in a bucket that makes versions this enables object lock, too."""
        assert request.bucket is not None
        setting = locks.parse_configuration(await request.small_body(XML_BYTES_MAX))

        def change(bucket: Bucket) -> dict[str, Any]:
            if bucket.versioning != ENABLED:
                text = "Versioning must be 'Enabled' on the bucket to apply an Object Lock configuration"
                raise S3Error("InvalidBucketState", text)
            return bucket.config | {locks.SETTING: setting}

        await self._objects.buckets.configure(request.bucket, change)
        return Response(200)

    async def get_object_retention(self, request: Request) -> Response:
        """Until when a version is kept."""
        extra = await self._extra(request)
        if "lock" not in extra:
            raise S3Error("NoSuchObjectLockConfiguration")
        lock = extra["lock"]
        return Response.xml(xmlsettings.retention(lock["mode"], iso8601(lock["until_ms"])))

    async def put_object_retention(self, request: Request) -> Response:
        """Keep a version until some time; to shorten that takes who may overrule it."""
        await self._bucket(request)
        assert request.key is not None
        now_ms = request.received_ms
        lock = locks.parse_retention(await request.small_body(XML_BYTES_MAX), now_ms)
        bypass = await may_bypass(self._access, request, request.key)

        def change(metadata: Metadata) -> Metadata:
            locks.check_change(metadata.extra.get("lock"), lock, now_ms, may_bypass=bypass)
            extra = {name: value for name, value in metadata.extra.items() if name != "lock"}
            return replace(metadata, extra=extra | ({"lock": lock} if lock else {}))

        await self._amend(request, change)
        return Response(200)

    async def get_object_legal_hold(self, request: Request) -> Response:
        """Whether a version is held."""
        extra = await self._extra(request)
        if "hold" not in extra:
            raise S3Error("NoSuchObjectLockConfiguration")
        return Response.xml(xmlsettings.legal_hold(extra["hold"]))

    async def put_object_legal_hold(self, request: Request) -> Response:
        """Hold a version, or hold it no more."""
        await self._bucket(request)
        status = locks.parse_hold(await request.small_body(XML_BYTES_MAX))
        await self._amend(
            request, lambda metadata: replace(metadata, extra=metadata.extra | {"hold": status})
        )
        return Response(200)

    async def _bucket(self, request: Request) -> Bucket:
        """The bucket, which has object lock. S3Error InvalidRequest."""
        assert request.bucket is not None
        bucket = await self._objects.bucket(request.bucket)
        locks.check_has_locks(bucket)
        return bucket

    async def _extra(self, request: Request) -> dict[str, Any]:
        await self._bucket(request)
        assert request.bucket is not None and request.key is not None
        version = wanted_version(request.query)
        head = self._objects.head(request.bucket, request.key, version)
        return (await of_versions(self._objects, request.bucket, request.key, version, head)).extra

    async def _amend(self, request: Request, change: Any) -> None:
        assert request.bucket is not None and request.key is not None
        version = wanted_version(request.query)
        work = self._objects.amend(request.bucket, request.key, change, version)
        await of_versions(self._objects, request.bucket, request.key, version, work)
