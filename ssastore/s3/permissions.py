"""Operations on what lets others in: ACLs, bucket policies, Block Public Access, object ownership."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssastore.core.buckets import Bucket
from ssastore.core.metadata import Metadata
from ssastore.core.objects import Objects
from ssastore.core.users import ROOT, Users
from ssastore.limits import XML_BYTES_MAX
from ssastore.s3 import xml
from ssastore.s3.access import acl_of, blocks, check_grantees, has_acls, object_acl, policy_of
from ssastore.s3.acl import OWNERSHIPS, Acl, of_document, of_headers
from ssastore.s3.errors import S3Error
from ssastore.s3.policy import POLICY_BYTES_MAX, parse_policy
from ssastore.s3.request import Request, Response
from ssastore.s3.versioning import wanted_version
from ssastore.s3.xmlread import read_tree

_SWITCHES = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


class PermissionOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects, users: Users) -> None:
        self._objects = objects
        self._users = users

    # -- ACLs ---------------------------------------------------------------------------------------

    async def get_bucket_acl(self, request: Request) -> Response:
        """Who may do what with a bucket."""
        acl = acl_of(await self._bucket(request))
        return Response.xml(xml.access_control(acl.owner, acl.shown))

    async def put_bucket_acl(self, request: Request) -> Response:
        """Set it, by headers or a document."""
        bucket = await self._bucket(request)
        owner = bucket.owner or ROOT
        acl = await self._wanted(request, bucket, owner)
        await self._set(request, "acl", acl.encode())
        return Response(200)

    async def get_object_acl(self, request: Request) -> Response:
        """Who may do what with an object."""
        assert request.key is not None
        bucket = await self._bucket(request)
        version = wanted_version(request.query)
        acl = object_acl(bucket, await self._objects.head(bucket.name, request.key, version))
        return Response.xml(xml.access_control(acl.owner, acl.shown))

    async def put_object_acl(self, request: Request) -> Response:
        """Set it; the object's bytes, ETag and time stay."""
        assert request.key is not None
        bucket = await self._bucket(request)
        version = wanted_version(request.query)
        owner = object_acl(bucket, await self._objects.head(bucket.name, request.key, version)).owner
        acl = await self._wanted(request, bucket, owner)

        def change(known: Metadata) -> Metadata:
            return replace(known, extra=known.extra | {"acl": acl.encode()})

        await self._objects.amend(bucket.name, request.key, change, version)
        return Response(200)

    async def _wanted(self, request: Request, bucket: Bucket, owner: str) -> Acl:
        """The ACL that a request sets. S3Error, also for users that nobody has made a key for."""
        if not has_acls(bucket):
            raise S3Error("AccessControlListNotSupported")
        acl = of_headers(request.headers, owner, bucket.owner or ROOT)
        body = await request.small_body(XML_BYTES_MAX)
        if acl is not None and body:
            raise S3Error("UnexpectedContent")
        if acl is None:
            if not body:
                raise S3Error("MissingSecurityHeader")
            acl = of_document(body, owner)
        if acl.is_public and blocks(bucket, "BlockPublicAcls"):
            raise S3Error("AccessDenied", "Public ACLs are blocked for this bucket.")
        await check_grantees(self._users, acl, bucket.owner)
        return acl

    # -- policies -----------------------------------------------------------------------------------

    async def get_bucket_policy(self, request: Request) -> Response:
        """The policy as it was set."""
        text = (await self._bucket(request)).config.get("policy")
        if text is None:
            raise S3Error("NoSuchBucketPolicy")
        return Response(200, text.encode(), {"Content-Type": "application/json"})

    async def put_bucket_policy(self, request: Request) -> Response:
        """Set it, when all of it is understood."""
        assert request.bucket is not None
        try:
            text = (await request.small_body(POLICY_BYTES_MAX)).decode()
        except UnicodeDecodeError:
            raise S3Error("MalformedPolicy", "A policy must be UTF-8.") from None
        policy = parse_policy(text, request.bucket)
        if policy.is_public and blocks(await self._bucket(request), "BlockPublicPolicy"):
            raise S3Error("AccessDenied", "Public policies are blocked for this bucket.")
        await self._set(request, "policy", text)
        return Response(204)

    async def delete_bucket_policy(self, request: Request) -> Response:
        """Drop it."""
        await self._set(request, "policy", None)
        return Response(204)

    async def get_bucket_policy_status(self, request: Request) -> Response:
        """Whether policy or ACL let strangers in."""
        bucket = await self._bucket(request)
        policy = policy_of(bucket)
        is_public = (
            policy is not None and policy.is_public and not blocks(bucket, "RestrictPublicBuckets")
        ) or (acl_of(bucket).is_public and not blocks(bucket, "IgnorePublicAcls"))
        return Response.xml(xml.settings("PolicyStatus", [("IsPublic", is_public)]))

    # -- Block Public Access and ownership ----------------------------------------------------------

    async def get_public_access_block(self, request: Request) -> Response:
        """The four switches."""
        found = (await self._bucket(request)).config.get("publicAccessBlock")
        if found is None:
            raise S3Error("NoSuchPublicAccessBlockConfiguration")
        values = [(name, bool(found.get(name))) for name in _SWITCHES]
        return Response.xml(xml.settings("PublicAccessBlockConfiguration", values))

    async def put_public_access_block(self, request: Request) -> Response:
        """Set them."""
        tree = read_tree(await request.small_body(XML_BYTES_MAX), "PublicAccessBlockConfiguration")
        values = {name: (tree.value(name) or "false").lower() for name in _SWITCHES}
        if not {"true", "false"}.issuperset(values.values()):
            raise S3Error("MalformedXML")
        await self._set(request, "publicAccessBlock", {name: text == "true" for name, text in values.items()})
        return Response(200)

    async def delete_public_access_block(self, request: Request) -> Response:
        """Take them away."""
        await self._set(request, "publicAccessBlock", None)
        return Response(204)

    async def get_bucket_ownership_controls(self, request: Request) -> Response:
        """Whose an uploaded object is."""
        found = (await self._bucket(request)).config.get("ownershipControls")
        if found is None:
            raise S3Error("OwnershipControlsNotFoundError")
        return Response.xml(xml.ownership_controls(found))

    async def put_bucket_ownership_controls(self, request: Request) -> Response:
        """Set it."""
        tree = read_tree(await request.small_body(XML_BYTES_MAX), "OwnershipControls")
        rule = tree.one("Rule")
        wanted = rule.value("ObjectOwnership") if rule is not None else None
        if wanted not in OWNERSHIPS:
            raise S3Error("MalformedXML")
        acl = acl_of(await self._bucket(request))
        if wanted == "BucketOwnerEnforced" and acl != Acl.private(acl.owner):
            raise S3Error("InvalidBucketAclWithObjectOwnership")
        await self._set(request, "ownershipControls", wanted)
        return Response(200)

    async def delete_bucket_ownership_controls(self, request: Request) -> Response:
        """Take it away."""
        await self._set(request, "ownershipControls", None)
        return Response(204)

    # -- steps --------------------------------------------------------------------------------------

    async def _bucket(self, request: Request) -> Bucket:
        assert request.bucket is not None
        return await self._objects.buckets.read(request.bucket)

    async def _set(self, request: Request, name: str, value: Any) -> None:
        """Set one of a bucket's settings; None takes it away."""
        assert request.bucket is not None

        def change(known: Bucket) -> dict[str, Any]:
            others = {key: kept for key, kept in known.config.items() if key != name}
            return others if value is None else others | {name: value}

        await self._objects.buckets.configure(request.bucket, change)
