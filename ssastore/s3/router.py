"""Which operation a request is. Pure.

Every sub-resource that S3 defines is named here: one that is not served answers
501 with its name, so that a tool says what it lacks instead of misreading an
answer to another question.  One that S3 defines tomorrow looks like a parameter without a value: a change
with such is refused as well, or it would be made to the object, or the bucket, itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssastore.s3.errors import S3Error

_BUCKET_SUBRESOURCES = (
    "abac",
    "analytics",
    "intelligent-tiering",
    "inventory",
    "metadataAnnotationTable",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "session",
)
_OBJECT_SUBRESOURCES = (
    "annotation",
    "encryption",
    "renameObject",
    "restore",
    "select",
    "torrent",
)
_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")

_SERVICE = {"GET": "ListBuckets"}
_BUCKET = {"GET": "ListObjects", "HEAD": "HeadBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}
_OBJECT = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
_UPLOAD = {
    "GET": "ListParts",
    "PUT": "UploadPart",
    "POST": "CompleteMultipartUpload",
    "DELETE": "AbortMultipartUpload",
}
_COPIES = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}
"What a PUT is when it names its source."

# What a parameter makes of a request, by method.
_BUCKET_PARAMETERS = {
    "location": {"GET": "GetBucketLocation"},
    "encryption": {
        "GET": "GetBucketEncryption",
        "PUT": "PutBucketEncryption",
        "DELETE": "DeleteBucketEncryption",
    },
    "cors": {"GET": "GetBucketCors", "PUT": "PutBucketCors", "DELETE": "DeleteBucketCors"},
    "uploads": {"GET": "ListMultipartUploads"},
    "delete": {"POST": "DeleteObjects"},
    "versioning": {"GET": "GetBucketVersioning", "PUT": "PutBucketVersioning"},
    "versions": {"GET": "ListObjectVersions"},
    "lifecycle": {
        "GET": "GetBucketLifecycleConfiguration",
        "PUT": "PutBucketLifecycleConfiguration",
        "DELETE": "DeleteBucketLifecycle",
    },
    "object-lock": {"GET": "GetObjectLockConfiguration", "PUT": "PutObjectLockConfiguration"},
    "acl": {"GET": "GetBucketAcl", "PUT": "PutBucketAcl"},
    "tagging": {"GET": "GetBucketTagging", "PUT": "PutBucketTagging", "DELETE": "DeleteBucketTagging"},
    "policy": {"GET": "GetBucketPolicy", "PUT": "PutBucketPolicy", "DELETE": "DeleteBucketPolicy"},
    "policyStatus": {"GET": "GetBucketPolicyStatus"},
    "publicAccessBlock": {
        "GET": "GetPublicAccessBlock",
        "PUT": "PutPublicAccessBlock",
        "DELETE": "DeletePublicAccessBlock",
    },
    "ownershipControls": {
        "GET": "GetBucketOwnershipControls",
        "PUT": "PutBucketOwnershipControls",
        "DELETE": "DeleteBucketOwnershipControls",
    },
}
# What is never set: it can be asked for, and some of it set to what it is.
_BUCKET_UNSET = {
    "accelerate": {"GET": "GetBucketAccelerateConfiguration"},
    "logging": {"GET": "GetBucketLogging", "PUT": "PutBucketLogging"},
    "notification": {
        "GET": "GetBucketNotificationConfiguration",
        "PUT": "PutBucketNotificationConfiguration",
    },
    "replication": {"GET": "GetBucketReplication", "DELETE": "DeleteBucketReplication"},
    "requestPayment": {"GET": "GetBucketRequestPayment", "PUT": "PutBucketRequestPayment"},
    "website": {"GET": "GetBucketWebsite", "DELETE": "DeleteBucketWebsite"},
}
_OBJECT_PARAMETERS = {
    "attributes": {"GET": "GetObjectAttributes"},
    "acl": {"GET": "GetObjectAcl", "PUT": "PutObjectAcl"},
    "retention": {"GET": "GetObjectRetention", "PUT": "PutObjectRetention"},
    "legal-hold": {"GET": "GetObjectLegalHold", "PUT": "PutObjectLegalHold"},
    "tagging": {
        "GET": "GetObjectTagging",
        "PUT": "PutObjectTagging",
        "DELETE": "DeleteObjectTagging",
    },
}
_OBJECT_KNOWN = frozenset(("uploads", "uploadId", "partNumber", "versionId", *_OBJECT_PARAMETERS))
_BUCKET_KNOWN = frozenset((*_BUCKET_PARAMETERS, *_BUCKET_UNSET))
_READS = ("GET", "HEAD")
_UNSERVED_HEADERS = {
    "x-amz-write-offset-bytes": "appending to an object",
    "x-amz-object-lock-event-hold": "an event hold",
    "x-amz-object-lock-event-hold-duration-days": "an event hold",
    "x-amz-object-lock-event-hold-duration-years": "an event hold",
    "x-amz-if-match-initiated-time": "a condition of an abort",
}
"Headers that make a request another one: to pass over them would be to do what was not asked for."


def _unserved(name: str) -> S3Error:
    return S3Error("NotImplemented", f"{name} is not implemented by this server.", Resource=name)


def route(
    method: str, bucket: str | None, key: str | None, query: Mapping[str, str], headers: Mapping[str, str]
) -> str:
    """The name of the operation, as in the S3 reference.

    Raises:
        S3Error: MethodNotAllowed; NotImplemented for what is not served, by name.
    """
    if method not in _METHODS:
        raise S3Error("MethodNotAllowed")
    if bucket is None:
        return _of(_SERVICE, method)
    if key is None:
        _check_known(method, query, _BUCKET_KNOWN)
        return _route_bucket(method, query)
    _check_known(method, query, _OBJECT_KNOWN)
    name = _route_object(method, query)
    for header, what in _UNSERVED_HEADERS.items():
        if header in headers:
            raise _unserved(what)
    return _COPIES.get(name, name) if "x-amz-copy-source" in headers else name


def _of(operations: Mapping[str, str], method: str) -> str:
    if method not in operations:
        raise S3Error("MethodNotAllowed")
    return operations[method]


def unset(name: str) -> S3Error:
    """For who would set what is never set, by the name of the sub-resource."""
    return _unserved(f"setting of bucket sub-resource {name}")


def _check_known(method: str, query: Mapping[str, str], known: frozenset[str]) -> None:
    if method in _READS:
        return
    for name, value in query.items():
        # Parameters that begin with "x-" are for logs, or of the signature.
        if not value and name not in known and not name.lower().startswith("x-"):
            raise _unserved(f"sub-resource {name[:64]}")


def _route_bucket(method: str, query: Mapping[str, str]) -> str:
    for name in _BUCKET_SUBRESOURCES:
        if name in query:
            raise _unserved(f"bucket sub-resource {name}")
    for name, operations in _BUCKET_UNSET.items():
        if name in query:
            if method not in operations:
                raise unset(name)
            return operations[method]
    for name, operations in _BUCKET_PARAMETERS.items():
        if name in query:
            return _of(operations, method)
    if method == "POST":
        return "PostObject"
    return _of(_BUCKET, method)


def _route_object(method: str, query: Mapping[str, str]) -> str:
    if "uploads" in query:
        return _of({"POST": "CreateMultipartUpload"}, method)
    if "uploadId" in query:
        return _of(_UPLOAD, method)
    for name in _OBJECT_SUBRESOURCES:
        if name in query:
            raise _unserved(f"object sub-resource {name}")
    for name, operations in _OBJECT_PARAMETERS.items():
        if name in query:
            return _of(operations, method)
    return _of(_OBJECT, method)
