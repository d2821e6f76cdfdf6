"""Whether a request, as bytes, is signed: by the rules of AWS and by signers that are not those under test.

It is stricter than a server has to be: what it does not understand is not signed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode
from urllib.parse import unquote_to_bytes, urlsplit

from botocore.auth import HmacV1Auth

from tests.s3.gateways import ACCESS_KEY, REGION, SECRET_KEY
from tests.s3.raw import EMPTY_SHA256, Signing, canonical_query

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^,\s]*)\s*,\s*SignedHeaders=([^,\s]*)\s*,\s*Signature=([^,\s]*)"
)
_SIGNED_CHUNK = re.compile(rb"([0-9a-fA-F]+);chunk-signature=([0-9a-f]{64})\r\n")
_CHUNK = re.compile(rb"([0-9a-fA-F]+)\r\n")

Headers = list[tuple[str, str]]


class Parsed:
    """Method, target, headers and body of a request. ValueError if it has none of these."""

    def __init__(self, raw: bytes) -> None:
        # Empty lines before a request do not count (RFC 9112, 2.2).
        head, end, rest = raw.lstrip(b"\r\n").partition(b"\r\n\r\n")
        if not end:
            raise ValueError("no end of the headers")
        first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
        # llhttp takes several blanks for one.
        method, target, _ = re.split(" +", first)
        self.method, self.target = str(method), str(target)
        self.path, _, self.query = self.target.partition("?")
        self.headers: Headers = []
        for line in lines:
            name, sign, value = line.partition(":")
            if not sign:
                raise ValueError("a header without a colon")
            self.headers.append((name.lower(), " ".join(value.split())))
        length = self.first("content-length")
        self.body = rest[: int(length)] if length.isdecimal() else b""

    def first(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    def joined(self, name: str) -> str:
        return ",".join(value for key, value in self.headers if key == name)

    def parameters(self) -> dict[str, str]:
        """Those of the query, decoded; the last of several."""
        pairs = [pair.partition("=")[::2] for pair in self.query.split("&") if pair]
        return {text_of(name): text_of(value) for name, value in pairs}


def text_of(part: str) -> str:
    return unquote_to_bytes(part.replace("+", "%20")).decode("utf-8", "surrogateescape")


def is_head_signed(raw: bytes) -> bool:
    """Whether botocore, asked for this very request, would have made its signature."""
    return _judged(raw) is not None


def is_signed(raw: bytes) -> bool:
    """Whether its body, besides, is what the signature says."""
    judged = _judged(raw)
    return judged is not None and _is_body_signed(*judged)


_Judged = tuple["Parsed", str, str, str]
"A request, and of its body: what ``x-amz-content-sha256`` says, when, and after which signature."


def _judged(raw: bytes) -> _Judged | None:
    try:
        request = Parsed(raw)
        parameters = request.parameters()
        if "AWSAccessKeyId" in parameters:
            return _judged_by_v2(request, parameters)
        if "X-Amz-Signature" in parameters:
            pairs = request.query.split("&")
            query = "&".join(pair for pair in pairs if text_of(pair.partition("=")[0]) != "X-Amz-Signature")
            claim = [
                parameters[f"X-Amz-{name}"] for name in ("Credential", "SignedHeaders", "Signature", "Date")
            ]
            payload = parameters.get("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
            return _judged_by_v4(request, query, claim, payload)
        found = _AUTHORIZATION.fullmatch(request.first("authorization"))
        claim = [*found.groups(), request.first("x-amz-date")] if found else []
        return (
            _judged_by_v4(request, request.query, claim, request.first("x-amz-content-sha256"))
            if claim
            else None
        )
    except (ValueError, KeyError):
        return None


def _judged_by_v4(request: Parsed, query: str, claim: list[str], payload: str) -> _Judged | None:
    credential, names, signature, timestamp = claim
    if credential != f"{ACCESS_KEY}/{timestamp[:8]}/{REGION}/s3/aws4_request":
        return None
    signed = names.split(";")
    if "host" not in signed or any(n.startswith("x-amz-") and n not in signed for n, _ in request.headers):
        return None
    lines = "".join(f"{name}:{request.joined(name)}\n" for name in signed)
    canonical = "\n".join(
        (request.method, request.path, canonical_query(query.replace("+", "%20")), lines, names, payload)
    )
    is_right = Signing().signature(timestamp, canonical) == signature
    return (request, payload, timestamp, signature) if is_right else None


def _is_body_signed(request: Parsed, payload: str, timestamp: str, seed: str) -> bool:
    if payload == "UNSIGNED-PAYLOAD":
        return True
    if payload == "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
        return _has_whole_chunks(request.body)
    if payload == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD":
        return _are_chunks_signed(request.body, timestamp, seed)
    return hashlib.sha256(request.body).hexdigest() == payload


def _are_chunks_signed(body: bytes, timestamp: str, previous: str) -> bool:
    signing, at, size = Signing(), 0, -1
    while size != 0:
        found = _SIGNED_CHUNK.match(body, at)
        if found is None:
            return False
        size, at = int(found[1], 16), found.end()
        digest = hashlib.sha256(body[at : at + size]).hexdigest()
        parts = (timestamp, signing.scope_at(timestamp), previous, EMPTY_SHA256, digest)
        text = "\n".join(("AWS4-HMAC-SHA256-PAYLOAD", *parts))
        previous = hmac.digest(signing.key_at(timestamp), text.encode(), "sha256").hex()
        if previous != found[2].decode():
            return False
        at += size + (2 if size else 0)
    return True


def _has_whole_chunks(body: bytes) -> bool:
    at, size = 0, -1
    while size != 0:
        found = _CHUNK.match(body, at)
        if found is None:
            return False
        size = int(found[1], 16)
        at = found.end() + size + (2 if size else 0)
    return at <= len(body)


def _judged_by_v2(request: Parsed, parameters: dict[str, str]) -> _Judged | None:
    names = sorted({name for name, _ in request.headers if name.startswith("x-amz-")})
    lines = [f"{name}:{request.joined(name)}" for name in names]
    signed = [request.joined(name) for name in ("content-md5", "content-type")]
    resource = HmacV1Auth(None).canonical_resource(urlsplit(f"http://host{request.target}"))
    text = "\n".join([request.method, *signed, parameters["Expires"], *lines, resource])
    expected = hmac.digest(SECRET_KEY.encode(), text.encode("utf-8", "surrogateescape"), "sha1")
    is_right = (
        parameters["AWSAccessKeyId"] == ACCESS_KEY and parameters["Signature"] == b64encode(expected).decode()
    )
    return (
        (request, request.first("x-amz-content-sha256") or "UNSIGNED-PAYLOAD", "", "") if is_right else None
    )
