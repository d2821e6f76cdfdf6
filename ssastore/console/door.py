"""Who may do what at the admin port: the one point where that is decided.

    read    health, status and metrics: all but what may be a page of another site
    look    whoever is on this machine, under its own name; whoever has logged in
    act     whoever has logged in and asks from the page itself; a program that has the admin token

Names other than `localhost` and loopback addresses count for another machine, so that no page of another
site can read the console by pointing a name of its own here (DNS rebinding).  A login is a cookie that no
script can read and no other site's request carries (HttpOnly, SameSite=Strict); an act also needs a header
that no form can send, and an `Origin` that is the page's own: cookies are sent to every port of a host, so
the cookie alone says nothing about which page asks.

Sessions are in memory: they end with the gateway, with their time, and with the token they were made by.
"""

from __future__ import annotations

import hmac
import json
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from aiohttp import web
from blake3 import blake3

from ssastore.console.files import Handler, json_answer
from ssastore.console.token import CODE_S, TokenFile, as_bytes, begun_ms
from ssastore.env import Clock, Randomness

SESSION_S = 12 * 3600
"Of a login: a working day."
_SESSIONS_MAX = 64
"More are not needed by people; the oldest goes."
_BODY_BYTES_MAX = 64 * 1024
ASKED_BY_PAGE = "X-Ssastore-Console"
"A header that makes a request one that browsers ask about first; nobody here says yes."
_OF_PROXIES = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
_COME_IN = "log in: `ssastore console`, on the gateway's machine, prints a link"


_BY_ANOTHER_NAME = (
    "on this machine ask by localhost, an address or the machine's name, or with the admin token"
    " (Authorization: Bearer): a page of another site could ask so"
)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has logged in."""

    name: str
    "Of what is lent to it: not a secret."
    until_ms: int
    token: bytes
    "By which it was made, as a digest."


class Door:
    """At the admin port of one gateway."""

    def __init__(self, tokens: TokenFile, clock: Clock, randomness: Randomness) -> None:
        self._tokens, self._clock, self._randomness = tokens, clock, randomness
        self._sessions: dict[bytes, Session] = {}
        "By the digest of what the cookie says: oldest first."
        self._spent: dict[str, int] = {}
        "Login codes that were used, with when they would have ended."
        self._began_ms = clock.now_ms()

    # -- who asks -----------------------------------------------------------------------------------

    def reads(self, handler: Handler) -> Handler:
        """The handler, for all but what may be a page of another site."""

        async def guarded(http: web.BaseRequest) -> web.StreamResponse:
            is_rebound = may_be_rebound(http.remote or "", _host(http))
            if is_rebound and not (self.session(http) or self._has_token(http)):
                return refusal(403, _BY_ANOTHER_NAME)
            return await handler(http)

        return guarded

    def looks(self, handler: Handler) -> Handler:
        """The handler, for those who may look."""

        async def guarded(http: web.BaseRequest) -> web.StreamResponse:
            if not (is_this_machine(http) or self.session(http) or self._has_token(http)):
                return refusal(401, _COME_IN)
            return await handler(http)

        return guarded

    def acts(self, handler: Handler) -> Handler:
        """The handler, for those who may act."""

        async def guarded(http: web.BaseRequest) -> web.StreamResponse:
            if not self._has_token(http):
                if self.session(http) is None:
                    return refusal(401, _COME_IN)
                if not is_own_page(http):
                    return refusal(403, "this was not asked by the console's own page")
            return await handler(http)

        return guarded

    def session(self, http: web.BaseRequest) -> Session | None:
        """The login that a request belongs to; None: to none that is good."""
        self._forget_old()
        said = http.cookies.get(_cookie_name(http), "")
        return self._sessions.get(_digest(as_bytes(said))) if said else None

    def lasts(self, name: str) -> bool:
        """Whether the login of a session's name is good now."""
        self._forget_old()
        return any(session.name == name for session in self._sessions.values())

    def _has_token(self, http: web.BaseRequest) -> bool:
        kind, _, said = http.headers.get("Authorization", "").partition(" ")
        token = self._tokens.token()
        return kind == "Bearer" and token is not None and hmac.compare_digest(as_bytes(said), token)

    # -- logging in ---------------------------------------------------------------------------------

    async def log_in(self, http: web.BaseRequest) -> web.StreamResponse:
        """POST {"code"} or {"token"}: a session, as a cookie."""
        if not is_own_page(http):
            return refusal(403, "this was not asked by the console's own page")
        said, token = await body_of(http), self._tokens.token()
        if token is None:
            path = self._tokens.path
            return refusal(
                403, f"this gateway has no admin token that it can read: {path}, for its owner alone"
            )
        if why := self._wrong(said, token):
            return refusal(403, why)
        self._forget_old()
        while len(self._sessions) >= _SESSIONS_MAX:
            self._end(next(iter(self._sessions)))
        cookie = self._randomness.bytes(32).hex()
        until_ms = self._clock.now_ms() + SESSION_S * 1000
        name = self._randomness.bytes(8).hex()
        self._sessions[_digest(cookie.encode())] = Session(name, until_ms, _digest(token))
        answer = json_answer({"until_ms": until_ms})
        self._set_cookie(answer, http, cookie, SESSION_S)
        return answer

    def _wrong(self, said: dict[str, Any], token: bytes) -> str:
        """Why somebody may not come in; empty when he may."""
        now_ms, code = self._clock.now_ms(), said.get("code")
        if not isinstance(code, str):
            given = said.get("token")
            is_it = isinstance(given, str) and hmac.compare_digest(as_bytes(given.strip()), token)
            return "" if is_it else "that is not the admin token"
        made_ms = begun_ms(code, token, now_ms)
        if made_ms is None:
            return "this link is not of this gateway, or older than ten minutes: make another one"
        # Which codes were used before it was started is not known. They tell whole seconds.
        if code in self._spent or made_ms < self._began_ms // 1000 * 1000:
            return "this link was used, or made before the gateway was started: make another one"
        self._spent[code] = made_ms + CODE_S * 1000
        return ""

    async def log_out(self, http: web.BaseRequest) -> web.StreamResponse:
        """POST: the session ends."""
        if not is_own_page(http):
            return refusal(403, "this was not asked by the console's own page")
        if said := http.cookies.get(_cookie_name(http), ""):
            self._end(_digest(as_bytes(said)))
        answer = json_answer({})
        self._set_cookie(answer, http, "", 0)
        return answer

    def _set_cookie(self, answer: web.Response, http: web.BaseRequest, value: str, lasts_s: int) -> None:
        answer.set_cookie(
            _cookie_name(http),
            value,
            max_age=lasts_s,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=http.secure,
        )

    def _forget_old(self) -> None:
        now_ms, token = self._clock.now_ms(), self._tokens.token()
        made_by = None if token is None else _digest(token)
        for digest, session in list(self._sessions.items()):
            if session.until_ms <= now_ms or session.token != made_by:
                self._end(digest)
        for code in [code for code, ends_ms in self._spent.items() if ends_ms <= now_ms]:
            del self._spent[code]

    def _end(self, digest: bytes) -> None:
        self._sessions.pop(digest, None)


