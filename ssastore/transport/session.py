"""Node side of a connection: greeting, limits, requests to the acceptor, replies.

The hot path is plain: frames that arrived together share one read transaction;
writes go to the store's group commit and are answered when it is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ssastore.core.acceptor import NODE_ONLY, WRITES, Acceptor, encode_coverage
from ssastore.core.coordinator import PROPOSED, Coordinator
from ssastore.core.counting import Counting
from ssastore.core.custody import CUSTODIAL, Custody
from ssastore.core.giving import GIVEN, Giver
from ssastore.core.heat import Heat
from ssastore.core.numbers import slice_name
from ssastore.core.replies import Refusal, Reply
from ssastore.core.requestid import REQUEST, TOLD, name_of, upper_of
from ssastore.env import Clock, Randomness, Store, spawn
from ssastore.errors import CorruptObject, PeerError, SsaStoreError, StoreFull, UnexpectedMessage
from ssastore.keyspace import HASH_NAME, RULE_VERSION
from ssastore.limits import (
    CONNECTIONS_MAX,
    FRAME_BYTES_MAX,
    GREETING_TIMEOUT_MS,
    IDLE_TIMEOUT_MS,
    INFLIGHT_BYTES_MAX,
    INFLIGHT_REQUESTS_MAX,
    SEALED_MS_MAX,
    STALL_TIMEOUT_MS,
)
from ssastore.messages import (
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Count,
    Hello,
    Proof,
    Report,
    StartScrub,
    Status,
    Welcome,
    decode_request,
)
from ssastore.rules.guard import Guard
from ssastore.transport.channel import FrameChannel
from ssastore.transport.counters import Counters
from ssastore.transport.credentials import Credentials
from ssastore.transport.greeting import CLIENT_SIDE, NODE_SIDE, is_proof, proof
from ssastore.transport.tls import is_of
from ssastore.transport.told import Telling, Told
from ssastore.wire import Body, Frame, Header, encode

log = logging.getLogger(__name__)

_GREETING_FRAME_BYTES = 1024
_OF_A_WORKER = frozenset((Report.TYPE, StartScrub.TYPE))
"Requests that are for no slice."
SPEAK_TLS = b"".join(encode([int(Status.DENIED), 0, "it speaks TLS: tls_name and tls_ca are to be set"]))
"What a client without TLS is answered where it is on."
_COVER_GATHERED_S = 0.01
_VERSIONS_MAX = 8
"A stranger may claim any number."
_WRITE_OVERHEAD_BYTES = 2048
"Of one write, beside its body and long fields: what waits with it, key and operation id among them."


def _size_of(request: Any, body: Body) -> int:
    """Memory of a write that waits. The long fields count: a header has up to 64 KiB, thousands may wait."""
    long_fields = len(getattr(request, "metadata", b"")) + len(getattr(request, "etag", ""))
    return len(body) + _WRITE_OVERHEAD_BYTES + long_fields


class Service:
    """What all sessions of one worker share."""

    def __init__(
        self,
        *,
        store: Store,
        acceptor: Acceptor,
        credentials: Credentials,
        cluster_id: str,
        clock: Clock,
        randomness: Randomness,
        describe: Any,
    ) -> None:
        """``describe`` returns the body of a Report's reply, as bytes."""
        self.store = store
        self.acceptor = acceptor
        self.credentials = credentials
        self.cluster_id = cluster_id
        self.clock = clock
        self.randomness = randomness
        self.describe = describe
        self.start_scrub: Callable[[], int] = lambda: 0
        "Begins a scrub pass; its number."
        self.coverage = b""
        self.prefix: tuple[int, bytes] | None = None
        "Which service prefix clients are told, and its serial; None: the cluster was never renumbered."
        self.custody: Custody | None = None
        "Set where group records are followed: everywhere but in tests of less."
        self.giver: Giver | None = None
        "The same, and slices may be handed over."
        self.coordinator: Coordinator | None = None
        "Set where there may be several replicas: everywhere but in tests of less."
        self.guard: Guard | None = None
        "Set where connections are judged by the rule of the service."
        self.node_name = ""
        "With TLS: who has the role `node` has to show a certificate of this name."
        self.counting: Counting | None = None
        "The same, and buckets may have quotas."
        self.counters = Counters()
        self.heat = Heat()
        self.told = Told()
        self.sessions: dict[Session, None] = {}
        "In the order of their beginning: a set would be walked in the order of memory addresses."
        self.emptied = asyncio.Event()
        self.emptied.set()
        self._is_cover_due = False
        self._no_such_key = randomness.bytes(32)

    def session(self) -> Session:
        """A protocol for a new connection."""
        return Session(self)

    def lets_in(self, peer: Any, own: Any) -> bool:
        """Whether a connection keeps the rule of the service, by its two addresses; its verdict is counted.

        Without a line in the log: who breaks the rule may do it very often.
        """
        return self.guard is None or self.guard.lets_in(peer, own, self.clock.now_ms())

    def note_version(self, hello: Hello) -> None:
        """Who speaks another version ends the connection, and may have no log here. Once of each."""
        versions = self.counters.other_versions
        if (
            hello.protocol != PROTOCOL_VERSION
            and hello.protocol not in versions
            and len(versions) < _VERSIONS_MAX
        ):
            versions.append(hello.protocol)
            extra = {"role": hello.role, "theirs": hello.protocol, "ours": PROTOCOL_VERSION}
            log.warning("connection.other_protocol_version", extra=extra)

    def secrets_for(self, hello: Hello) -> tuple[tuple[bytes, ...], bool]:
        """(secrets, whether they are real): an unknown key is checked too, at the same cost."""
        secrets = self.credentials.secrets_of(hello)
        return secrets or (self._no_such_key,), bool(secrets)

    def conversation_of(self, kind: int, request: Any, body: Body) -> Coroutine[Any, Any, Reply] | None:
        """What a request needs that takes more than one transaction, if it does."""
        served = self.acceptor.served
        if kind in PROPOSED:
            if self.coordinator is not None and (
                served.count_at(request.iid) > 1
                or (self.coordinator.is_counted(request) and not served.sealed)
            ):
                return self.coordinator.handle(request, bytes(body))
        elif kind == Count.TYPE:
            if self.counting is not None:
                return self.counting.handle(request)
        elif kind in CUSTODIAL:
            if self.custody is not None:
                return self.custody.handle(request)
        elif kind in GIVEN and self.giver is not None:
            return self.giver.handle(request)
        return self.hold_of(request) if served.sealed else None

    def hold_of(self, request: Any) -> Coroutine[Any, Any, Reply] | None:
        """With one replica: the wait for the end of a handover, when the request is for a sealed slice.

        There is no other plane to answer; the caller is told to try again when it is decided.
        """
        served = self.acceptor.served
        if not served.sealed or self.custody is None or request.TYPE in _OF_A_WORKER:
            return None
        number = served.slice_at(request.iid)
        is_alone = number in served.sealed and served.count_at(request.iid) == 1
        return self._hold(self.custody, number) if is_alone else None

    async def _hold(self, custody: Custody, number: int) -> Reply:
        try:
            async with asyncio.timeout(SEALED_MS_MAX / 1000):
                while number in self.acceptor.served.sealed:
                    await custody.changed()
        except TimeoutError:
            pass
        is_ours = number in self.acceptor.owned
        raise Refusal(
            Status.SILENT if is_ours else Status.NOT_MINE, f"slice {slice_name(number)} was being handed over"
        )

    def serve(self) -> None:
        """What is served here has changed: tell everybody who is connected."""
        if not self._is_cover_due:
            self._is_cover_due = True
            # Slices come and go in batches.
            asyncio.get_running_loop().call_later(_COVER_GATHERED_S, self._cover_all)

    def _cover_all(self) -> None:
        self._is_cover_due = False
        self.coverage = encode_coverage(self.acceptor.owned, 1)
        for session in list(self.sessions):
            session.cover_again()

    def reap(self) -> None:
        """Close connections that are idle, or whose peer has stopped reading. Call it every second."""
        now = asyncio.get_running_loop().time()
        for session in list(self.sessions):
            session.check_alive(now)


