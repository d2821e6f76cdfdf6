"""Client side of a connection: greeting, requests in flight, coverage."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Any

from ssastore.core.requestid import NUMBER_BITS, REQUEST
from ssastore.env import Randomness
from ssastore.errors import AccessDenied, BadFrame, ConfigError, PeerError, UnexpectedMessage
from ssastore.keyspace import HASH_NAME, PLANES_MAX, RULE_VERSION
from ssastore.limits import ATTEMPT_TIMEOUT_MS, FRAME_BYTES_MAX, GREETING_TIMEOUT_MS
from ssastore.messages import NONCE_BYTES, PROTOCOL_VERSION, Hello, Proof, Status, Welcome
from ssastore.transport.channel import FrameChannel
from ssastore.transport.coverage import NOTHING, Coverage, decode_prefix
from ssastore.transport.credentials import Credentials
from ssastore.transport.greeting import CLIENT_SIDE, NODE_SIDE, check_welcome, is_proof, proof
from ssastore.wire import Body, Frame, Header

log = logging.getLogger(__name__)

Reply = tuple[Header, Body]

_NUMBER_MAX = (1 << NUMBER_BITS) - 1

_COVERAGES = ((int, int, int, int), (int, int, int, int, int, bytes))
"Types of the items of COVERAGE: of a cluster that was never renumbered, and of one that was."
_REASON_MAX = 200


@dataclass(frozen=True, slots=True)
class Identity:
    """Who dials: role and key for the greeting, and what the client believes of the cluster."""

    role: str
    key_id: str
    secret: bytes = b""
    replicas: int = 0
    cluster_id: str = ""
    credentials: Credentials | None = None
    "Of a part of the cluster itself: their cluster secret counts, which may change, and not ``secret``."

    def secret_now(self) -> bytes:
        """What proves the role, to who is dialled at this moment."""
        return self.secret if self.credentials is None else self.credentials.cluster_secret

    def __repr__(self) -> str:
        """Without the secret: this ends in tracebacks and logs."""
        return f"Identity(role={self.role!r}, key_id={self.key_id!r})"


def _reason_of(header: Header) -> str:
    """Why a node refuses. Nothing is proved yet of who says it, so only a plain short text is repeated."""
    text = header[2] if len(header) > 2 else ""
    is_plain = isinstance(text, str) and text.isprintable() and 0 < len(text) <= _REASON_MAX
    return text if is_plain else "without a reason"


class Connection(FrameChannel):
    """One connection to one worker.

    ``on_coverage(connection)`` is called when the worker says what it serves, which is then in
    ``coverage``.  With it the worker says what time it is there.
    """

    def __init__(
        self, identity: Identity, randomness: Randomness, on_coverage: Callable[[Connection], None]
    ) -> None:
        super().__init__(FRAME_BYTES_MAX)
        self._secret = identity.secret_now()
        self._on_coverage = on_coverage
        self._hello = Hello(
            PROTOCOL_VERSION,
            HASH_NAME,
            RULE_VERSION,
            identity.replicas,
            identity.role,
            identity.key_id,
            randomness.bytes(NONCE_BYTES),
            identity.cluster_id,
        )
        self.welcome: Welcome | None = None
        self.coverage = NOTHING
        self.replicas = 0
        "Planes that groups have, as the worker last said; 0: nothing yet."
        self.prefix: tuple[int, IPv6Network] | None = None
        "Serial and service prefix, as the worker last said; None: the cluster was never renumbered."
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._is_proved = False
        self._ahead_ms = 0.0
        "The node's clock against the time of the loop, less what the message took to come."
        self._next_number = 1
        self._pending: dict[int, tuple[asyncio.Future[Reply], float]] = {}
        self._lost: Exception | None = None

    # -- opening ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send(self._hello.header(0))

    async def greeted(self) -> None:
        """Wait for the end of the greeting.

        Raises:
            ConfigError: client and cluster disagree.
            AccessDenied: unknown key, wrong secret, or the node could not prove that it knows it.
            OSError: the connection ended, or the greeting took too long.
        """
        try:
            async with asyncio.timeout(GREETING_TIMEOUT_MS / 1000):
                await self._ready
        except TimeoutError:
            self.abort()
            raise OSError("the node did not finish the greeting in time") from None

    def _greet(self, header: Header, body: Body) -> None:
        if header[0] == Status.DENIED:
            self._finish_greeting(AccessDenied(f"the node refused: {_reason_of(header)}"))
        elif self.welcome is None:
            if header[0] != Welcome.TYPE:
                raise UnexpectedMessage("the first answer is not a Welcome")
            self.welcome = Welcome.decode(header)
            try:
                check_welcome(self._hello, self.welcome)
            except ConfigError as error:
                self._finish_greeting(error)
                return
            mac = proof(self._secret, CLIENT_SIDE, self._hello, self.welcome)
            self.send(Proof(mac).header(0))
        elif not self._is_proved:
            if header[0] != Proof.TYPE:
                raise UnexpectedMessage("the second answer is not a Proof")
            mac = Proof.decode(header).mac
            if not is_proof(mac, self._secret, NODE_SIDE, self._hello, self.welcome):
                self._finish_greeting(AccessDenied("the node did not prove that it knows the secret"))
                return
            self._is_proved = True
        else:
            self._cover(header, body)
            self._finish_greeting(None)

    def _finish_greeting(self, error: Exception | None) -> None:
        if error is not None:
            self.abort()
        if not self._ready.done():
            if error is None:
                self._ready.set_result(None)
            else:
                self._ready.set_exception(error)
                self._ready.exception()  # retrieved: nobody may be waiting any more

    def _cover(self, header: Header, body: Body) -> None:
        if header[0] != Status.COVERAGE:
            raise UnexpectedMessage("expected the coverage")
        if tuple(map(type, header)) not in _COVERAGES or not 0 < header[3] <= PLANES_MAX:
            raise BadFrame("coverage with other fields")
        if len(header) > len(_COVERAGES[0]):
            self.prefix = decode_prefix(header[4], header[5])
        self.coverage = Coverage.decode(body)
        self.replicas = header[3]
        self._ahead_ms = header[2] - self._loop.time() * 1000
        self._on_coverage(self)

    # -- requests -----------------------------------------------------------------------------------

    @property
    def inflight_count(self) -> int:
        return len(self._pending)

    @property
    def is_idle(self) -> bool:
        """Greeted, and nothing is being waited for."""
        return self._ready.done() and not self._pending

    def request(self, fields: list[Any], body: Body = b"") -> asyncio.Future[Reply]:
        """Send ``[type, None, fields ...]``; the future gets the reply's header and body.

        It raises OSError when the connection ends first.

        Raises:
            ObjectTooLarge: fields or body do not fit a frame.
        """
        request_id = REQUEST.get() << NUMBER_BITS | self._next_number
        self._next_number = self._next_number + 1 & _NUMBER_MAX
        while request_id in self._pending:  # One that has waited while all other numbers were used.
            request_id = request_id & ~_NUMBER_MAX | self._next_number
            self._next_number = self._next_number + 1 & _NUMBER_MAX
        fields[1] = request_id
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self._lost is not None or not self.is_open:
            future.set_exception(ConnectionResetError("the connection is closed"))
            return future
        self.send(fields, body)  # First: what is too large to be sent is not waited for.
        self._pending[request_id] = (future, self._loop.time())
        return future

    def handle(self, frames: deque[Frame]) -> None:
        while frames:
            header, body = frames.popleft()
            if not self._ready.done():
                self._greet(header, body)
            elif header[0] == Status.COVERAGE:
                self._cover(header, body)
            else:
                request_id = header[1] if len(header) > 1 else None
                entry = self._pending.pop(request_id, None) if type(request_id) is int else None
                if entry is None:
                    raise UnexpectedMessage("a reply to no request")
                if not entry[0].done():
                    entry[0].set_result((header, body))

    def node_ms(self) -> int:
        """What time it is at the node, about: births of operations are told by it."""
        return int(self._loop.time() * 1000 + self._ahead_ms)

    def check_alive(self, now: float, patience_s: float) -> None:
        """Give up requests that have waited for ``patience_s``; abort when nothing comes any more.

        Replies come out of order, but 10 s without any mean that worker or path are gone.
        """
        for future, sent_at in self._pending.values():
            if now - sent_at < patience_s:
                break
            if not future.done():
                future.set_exception(TimeoutError(f"no answer in {patience_s:g} s"))
        if self._pending:
            _, sent_at = next(iter(self._pending.values()))
            if now - max(sent_at, self.last_seen) > ATTEMPT_TIMEOUT_MS / 1000:
                self._lost = ConnectionResetError(f"no answer in {ATTEMPT_TIMEOUT_MS} ms")
                self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        error = self._lost or exc
        if not isinstance(error, OSError):
            error = ConnectionResetError("the node closed the connection")
        self._lost = error
        self._finish_greeting(error)
        pending, self._pending = self._pending, {}
        for future, _ in pending.values():
            if not future.done():
                future.set_exception(error)

    def on_peer_error(self, error: PeerError) -> None:
        self._lost = self._lost or ConnectionResetError(f"the node broke the protocol: {error}")
        log.warning("connection.closed", extra={"reason": str(error)})
        self.abort()  # At once: who waits for an answer must not wait until a stranger has read on.
