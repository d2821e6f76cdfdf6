"""Who asks, and what the body of the request must match: the result of authentication. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ssastore.s3.errors import S3Error
from ssastore.s3.headers import folded

EMPTY_SHA256 = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HEX_DIGITS = b"0123456789abcdef"


class PayloadMode(Enum):
    """How the body is protected: what ``x-amz-content-sha256`` says."""

    SIGNED = "the SHA-256 of the body"
    UNSIGNED = "UNSIGNED-PAYLOAD"
    UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"

    @property
    def is_aws_chunked(self) -> bool:
        """The body is framed by aws-chunked and must go through ``chunked.ChunkedDecoder``."""
        return self not in (PayloadMode.SIGNED, PayloadMode.UNSIGNED)

    @property
    def has_trailer(self) -> bool:
        """Trailing headers follow the last chunk."""
        return self in (PayloadMode.UNSIGNED_TRAILER, PayloadMode.CHUNKS_TRAILER)

    @property
    def signs_chunks(self) -> bool:
        """Each chunk carries a signature."""
        return self in (PayloadMode.CHUNKS, PayloadMode.CHUNKS_TRAILER)


PAYLOAD_MODES = {mode.value.encode(): mode for mode in PayloadMode if mode is not PayloadMode.SIGNED}


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as it was sent: nothing decoded, headers in order."""

    method: str
    path: bytes
    "Raw path, without the query."
    query: bytes
    "Raw query, without the question mark; empty if there is none."
    headers: Sequence[tuple[bytes, bytes]]
    bucket: bytes = b""
    "That the Host header names; empty when the path does."

    @property
    def resource(self) -> bytes:
        """The raw path with the bucket in it, wherever that was sent."""
        return b"/" + self.bucket + self.path if self.bucket else self.path


@dataclass(frozen=True, slots=True)
class Principal:
    """Proof that a request was authenticated, and what its body must match."""

    access_key: str
    payload: PayloadMode
    payload_sha256: bytes | None
    "Digest that the body must have; None unless the mode is SIGNED."
    chain: SignatureChain | None
    "Verifies the chunks of the body; None unless they are signed."
    is_presigned: bool
    signed_at_ms: int
    "When the client signed it, by the client's clock, in whole seconds; when it came, if it does not say so."
    version: str = "AWS4-HMAC-SHA256"
    "Of the signature, as the condition ``s3:signatureversion`` has it."


class SignatureChain:
    """The signatures of a chunked body: each covers its chunk and the signature before it."""

    __slots__ = ("_previous", "_scope", "_signing_key")

    def __init__(self, signing_key: bytes, *, timestamp: bytes, scope: bytes, seed: bytes) -> None:
        self._signing_key = signing_key
        self._scope = timestamp + b"\n" + scope + b"\n"
        self._previous = seed

    def check_chunk(self, data_sha256: str, signature: bytes) -> None:
        """Verify the next chunk by the hex SHA-256 of its data. S3Error SignatureDoesNotMatch."""
        covered = self._previous + b"\n" + EMPTY_SHA256 + b"\n" + data_sha256.encode()
        self._check(b"AWS4-HMAC-SHA256-PAYLOAD\n" + self._scope + covered, signature)

    def check_trailer(self, trailer_sha256: str, signature: bytes) -> None:
        """Verify the trailing headers, hashed as lines ``name:value\\n``, after the last chunk."""
        covered = self._previous + b"\n" + trailer_sha256.encode()
        self._check(b"AWS4-HMAC-SHA256-TRAILER\n" + self._scope + covered, signature)

    def _check(self, string_to_sign: bytes, signature: bytes) -> None:
        expected = hmac.digest(self._signing_key, string_to_sign, "sha256").hex().encode()
        if not hmac.compare_digest(expected, signature):
            raise S3Error("SignatureDoesNotMatch", "The signature of a chunk of the body does not match.")
        self._previous = expected


def payload_mode(claimed: bytes) -> PayloadMode:
    """What ``x-amz-content-sha256`` says. S3Error InvalidArgument for what it cannot say."""
    mode = PAYLOAD_MODES.get(claimed)
    if mode is not None:
        return mode
    if len(claimed) != 64 or claimed.translate(None, HEX_DIGITS):
        allowed = ", ".join(known.value for known in PAYLOAD_MODES.values())
        message = f"x-amz-content-sha256 must be {allowed}, or a valid sha256 value."
        raise S3Error("InvalidArgument", message, status=403)
    return PayloadMode.SIGNED


def anonymous(request: SignedRequest, now_ms: int) -> Principal | None:
    """The principal of a request that has no credentials at all; None when it has some, good or bad.

    Raises:
        S3Error: its body claims signatures that nobody can have made; as ``folded``.
    """
    if b"X-Amz-" in request.query or b"AWSAccessKeyId" in request.query or b"X%2DAmz" in request.query:
        return None
    for name, _ in request.headers:
        if name.lower() == b"authorization":
            return None
    claimed = folded(request.headers).get(b"x-amz-content-sha256", PayloadMode.UNSIGNED.value.encode())
    mode = payload_mode(claimed)
    if mode.signs_chunks:
        raise S3Error("AccessDenied")
    digest = bytes.fromhex(claimed.decode()) if mode is PayloadMode.SIGNED else None
    return Principal("", mode, digest, None, False, now_ms)
