"""Presigned URLs of AWS Signature Version 2, verified: boto3 and awscli make them unless told otherwise.

    string to sign   method, Content-MD5, Content-Type, time of expiry, x-amz-* headers, path, parameters
    signature        Base64 of HMAC-SHA-1 with the secret itself

Source: "Signing and Authenticating REST Requests (Signature Version 2)" of the S3 developer guide, and
botocore's ``HmacV1QueryAuth``, which is the one that is met.

In the query only.  Requests that are signed by this version in a header are refused (``sigv4``): who signs
each request can do it by Version 4.  Its weakness is what it leaves unsigned, so what is not signed is not
allowed here: of parameters only those that it covers, none of them twice, and none that reads as two: values
are signed decoded, so that an ampersand in one looks like the next parameter.  A URL says when it expires
and not when it was made; like one of Version 4 it is good for seven days at most.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable

from ssastore.limits import CLOCK_SKEW_MS, PRESIGNED_S_MAX
from ssastore.s3.errors import S3Error
from ssastore.s3.headers import folded, without_keys
from ssastore.s3.names import percent_decode
from ssastore.s3.principal import PayloadMode, Principal, SignedRequest, payload_mode
from ssastore.s3.sigv4 import ACCESS_KEY_BYTES_MAX, DUMMY_SECRET, iso8601

VERSION = "AWS"
"As the condition ``s3:signatureversion`` of policies has it."

_MINE = (b"AWSAccessKeyId", b"Expires", b"Signature")
_COPIES = (b"content-md5", b"content-type")
"""Besides ``x-amz-*``, headers that signers repeat in the query. Nothing reads them there: the header itself
must be sent, or the signature is another one."""
_SIGNED_PARAMETERS = frozenset(
    b"""accelerate acl analytics cors delete inventory lifecycle location logging metrics notification
    object-lock partNumber policy replication requestPayment response-cache-control
    response-content-disposition response-content-encoding response-content-language response-content-type
    response-expires restore select select-type tagging torrent uploadId uploads versionId versioning versions
    website""".split()
)
"Those that botocore signs and S3 has."


def is_signed_by_v2(query: bytes) -> bool:
    """Whether a raw query claims credentials of Version 2."""
    name = _MINE[0]
    return name in query and any(pair.partition(b"=")[0] == name for pair in query.split(b"&"))


def authenticate_url(
    request: SignedRequest, *, now_ms: int, secret_of: Callable[[str], str | None]
) -> Principal:
    """Verify the signature of a URL.

    Args:
        secret_of: see ``authentication.authenticate``.

    Raises:
        S3Error: AccessDenied (expired, or lasts too long, or a parameter that is not signed),
            InvalidAccessKeyId, SignatureDoesNotMatch with 403; what is malformed with 400.
    """
    headers = folded(request.headers)
    parameters = _parameters(request.query)
    if b"authorization" in headers:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed: Authorization header or query.")
    access_key, expires, signature = (parameters.pop(name, b"") for name in _MINE)
    if not (access_key and expires and signature):
        needed = ", ".join(name.decode() for name in _MINE)
        raise S3Error("AccessDenied", f"Query-string authentication needs {needed}.")
    if len(access_key) > ACCESS_KEY_BYTES_MAX or not access_key.isascii():
        raise S3Error("InvalidAccessKeyId")
    _check_expiry(expires, now_ms)
    if headers.get(b"x-amz-security-token"):
        raise S3Error("InvalidToken")
    claimed = headers.get(b"x-amz-content-sha256", PayloadMode.UNSIGNED.value.encode())
    mode = payload_mode(claimed)
    if mode not in (PayloadMode.SIGNED, PayloadMode.UNSIGNED):
        raise S3Error("InvalidRequest", "A presigned request cannot stream its body in signed chunks.")

    string_to_sign = b"\n".join(
        (
            request.method.encode("latin-1"),
            headers.get(b"content-md5", b""),
            headers.get(b"content-type", b""),
            expires,
            *(name + b":" + headers[name] for name in sorted(headers) if name.startswith(b"x-amz-")),
            _resource(request.resource, parameters),
        )
    )
    secret = secret_of(access_key.decode())
    key = (DUMMY_SECRET if secret is None else secret).encode()
    is_right = hmac.compare_digest(b64encode(hmac.digest(key, string_to_sign, "sha1")), signature)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key.decode())
    if not is_right:
        raise S3Error(
            "SignatureDoesNotMatch",
            AWSAccessKeyId=access_key.decode(),
            StringToSign=without_keys(string_to_sign).decode("latin-1"),
        )
    digest = bytes.fromhex(claimed.decode()) if mode is PayloadMode.SIGNED else None
    return Principal(access_key.decode(), mode, digest, None, True, now_ms, VERSION)


def _parameters(query: bytes) -> dict[bytes, bytes | None]:
    """Decoded parameters by name; None for one without a value. S3Error for what the signature leaves out."""
    found: dict[bytes, bytes | None] = {}
    for pair in query.split(b"&"):
        if not pair:
            continue
        raw_name, sign, raw_value = pair.partition(b"=")
        name = percent_decode(raw_name.replace(b"+", b" "))
        if name in found:
            raise S3Error("InvalidArgument", "A parameter was given twice.", ArgumentName=_text(name))
        found[name] = percent_decode(raw_value.replace(b"+", b" ")) if sign else None
    for name in [name for name in found if name.startswith(b"x-amz-") or name in _COPIES]:
        del found[name]
    for name in found:
        if name not in _SIGNED_PARAMETERS and name not in _MINE:
            raise S3Error(
                "AccessDenied",
                f"Signature Version 2 does not cover the parameter {_text(name)!r}. "
                "Please use AWS4-HMAC-SHA256.",
            )
    for name, value in found.items():
        if value and any(piece.partition(b"=")[0] in _SIGNED_PARAMETERS for piece in value.split(b"&")[1:]):
            # "a=1&b=2" is signed as the value "1&b=2" of "a" would be: whoever has the URL could drop b.
            raise S3Error(
                "AccessDenied",
                f"Signature Version 2 does not tell the value of {_text(name)!r} from a parameter. "
                "Please use AWS4-HMAC-SHA256.",
            )
    return found


def _text(name: bytes) -> str:
    return name[:64].decode("latin-1")


def _check_expiry(expires: bytes, now_ms: int) -> None:
    if not expires.isdigit() or len(expires) > 12:
        raise S3Error("AccessDenied", "Expires must be a time in seconds since 1970.")
    expires_ms = int(expires) * 1000
    if now_ms > expires_ms:
        raise S3Error(
            "AccessDenied", "Request has expired", Expires=iso8601(expires_ms), ServerTime=iso8601(now_ms)
        )
    if expires_ms > now_ms + PRESIGNED_S_MAX * 1000 + CLOCK_SKEW_MS:
        raise S3Error("AccessDenied", f"A URL must expire within {PRESIGNED_S_MAX} seconds.")


def _resource(path: bytes, parameters: dict[bytes, bytes | None]) -> bytes:
    """The raw path, and the parameters in the order of their names."""
    pairs = [name if value is None else name + b"=" + value for name, value in sorted(parameters.items())]
    return path + (b"?" + b"&".join(pairs) if pairs else b"")
