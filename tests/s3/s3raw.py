"""Requests by hand: signed with botocore's signer, sent as bytes on a socket, any part open to mischief."""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from typing import Any, Self
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from s3gateway import ACCESS_KEY, REGION, SECRET_KEY

Header = tuple[str, str]
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_TIMESTAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Answer:
    """What came back: ``status`` 0 when the connection ended without an answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = True
    "The body had the length that its header promised."

    @property
    def code(self) -> str:
        """S3's name of the error, empty if the body is no error document."""
        found = re.search(rb"<Code>(\w+)</Code>", self.body)
        return found[1].decode() if found else ""

    def element(self, name: str) -> str:
        """Text of the first XML element ``name``."""
        found = re.search(rb"<%b>([^<]*)</%b>" % (name.encode(), name.encode()), self.body)
        return found[1].decode() if found else ""


@dataclass(frozen=True)
class Signing:
    """How a request is signed; the defaults are right."""

    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    region: str = REGION
    service: str = "s3"
    timestamp: str = ""
    payload: str = ""
    "``x-amz-content-sha256``; the body's digest if empty."


@dataclass(frozen=True)
class Sent:
    """A request as it goes over the wire."""

    method: str
    target: str
    headers: tuple[Header, ...]
    body: bytes = b""
    version: str = "HTTP/1.1"

    def header(self, name: str) -> str:
        return next(value for key, value in self.headers if key.lower() == name.lower())

    def with_header(self, name: str, value: str | None) -> Sent:
        """Replace a header without signing anew; None removes it."""
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=kept + (((name, value),) if value is not None else ()))

    def plus(self, *headers: Header) -> Sent:
        """Add headers without signing anew."""
        return replace(self, headers=self.headers + headers)

    def head(self) -> bytes:
        lines = [f"{self.method} {self.target} {self.version}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"

    def raw(self) -> bytes:
        return self.head() + self.body


class _Pieces:
    """Wraps botocore's signers so that time and payload digest are ours to choose."""

    def _set_necessary_date_headers(self, request: Any) -> None:
        request.headers["X-Amz-Date"] = request.context["timestamp"]


class _HeaderSigner(_Pieces, S3SigV4Auth):
    pass


class _QuerySigner(_Pieces, S3SigV4QueryAuth):
    def payload(self, request: Any) -> str:
        return request.context["payload"] or "UNSIGNED-PAYLOAD"


def now() -> str:
    """The time as SigV4 writes it."""
    return datetime.now(UTC).strftime(_TIMESTAMP)


def timestamp_at(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime(_TIMESTAMP)


def sign(
    host: str,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Iterable[Header] = (),
    *,
    signing: Signing = Signing(),
    unsigned: Iterable[Header] = (),
) -> Sent:
    """A request signed in its Authorization header. ``unsigned`` headers are added after signing."""
    request = AWSRequest(method, f"http://gateway{target}", data=body)
    request.headers["Host"] = host
    for name, value in headers:
        request.headers[name] = value
    request.headers["X-Amz-Date"] = timestamp = signing.timestamp or now()
    request.headers["X-Amz-Content-SHA256"] = signing.payload or hashlib.sha256(body).hexdigest()
    request.context["timestamp"] = timestamp
    credentials = Credentials(signing.access_key, signing.secret_key)
    signer = _HeaderSigner(credentials, signing.service, signing.region)
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    signer._inject_signature_to_request(request, signature)
    sent = tuple((name, str(value)) for name, value in request.headers.items())
    if body or method in ("PUT", "POST"):
        names = {name.lower() for name, _ in (*sent, *unsigned)}
        if not names & {"content-length", "transfer-encoding"}:
            sent += (("Content-Length", str(len(body))),)
    return Sent(method, target, (*sent, *unsigned), body)


def presign(
    host: str,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    expires: int = 300,
    signing: Signing = Signing(),
    headers: Iterable[Header] = (),
) -> Sent:
    """A request signed in its query."""
    request = AWSRequest(method, f"http://gateway{target}")
    request.headers["Host"] = host
    for name, value in headers:
        request.headers[name] = value
    request.context["timestamp"] = signing.timestamp or now()
    request.context["payload"] = signing.payload
    credentials = Credentials(signing.access_key, signing.secret_key)
    signer = _QuerySigner(credentials, signing.service, signing.region, expires=expires)
    signer._modify_request_before_signing(request)
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    signer._inject_signature_to_request(request, signature)
    parts = urlsplit(request.url)
    sent: tuple[Header, ...] = tuple((name, str(value)) for name, value in request.headers.items())
    if body or method in ("PUT", "POST"):
        sent += (("Content-Length", str(len(body))),)
    return Sent(method, f"{parts.path}?{parts.query}", sent, body)


def signature_of(sent: Sent) -> str:
    """The signature in a request's Authorization header."""
    return sent.header("Authorization").rpartition("Signature=")[2]


class ChunkSigner:
    """Frames a body as STREAMING-AWS4-HMAC-SHA256-PAYLOAD[-TRAILER], signing each chunk."""

    def __init__(self, sent: Sent, *, secret_key: str = SECRET_KEY) -> None:
        self._timestamp = sent.header("X-Amz-Date")
        self._scope = f"{self._timestamp[:8]}/{REGION}/s3/aws4_request"
        key = b"AWS4" + secret_key.encode()
        for part in self._scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = key
        self._previous = signature_of(sent)

    def _sign(self, algorithm: str, *parts: str) -> str:
        text = "\n".join((algorithm, self._timestamp, self._scope, self._previous, *parts))
        self._previous = hmac.digest(self._key, text.encode(), "sha256").hex()
        return self._previous

    def chunk(self, data: bytes) -> bytes:
        digest = hashlib.sha256(data).hexdigest()
        signature = self._sign("AWS4-HMAC-SHA256-PAYLOAD", EMPTY_SHA256, digest)
        return b"%x;chunk-signature=%b\r\n%b%b" % (len(data), signature.encode(), data, b"\r\n" * bool(data))

    def trailer(self, name: str, value: str) -> bytes:
        line = f"{name}:{value}"
        signature = self._sign("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(f"{line}\n".encode()).hexdigest())
        return f"{line}\r\nx-amz-trailer-signature:{signature}\r\n\r\n".encode()


def unsigned_chunks(*pieces: bytes, trailer: bytes = b"") -> bytes:
    """A body framed as STREAMING-UNSIGNED-PAYLOAD-TRAILER."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return chunks + b"0\r\n" + trailer + b"\r\n"


class Wire:
    """A TCP connection to the gateway."""

    def __init__(self, port: int, *, timeout: float = 10) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it; a server that has closed already is no error."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def end(self) -> None:
        """No more bytes from this side."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer."""
        response = HTTPResponse(self.socket, method=method)
        try:
            response.begin()
        except (HTTPException, ConnectionError):
            response.close()
            return Answer(0)
        headers = {name.lower(): value for name, value in response.getheaders()}
        is_whole = True
        try:
            body = response.read()
        except HTTPException as error:
            body, is_whole = getattr(error, "partial", b""), False
        except ConnectionError:
            body, is_whole = b"", False
        response.close()
        return Answer(response.status, headers, body, is_whole)

    def is_closed(self, timeout: float = 5) -> bool:
        """Whether the other side has closed, now or within ``timeout``; unread bytes are dropped."""
        self.socket.settimeout(timeout)
        try:
            while self.socket.recv(65536):
                continue
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True


def exchange(port: int, data: bytes, *, method: str = "GET", timeout: float = 10) -> Answer:
    """Send bytes on a new connection; the first answer."""
    with Wire(port, timeout=timeout) as wire:
        wire.send(data)
        return wire.answer(method)
