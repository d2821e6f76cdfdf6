"""Requests by hand: signed, sent as bytes on a socket, any part of them open to mischief.

Headers are signed by a signer of our own, since botocore's takes no nonsense; presigned URLs are botocore's.
Nothing here uses the code under test.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from typing import Any, Self
from urllib.parse import quote, unquote_to_bytes, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.s3.gateways import ACCESS_KEY, REGION, SECRET_KEY, Gateway

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
    scope: str = ""
    "date/region/service/terminator, if it is not to be made of the above."
    signed_headers: str = ""
    "The list of signed headers, if it is not to be all of them in order."

    def scope_at(self, timestamp: str) -> str:
        return self.scope or f"{timestamp[:8]}/{self.region}/{self.service}/aws4_request"

    def key_at(self, timestamp: str) -> bytes:
        """The signing key."""
        key = b"AWS4" + self.secret_key.encode()
        for part in self.scope_at(timestamp).split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key

    def signature(self, timestamp: str, canonical: str) -> str:
        digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
        text = "\n".join(("AWS4-HMAC-SHA256", timestamp, self.scope_at(timestamp), digest))
        return hmac.digest(self.key_at(timestamp), text.encode(), "sha256").hex()


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


class _QuerySigner(S3SigV4QueryAuth):
    """Botocore's, with the digest of the payload ours to choose."""

    def payload(self, request: Any) -> str:
        return str(request.context["payload"] or "UNSIGNED-PAYLOAD")


def now() -> str:
    """The time as SigV4 writes it."""
    return datetime.now(UTC).strftime(_TIMESTAMP)


def timestamp_at(at_ms: float) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime(_TIMESTAMP)


def canonical_query(query: str) -> str:
    """A query in the spelling that is signed: decoded, encoded again, in order."""
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
    encoded = [tuple(quote(unquote_to_bytes(part), safe="-._~") for part in pair) for pair in pairs]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


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
    timestamp = signing.timestamp or now()
    payload = signing.payload or hashlib.sha256(body).hexdigest()
    sent = {"Host": host, **dict(headers), "X-Amz-Date": timestamp, "X-Amz-Content-SHA256": payload}
    values = {name.lower(): " ".join(value.split()) for name, value in sent.items()}
    names = signing.signed_headers or ";".join(sorted(values))
    lines = "".join(f"{name}:{values.get(name, '')}\n" for name in names.split(";"))
    path, _, query = target.partition("?")
    canonical = "\n".join((method, path, canonical_query(query), lines, names, payload))
    credential = f"{signing.access_key}/{signing.scope_at(timestamp)}"
    signature = signing.signature(timestamp, canonical)
    sent["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    )
    if body or method in ("PUT", "POST"):
        framing = {name.lower() for name in (*sent, *dict(unsigned))} & {
            "content-length",
            "transfer-encoding",
        }
        sent |= {} if framing else {"Content-Length": str(len(body))}
    return Sent(method, target, (*sent.items(), *unsigned), body)


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
    for name, value in (("Host", host), *headers):
        del request.headers[name]  # to set one would add it
        request.headers[name] = value
    request.context["timestamp"] = timestamp = signing.timestamp or now()
    request.context["payload"] = signing.payload
    credentials = Credentials(signing.access_key, signing.secret_key)
    signer: Any = _QuerySigner(credentials, signing.service, signing.region, expires=expires)
    signer._modify_request_before_signing(request)
    signature = signing.signature(timestamp, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signature)
    parts = urlsplit(str(request.url))
    sent: tuple[Header, ...] = tuple((name, str(value)) for name, value in request.headers.items())
    if body or method in ("PUT", "POST"):
        sent += (("Content-Length", str(len(body))),)
    return Sent(method, f"{parts.path}?{parts.query}", sent, body)


def signature_of(sent: Sent) -> str:
    """The signature in a request's Authorization header."""
    return sent.header("Authorization").rpartition("Signature=")[2]


class ChunkSigner:
    """Frames a body as STREAMING-AWS4-HMAC-SHA256-PAYLOAD[-TRAILER], signing each chunk."""

    def __init__(self, sent: Sent, *, signing: Signing = Signing()) -> None:
        self._timestamp = sent.header("X-Amz-Date")
        self._scope = signing.scope_at(self._timestamp)
        self._key = signing.key_at(self._timestamp)
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


class _Stream(io.BufferedReader):
    """What has arrived on a connection; outlives the answers read from it."""

    def makefile(self, mode: str) -> Self:
        return self

    def close(self) -> None:
        pass

    def end(self) -> None:
        super().close()


class Wire:
    """A TCP connection to the gateway."""

    def __init__(self, port: int, *, timeout: float = 10) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.stream = _Stream(self.socket.makefile("rb", buffering=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stream.end()
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
        source: Any = self.stream  # all that is asked of a socket is a stream
        response = HTTPResponse(source, method=method)
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
            while self.stream.read1():
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


class Site:
    """A bucket with one object, which must be found unchanged, and alone, after whatever a test sends."""

    KEY, DATA = "kept", b"what was there before"

    def __init__(self, gateway: Gateway, bucket: str) -> None:
        self.gateway = gateway
        self.bucket = bucket
        put = self.send(self.sign("PUT", self.KEY, self.DATA))
        assert put.status == 200, put

    def target(self, key: str = "", query: str = "") -> str:
        """``key`` and ``query`` as they go over the wire: escaped already, or wrong on purpose."""
        return f"/{self.bucket}" + (f"/{key}" if key else "") + (f"?{query}" if query else "")

    def sign(
        self, method: str, key: str = "", body: bytes = b"", headers: Iterable[Header] = (), **options: Any
    ) -> Sent:
        """A signed request to the bucket or a key of it; ``query`` and the options of ``sign``."""
        target = self.target(key, options.pop("query", ""))
        return sign(self.gateway.host, method, target, body, headers, **options)

    def presign(self, method: str, key: str = "", body: bytes = b"", **options: Any) -> Sent:
        target = self.target(key, options.pop("query", ""))
        return presign(self.gateway.host, method, target, body, **options)

    @staticmethod
    def exchange(gateway: Gateway, sent: Sent) -> Answer:
        return exchange(gateway.port, sent.raw(), method=sent.method)

    def send(self, request: Sent | bytes, *, method: str = "GET", timeout: float = 10) -> Answer:
        """The answer to a request on a connection of its own."""
        if isinstance(request, Sent):
            return exchange(self.gateway.port, request.raw(), method=request.method, timeout=timeout)
        return exchange(self.gateway.port, request, method=method, timeout=timeout)

    def wire(self, *, timeout: float = 10) -> Wire:
        return Wire(self.gateway.port, timeout=timeout)

    def stored(self) -> list[str]:
        """Keys in the bucket, percent-encoded."""
        listed = self.send(self.sign("GET", query="encoding-type=url&list-type=2"))
        assert listed.status == 200, listed
        return [key.decode() for key in re.findall(rb"<Key>([^<]*)</Key>", listed.body)]

    def check(self) -> None:
        """A good request still works, nothing was stored, no upload was opened, nothing was changed."""
        kept = self.send(self.sign("GET", self.KEY))
        assert (kept.status, kept.body) == (200, self.DATA), kept
        assert self.stored() == [self.KEY]
        uploads = self.send(self.sign("GET", query="uploads="))
        assert uploads.status == 200 and b"<Upload>" not in uploads.body, uploads