def refusal(status: int, why: str) -> web.Response:
    """What is said to who may not."""
    return json_answer({"error": why}, status=status)


async def body_of(http: web.BaseRequest) -> dict[str, Any]:
    """A small JSON object; empty when it is none."""
    if (http.content_length or 0) > _BODY_BYTES_MAX:
        return {}
    content = await http.read()
    try:
        found = json.loads(content) if len(content) <= _BODY_BYTES_MAX else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_own_page(http: web.BaseRequest) -> bool:
    """Whether a request is one that only the console's own page can have a browser send."""
    origin = http.headers.get("Origin")
    return ASKED_BY_PAGE in http.headers and (origin is None or origin.partition("://")[2] == _host(http))


def is_this_machine(http: web.BaseRequest) -> bool:
    """Whether somebody on this machine asks, by one of its own names, and no proxy for somebody else."""
    is_passed_on = any(name in http.headers for name in _OF_PROXIES)
    return _is_loopback(http.remote or "") and _is_own_name(_host(http)) and not is_passed_on


def may_be_rebound(peer: str, host: str) -> bool:
    """Whether a page of another site may ask, that has its own name point to this machine (DNS rebinding).

    Its browser is on this machine, as the port is on the loopback address, and says the page's name as Host;
    no page can be of an address that is not its server's, of `localhost` or of this machine's own name, so
    these are nobody else's.  Who comes from another machine, as a Prometheus or load balancer there, has
    reached the port by itself and may call it as it likes: to a page on that machine the port is as open
    as the network lets it be.
    """
    if not host or not _is_loopback(peer) or _is_own_name(host):
        return False
    name = _name_of(host)
    return not _is_address(name) and name != socket.gethostname().lower()


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _host(http: web.BaseRequest) -> str:
    """As it is said; for one that says none aiohttp would ask the DNS who we are."""
    return http.headers.get("Host", "")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _name_of(host: str) -> str:
    """Without the port, small."""
    name = host if _is_address(host) or ":" not in host.rpartition("]")[2] else host.rpartition(":")[0]
    return name.lower().strip("[]")


def _is_own_name(host: str) -> bool:
    name = _name_of(host)
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _cookie_name(http: web.BaseRequest) -> str:
    """With the port: browsers keep one jar for all ports of a host, and there may be several labs."""
    port = _host(http).rpartition("]")[2].rpartition(":")[2]
    return f"ssastore-{port if port.isascii() and port.isdecimal() else 'console'}"


def _digest(secret: bytes) -> bytes:
    return blake3(secret).digest()
