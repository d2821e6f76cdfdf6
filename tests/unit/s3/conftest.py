"""Requests to verify: what boto3 really sends, and what a small signer of our own makes to order."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from ssastore.s3.principal import SignedRequest

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
REGION = "us-east-1"
EMPTY = hashlib.sha256(b"").hexdigest()


def secret_of(access_key: str) -> str | None:
    return SECRET if access_key == ACCESS_KEY else None


def epoch_ms(timestamp: str) -> int:
    return int(datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()) * 1000


@dataclass
class Sent:
    """A request on the wire, and the time at which it was signed."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    timestamp: str

    @property
    def now_ms(self) -> int:
        return epoch_ms(self.timestamp)

    def signed(self) -> SignedRequest:
        headers = [(name.encode(), value.encode("utf-8")) for name, value in self.headers]
        return SignedRequest(self.method, self.path.encode(), self.query.encode(), headers)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


class _Captured(Exception):
    pass


def _capture(request: Any, **context: Any) -> None:
    raise _Captured(request)


def _sent(prepared: Any) -> Sent:
    url = urlsplit(prepared.url)
    # http.client adds these when it sends; everything else is in the prepared request.
    headers = [("Host", url.netloc), ("Accept-Encoding", "identity")]
    for name, value in prepared.headers.items():
        headers.append((name, value.decode() if isinstance(value, bytes) else value))
    body = prepared.body or b""
    if hasattr(body, "read"):
        body = body.read()
    query = dict(pair.partition("=")[::2] for pair in url.query.split("&"))
    timestamp = prepared.headers.get("X-Amz-Date") or query["X-Amz-Date"]
    if isinstance(timestamp, bytes):
        timestamp = timestamp.decode()
    return Sent(prepared.method, url.path or "/", url.query, headers, body, timestamp)


@pytest.fixture(scope="session")
def boto() -> Callable[..., Any]:
    """``boto(endpoint)`` is an S3 client whose requests are captured instead of sent."""
    clients: dict[str, Any] = {}

    def client(endpoint: str = "http://127.0.0.1:7482") -> Any:
        if endpoint not in clients:
            made = boto3.client(
                "s3",
                endpoint_url=endpoint,
                region_name=REGION,
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET,
                config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}),
            )
            made.meta.events.register_first("before-send.s3", _capture)
            clients[endpoint] = made
        return clients[endpoint]

    return client


@pytest.fixture(scope="session")
def capture(boto: Callable[..., Any]) -> Callable[..., Sent]:
    """``capture(call, **arguments)``: what boto3 sends for one call of the S3 API."""

    def captured(call: str, *, endpoint: str = "http://127.0.0.1:7482", **arguments: Any) -> Sent:
        try:
            getattr(boto(endpoint), call)(**arguments)
        except _Captured as caught:
            return _sent(caught.args[0])
        raise AssertionError(f"{call} sent nothing")

    return captured


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


@dataclass
class Order:
    """A request to be signed by ``sign``, every part of it open to mischief.

    It is always signed consistently: what it claims is what is signed, so that a refusal comes from
    the rule under test and not from a signature that happens not to match.
    """

    method: str = "GET"
    path: str = "/bucket/key"
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    payload: str | None = EMPTY
    timestamp: str = "20260102T030405Z"
    date: str | None = None
    region: str = REGION
    service: str = "s3"
    terminator: str = "aws4_request"
    access_key: str = ACCESS_KEY
    secret: str = SECRET
    signed: list[str] | None = None
    unsigned: tuple[str, ...] = ()
    extra_headers: tuple[tuple[str, str], ...] = ()


def signing_key(order: Order) -> bytes:
    key = _hmac(b"AWS4" + order.secret.encode(), order.date or order.timestamp[:8])
    for part in (order.region, order.service, order.terminator):
        key = _hmac(key, part)
    return key


def scope_of(order: Order) -> str:
    return "/".join((order.date or order.timestamp[:8], order.region, order.service, order.terminator))


def sign(order: Order) -> Sent:
    """Sign ``order`` in its Authorization header."""
    headers = {"host": "127.0.0.1:7482", "x-amz-date": order.timestamp}
    if order.payload is not None:
        headers["x-amz-content-sha256"] = order.payload
    headers |= order.headers
    names = order.signed if order.signed is not None else sorted(set(headers) - set(order.unsigned))
    canonical = "\n".join(
        (
            order.method,
            order.path,
            order.query,
            "".join(f"{name}:{headers.get(name, '')}\n" for name in names),
            ";".join(names),
            order.payload or EMPTY,
        )
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", order.timestamp, scope_of(order), digest))
    signature = _hmac(signing_key(order), text).hex()
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={order.access_key}/{scope_of(order)}, "
        f"SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    sent = [*headers.items(), *order.extra_headers, ("Authorization", authorization)]
    return Sent(order.method, order.path, order.query, sent, b"", order.timestamp)


@pytest.fixture(scope="session")
def signer() -> Callable[..., Sent]:
    """``signer(method="PUT", ...)``: a request signed to order; see ``Order``."""
    return lambda **order: sign(Order(**order))


class ChunkSigner:
    """Frames and signs a body as STREAMING-AWS4-HMAC-SHA256-PAYLOAD[-TRAILER] wants it."""

    def __init__(self, order: Order, seed: str) -> None:
        self._key = signing_key(order)
        self._scope = f"{order.timestamp}\n{scope_of(order)}\n"
        self.previous = seed

    def chunk(self, data: bytes) -> bytes:
        digest = hashlib.sha256(data).hexdigest()
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{self._scope}{self.previous}\n{EMPTY}\n{digest}"
        self.previous = _hmac(self._key, text).hex()
        return (
            f"{len(data):x};chunk-signature={self.previous}\r\n".encode() + data + (b"\r\n" if data else b"")
        )

    def trailer(self, name: str, value: str) -> bytes:
        digest = hashlib.sha256(f"{name}:{value}\n".encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256-TRAILER\n{self._scope}{self.previous}\n{digest}"
        self.previous = _hmac(self._key, text).hex()
        return f"{name}:{value}\r\nx-amz-trailer-signature:{self.previous}\r\n\r\n".encode()


@pytest.fixture(scope="session")
def chunk_signer() -> Callable[..., ChunkSigner]:
    return lambda seed, **order: ChunkSigner(Order(**order), seed)
