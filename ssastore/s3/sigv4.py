"""Who sent this request: AWS Signature Version 4, verified.

One function, ``authenticate``, turns a request into a ``Principal`` or refuses it.
It works on the bytes as they were sent: the raw path is signed as it is (S3 neither
normalises nor encodes it twice), and the same bytes later make the key.

    canonical request   method, raw path, sorted query, signed headers, their names, payload hash
    string to sign      algorithm, time, scope = date/region/s3/aws4_request, SHA-256 of the above
    signature           HMAC with a key derived from secret, date, region, service

Credentials come in the ``Authorization`` header or in the query (a presigned URL),
never in both.  Every ``x-amz-*`` header and ``host`` must be signed, or a man in the
middle could add, say, ``x-amz-copy-source`` to a valid request.

Codes.  Unknown keys are InvalidAccessKeyId and wrong signatures SignatureDoesNotMatch,
as in AWS, because tools and people act on the difference ("wrong key" against "wrong
secret or clock or proxy").  So existence of a key id is visible; it is no secret, it
travels in every URL.  The *time* is the same for both: an unknown key is verified
against a dummy secret.  A wrong scope or a malformed list of signed headers is 403;
what cannot be parsed at all is 400.

What is not handled: SigV4A and Signature V2 (refused by name; URLs signed by V2 are for ``sigv2``), session
tokens (refused: there are no temporary credentials), POST policies.  A captured request can
be replayed for 15 minutes, as in S3; ``If-None-Match`` protects a PUT.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote_from_bytes

from ssastore.limits import CLOCK_SKEW_MS, PRESIGNED_S_MAX, SIGNING_KEYS_MAX
from ssastore.s3.errors import S3Error
from ssastore.s3.headers import folded, without_keys
from ssastore.s3.names import percent_decode
from ssastore.s3.principal import PayloadMode, Principal, SignatureChain, SignedRequest, payload_mode

ALGORITHM = b"AWS4-HMAC-SHA256"
SERVICE = b"s3"
TERMINATOR = b"aws4_request"

_AUTHORIZATION_BYTES_MAX = 8192
ACCESS_KEY_BYTES_MAX = 128
DUMMY_SECRET = "no such key; this one is verified against to take the same time"  # noqa: S105

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_CANONICAL_ESCAPES = re.compile(
    rb"(?:[A-Za-z0-9._~-]|%(?:[01][0-9A-F]|2[0-9A-CF]|3[A-F]|40|5[B-E]|60|7[BCDF]|[89A-F][0-9A-F]))*"
)
"A part of a query in which only what must be escaped is, in capitals: what it would be spelled as anew."
_HEADER_CLAIMS = (b"Credential", b"SignedHeaders", b"Signature")
_QUERY_CLAIMS = (b"Algorithm", b"Credential", b"Date", b"Expires", b"SignedHeaders", b"Signature")
_QUERY_PREFIX = b"X-Amz-"


@dataclass(slots=True)
class _Claim:
    """What the request says about itself, before anything of it is believed."""

    access_key: str
    date: bytes
    region: bytes
    signed_headers: bytes
    signature: bytes
    timestamp: bytes
    signed_at_ms: int
    payload: bytes
    expires_s: int = 0
    "How long a presigned URL is good for; 0 if the credentials came in the header."

    @property
    def scope(self) -> bytes:
        return b"/".join((self.date, self.region, SERVICE, TERMINATOR))


def authenticate(
    request: SignedRequest,
    *,
    now_ms: int,
    region: str,
    secret_of: Callable[[str], str | None],
    allow_unsigned_payload: bool = True,
) -> Principal:
    """Verify the signature of ``request``.

    Args:
        secret_of: the secret of an access key id, None if there is no such key. Called once.
        allow_unsigned_payload: whether header-signed requests may leave their body unsigned
            (UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER). Over plain HTTP such a body can
            be changed on the way, so a service that does not trust its network passes False there.
            Presigned URLs are not affected: whoever holds one chooses the body anyway.

    Raises:
        S3Error: AccessDenied (no credentials, expired, header not signed), InvalidAccessKeyId,
            SignatureDoesNotMatch, RequestTimeTooSkewed and AuthorizationHeaderMalformed (wrong region)
            with 403; what is malformed with 400.
    """
    headers = folded(request.headers)
    pairs = _canonical_query(request.query)
    claim = _claim(headers, pairs)
    _check_time(claim, now_ms)
    if claim.region != region.encode():
        raise _wrong_region(claim, region)
    if headers.get(b"x-amz-security-token"):
        raise S3Error("InvalidToken")
    mode = _payload_mode(claim, allow_unsigned_payload)

    canonical = b"\n".join(
        (
            request.method.encode("latin-1"),
            request.path,
            _joined(pairs),
            _canonical_headers(headers, claim.signed_headers),
            claim.signed_headers,
            claim.payload,
        )
    )
    signing_key = _verify(claim, canonical, secret_of(claim.access_key))
    return Principal(
        claim.access_key,
        mode,
        bytes.fromhex(claim.payload.decode()) if mode is PayloadMode.SIGNED else None,
        SignatureChain(signing_key, timestamp=claim.timestamp, scope=claim.scope, seed=claim.signature)
        if mode.signs_chunks
        else None,
        claim.expires_s > 0,
        claim.signed_at_ms,
    )


# -- what the request claims ------------------------------------------------------------------------


def _canonical_query(query: bytes) -> list[tuple[bytes, bytes]]:
    """Parameters in canonical spelling and order; the same reading of ``+`` as ``names.parse_query``."""
    pairs = []
    for pair in query.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            pairs.append((_canonical(name), _canonical(value)))
    pairs.sort()
    return pairs


def _canonical(part: bytes) -> bytes:
    if not part.translate(None, _UNRESERVED) or _CANONICAL_ESCAPES.fullmatch(part):
        return part
    return quote_from_bytes(percent_decode(part.replace(b"+", b" ")), safe="-._~").encode()


def _joined(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return b"&".join([name + b"=" + value for name, value in pairs if name != b"X-Amz-Signature"])


def _claim(headers: dict[bytes, bytes], pairs: list[tuple[bytes, bytes]]) -> _Claim:
    """The credentials, wherever they are. S3Error if there are none, two, or malformed ones."""
    authorization = headers.get(b"authorization")
    in_query: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name.startswith(_QUERY_PREFIX):
            claim_name = name[len(_QUERY_PREFIX) :]
            if claim_name in in_query:
                raise S3Error("AuthorizationQueryParametersError", "A parameter was given twice.")
            in_query[claim_name] = percent_decode(value) if b"%" in value else value
    is_presigned = b"Signature" in in_query or b"Credential" in in_query or b"Algorithm" in in_query
    if authorization is None:
        if not is_presigned:
            raise S3Error("AccessDenied")
        return _claim_of_query(headers, in_query)
    if is_presigned:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed: Authorization header or query.")
    return _claim_of_header(headers, authorization)


def _claim_of_header(headers: dict[bytes, bytes], authorization: bytes) -> _Claim:
    if not authorization or len(authorization) > _AUTHORIZATION_BYTES_MAX:
        raise S3Error("InvalidArgument", "Authorization header is invalid.", ArgumentName="Authorization")
    algorithm, _, rest = authorization.partition(b" ")
    if algorithm != ALGORITHM:
        raise _unsupported()
    found: dict[bytes, bytes] = {}
    for component in rest.split(b","):
        name, _, value = component.strip().partition(b"=")
        if name not in _HEADER_CLAIMS or name in found or not value:
            raise S3Error("AuthorizationHeaderMalformed")
        found[name] = value
    if len(found) != len(_HEADER_CLAIMS):
        raise S3Error("AuthorizationHeaderMalformed", "Credential, SignedHeaders and Signature are required.")
    timestamp, signed_at_ms = _time_of_headers(headers)
    payload = headers.get(b"x-amz-content-sha256")
    if payload is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    access_key, date, region = _credential(found[b"Credential"], "AuthorizationHeaderMalformed")
    return _Claim(
        access_key,
        date,
        region,
        found[b"SignedHeaders"],
        found[b"Signature"],
        timestamp,
        signed_at_ms,
        payload,
    )


def _claim_of_query(headers: dict[bytes, bytes], found: dict[bytes, bytes]) -> _Claim:
    malformed = "AuthorizationQueryParametersError"
    if not all(map(found.get, _QUERY_CLAIMS)):
        needed = ", ".join((_QUERY_PREFIX + name).decode() for name in _QUERY_CLAIMS)
        raise S3Error(malformed, f"Query-string authentication needs {needed}.")
    if found[b"Algorithm"] != ALGORITHM:
        raise S3Error(malformed, "X-Amz-Algorithm only supports AWS4-HMAC-SHA256.")
    expires = found[b"Expires"]
    expires_s = int(expires) if expires.isdigit() and len(expires) <= len(str(PRESIGNED_S_MAX)) else 0
    if not 1 <= expires_s <= PRESIGNED_S_MAX:
        raise S3Error(malformed, f"X-Amz-Expires must be between 1 and {PRESIGNED_S_MAX} seconds.")
    signed_at_ms = _milliseconds(found[b"Date"])
    if signed_at_ms is None:
        raise S3Error(malformed, "X-Amz-Date must be in the form yyyyMMdd'T'HHmmss'Z'.")
    if found.get(b"Security-Token"):
        raise S3Error("InvalidToken")
    in_header = headers.get(b"x-amz-content-sha256")
    payload = found.get(b"Content-Sha256", in_header or PayloadMode.UNSIGNED.value.encode())
    if in_header not in (None, payload):
        raise S3Error("InvalidArgument", "x-amz-content-sha256 of header and query differ.")
    access_key, date, region = _credential(found[b"Credential"], malformed)
    return _Claim(
        access_key,
        date,
        region,
        found[b"SignedHeaders"],
        found[b"Signature"],
        found[b"Date"],
        signed_at_ms,
        payload,
        expires_s,
    )


def _credential(credential: bytes, malformed: str) -> tuple[str, bytes, bytes]:
    """Access key, date and region of ``KEY/date/region/s3/aws4_request``."""
    parts = credential.split(b"/")
    if len(parts) != 5:
        message = "Credential must be ACCESS_KEY/date/region/s3/aws4_request."
        raise S3Error(malformed, message, status=403)
    access_key, date, region, service, terminator = parts
    if service != SERVICE or terminator != TERMINATOR:
        raise S3Error("SignatureDoesNotMatch", "Credential must be scoped to s3/aws4_request.")
    if not access_key or len(access_key) > ACCESS_KEY_BYTES_MAX or not access_key.isascii():
        raise S3Error("InvalidAccessKeyId")
    return access_key.decode(), date, region


def _payload_mode(claim: _Claim, allow_unsigned: bool) -> PayloadMode:
    mode = payload_mode(claim.payload)
    if mode is PayloadMode.SIGNED:
        return mode
    if claim.expires_s:
        if mode is not PayloadMode.UNSIGNED:
            raise S3Error("InvalidRequest", "A presigned request cannot stream its body in signed chunks.")
    elif not allow_unsigned and mode in (PayloadMode.UNSIGNED, PayloadMode.UNSIGNED_TRAILER):
        raise S3Error("AccessDenied", "The body of a request over plain HTTP must be signed.")
    return mode


# -- time -------------------------------------------------------------------------------------------


def _milliseconds(timestamp: bytes) -> int | None:
    """Milliseconds since the epoch of ``yyyyMMddTHHmmssZ``; None if it is no such time."""
    return _known_milliseconds(timestamp) if len(timestamp) == 16 else None


@lru_cache(maxsize=64)
def _known_milliseconds(timestamp: bytes) -> int | None:
    """Requests of one second have the same, and so do those by one presigned URL."""
    digits = timestamp[:8] + timestamp[9:15]
    if timestamp[8:9] != b"T" or timestamp[15:] != b"Z" or not digits.isdigit():
        return None
    month, day, hour, minute, second = [int(digits[at : at + 2]) for at in range(4, 14, 2)]
    try:
        return int(datetime(int(digits[:4]), month, day, hour, minute, second, tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        return None


def _time_of_headers(headers: dict[bytes, bytes]) -> tuple[bytes, int]:
    """The time to sign, from ``x-amz-date`` or else ``Date`` (RFC 1123): its text and milliseconds."""
    timestamp = headers.get(b"x-amz-date")
    if timestamp is None:
        try:
            date = parsedate_to_datetime(headers[b"date"][:64].decode("ascii"))
            # "-0000" gives a time without a zone; it must not be read in the zone of this machine.
            date = date.astimezone(UTC) if date.tzinfo else date
            timestamp = date.strftime("%Y%m%dT%H%M%SZ").encode()
        except (KeyError, ValueError, OverflowError):
            timestamp = b""
    signed_at_ms = _milliseconds(timestamp)
    if signed_at_ms is None:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    return timestamp, signed_at_ms


def _check_time(claim: _Claim, now_ms: int) -> None:
    """The scope's date is that of the time, and the time is now (or the URL has not expired)."""
    if claim.date != claim.timestamp[:8]:
        message = "Date in Credential scope does not match the date of the request."
        raise S3Error("SignatureDoesNotMatch", message)
    if not claim.expires_s:
        if abs(now_ms - claim.signed_at_ms) > CLOCK_SKEW_MS:
            raise S3Error(
                "RequestTimeTooSkewed",
                RequestTime=claim.timestamp.decode(),
                ServerTime=iso8601(now_ms),
                MaxAllowedSkewMilliseconds=CLOCK_SKEW_MS,
            )
    elif claim.signed_at_ms - now_ms > CLOCK_SKEW_MS:
        raise S3Error("AccessDenied", "Request is not valid yet", ServerTime=iso8601(now_ms))
    elif now_ms > claim.signed_at_ms + claim.expires_s * 1000:
        expired_at = iso8601(claim.signed_at_ms + claim.expires_s * 1000)
        raise S3Error("AccessDenied", "Request has expired", Expires=expired_at, ServerTime=iso8601(now_ms))