class Session(FrameChannel):
    """One connection."""

    def __init__(self, service: Service) -> None:
        super().__init__(_GREETING_FRAME_BYTES)
        self._service = service
        self._hello: Hello | None = None
        self._welcome: Welcome | None = None
        self._is_greeted = False
        self.role = ""
        self._inflight = 0
        self._inflight_bytes = 0
        self._telling = Telling()
        self._is_reading = True
        self._is_stopping = False
        self._made_at = self._loop.time()
        self._choked_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._service.counters.accepted += 1
        own = transport.get_extra_info("sockname")
        # With TLS that was asked before the handshake.
        is_new = transport.get_extra_info("sslcontext") is None
        if is_new and not self._service.lets_in(transport.get_extra_info("peername"), own):
            self.abort()
            return
        self._service.counters.accept_log.append(own[0])
        if len(self._service.sessions) >= CONNECTIONS_MAX:
            log.warning("connection.refused", extra={"reason": "too many connections"})
            self.abort()
            return
        self._service.sessions[self] = None
        self._service.emptied.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._service.sessions.pop(self, None)
        if not self._service.sessions:
            self._service.emptied.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._choked_at = self._loop.time()
        self._set_reading(False)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._settle()

    def check_alive(self, now: float) -> None:
        """Close when the greeting, the next request or the reading of replies takes too long."""
        if not self._is_greeted:
            if now - self._made_at > GREETING_TIMEOUT_MS / 1000:
                self.abort()
        elif self.is_choked:
            if now - self._choked_at > STALL_TIMEOUT_MS / 1000:
                self.abort()
        elif not self.is_open:
            # Closing waits until the peer has taken what is queued: not for ever.
            if now - self.last_seen > STALL_TIMEOUT_MS / 1000:
                self.abort()
        elif not self._inflight and now - self.last_seen > IDLE_TIMEOUT_MS / 1000:
            self.close()

    def on_peer_error(self, error: PeerError) -> None:
        self._service.counters.peer_errors += 1
        log.warning("connection.closed", extra={"reason": str(error)})

    def stop(self) -> None:
        """Take no more requests; close when those in flight are answered."""
        self._set_reading(False)
        self._backlog.clear()
        self._is_stopping = True
        if not self._inflight:
            self.close()

    def cover(self) -> None:
        """Say what the worker serves, what time it is here, how many planes groups have, and in which /64."""
        service = self._service
        header: Header = [int(Status.COVERAGE), 0, service.clock.now_ms(), service.acceptor.replicas]
        if service.prefix is not None:
            header += service.prefix
        self.send(header, service.coverage)

    def cover_again(self) -> None:
        """The same to a peer that was told before."""
        if self._is_greeted and self.is_open and not self._is_stopping:
            self.cover()

    # -- frames -------------------------------------------------------------------------------------

    def handle(self, frames: deque[Frame]) -> None:
        while frames and not self._is_greeted:
            self._greet(*frames.popleft())
            if not self.is_open:
                return
        if not frames:
            return
        service = self._service
        now_ms, counts = service.clock.now_ms(), service.counters.requests
        note = service.heat.note
        with service.store.read() as txn:
            while frames and not self._choked and self._has_room():
                header, body = frames.popleft()
                request = decode_request(header)
                request_id, kind = header[1], header[0]
                counts[kind] = counts.get(kind, 0) + 1
                note(request.iid)
                if request_id >= TOLD:
                    self._telling.begin(request_id, request, now_ms)
                try:
                    if kind in NODE_ONLY and self.role != "node":
                        raise Refusal(Status.DENIED, "only nodes may send this")
                    if (work := service.conversation_of(kind, request, body)) is not None:
                        self._converse(request_id, _size_of(request, body), work)
                    elif kind in WRITES:
                        self._submit(request_id, request, body, now_ms)
                    elif kind == Report.TYPE:
                        self._answer([Status.OK, request_id], service.describe())
                    elif kind == StartScrub.TYPE:
                        self._answer([Status.OK, request_id, service.start_scrub()])
                    else:
                        fields, data = service.acceptor.read(request, txn)
                        self._answer([0, request_id, *fields], data)
                except (Refusal, SsaStoreError) as error:
                    self._refuse(request_id, error)
        self._settle()

    def _has_room(self) -> bool:
        return self._inflight < INFLIGHT_REQUESTS_MAX and self._inflight_bytes < INFLIGHT_BYTES_MAX

    def _settle(self) -> None:
        """Read from the peer exactly when there is room and nothing is left over."""
        is_free = self._has_room() and not self.is_choked and not self._backlog
        self._set_reading(is_free and not self._is_stopping)

    def _set_reading(self, wanted: bool) -> None:
        if wanted is self._is_reading or self._transport is None:
            return
        self._is_reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    # -- writes -------------------------------------------------------------------------------------

    def _submit(self, request_id: int, request: Any, body: Body, now_ms: int) -> None:
        write = self._service.acceptor.write
        size = _size_of(request, body)
        self._inflight += 1
        self._inflight_bytes += size
        self._service.store.do(
            lambda txn: write(request, txn, body, now_ms),
            partial(self._written, request_id, size, request, body),
            size=size,
        )

    def _written(
        self,
        request_id: int,
        size: int,
        request: Any,
        body: Body,
        reply: Reply | None,
        error: BaseException | None,
    ) -> None:
        """Answer a write; one that must be counted, as its bucket has a quota, begins a conversation."""
        coordinator = self._service.coordinator
        if (
            isinstance(error, Refusal)
            and error.status == Status.HELD
            and coordinator is not None
            and request.TYPE in PROPOSED
        ):
            self._inflight -= 1
            self._inflight_bytes -= size
            self._converse(request_id, size, coordinator.handle(request, bytes(body)))
        else:
            self._done(request_id, size, reply, error)

    def _converse(self, request_id: int, size: int, work: Coroutine[Any, Any, Reply]) -> None:
        """What takes more than one transaction: a conversation with other planes, a wait for a record."""
        self._inflight += 1
        self._inflight_bytes += size
        # What it asks of other nodes belongs to the same request.
        caused_by = REQUEST.set(upper_of(request_id))
        task = spawn("converse", work)
        REQUEST.reset(caused_by)
        task.add_done_callback(partial(self._conversed, request_id, size))

    def _conversed(self, request_id: int, size: int, task: asyncio.Task[Reply]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._done(request_id, size, None if error else task.result(), error)

    def _done(self, request_id: int, size: int, reply: Reply | None, error: BaseException | None) -> None:
        """Answer a request that had to wait."""
        self._inflight -= 1
        self._inflight_bytes -= size
        if reply is not None:
            fields, data = reply
            self._answer([0, request_id, *fields], data)
        elif isinstance(error, asyncio.CancelledError):
            self.abort()  # The store has crashed under us, in a simulation: nobody knows an answer.
            return
        else:
            assert error is not None
            self._refuse(request_id, error)
        if self._is_stopping:
            if not self._inflight:
                self.close()
        elif not self._is_reading and self.is_open:
            self.wake()
            self._settle()

    def _refuse(self, request_id: int, error: BaseException) -> None:
        if isinstance(error, Refusal):
            status, text = error.status, error.text
        elif isinstance(error, StoreFull):
            status, text = Status.FULL, str(error)
        elif isinstance(error, CorruptObject):
            status, text = Status.CORRUPT, str(error)
            log.error("record.corrupt", extra={"id": name_of(upper_of(request_id)), "reason": text})
        else:
            status, text = Status.INTERNAL, type(error).__name__
            log.error("request.failed", extra={"id": name_of(upper_of(request_id))}, exc_info=error)
        refusals = self._service.counters.refusals
        refusals[status] = refusals.get(status, 0) + 1
        self._answer([int(status), request_id, text])

    def _answer(self, header: Header, body: Body = b"") -> None:
        if self._telling:
            self._telling.end(self._service.told, header[1], header[0])
        self.send(header, body)

    # -- greeting -----------------------------------------------------------------------------------

    def _greet(self, header: list[Any], body: Body) -> None:
        if self._hello is None:
            if header[0] != Hello.TYPE:
                raise UnexpectedMessage("the first frame is not a Hello")
            self._hello = Hello.decode(header)
            self._service.note_version(self._hello)
            self._welcome = Welcome(
                PROTOCOL_VERSION,
                HASH_NAME,
                RULE_VERSION,
                self._service.acceptor.replicas,
                self._service.cluster_id,
                self._service.randomness.bytes(NONCE_BYTES),
            )
            self.send(self._welcome.header(0))
            return
        if header[0] != Proof.TYPE or self._welcome is None:
            raise UnexpectedMessage("the second frame is not a Proof")
        secrets, is_real = self._service.secrets_for(self._hello)
        mac = Proof.decode(header).mac
        secret = next(
            (one for one in secrets if is_proof(mac, one, CLIENT_SIDE, self._hello, self._welcome)), None
        )
        if secret is None or not is_real:
            self._service.counters.denied += 1
            self.send([Status.DENIED, 0, "unknown access key or wrong secret"])
            raise UnexpectedMessage(f"greeting denied for role {self._hello.role}")
        if self._hello.role == "node" and not self._is_known_node():
            self._service.counters.denied += 1
            self.send([Status.DENIED, 0, f"a node shows a certificate of {self._service.node_name}"])
            raise UnexpectedMessage("a node without a certificate of the service")
        self._is_greeted = True
        self.role = self._hello.role
        self._decoder.allow(FRAME_BYTES_MAX)
        self.send(Proof(proof(secret, NODE_SIDE, self._hello, self._welcome)).header(0))
        self.cover()

    def _is_known_node(self) -> bool:
        """With TLS the secret alone is not enough."""
        name = self._service.node_name
        assert self._transport is not None
        return not name or is_of(name, self._transport.get_extra_info("peercert"))
