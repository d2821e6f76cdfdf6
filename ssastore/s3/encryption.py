"""Server-side encryption: what requests ask for, and what objects keep of it.

SSE-S3: the data key is wrapped by a key of the gateway's secrets file.  SSE-C: by the customer's, which
comes with each request and is never kept; that it is the right one shows when it unwraps.  SSE-KMS there is
not, and whoever asks for it is told so: no header that begins with ``x-amz-server-side-encryption`` is ever
ignored.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssastore.core.buckets import Bucket
from ssastore.core.ciphers import ENCRYPTION
from ssastore.env import Randomness
from ssastore.errors import ConfigError, CorruptObject
from ssastore.s3.ciphers import KEY_BYTES, DataCipher, unwrap, wrap
from ssastore.s3.conditions import OF_COPY_SOURCE
from ssastore.s3.errors import S3Error
from ssastore.s3.xmlread import read_tree

ALGORITHM = "AES256"
SSE = "x-amz-server-side-encryption"
_CUSTOMER = f"{SSE}-customer-"
_OF_REQUEST = "x-amz-"
_CUSTOMER_OF_SOURCE = _CUSTOMER.replace(_OF_REQUEST, OF_COPY_SOURCE, 1)
_ALL = (SSE, SSE.replace(_OF_REQUEST, OF_COPY_SOURCE, 1))
_KEY_ENDS = ("algorithm", "key", "key-md5")
_KMS = (f"{SSE}-aws-kms-key-id", f"{SSE}-context", f"{SSE}-bucket-key-enabled")
_KMS_ALGORITHMS = ("aws:kms", "aws:kms:dsse", "aws:fsx")
BY_SERVER, BY_CUSTOMER = "S3", "C"
"Kinds, as they are kept."

_WRITES = frozenset({"PutObject", "CopyObject", "CreateMultipartUpload"})
"Operations that say how an object shall be encrypted; PostObject says it in its form."
_COPIES = frozenset({"CopyObject", "UploadPartCopy"})
_WITH_KEY = _WRITES | _COPIES
_WITH_KEY |= {
    "GetObject",
    "HeadObject",
    "GetObjectAttributes",
    "UploadPart",
    "CompleteMultipartUpload",
    "ListParts",
}
"Operations that take a customer's key."


@dataclass(frozen=True, slots=True)
class CustomerKey:
    """A key that came with a request."""

    key: bytes = field(repr=False)
    md5: str
    "Base64 of its MD5, as it is given back."

    @staticmethod
    def of(headers: Mapping[str, str], prefix: str = _OF_REQUEST) -> CustomerKey | None:
        """The key of a request, or with OF_COPY_SOURCE that of its source. S3Error for half of one."""
        start = _CUSTOMER.replace(_OF_REQUEST, prefix, 1)
        algorithm, text, md5 = [headers.get(f"{start}{name}") for name in ("algorithm", "key", "key-md5")]
        if algorithm is None and text is None and md5 is None:
            return None
        if algorithm is None:
            raise _wrong(f"{start}algorithm", "a valid encryption algorithm")
        if algorithm != ALGORITHM:
            raise S3Error("InvalidEncryptionAlgorithmError")
        if text is None:
            raise _wrong(f"{start}key", "an appropriate secret key")
        if md5 is None:
            raise _wrong(f"{start}key-MD5", "the client calculated MD5 of the secret key")
        try:
            key = b64decode(text, validate=True)
            digest = b64decode(md5, validate=True)
        except (NotBase64, ValueError):  # Not "from": the cause may quote the key.
            raise S3Error("InvalidArgument", "The secret key or its MD5 is not base64.") from None
        if len(key) != KEY_BYTES:
            raise S3Error("InvalidArgument", "The secret key was invalid for the specified algorithm.")
        if hashlib.md5(key, usedforsecurity=False).digest() != digest:
            message = "The calculated MD5 hash of the key did not match the hash that was provided."
            raise S3Error("InvalidArgument", message, ArgumentName=f"{start}key-MD5")
        return CustomerKey(key, md5)


def _wrong(name: str, what: str) -> S3Error:
    message = f"Requests specifying Server Side Encryption with Customer provided keys must provide {what}."
    return S3Error("InvalidArgument", message, ArgumentName=name)


def check_headers(operation: str, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
    """S3Error InvalidArgument for a header of encryption that the operation has not.

    What those say that it has is checked where they are used.
    """
    for name, value in query.items():
        # Some signers put headers into the query, where nothing reads them: in their place, or besides.
        if name.lower().startswith(_ALL) and headers.get(name) != value:
            raise S3Error(
                "InvalidArgument", f"{name[:128]} must be sent as a header.", ArgumentName=name[:128]
            )
    names = [name.lower() for name in headers if name.lower().startswith(_ALL)]
    if not names:
        return
    allowed = {SSE, *_KMS} if operation in _WRITES else set()
    starts: tuple[str, ...] = (_CUSTOMER,) if operation in _WITH_KEY else ()
    starts += (_CUSTOMER_OF_SOURCE,) if operation in _COPIES else ()
    allowed |= {f"{start}{end}" for start in starts for end in _KEY_ENDS}
    for name in names:
        if name not in allowed:
            message = f"{name[:128]} header is not supported for this operation."
            raise S3Error("InvalidArgument", message, ArgumentName=name[:128])


def wants_server_key(headers: Mapping[str, str]) -> bool:
    """Whether a write asks for SSE-S3.

    Raises:
        S3Error: NotImplemented for SSE-KMS; InvalidArgument for what is nothing.
    """
    wanted = headers.get(SSE)
    if any(name.startswith(_CUSTOMER) for name in map(str.lower, headers)) and wanted is not None:
        message = f"{SSE} and a key of the customer's exclude each other."
        raise S3Error("InvalidArgument", message, ArgumentName=SSE)
    if wanted in _KMS_ALGORITHMS:
        raise no_kms()
    if wanted not in (None, ALGORITHM):
        message = "The encryption method specified is not supported."
        raise S3Error("InvalidArgument", message, ArgumentName=SSE)
    for name in _KMS:
        if headers.get(name, "false").lower() != "false":
            raise S3Error("InvalidArgument", f"{name} needs {SSE}: aws:kms.", ArgumentName=name)
    return wanted is not None


def no_kms() -> S3Error:
    """The answer to whoever asks for SSE-KMS."""
    message = "SSE-KMS is not implemented by this server: use AES256 (SSE-S3), or keys of your own (SSE-C)."
    return S3Error("NotImplemented", message)


def parse_default(body: bytes) -> None:
    """Read a bucket's default encryption, which can only be SSE-S3.

    Raises:
        S3Error: NotImplemented for SSE-KMS and what belongs to it, and for forbidding an algorithm;
            MalformedXML, InvalidArgument.
    """
    rules = read_tree(body, "ServerSideEncryptionConfiguration").all("Rule")
    if len(rules) != 1:
        raise S3Error("MalformedXML", "A configuration has one Rule.")
    rule = rules[0]
    if rule.one("BlockedEncryptionTypes") is not None:
        raise S3Error(
            "NotImplemented", "BlockedEncryptionTypes is not implemented: a bucket policy can deny."
        )
    default = rule.one("ApplyServerSideEncryptionByDefault")
    algorithm = default.value("SSEAlgorithm") if default is not None else None
    if default is None or algorithm is None:
        raise S3Error("MalformedXML", "A Rule needs ApplyServerSideEncryptionByDefault with SSEAlgorithm.")
    if algorithm in _KMS_ALGORITHMS:
        raise no_kms()
    if algorithm != ALGORITHM:
        raise S3Error("MalformedXML", "The SSEAlgorithm is not one that S3 has.")
    if default.value("KMSMasterKeyID") is not None or rule.value("BucketKeyEnabled") == "true":
        raise S3Error("InvalidArgument", "KMSMasterKeyID and BucketKeyEnabled need SSEAlgorithm aws:kms.")


def said_headers(extra: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, str]:
    """What an answer says of an object's encryption; ``headers`` are the request's, whose key was right."""
    kind = extra.get(ENCRYPTION, {}).get("kind")
    if kind == BY_SERVER:
        return {SSE: ALGORITHM}
    md5 = headers.get(f"{_CUSTOMER}key-md5")
    return (
        {f"{_CUSTOMER}algorithm": ALGORITHM, f"{_CUSTOMER}key-MD5": md5}
        if kind == BY_CUSTOMER and md5
        else {}
    )


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one object, or upload, is encrypted; ``cipher`` None: not at all."""

    cipher: DataCipher | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    "What its record keeps."
    customer: CustomerKey | None = None
    data_key: bytes = field(default=b"", repr=False)

    @property
    def is_by_server(self) -> bool:
        return self.cipher is not None and self.customer is None

    def etag(self, md5_hex: str) -> str:
        """The ETag of bytes with this MD5. With SSE-C it is another: by an MD5 guesses could be tried.

        It follows from key and bytes, so that attempts that are one operation say the same.
        """
        if self.customer is None:
            return md5_hex
        return hmac.digest(self.customer.key, b"ssastore etag 1" + bytes.fromhex(md5_hex), "sha256")[
            :16
        ].hex()


