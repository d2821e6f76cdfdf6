"""ssastore through its S3 gateway, one process on this machine in front of the lab's nodes.

The client is aiohttp with presigned URLs, so that neither side hashes a body for its signature; ETag and
checksum of an object are made all the same.  As with nginx the client limits ops/s: the figure to look at
is the servers' CPU time, which is that of the gateway and of all nodes together.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import aiohttp
from yarl import URL

from bench.errors import BenchError
from bench.targets.ssastore import Ssastore
from ssastore.form import form

_BUCKET = "bench"
_GOOD_FOR_S = 86400
_IDLE_S = 3600
"Connections wait for the rounds of the other targets."


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
        credential = f"{access_key}/{self._scope}".replace("/", "%2F")
        self._query = (
            f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={self._time}"
            f"&X-Amz-Expires={_GOOD_FOR_S}&X-Amz-SignedHeaders=host"
        )

    def url(self, method: str, path: str) -> URL:
        """A URL for one method. ``path`` has only characters that need no percent sign."""
        canonical = f"{method}\n{path}\n{self._query}\nhost:{self._host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self._time}\n{self._scope}\n{digest}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        return URL(f"{self._endpoint}{path}?{self._query}&X-Amz-Signature={signature}", encoded=True)


class S3Ssastore(Ssastore):
    """A lab of its own, as that of the native target."""

    module = "s3"

    def __init__(self, replicas: int = 1) -> None:
        super().__init__(replicas, lab=f"bench-s3-{replicas}")
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
    """See ``bench.load.Client``."""

    def __init__(self, session: aiohttp.ClientSession, signer: Presigner) -> None:
        self._session = session
        self._signer = signer
        self._urls: dict[str, URL] = {}
        "Of keys that were read: they are read again."

    async def create(self) -> None:
        """Make the bucket."""
        await self._send("PUT", self._signer.url("PUT", f"/{_BUCKET}"), None)

    async def put(self, key: str, data: bytes) -> None:
        """PutObject; durable when it returns."""
        await self._send("PUT", self._signer.url("PUT", f"/{_BUCKET}/{key}"), data)

    async def get(self, key: str) -> bytes:
        """GetObject."""
        url = self._urls.get(key)
        if url is None:
            url = self._urls[key] = self._signer.url("GET", f"/{_BUCKET}/{key}")
        return await self._send("GET", url, None)

    async def _send(self, method: str, url: URL, data: bytes | None) -> bytes:
        async with self._session.request(method, url, data=data) as response:
            body = await response.read()
            if response.status != 200:
                raise BenchError(f"{method} {url.path} was answered by {response.status}: {body[:200]!r}")
            return body

    async def close(self) -> None:
        """See ``Client.close``."""
        await self._session.close()


async def open_client(settings: dict[str, Any]) -> S3Client:
    """A client with a new bucket and as many connections as there are callers."""
    connector = aiohttp.TCPConnector(limit=settings["inflight"], keepalive_timeout=_IDLE_S)
    names = ("endpoint", "access_key", "secret", "region")
    signer = Presigner(*(settings[name] for name in names), at=datetime.now(UTC))
    session = aiohttp.ClientSession(
        connector=connector, auto_decompress=False, skip_auto_headers=("Content-Type",)
    )
    client = S3Client(session, signer)
    await client.create()
    return client
