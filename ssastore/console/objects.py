"""Buckets and objects for the page: the gateway's own S3 interface, below /console/s3 of the admin port.

It is the S3 gateway that answers, and not the library: policies, quotas, encryption and checksums hold as for
every client, and the page signs each request itself (Signature Version 4), so a secret that somebody types
never leaves his browser.  Who has logged in is lent a key that is good as long as his login.

What an object holds was made by others: it is handed out as a file to be saved, and never shown as a page of
the console's origin.

    *     /console/s3/BUCKET/KEY?...   signed as for /BUCKET/KEY of this host and port
    POST  /console/key                 {"key", "secret"}: the key that is lent
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from aiohttp import web

from ssastore.console.door import Door, refusal
from ssastore.console.files import json_answer
from ssastore.env import Randomness

BELOW = "/console/s3"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "attachment",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class S3(Protocol):
    """The gateway's S3 interface (``s3.server.S3Server``)."""

    async def handle_below(
        self, http: web.BaseRequest, below: str, headers: Mapping[str, str]
    ) -> web.StreamResponse: ...

    lent: Callable[[str], str | None]
    "Asked for the secret of a key that it does not know."


class Objects:
    """Of one gateway."""

    def __init__(self, s3: S3, door: Door, region: str, randomness: Randomness) -> None:
        self.region = region
        self._s3, self._door, self._randomness = s3, door, randomness
        self._lent: dict[str, tuple[str, str]] = {}
        "Name of the login and secret of each key that is lent."
        s3.lent = self._secret_of

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """A request for S3; who asks it is judged there, by its signature."""
        return await self._s3.handle_below(http, BELOW, HEADERS)

    async def key(self, http: web.BaseRequest) -> web.StreamResponse:
        """The key of a login."""
        session = self._door.session(http)
        if session is None:
            return refusal(403, "a key is lent to who has logged in by the page")
        for other in list(self._lent):
            self._secret_of(other)  # Those of logins that are over go.
        key_id = f"console-{session.name}"
        if key_id not in self._lent:
            self._lent[key_id] = session.name, self._randomness.bytes(24).hex()
        return json_answer({"key": key_id, "secret": self._lent[key_id][1]})

    def _secret_of(self, key_id: str) -> str | None:
        """Of a key at the moment of its use: nobody has to come to the door for a login to be over."""
        name, secret = self._lent.get(key_id, ("", ""))
        if name and self._door.lasts(name):
            return secret
        self._lent.pop(key_id, None)
        return None
