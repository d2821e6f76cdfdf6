"""ssastore through its S3 gateway, one process on this machine in front of the lab's nodes.

The client is aiohttp with presigned URLs, so that neither side hashes a body for its signature; ETag and
checksum of an object are made all the same.  As with nginx the client limits ops/s: the figure to look at
is the servers' CPU time, which is that of the gateway and of all nodes together.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from bench.errors import BenchError
from bench.targets.ssastore import Ssastore
from ssastore.form import form

_GOOD_FOR_S = 86400
_IDLE_S = 3600
"Connections wait for the rounds of the other targets."

_DELETING = 32
_KEY = re.compile(r"<Key>([^<]*)</Key>")


class Presigner:
    """URLs that carry their signature, by AWS Signature Version 4 in the query.

    Source: "Authenticating Requests: Using Query Parameters", Amazon S3 API Reference.
    """

    def __init__(self, endpoint: str, access_key: str, secret: str, region: str, at: datetime) -> None:
        self._endpoint = endpoint
        self._host = URL(endpoint).authority
        self._time = at.strftime("%Y%m%dT%H%M%SZ")
        self._scope = f"{self._time[:8]}/{region}/s3/aws4_request"
        self._key = f"AWS4{secret}".encode()
        for part in self._scope.split("/"):
            self._key = hmac.digest(self._key, part.encode(), "sha256")
        credential = quote(f"{access_key}/{self._scope}", safe="")
        self._query = (
            f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={self._time}"
            f"&X-Amz-Expires={_GOOD_FOR_S}&X-Amz-SignedHeaders=host"
        )

    def url(self, method: str, path: str, parameters: str = "") -> URL:
        """A URL for one method.

        Args:
            method: of HTTP.
            path: has only characters that need no percent sign.
            parameters: of the query, in their order, escaped, each behind an ampersand; in small letters.
        """
        query = self._query + parameters  # Their names come behind those in capital letters.
        canonical = f"{method}\n{path}\n{query}\nhost:{self._host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self._time}\n{self._scope}\n{digest}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        return URL(f"{self._endpoint}{path}?{query}&X-Amz-Signature={signature}", encoded=True)


class S3Ssastore(Ssastore):
    """A lab of its own, as that of the native target."""

    module = "s3"

    def __init__(self, replicas: int = 1, *, workers: int = 1) -> None:
        super().__init__(replicas, workers=workers, lab=f"bench-s3-{replicas}")
        self.name = self.name.replace("ssastore", "ssastore S3")
        self.about = self.about.replace("hashed bucket", "S3 gateway, bucket as S3 makes it")

    def settings(self) -> dict[str, Any]:
        """See ``Target.settings``."""
        found = self.found()
        access_key, secret = found.access_key()
        return {
            "endpoint": f"http://127.0.0.1:{found.s3_port}",
            "access_key": access_key,
            "secret": secret,
            "region": found.region,
        }

    def on_client_host(self, argv: list[str]) -> list[str]:
        """Here: the gateway listens on this machine."""
        return argv

    def versions(self) -> dict[str, str]:
        """See ``Target.versions``."""
        return {"form": form(), **{name: version(name) for name in ("ssastore", "aiohttp")}}


class S3Client:
    """See ``bench.load.Client``. In a bucket of its own."""

    def __init__(self, session: aiohttp.ClientSession, signer: Presigner, *, is_kept: bool) -> None:
        self._session = session
        self._signer = signer
        self._path = f"/bench-{token_hex(4)}"
        self._is_kept = is_kept
        self._put: set[str] = set()
        "Keys to delete at the end, when nothing is kept."
        self._urls: dict[str, URL] = {}
        "Of keys that were read: they are read again."

    async def create(self) -> None:
        """Make the bucket."""
        await self._send("PUT", self._signer.url("PUT", self._path), None)

    async def put(self, key: str, data: bytes) -> None:
        """PutObject; durable when it returns."""
        if not self._is_kept:
            self._put.add(key)
        await self._send("PUT", self._signer.url("PUT", f"{self._path}/{key}"), data)

    async def get(self, key: str) -> bytes:
        """GetObject."""
        url = self._urls.get(key)
        if url is None:
            url = self._urls[key] = self._signer.url("GET", f"{self._path}/{key}")
        return await self._send("GET", url, None)

    async def page(self, prefix: str, after: str, count: int) -> list[str]:
        """ListObjectsV2."""
        start, of = (quote(text, safe="") for text in (after, prefix))
        parameters = f"&list-type=2&max-keys={count}&prefix={of}&start-after={start}"
        document = await self._send("GET", self._signer.url("GET", self._path, parameters), None)
        return _KEY.findall(document.decode())

    async def _send(self, method: str, url: URL, data: bytes | None) -> bytes:
        async with self._session.request(method, url, data=data) as response:
            body = await response.read()
            if response.status not in (200, 204):
                raise BenchError(f"{method} {url.path} was answered by {response.status}: {body[:200]!r}")
            return body

    async def close(self) -> None:
        """See ``Client.close``; what is not kept is deleted, and the bucket."""
        if not self._is_kept:
            keys = iter(self._put)
            await asyncio.gather(*[self._delete(keys) for _ in range(_DELETING)])
            await self._send("DELETE", self._signer.url("DELETE", self._path), None)
        await self._session.close()

    async def _delete(self, keys: Iterator[str]) -> None:
        for key in keys:
            await self._send("DELETE", self._signer.url("DELETE", f"{self._path}/{key}"), None)


async def open_client(settings: dict[str, Any]) -> S3Client:
    """A client with a new bucket and as many connections as there are callers."""
    connector = aiohttp.TCPConnector(limit=settings["inflight"], keepalive_timeout=_IDLE_S)
    names = ("endpoint", "access_key", "secret", "region")
    signer = Presigner(*(settings[name] for name in names), at=datetime.now(UTC))
    session = aiohttp.ClientSession(
        connector=connector, auto_decompress=False, skip_auto_headers=("Content-Type",)
    )
    # Servers of the run go with it, and all that they have.
    client = S3Client(session, signer, is_kept=settings.get("is_kept", True))
    await client.create()
    return client
