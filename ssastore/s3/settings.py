"""Settings of a bucket that are kept as they come, and what tools ask for that nobody can set here.

What cannot be set is answered as S3 does for a bucket where nothing was set: tools that read all
there is to know of a bucket then go on, and so do those that take it back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssastore.core.ciphers import ENCRYPTION
from ssastore.core.objects import Objects
from ssastore.limits import XML_BYTES_MAX
from ssastore.s3 import xmlsettings
from ssastore.s3.cors import parse_cors
from ssastore.s3.encryption import ALGORITHM, Encryption, parse_default
from ssastore.s3.errors import S3Error
from ssastore.s3.request import Request, Response
from ssastore.s3.router import unset
from ssastore.s3.xmlread import Element, read_tree

_EMPTY = {
    "GetBucketRequestPayment": xmlsettings.request_payment,
    "GetBucketAccelerateConfiguration": xmlsettings.accelerate,
    "GetBucketLogging": xmlsettings.logging_status,
    "GetBucketNotificationConfiguration": xmlsettings.notifications,
}
_MISSING = {
    "GetBucketWebsite": "NoSuchWebsiteConfiguration",
    "GetBucketReplication": "ReplicationConfigurationNotFoundError",
}
_AS_IT_IS: dict[str, tuple[str, str, Callable[[Element], bool]]] = {
    "PutBucketLogging": ("logging", "BucketLoggingStatus", lambda tree: not tree.children),
    "PutBucketNotificationConfiguration": (
        "notification",
        "NotificationConfiguration",
        lambda tree: not tree.children,
    ),
    "PutBucketRequestPayment": (
        "requestPayment",
        "RequestPaymentConfiguration",
        lambda tree: tree.value("Payer") == "BucketOwner",
    ),
}
"Sub-resource, document, and whether that is what a bucket has anyway."
_NOTHING_TO_DELETE = ("DeleteBucketWebsite", "DeleteBucketReplication")


class SettingOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects, encryption: Encryption) -> None:
        self._objects = objects
        self._encryption = encryption

    async def get_bucket_encryption(self, request: Request) -> Response:
        """How objects are encrypted that do not say it; 404 for a bucket that leaves them as they are."""
        assert request.bucket is not None
        if ENCRYPTION not in (await self._objects.buckets.read(request.bucket)).config:
            raise S3Error("ServerSideEncryptionConfigurationNotFoundError")
        return Response.xml(xmlsettings.encryption(ALGORITHM))

    async def put_bucket_encryption(self, request: Request) -> Response:
        """Have objects encrypted by SSE-S3 from now on; those that are there stay as they are."""
        parse_default(await request.small_body(XML_BYTES_MAX))
        self._encryption.check_keys()
        await self._configure(request, lambda config: config | {ENCRYPTION: ALGORITHM})
        return Response(200)

    async def delete_bucket_encryption(self, request: Request) -> Response:
        """Leave objects as they are from now on."""
        await self._configure(request, lambda config: {k: v for k, v in config.items() if k != ENCRYPTION})
        return Response(204)

    async def get_bucket_cors(self, request: Request) -> Response:
        """The bucket's CORS rules; 404 NoSuchCORSConfiguration without any."""
        assert request.bucket is not None
        rules = (await self._objects.buckets.read(request.bucket)).config.get("cors")
        if not rules:
            raise S3Error("NoSuchCORSConfiguration")
        return Response.xml(xmlsettings.cors(rules))

    async def put_bucket_cors(self, request: Request) -> Response:
        """Replace the bucket's CORS rules."""
        rules = parse_cors(await request.small_body(XML_BYTES_MAX))
        await self._configure(request, lambda config: config | {"cors": rules})
        return Response(200)

    async def delete_bucket_cors(self, request: Request) -> Response:
        """Drop the bucket's CORS rules."""
        await self._configure(request, lambda config: {k: v for k, v in config.items() if k != "cors"})
        return Response(204)

    async def _configure(self, request: Request, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        assert request.bucket is not None
        await self._objects.buckets.configure(request.bucket, lambda known: change(known.config))

    def unset(self) -> dict[str, Callable[[Request], Any]]:
        """Handlers of what is never set, by operation."""
        handlers: dict[str, Callable[[Request], Any]] = {}
        for name, document in _EMPTY.items():
            handlers[name] = self._handler(document, "")
        for name, code in _MISSING.items():
            handlers[name] = self._handler(None, code)
        handlers |= {name: self._setter(*how) for name, how in _AS_IT_IS.items()}
        return handlers | dict.fromkeys(_NOTHING_TO_DELETE, self._delete_nothing)

    def _setter(
        self, name: str, root: str, is_as_it_is: Callable[[Element], bool]
    ) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            assert request.bucket is not None
            await self._objects.buckets.read(request.bucket)
            if not is_as_it_is(read_tree(await request.small_body(XML_BYTES_MAX), root)):
                raise unset(name)
            return Response(200)

        return handle

    async def _delete_nothing(self, request: Request) -> Response:
        assert request.bucket is not None
        await self._objects.buckets.read(request.bucket)
        return Response(204)

    def _handler(self, document: Callable[[], bytes] | None, code: str) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            assert request.bucket is not None
            await self._objects.buckets.read(request.bucket)
            if document is None:
                raise S3Error(code)
            return Response.xml(document())

        return handle
