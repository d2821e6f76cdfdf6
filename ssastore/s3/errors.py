"""What S3 clients are told when something fails: code, HTTP status, message.

Clients act on the code and the status, so both are a contract.  Three choices of
ours deserve a reason:

* A full store is ``InsufficientStorage`` with 507.  S3 has no such code; 503 and
  500 would make every SDK retry the same upload into the same full disk, and no
  SDK retries 507.
* ``OutcomeUnknown`` is ``InternalError`` with 500, which SDKs do repeat.  That is
  safe: the repetition carries the same invocation id and finds its first result.
* A quota is ``QuotaExceeded`` with 403, as Ceph's RGW says it: S3 knows no quotas, and
  nobody retries 403.

The text of an internal error never leaves the process (it names nodes and paths);
texts about the caller's own mistake do, and the address at which nobody answered,
which the caller could compute.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssastore import errors

# code -> (HTTP status, message when the raiser gives none)
CODES: dict[str, tuple[int, str]] = {
    "AccessControlListNotSupported": (400, "The bucket does not allow ACLs"),
    "AccessDenied": (403, "Access Denied"),
    "AccessForbidden": (403, "Access forbidden"),
    "AuthorizationHeaderMalformed": (400, "The authorization header that you provided is not valid."),
    "AuthorizationQueryParametersError": (400, "The authentication parameters of the query are not valid."),
    "BadDigest": (400, "The checksum that you specified did not match what was received."),
    "BadRequest": (400, "Bad Request"),
    "BucketAlreadyExists": (409, "The requested bucket name is not available."),
    "BucketAlreadyOwnedByYou": (409, "The bucket that you tried to create already exists, and you own it."),
    "BucketNotEmpty": (409, "The bucket that you tried to delete is not empty."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed object size."),
    "ExpectationFailed": (417, "The Expect header asks for something that is not supported."),
    "IllegalVersioningConfigurationException": (
        400,
        "The Versioning element must be specified",
    ),
    "IllegalLocationConstraintException": (400, "The location constraint does not fit this endpoint."),
    "IncompleteBody": (400, "The body is shorter or longer than the request said."),
    "InsufficientStorage": (507, "There is no room for new data. Reads and deletes keep working."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidAccessKeyId": (403, "The access key ID that you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidBucketState": (409, "The request is not valid for the current state of the bucket."),
    "InvalidBucketAclWithObjectOwnership": (400, "Bucket cannot have ACLs set with this ObjectOwnership."),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidChunkSizeError": (403, "Only the last chunk is allowed to have a size less than 8192 bytes"),
    "InvalidDigest": (400, "The Content-MD5 that you specified is not valid."),
    "InvalidEncryptionAlgorithmError": (
        400,
        "The Encryption request you specified is not valid. Supported value: AES256.",
    ),
    "InvalidLocationConstraint": (400, "The specified location constraint is not valid."),
    "InvalidPart": (400, "One or more of the specified parts could not be found or has another ETag."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order."),
    "InvalidPolicyDocument": (400, "The content of the form does not meet the conditions of the policy."),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InvalidRedirectLocation": (400, "The website redirect location must be a path, or http or https."),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidStorageClass": (400, "The storage class you specified is not valid"),
    "InvalidRetentionPeriod": (400, "The retention period specified is invalid."),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidToken": (403, "The provided token is malformed or otherwise not valid."),
    "InvalidURI": (400, "The specified URI couldn't be parsed."),
    "KeyTooLongError": (400, "Your key is too long"),
    "MalformedACLError": (400, "The ACL that you provided was not well formed or did not validate."),
    "MalformedPolicy": (400, "The policy is not valid."),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed multipart/form-data."),
    "MalformedTrailerError": (400, "The trailing headers of the body are not what the request announced."),
    "MalformedXML": (400, "The XML you provided was not well-formed or did not validate."),
    "MaxMessageLengthExceeded": (400, "Your request was too large."),
    "MaxPostPreDataLengthExceeded": (
        400,
        "Your POST request fields preceding the upload file were too large.",
    ),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingSecurityHeader": (400, "Your request was missing a required header"),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist"),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist"),
    "NoSuchPublicAccessBlockConfiguration": (404, "The public access block configuration was not found"),
    "NoSuchObjectLockConfiguration": (
        404,
        "The specified object does not have an ObjectLock configuration",
    ),
    "NoSuchTagSet": (404, "The TagSet does not exist"),
    "NoSuchUpload": (404, "The specified upload does not exist: never begun, completed, or aborted."),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration"),
    "NotImplemented": (501, "A header or parameter implies functionality that is not implemented"),
    "ObjectLockConfigurationNotFoundError": (404, "Object Lock is not configured for this bucket"),
    "OperationAborted": (409, "A conflicting operation is in progress. Try again."),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found"),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "QuotaExceeded": (403, "The bucket would hold more than its quota allows."),
    "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found"),
    "RequestTimeTooSkewed": (403, "The difference between the request time and our time is too large."),
    "RequestTimeout": (400, "The body was not received within the timeout period."),
    "ServerSideEncryptionConfigurationNotFoundError": (404, "No encryption configuration was found"),
    "ServiceUnavailable": (503, "Please reduce your request rate."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method.",
    ),
    "SlowDown": (503, "Please reduce your request rate."),
    "UnexpectedContent": (400, "This request does not support content"),
    "UnresolvableGrantByEmailAddress": (400, "Users are known by name here, not by e-mail address."),
    "XAmzContentSHA256Mismatch": (400, "The x-amz-content-sha256 header does not match what was computed."),
}


class S3Error(Exception):
    """An answer to an S3 client that is not a success.

    Attributes:
        code: S3's name for it; a key of ``CODES``.
        status: HTTP status, the one of ``CODES`` unless the raiser says otherwise.
        message: text for people; safe to send.
        fields: further elements of the error document, e.g. ``Key`` or ``Region``.
        headers: headers that the answer must carry, e.g. ``Retry-After``.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        status: int = 0,
        headers: dict[str, str] | None = None,
        **fields: str | int,
    ) -> None:
        table_status, table_message = CODES[code]
        self.code = code
        self.status = status or table_status
        self.message = message or table_message
        self.fields = {name: str(value) for name, value in fields.items()}
        self.headers = headers or {}
        super().__init__(f"{self.status} {code}: {self.message}")