def iso8601(at_ms: int) -> str:
    """A time in milliseconds since the epoch as error texts have it."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- the signature ----------------------------------------------------------------------------------


def _canonical_headers(headers: dict[bytes, bytes], signed_headers: bytes) -> bytes:
    """One line for each signed header. S3Error if the list is malformed or leaves one out."""
    names = signed_headers.split(b";")
    signed = set(names)
    if b"host" not in signed or len(signed) != len(names) or names != sorted(names):
        message = "SignedHeaders must be a sorted list without repetitions that has host in it."
        raise S3Error("SignatureDoesNotMatch", message)
    unsigned = [name for name in headers if name.startswith(b"x-amz-") and name not in signed]
    if unsigned:
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            HeadersNotSigned=b", ".join(unsigned).decode("latin-1"),
        )
    try:
        return b"".join([name + b":" + headers[name] + b"\n" for name in names])
    except KeyError:
        message = "SignedHeaders names a header that the request does not have."
        raise S3Error("SignatureDoesNotMatch", message) from None


def form_credential(text: str, region: str) -> tuple[str, bytes, bytes]:
    """Access key, date and region of a form's ``x-amz-credential``. Raises S3Error."""
    access_key, date, found = _credential(text.encode(), "InvalidArgument")
    if len(date) != 8 or not date.isdigit():  # Keys of dates are kept.
        raise S3Error("InvalidArgument", "The date of X-Amz-Credential must be yyyyMMdd.")
    if found != region.encode():
        raise S3Error("AuthorizationHeaderMalformed", f"the region is wrong; expecting '{region}'")
    return access_key, date, found