PLAIN = Scheme()


class Encryption:
    """Makes and finds the keys of objects; one a gateway."""

    def __init__(self, wrapping_keys: Sequence[tuple[str, bytes]], randomness: Randomness) -> None:
        """``wrapping_keys``: (id, key); the last wraps, all unwrap. Without any there is no SSE-S3."""
        self._keys = dict(wrapping_keys)
        self._newest = wrapping_keys[-1][0] if wrapping_keys else ""
        self._randomness = randomness

    def check_keys(self) -> None:
        """S3Error NotImplemented for a gateway that cannot do SSE-S3."""
        if not self._keys:
            raise S3Error("NotImplemented", "This server has no wrapping key for SSE-S3 in its secrets file.")

    def fresh(self, headers: Mapping[str, str], bucket: Bucket, key: str) -> Scheme:
        """How an object that is written now shall be encrypted: as the request says, else as the bucket does.

        Raises:
            S3Error: what is asked for is contradictory, or not there.
        """
        is_by_server, customer = wants_server_key(headers), CustomerKey.of(headers)
        if customer is None and not is_by_server and bucket.config.get(ENCRYPTION) != ALGORITHM:
            return PLAIN
        return self._wrapped(self._randomness.bytes(KEY_BYTES), bucket.name, key, customer)

    def again(self, known: Scheme, bucket: str, key: str) -> Scheme:
        """The same data key for another object of the same bytes, both SSE-S3: wrapped by the newest key."""
        assert known.is_by_server
        return self._wrapped(known.data_key, bucket, key, None)

    def of(
        self,
        extra: Mapping[str, Any],
        bucket: str,
        key: str,
        headers: Mapping[str, str],
        prefix: str = _OF_REQUEST,
    ) -> Scheme:
        """How an object or upload is encrypted that a request reads or goes on with.

        Args:
            extra: of the object's record, or what the upload's keeps for the object.
            bucket: its name.
            key: the object's.
            headers: of the request; case-insensitive.
            prefix: OF_COPY_SOURCE for the source of a copy.

        Raises:
            S3Error: the customer's key is missing, wrong, or one too many.
            ConfigError: the wrapping key is not in the secrets file.
            CorruptObject: the wrapped key was not made for this object.
        """
        customer, kept = CustomerKey.of(headers, prefix), extra.get(ENCRYPTION)
        if customer is not None and (kept is None or kept["kind"] != BY_CUSTOMER):
            raise S3Error("InvalidRequest", "The encryption parameters are not applicable to this object.")
        if kept is None:
            return PLAIN
        kind = kept["kind"]
        name = _name(kind, bucket, key)
        if kind == BY_CUSTOMER:
            if customer is None:
                message = (
                    "The object was stored using a form of Server Side Encryption. "
                    "The correct parameters must be provided to retrieve the object."
                )
                raise S3Error("InvalidRequest", message)
            data_key = unwrap(customer.key, kept["key"], name)
            if data_key is None:
                message = "The provided encryption parameters did not match the ones used originally."
                raise S3Error("InvalidRequest", message)
        else:
            if kept["by"] not in self._keys:
                raise ConfigError(f"wrapping key {kept['by']} is not in the secrets file of this gateway")
            data_key = unwrap(self._keys[kept["by"]], kept["key"], name)
            if data_key is None:
                raise CorruptObject("the wrapped key of an object is not one that was made for it")
        return Scheme(DataCipher(data_key, self._randomness), {ENCRYPTION: kept}, customer, data_key)

    def _wrapped(self, data_key: bytes, bucket: str, key: str, customer: CustomerKey | None) -> Scheme:
        if customer is not None:
            wrapped = wrap(customer.key, data_key, _name(BY_CUSTOMER, bucket, key), self._randomness)
            kept = {"kind": BY_CUSTOMER, "key": wrapped}
        else:
            self.check_keys()
            name = _name(BY_SERVER, bucket, key)
            wrapped = wrap(self._keys[self._newest], data_key, name, self._randomness)
            kept = {"kind": BY_SERVER, "by": self._newest, "key": wrapped}
        return Scheme(DataCipher(data_key, self._randomness), {ENCRYPTION: kept}, customer, data_key)


def _name(kind: str, bucket: str, key: str) -> bytes:
    """What a wrapped key is for; a name of a bucket has no slash."""
    return f"{kind} {bucket}/{key}".encode()
