"""Who may do what: one decision before any operation runs.

    the root user                       everything
    a policy's explicit deny            nothing
    a policy's allow, the bucket's owner, the ACL of bucket or object: any of them suffices

``Block Public Access`` takes away what policies and ACLs give to strangers.  An object's own ACL is read only
where nothing else allows the request, so the common request costs nothing but the bucket's record, which is
known already.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ssastore.core.buckets import Bucket, hold_to_buckets
from ssastore.core.objects import ObjectInfo, Objects
from ssastore.core.users import ANYBODY, ROOT, Users
from ssastore.core.versionnames import is_id
from ssastore.errors import MarkerFound, ObjectNotFound, UploadNotFound, VersionNotFound
from ssastore.s3.acl import HEADERS, Acl, of_headers
from ssastore.s3.circumstances import circumstances, request_tags
from ssastore.s3.errors import S3Error
from ssastore.s3.policy import Asked, Policy, Verdict, parse_policy
from ssastore.s3.request import Request

_ACTIONS = {
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListParts": "ListMultipartUploadParts",
    "HeadObject": "GetObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "PostObject": "PutObject",
    "DeleteObjects": "DeleteObject",
    "GetBucketAccelerateConfiguration": "GetAccelerateConfiguration",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "PutBucketNotificationConfiguration": "PutBucketNotification",
    "GetBucketReplication": "GetReplicationConfiguration",
    "DeleteBucketReplication": "PutReplicationConfiguration",
    "GetBucketCors": "GetBucketCORS",
    "PutBucketCors": "PutBucketCORS",
    "DeleteBucketCors": "PutBucketCORS",
    "DeleteBucketTagging": "PutBucketTagging",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "PutObjectLockConfiguration": "PutBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
}
"Operations whose action in policies has another name."
_OF_THE_OWNER = frozenset({"PutBucketPolicy", "DeleteBucketPolicy"})
"No policy gives these to others, or takes them from the owner, as in AWS: who is shut out gets in again."

_OF_VERSIONS = {
    "GetObject": "GetObjectVersion",
    "DeleteObject": "DeleteObjectVersion",
    "GetObjectAcl": "GetObjectVersionAcl",
    "PutObjectAcl": "PutObjectVersionAcl",
    "GetObjectTagging": "GetObjectVersionTagging",
    "PutObjectTagging": "PutObjectVersionTagging",
    "DeleteObjectTagging": "DeleteObjectVersionTagging",
    "GetObjectAttributes": "GetObjectVersionAttributes",
}
_BUCKET_PERMISSIONS = {
    "ListBucket": "READ",
    "ListBucketVersions": "READ",
    "ListBucketMultipartUploads": "READ",
    "PutObject": "WRITE",
    "DeleteObject": "WRITE",
    "GetBucketAcl": "READ_ACP",
    "PutBucketAcl": "WRITE_ACP",
}
_OBJECT_PERMISSIONS = {
    "GetObject": "READ",
    "GetObjectVersion": "READ",
    "GetObjectAttributes": "READ",
    "GetObjectVersionAttributes": "READ",
    "GetObjectAcl": "READ_ACP",
    "GetObjectVersionAcl": "READ_ACP",
    "PutObjectAcl": "WRITE_ACP",
    "PutObjectVersionAcl": "WRITE_ACP",
}
_ALSO = {
    "x-amz-object-lock-mode": "PutObjectRetention",
    "x-amz-object-lock-retain-until-date": "PutObjectRetention",
    "x-amz-object-lock-legal-hold": "PutObjectLegalHold",
}
"What an upload with such a header must be allowed besides: who may write may not make it last for ever."
_MAKE_OBJECTS = frozenset({"PutObject", "PostObject", "CopyObject", "CreateMultipartUpload"})
"Operations that say whose an object will be, by headers for its ACL."
_OF_INITIATORS = frozenset({"AbortMultipartUpload", "ListMultipartUploadParts"})
"Actions on an upload, which who began it may do without being told so."
Name = tuple[str | None, str | None]
"Key and version id."

_TAG_KEY = "s3:existingobjecttag/"
_REQUEST_TAG = "s3:requestobjecttag"


@lru_cache(maxsize=256)
def _parsed(text: str, bucket: str) -> Policy:
    return parse_policy(text, bucket)


def policy_of(bucket: Bucket) -> Policy | None:
    """The bucket's policy, if it has one."""
    text = bucket.config.get("policy")
    return _parsed(text, bucket.name) if text else None