def form_signature(secret: str, date: bytes, region: bytes, policy: str) -> str:
    """What signs a form's policy, in hexadecimal digits."""
    return hmac.digest(_signing_key(secret, date, region), policy.encode(), "sha256").hex()


@lru_cache(maxsize=SIGNING_KEYS_MAX)
def _signing_key(secret: str, date: bytes, region: bytes) -> bytes:
    """The key of a day and a region. Keyed by the secret, so a changed one never meets the old key.

    Keys of past days are of no use to requests in their time and leave as the least recently used.
    """
    key = ("AWS4" + secret).encode()
    for part in (date, region, SERVICE, TERMINATOR):
        key = hmac.digest(key, part, "sha256")
    return key


def _verify(claim: _Claim, canonical: bytes, secret: str | None) -> bytes:
    """The signing key, if it made the claimed signature."""
    signing_key = _signing_key(DUMMY_SECRET if secret is None else secret, claim.date, claim.region)
    digest = sha256(canonical).hexdigest().encode()
    string_to_sign = b"\n".join((ALGORITHM, claim.timestamp, claim.scope, digest))
    expected = hmac.digest(signing_key, string_to_sign, "sha256").hex().encode()
    is_right = hmac.compare_digest(expected, claim.signature)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=claim.access_key)
    if not is_right:
        # Both texts are made of the request alone: they help its author. Answers get into logs, keys do not.
        raise S3Error(
            "SignatureDoesNotMatch",
            AWSAccessKeyId=claim.access_key,
            StringToSign=string_to_sign.decode("latin-1"),
            CanonicalRequest=without_keys(canonical).decode("latin-1"),
        )
    return signing_key


def _unsupported() -> S3Error:
    message = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
    return S3Error("InvalidRequest", message)


def _wrong_region(claim: _Claim, region: str) -> S3Error:
    # SDKs read the right region from the Region element and try again; they do so with any status.
    code = "AuthorizationQueryParametersError" if claim.expires_s else "AuthorizationHeaderMalformed"
    message = f"the region '{claim.region.decode('latin-1')[:64]}' is wrong; expecting '{region}'"
    return S3Error(code, message, status=403, Region=region)
