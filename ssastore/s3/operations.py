"""All operations by their names in the S3 reference."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ssastore.core.objects import Objects
from ssastore.core.users import Users
from ssastore.s3.access import Access
from ssastore.s3.attempts import Attempts
from ssastore.s3.attributes import AttributeOperations
from ssastore.s3.buckets import BucketOperations
from ssastore.s3.copies import CopyOperations
from ssastore.s3.encryption import Encryption
from ssastore.s3.lifecycle import LifecycleOperations
from ssastore.s3.locking import LockOperations
from ssastore.s3.objects import ObjectOperations
from ssastore.s3.permissions import PermissionOperations
from ssastore.s3.post import PostOperations, SecretOf
from ssastore.s3.request import Request, Response
from ssastore.s3.settings import SettingOperations
from ssastore.s3.tagging import TagOperations
from ssastore.s3.uploads import UploadOperations
from ssastore.s3.versioning import VersionOperations

Operation = Callable[[Request], Awaitable[Response]]


def operations(
    objects: Objects,
    access: Access,
    users: Users,
    attempts: Attempts,
    region: str,
    secret_of: SecretOf,
    encryption: Encryption,
) -> dict[str, Operation]:
    """What a gateway serves."""
    rights, tags = PermissionOperations(objects, users), TagOperations(objects)
    locks = LockOperations(objects, access)
    single = ObjectOperations(objects, attempts, access, encryption)
    return {
        **_of_buckets(objects, BucketOperations(objects, users, region), rights, tags, locks),
        **_of_settings(SettingOperations(objects, encryption)),
        **_of_objects(objects, single, rights, tags, locks),
        **_of_copies_and_parts(objects, access, attempts, encryption),
        "GetObjectAttributes": AttributeOperations(objects, encryption).get_object_attributes,
        "PostObject": PostOperations(objects, single, access, region, secret_of).post_object,
    }


def _of_buckets(
    objects: Objects,
    buckets: BucketOperations,
    rights: PermissionOperations,
    tags: TagOperations,
    locks: LockOperations,
) -> dict[str, Operation]:
    versions, lifecycle = VersionOperations(objects), LifecycleOperations(objects)
    return {
        "ListBuckets": buckets.list_buckets,
        "CreateBucket": buckets.create_bucket,
        "HeadBucket": buckets.head_bucket,
        "DeleteBucket": buckets.delete_bucket,
        "GetBucketLocation": buckets.get_bucket_location,
        "ListObjects": buckets.list_objects,
        "GetBucketTagging": tags.get_bucket_tagging,
        "PutBucketTagging": tags.put_bucket_tagging,
        "DeleteBucketTagging": tags.delete_bucket_tagging,
        "GetBucketAcl": rights.get_bucket_acl,
        "PutBucketAcl": rights.put_bucket_acl,
        "GetBucketPolicy": rights.get_bucket_policy,
        "PutBucketPolicy": rights.put_bucket_policy,
        "DeleteBucketPolicy": rights.delete_bucket_policy,
        "GetBucketPolicyStatus": rights.get_bucket_policy_status,
        "GetPublicAccessBlock": rights.get_public_access_block,
        "PutPublicAccessBlock": rights.put_public_access_block,
        "DeletePublicAccessBlock": rights.delete_public_access_block,
        "GetBucketOwnershipControls": rights.get_bucket_ownership_controls,
        "PutBucketOwnershipControls": rights.put_bucket_ownership_controls,
        "DeleteBucketOwnershipControls": rights.delete_bucket_ownership_controls,
        "GetBucketVersioning": versions.get_bucket_versioning,
        "PutBucketVersioning": versions.put_bucket_versioning,
        "ListObjectVersions": versions.list_object_versions,
        "GetBucketLifecycleConfiguration": lifecycle.get_bucket_lifecycle_configuration,
        "PutBucketLifecycleConfiguration": lifecycle.put_bucket_lifecycle_configuration,
        "DeleteBucketLifecycle": lifecycle.delete_bucket_lifecycle,
        "GetObjectLockConfiguration": locks.get_object_lock_configuration,
        "PutObjectLockConfiguration": locks.put_object_lock_configuration,
    }


def _of_settings(settings: SettingOperations) -> dict[str, Operation]:
    return {
        "GetBucketCors": settings.get_bucket_cors,
        "PutBucketCors": settings.put_bucket_cors,
        "DeleteBucketCors": settings.delete_bucket_cors,
        "GetBucketEncryption": settings.get_bucket_encryption,
        "PutBucketEncryption": settings.put_bucket_encryption,
        "DeleteBucketEncryption": settings.delete_bucket_encryption,
        **settings.unset(),
    }


def _of_objects(
    objects: Objects,
    single: ObjectOperations,
    rights: PermissionOperations,
    tags: TagOperations,
    locks: LockOperations,
) -> dict[str, Operation]:
    return {
        "GetObject": single.get_object,
        "HeadObject": single.head_object,
        "PutObject": single.put_object,
        "DeleteObject": single.delete_object,
        "DeleteObjects": single.delete_objects,
        "GetObjectTagging": tags.get_object_tagging,
        "PutObjectTagging": tags.put_object_tagging,
        "DeleteObjectTagging": tags.delete_object_tagging,
        "GetObjectAcl": rights.get_object_acl,
        "PutObjectAcl": rights.put_object_acl,
        "GetObjectRetention": locks.get_object_retention,
        "PutObjectRetention": locks.put_object_retention,
        "GetObjectLegalHold": locks.get_object_legal_hold,
        "PutObjectLegalHold": locks.put_object_legal_hold,
    }


def _of_copies_and_parts(
    objects: Objects, access: Access, attempts: Attempts, encryption: Encryption
) -> dict[str, Operation]:
    """Those that put together an object of what is there."""
    copies, uploads = (
        CopyOperations(objects, attempts, access, encryption),
        UploadOperations(objects, access, encryption),
    )
    return {
        "CopyObject": copies.copy_object,
        "UploadPartCopy": copies.upload_part_copy,
        "CreateMultipartUpload": uploads.create_multipart_upload,
        "UploadPart": uploads.upload_part,
        "CompleteMultipartUpload": uploads.complete_multipart_upload,
        "AbortMultipartUpload": uploads.abort_multipart_upload,
        "ListParts": uploads.list_parts,
        "ListMultipartUploads": uploads.list_multipart_uploads,
    }