def has_acls(bucket: Bucket) -> bool:
    """Whether ACLs count, and objects can be others' than the bucket's owner's."""
    return bucket.config.get("ownershipControls") != "BucketOwnerEnforced"


def _acl(kept: Any, bucket: Bucket) -> Acl:
    """What was kept, which counts no more where ACLs are disabled."""
    return Acl.decode(kept if has_acls(bucket) else None, bucket.owner or ROOT)


def acl_of(bucket: Bucket) -> Acl:
    """The bucket's ACL."""
    return _acl(bucket.config.get("acl"), bucket)


def blocks(bucket: Bucket, what: str) -> bool:
    """Whether ``BlockPublicAcls`` or another of the four switches of Block Public Access is on."""
    return bool(bucket.config.get("publicAccessBlock", {}).get(what))


def object_acl(bucket: Bucket, info: ObjectInfo) -> Acl:
    """An object's ACL."""
    return _acl(info.extra.get("acl"), bucket)


def _is_given_up(request: Request) -> bool:
    """Whether an upload gives all of its object to the bucket's owner, and nothing to anybody else."""
    said = [name for name in HEADERS if name in request.headers]
    return said == ["x-amz-acl"] and request.headers["x-amz-acl"] == "bucket-owner-full-control"


def _owner_to_be(request: Request, bucket: Bucket) -> str:
    """Whose an object is that a request uploads."""
    is_preferred = bucket.config.get("ownershipControls") == "BucketOwnerPreferred"
    if not has_acls(bucket) or (is_preferred and _is_given_up(request)) or request.user == ANYBODY:
        return bucket.owner or ROOT
    return request.user


def initiator_to_keep(request: Request, bucket: Bucket) -> dict[str, Any]:
    """What an upload keeps of who began it in its object's ``extra``: nothing when the object is his."""
    return {} if request.user == _owner_to_be(request, bucket) else {"initiator": request.user}


def initiator_of(extra: Mapping[str, Any], bucket: Bucket) -> str:
    """Who began an upload, by the ``extra`` of its object, before or after its completion."""
    owner = Acl.decode(extra.get("acl"), bucket.owner or ROOT).owner
    return str(extra.get("initiator", owner))


def check_initiator(request: Request, extra: Mapping[str, Any], bucket: Bucket) -> None:
    """S3Error AccessDenied for who adds to somebody else's upload, or completes it: as in AWS, nobody may.

    Args:
        extra: as for ``initiator_of``.
    """
    if request.user not in (ROOT, initiator_of(extra, bucket)):
        raise S3Error("AccessDenied", "Only who began a multipart upload adds parts to it and completes it.")


async def check_grantees(users: Users, acl: Acl, *known: str) -> None:
    """S3Error InvalidArgument for a grant to who has never had a key; ``known`` are users for certain."""
    named = acl.users - {acl.owner, ROOT, *known}
    if named and (unknown := await users.unknown(named)):
        raise S3Error(
            "InvalidArgument", "Invalid id", ArgumentName="CanonicalUser/ID", ArgumentValue=min(unknown)[:64]
        )


