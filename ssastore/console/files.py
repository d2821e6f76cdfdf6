"""The page's files over HTTP, and who may have them.

Who looks needs no login, so only this machine may: peers and host names other than loopback are refused, the
second so that no page of another site can read it by pointing a name of its own here (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from ipaddress import ip_address

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
_REFUSED = (
    "The console asks for no login, so it answers on this machine only, as localhost or a loopback address.\n"
    "From elsewhere: ssh -L 7481:localhost:7481 HOST, then http://localhost:7481/\n"
)

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


def for_this_machine(handler: Handler) -> Handler:
    """The handler, but others are refused."""

    async def guarded(http: web.BaseRequest) -> web.StreamResponse:
        if not (_is_loopback(http.remote or "") and _is_own_name(http.host)):
            return web.Response(status=403, text=_REFUSED, headers=HEADERS)
        return await handler(http)

    return guarded


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_own_name(host: str) -> bool:
    name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    name = name.lower().strip("[]")
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)
