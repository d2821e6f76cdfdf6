"""Get, Put and Delete of the tags of objects and buckets."""

from __future__ import annotations

from dataclasses import replace

from ssastore.core.metadata import Metadata
from ssastore.core.objects import Objects
from ssastore.limits import XML_BYTES_MAX
from ssastore.s3 import xmlsettings
from ssastore.s3.errors import S3Error
from ssastore.s3.request import Request, Response
from ssastore.s3.tags import parse_tagging
from ssastore.s3.versioning import VERSION_ID, of_versions, read_version, wanted_version


class TagOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def get_object_tagging(self, request: Request) -> Response:
        """The tags; an empty set when there are none."""
        assert request.bucket is not None and request.key is not None
        version = wanted_version(request.query)
        finding = self._objects.head(request.bucket, request.key, version)
        info = await of_versions(self._objects, request.bucket, request.key, version, finding)
        response = Response.xml(xmlsettings.tagging(info.extra.get("tags", {})))
        response.headers |= read_version(self._objects.buckets.cached(request.bucket), info)
        return response

    async def put_object_tagging(self, request: Request) -> Response:
        """Replace all tags; the object stays as old as it is."""
        return Response(200, b"", await self._amend(request, await request.body_tags()))

    async def delete_object_tagging(self, request: Request) -> Response:
        """Drop all tags."""
        return Response(204, b"", await self._amend(request, {}))

    async def _amend(self, request: Request, tags: dict[str, str]) -> dict[str, str]:
        """Set an object's tags; the headers that say of which version."""
        assert request.bucket is not None and request.key is not None

        def change(known: Metadata) -> Metadata:
            extra = {name: value for name, value in known.extra.items() if name != "tags"}
            return replace(known, extra=extra | ({"tags": tags} if tags else {}))

        version = wanted_version(request.query)
        amending = self._objects.amend(request.bucket, request.key, change, version)
        await of_versions(self._objects, request.bucket, request.key, version, amending)
        return {VERSION_ID: version} if version else {}

    async def get_bucket_tagging(self, request: Request) -> Response:
        """The tags of a bucket; 404 NoSuchTagSet when there are none."""
        assert request.bucket is not None
        tags = (await self._objects.buckets.read(request.bucket)).config.get("tagging")
        if not tags:
            raise S3Error("NoSuchTagSet")
        return Response.xml(xmlsettings.tagging(tags))

    async def put_bucket_tagging(self, request: Request) -> Response:
        """Replace all tags of a bucket."""
        assert request.bucket is not None
        tags = parse_tagging(await request.small_body(XML_BYTES_MAX), of_bucket=True)
        await self._objects.buckets.configure(request.bucket, lambda known: known.config | {"tagging": tags})
        return Response(204)

    async def delete_bucket_tagging(self, request: Request) -> Response:
        """Drop all tags of a bucket."""
        assert request.bucket is not None
        await self._objects.buckets.configure(
            request.bucket,
            lambda known: {name: value for name, value in known.config.items() if name != "tagging"},
        )
        return Response(204)