@dataclass(frozen=True, slots=True)
class _Row:
    code: str
    says_why: bool = False
    "Whether the exception's own text goes to the client: only where it is about the client's request."


# One row for each class of ``ssastore.errors``; a subclass without one would get its parent's, but a
# test asks for a row each, so that a new error is thought about here.
_ROWS: dict[type[errors.SsaStoreError], _Row] = {
    errors.SsaStoreError: _Row("InternalError"),
    errors.RequestError: _Row("InvalidRequest", says_why=True),
    # Keys that are empty or not UTF-8 are refused by ``names`` before the store sees them.
    errors.InvalidKey: _Row("KeyTooLongError"),
    errors.InvalidBucketName: _Row("InvalidBucketName"),
    errors.ObjectTooLarge: _Row("EntityTooLarge"),
    errors.RangeNotSatisfiable: _Row("InvalidRange"),
    errors.InvalidPart: _Row("InvalidPart", says_why=True),
    errors.InvalidPartOrder: _Row("InvalidPartOrder", says_why=True),
    errors.PartTooSmall: _Row("EntityTooSmall", says_why=True),
    errors.EncryptedObject: _Row("InvalidRequest"),
    errors.AccessDenied: _Row("AccessDenied"),
    errors.NotFound: _Row("NoSuchKey"),
    errors.ObjectNotFound: _Row("NoSuchKey"),
    errors.VersionNotFound: _Row("NoSuchVersion"),
    errors.MarkerFound: _Row("MethodNotAllowed"),
    errors.BucketNotFound: _Row("NoSuchBucket"),
    errors.BucketBeingDeleted: _Row("NoSuchBucket"),
    errors.UploadNotFound: _Row("NoSuchUpload"),
    errors.Conflict: _Row("OperationAborted"),
    errors.PreconditionFailed: _Row("PreconditionFailed"),
    # The store does not say who owns it; who finds another owner answers BucketAlreadyExists instead.
    errors.BucketAlreadyExists: _Row("BucketAlreadyOwnedByYou"),
    errors.BucketNotEmpty: _Row("BucketNotEmpty"),
    errors.VersionKept: _Row("OperationAborted"),
    errors.QuotaExceeded: _Row("QuotaExceeded"),
    errors.TryLater: _Row("SlowDown"),
    # Names the slice and its address: what an operator needs, and nothing that a client could not compute.
    errors.Unavailable: _Row("ServiceUnavailable", says_why=True),
    errors.NoMajority: _Row("ServiceUnavailable", says_why=True),
    errors.Unproved: _Row("ServiceUnavailable", says_why=True),
    errors.OutOfStep: _Row("ServiceUnavailable"),
    errors.Recounted: _Row("ServiceUnavailable"),
    errors.HeldElsewhere: _Row("ServiceUnavailable"),
    errors.Overloaded: _Row("SlowDown"),
    errors.NotMine: _Row("ServiceUnavailable"),
    errors.OutcomeUnknown: _Row("InternalError"),
    errors.PeerError: _Row("InternalError"),
    errors.BadFrame: _Row("InternalError"),
    errors.UnexpectedMessage: _Row("InternalError"),
    errors.Misdirected: _Row("InternalError"),
    errors.CorruptObject: _Row("InternalError"),
    errors.EnvironmentProblem: _Row("InternalError"),
    errors.StoreFull: _Row("InsufficientStorage"),
    errors.RouteRefused: _Row("InternalError"),
    errors.NamespaceRefused: _Row("InternalError"),
    errors.DataDirError: _Row("InternalError"),
    errors.ConfigError: _Row("InternalError"),
}


def from_store_error(error: errors.SsaStoreError) -> S3Error:
    """The S3 answer for an error of the library; 503 carries ``Retry-After`` in whole seconds."""
    row = next(_ROWS[kind] for kind in type(error).__mro__ if kind in _ROWS)
    headers: dict[str, str] = {}
    if isinstance(error, errors.TryLater):
        # Rounded up: zero would invite the client back at once.
        headers["Retry-After"] = str(max(1, -(-error.retry_after_ms // 1000)))
    return S3Error(row.code, str(error) if row.says_why else "", headers=headers)
