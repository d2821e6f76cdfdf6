"""The page's files over HTTP, for everybody: there is nothing in them but the page. Answers in JSON.

What the page may load is its own files alone, and what it may ask is this port.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any

from aiohttp import web
from blake3 import blake3

_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Files:
    """The page's files, by path; read once."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[bytes, str, str]] = {}
        for entry in (files("ssastore.console") / "static").iterdir():
            kind = _KINDS["." + entry.name.rpartition(".")[2]]
            content = entry.read_bytes()
            tag = f'"{blake3(content).hexdigest(length=12)}"'
            self._found["/" if entry.name == "index.html" else f"/console/{entry.name}"] = content, kind, tag

    @property
    def paths(self) -> list[str]:
        """Of all of them."""
        return sorted(self._found)

    def content(self, path: str) -> tuple[bytes, str, str]:
        """Of one of ``paths``: its bytes, kind and ETag."""
        return self._found[path]

    def answer(self, http: web.BaseRequest) -> web.Response:
        """One of ``paths``."""
        content, kind, tag = self.content(http.path)
        headers = {**HEADERS, "ETag": tag}
        if tag in http.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=headers)


def json_answer(body: Mapping[str, Any], status: int = 200) -> web.Response:
    """An answer that no cache keeps and no other site can read."""
    text = json.dumps(body, separators=(",", ":"))
    return web.Response(text=text, status=status, content_type="application/json", headers=HEADERS)
