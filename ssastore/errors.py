"""Every exception that ssastore raises, split by who is at fault and whether trying again helps.

    SsaStoreError
    ├─ RequestError (ValueError)     the caller asked for the impossible; never retry
    │    InvalidKey, InvalidBucketName, ObjectTooLarge, RangeNotSatisfiable
    │    InvalidPart, InvalidPartOrder, PartTooSmall, EncryptedObject
    ├─ AccessDenied (PermissionError)
    │                                the credentials do not allow it; never retry
    ├─ NotFound (FileNotFoundError)  a normal answer, not a failure
    │    ObjectNotFound, VersionNotFound, MarkerFound, UploadNotFound, BucketNotFound
    │      BucketBeingDeleted
    ├─ Conflict                      the state of the store forbids it (a condition is false, a name is taken)
    │    PreconditionFailed, BucketAlreadyExists (FileExistsError), BucketNotEmpty, VersionKept
    │    QuotaExceeded
    ├─ TryLater                      may work soon; the library has already retried within the deadline
    │    Overloaded, OutOfStep, Recounted, HeldElsewhere, Unavailable (ConnectionError)
    │      NoMajority, Unproved
    ├─ NotMine                       the slice is not served there; the library re-dials, users never see it
    ├─ OutcomeUnknown                the request was sent and the answer never came
    ├─ PeerError                     the other side broke the protocol
    │    BadFrame, UnexpectedMessage, Misdirected
    ├─ CorruptObject                 stored bytes do not match their digest or checksum
    ├─ EnvironmentProblem            kernel or disk said no
    │    StoreFull, RouteRefused, NamespaceRefused, DataDirError
    └─ ConfigError (ValueError)      the two sides do not agree on what the cluster is, or a setting is wrong

In brackets: the built-in exception that a class also is, so that code which knows only that one works.
Foreign exceptions (LMDB, netlink, OSError) are translated in their adapter and nowhere else.
"""

from __future__ import annotations


class SsaStoreError(Exception):
    """Root of the tree."""


class RequestError(SsaStoreError, ValueError):
    """The request can never succeed as it is. The caller's mistake; nothing was changed."""


class InvalidKey(RequestError):
    """The key is empty, longer than 1024 bytes of UTF-8, or not text that UTF-8 can carry."""


class InvalidBucketName(RequestError):
    """The bucket name breaks the S3 rules (3 to 63 characters of a-z, 0-9, dot, hyphen)."""


class ObjectTooLarge(RequestError):
    """The object, its metadata, or a frame is above a limit of ``ssastore.limits``."""


class RangeNotSatisfiable(RequestError):
    """The byte range lies outside the object."""


class InvalidPart(RequestError):
    """A part that the completion names was not uploaded, or has another ETag."""


class InvalidPartOrder(RequestError):
    """The parts of a completion are not in ascending order."""


class PartTooSmall(RequestError):
    """A part that is not the last is below PART_BYTES_MIN."""


class EncryptedObject(RequestError):
    """The object was encrypted by an S3 gateway, and whoever reads it here has no key."""


class AccessDenied(SsaStoreError, PermissionError):
    """Unknown access key, wrong secret, or a verb that the role may not use."""


class NotFound(SsaStoreError, FileNotFoundError):
    """A normal answer: the named thing does not exist."""


class ObjectNotFound(NotFound):
    """No object has this key (or it was deleted)."""


class VersionNotFound(NotFound):
    """The object has no version of this id, or none any more."""


class MarkerFound(NotFound):
    """The version of this id says that the object was deleted: there is nothing to read or to change.

    Attributes:
        modified_ms: when it was deleted, in ms since the epoch.
    """

    def __init__(self, message: str = "", modified_ms: int = 0) -> None:
        super().__init__(message)
        self.modified_ms = modified_ms


class BucketNotFound(NotFound):
    """No bucket has this name, or the bucket was deleted while we used it."""