class Access:
    """Decides for the operations of one gateway."""

    def __init__(self, objects: Objects, users: Users) -> None:
        self._objects = objects
        self._users = users

    async def check(self, request: Request, operation: str) -> None:
        """Raise S3Error AccessDenied unless the user may do what the request asks.

        From here on the request meets the buckets that this was decided for, or fails (TryLater).
        """
        hold_to_buckets(is_wanted=request.user != ROOT)
        if operation != "CreateBucket":
            await self._check_owner(request, "x-amz-expected-bucket-owner", request.bucket)
        if request.user == ROOT:
            return
        if request.bucket is None or operation == "CreateBucket":
            if request.user == ANYBODY:
                raise S3Error("AccessDenied")
            return
        if operation == "DeleteObjects" and request.user != ANYBODY:
            return  # Each of its keys is checked by itself.
        if operation == "PutObjectTagging":
            policy = policy_of(await self._objects.buckets.current(request.bucket))
            if policy is not None and policy.asks_for(_REQUEST_TAG):
                await request.body_tags()
        key = "*" if operation == "DeleteObjects" else request.key
        for action in _needed(request, _ACTIONS.get(operation, operation)):
            if not await self.may(request, action, request.bucket, key, request.query.get("versionId")):
                raise S3Error("AccessDenied")
        if operation in _MAKE_OBJECTS:
            await self._check_brought(request)

    async def _check_brought(self, request: Request) -> None:
        """That an upload may bring along the ACL and the tags that it has. Raises S3Error AccessDenied."""
        if any(name in request.headers for name in HEADERS):
            await self.check_brings(request, "PutObjectAcl")
        if request_tags(request, "PutObjectTagging"):
            await self.check_brings(request, "PutObjectTagging")

    async def check_brings(self, request: Request, action: str) -> None:
        """That an upload, which is allowed, may do besides what would be an ``action`` of its own.

        As in AWS who will own the object sets its ACL, and giving everything to the bucket's owner is no
        setting.  There is no finer right than WRITE where the bucket's ACL is what allows the upload.
        Raises S3Error AccessDenied.
        """
        assert request.bucket is not None and request.key is not None
        if request.user == ROOT:
            return
        bucket = await self._objects.buckets.current(request.bucket)
        allowed = await self._decided(request, action, bucket, (request.key, None))
        if allowed is None:
            is_own = request.user == _owner_to_be(request, bucket) or _is_given_up(request)
            allowed = (action == "PutObjectAcl" and is_own) or self._grants(bucket, request.user, "WRITE")
        if not allowed:
            raise S3Error("AccessDenied")

    async def check_source_owner(self, request: Request, bucket: str) -> None:
        """Of a copy: that its source is whose the request says. Raises S3Error AccessDenied."""
        await self._check_owner(request, "x-amz-source-expected-bucket-owner", bucket)

    async def _check_owner(self, request: Request, header: str, bucket: str | None) -> None:
        expected = request.headers.get(header)
        if expected is not None and bucket is not None:
            found = await self._objects.buckets.current(bucket)
            if expected != (found.owner or ROOT):
                raise S3Error("AccessDenied")  # As to who may not: else who owns it could be guessed.

    async def acl_to_keep(self, request: Request, bucket: Bucket) -> dict[str, Any]:
        """What an upload keeps of its ACL in its object's ``extra``: nothing for the bucket owner's alone.

        Raises:
            S3Error: AccessDenied: public ACLs are blocked; InvalidArgument, as ``check_grantees`` does.
        """
        bucket_owner = bucket.owner or ROOT
        if not has_acls(bucket):
            if not _is_given_up(request) and any(name in request.headers for name in HEADERS):
                raise S3Error("AccessControlListNotSupported")
            return {}
        owner = _owner_to_be(request, bucket)
        if owner == bucket_owner and not any(name in request.headers for name in HEADERS):
            return {}
        acl = of_headers(request.headers, owner, bucket_owner) or Acl.private(owner)
        if acl.is_public and blocks(bucket, "BlockPublicAcls"):
            raise S3Error("AccessDenied", "Public ACLs are blocked for this bucket.")
        await check_grantees(self._users, acl, bucket_owner)
        return {} if acl == Acl.private(bucket_owner) else {"acl": acl.encode()}

    async def may(
        self, request: Request, action: str, bucket_name: str, key: str | None, version_id: str | None = None
    ) -> bool:
        """Whether the request's user may do ``action`` (without ``s3:``) to a bucket or an object of it.

        ``version_id``: to one version, by its own ACL and by the action's name for that.  Raises what reading
        the bucket's record raises, and that there is no such object where the user may know it.
        """
        if version_id is not None:
            action = _OF_VERSIONS.get(action, action)
        if request.user == ROOT:
            return True
        bucket = await self._objects.buckets.current(bucket_name)
        if action in _OF_THE_OWNER:
            return request.user == (bucket.owner or ROOT)
        decided = await self._decided(request, action, bucket, (key, version_id))
        if decided is not None:
            return decided
        if action in _OF_INITIATORS:
            return await self._began(request, bucket)
        return await self._acl_allows(request, action, bucket, (key, version_id))

    async def _decided(self, request: Request, action: str, bucket: Bucket, name: Name) -> bool | None:
        """What policy and ownership of the bucket say; None: nothing."""
        is_owner = request.user == (bucket.owner or ROOT)  # ANYBODY is as empty as no owner.
        policy = policy_of(bucket)
        if policy is not None:
            verdict = policy.verdict(await self._asked(request, action, bucket, name, policy))
            if verdict is Verdict.DENY:
                return False
            is_shut = policy.is_public and blocks(bucket, "RestrictPublicBuckets")
            if verdict is Verdict.ALLOW and (not is_shut or is_owner):
                return True
        return True if is_owner else None

    def _grants(self, bucket: Bucket, user: str, permission: str) -> bool:
        """Whether the bucket's ACL gives a permission."""
        return acl_of(bucket).allows(user, permission, ignores_public=blocks(bucket, "IgnorePublicAcls"))

    async def _began(self, request: Request, bucket: Bucket) -> bool:
        """Whether the user began the upload that a request is about; nobody in particular never did.

        Raises UploadNotFound: there is no such upload, which who may upload may know.
        """
        assert request.key is not None
        try:
            upload = await self._objects.multipart(bucket).read(
                request.key.encode(), request.query.get("uploadId", "")
            )
        except UploadNotFound:
            if await self.may(request, "PutObject", bucket.name, request.key):
                raise
            return False
        return request.user == initiator_of(upload.metadata.extra["object"], bucket) != ANYBODY

    async def _acl_allows(self, request: Request, action: str, bucket: Bucket, name: Name) -> bool:
        wanted = _BUCKET_PERMISSIONS.get(action)
        if wanted and self._grants(bucket, request.user, wanted):
            return True
        permission = _OBJECT_PERMISSIONS.get(action)
        key, version_id = name
        if key is None or permission is None or (version_id is not None and not is_id(version_id)):
            return False
        try:
            info = await self._objects.head(bucket.name, key, version_id)
        except (ObjectNotFound, VersionNotFound, MarkerFound):
            # Who may list may know that there is nothing. He is told so here: what he may not read could be
            # there a moment later.
            if self._grants(bucket, request.user, "READ"):
                raise
            policy = policy_of(bucket)
            context = {**circumstances(request, "", None), "s3:prefix": [key]}
            asked = Asked(request.user, "s3:ListBucket", bucket.name, context)
            if policy is not None and policy.verdict(asked) is Verdict.ALLOW:
                raise
            return False
        ignores_public = blocks(bucket, "IgnorePublicAcls")
        return object_acl(bucket, info).allows(request.user, permission, ignores_public=ignores_public)

    async def _asked(
        self, request: Request, action: str, bucket: Bucket, name: Name, policy: Policy
    ) -> Asked:
        key, version_id = name
        context = dict(circumstances(request, action, version_id))
        if key is not None and policy.asks_for(_TAG_KEY):
            context |= await self._tags_of(bucket, key, version_id)
        resource = bucket.name if key is None else f"{bucket.name}/{key}"
        return Asked(request.user, f"s3:{action}", resource, context)

    async def _tags_of(self, bucket: Bucket, key: str, version_id: str | None) -> dict[str, list[str]]:
        try:
            tags = (await self._objects.head(bucket.name, key, version_id)).extra.get("tags", {})
        except (ObjectNotFound, VersionNotFound, MarkerFound):
            return {}
        return {f"{_TAG_KEY}{name.lower()}": [value] for name, value in tags.items()}


def _needed(request: Request, action: str) -> list[str]:
    """All actions that a request must be allowed, its own first."""
    if action == "PutObject":
        return [action, *sorted({also for header, also in _ALSO.items() if header in request.headers})]
    return [action, "GetObject"] if action == "GetObjectAttributes" else [action]