class BucketBeingDeleted(BucketNotFound):
    """The bucket takes nothing while it is being deleted; it opens again when an object is found in it."""


class UploadNotFound(NotFound):
    """No open multipart upload has this id: never created, completed, or aborted."""


class Conflict(SsaStoreError):
    """The state of the store forbids the change; nothing was changed."""


class PreconditionFailed(Conflict):
    """``if_match`` or ``if_none_match`` was false when the write was decided."""


class BucketAlreadyExists(Conflict, FileExistsError):
    """A bucket of this name exists."""


class BucketNotEmpty(Conflict):
    """The bucket still holds objects or open uploads."""


class VersionKept(Conflict):
    """The object is a version to be kept, and the write was one for a bucket without versions.

    The bucket's settings have changed since they were read. The library reads them again.
    """


class QuotaExceeded(Conflict):
    """The bucket has a quota, and with this write it would hold more bytes or objects than that allows."""


class TryLater(SsaStoreError):
    """May work soon. The library has retried until its deadline before it raises this.

    Attributes:
        retry_after_ms: a hint, in milliseconds.
    """

    def __init__(self, message: str = "", retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Unavailable(TryLater, ConnectionError):
    """No node answers at the computed address. Names address and slice, so an operator can look."""


class NoMajority(Unavailable):
    """Too few planes of a name can be reached: by us, or by the node that was asked. Nothing was written."""


class Unproved(Unavailable):
    """Who answers at the computed address does not prove that it is the service. Another plane's node may."""


class OutOfStep(TryLater):
    """Nodes, or asker and node, know different configurations of a group; who is behind learns of it soon."""


class HeldElsewhere(TryLater):
    """A shard of a bucket with a quota is counted by somebody else. Between nodes, which settle it."""


_COUNTS = ("1", "2", "3", "4", "5")


class Recounted(TryLater):
    """The group has another number of planes than the request was made for. The library asks again.

    Attributes:
        replicas: how many it has, which is all that the message says; 0 when that made no sense.
    """

    def __init__(self, message: str = "", retry_after_ms: int = 1000) -> None:
        super().__init__(message, retry_after_ms)
        self.replicas = int(message) if message in _COUNTS else 0


class Overloaded(TryLater):
    """The worker has more in flight than its limits allow."""


class NotMine(SsaStoreError):
    """The node does not serve the slice (any more). Forget the coverage hint and dial the address."""


class OutcomeUnknown(SsaStoreError):
    """The write was sent, the connection ended, and no repetition was answered in time.

    The object holds either the old or the new state. Read it to find out.
    """


class PeerError(SsaStoreError):
    """The other side broke the protocol. A bug or a stranger; the connection is closed."""


class BadFrame(PeerError):
    """Bytes that are no frame: wrong length, wrong header, wrong types."""


class UnexpectedMessage(PeerError):
    """A valid message that does not belong here (before the greeting, an unknown reply)."""


class Misdirected(PeerError):
    """The name in a request does not hash to the address that the request was meant for."""


class CorruptObject(SsaStoreError):
    """Stored bytes fail their checksum or digest. They were not served.

    Attributes:
        key: the stored key, where a store found the damage; a scan can be taken up again behind it.
    """

    def __init__(self, message: str = "", key: bytes = b"") -> None:
        super().__init__(message)
        self.key = key


class EnvironmentProblem(SsaStoreError):
    """Kernel or disk said no; the message carries the reason."""


class StoreFull(EnvironmentProblem):
    """Map or disk is full for new data. Deletes keep working; nothing acknowledged was lost."""


class RouteRefused(EnvironmentProblem):
    """The kernel did not take a route."""


class NamespaceRefused(EnvironmentProblem):
    """The kernel does not let this user make namespaces."""


class DataDirError(EnvironmentProblem):
    """The data directory is missing, in use, of another cluster, or not writable."""


class ConfigError(SsaStoreError, ValueError):
    """A setting is wrong, or client and cluster disagree (cluster id, protocol, hash, replicas)."""
