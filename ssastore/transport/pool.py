"""Dial the address, or reuse a connection whose coverage holds it.

A cluster may get another service prefix while it runs (ADR 0025).  Workers say which one clients are to
use; the pool goes there as soon as somebody answers there, and lets the old connections run out.

The pool knows no nodes: only which open connection last said that it serves a
slice.  That is a hint.  A node that does not serve the slice answers NOT_MINE, the
hint is forgotten and the address itself is dialled, which always works: with hints
off the pool is slower and still correct.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

from ssastore.core.birth import UNKNOWN_BIRTH
from ssastore.core.caller import STATUS_ERRORS
from ssastore.env import Links, Randomness, spawn
from ssastore.errors import OutcomeUnknown, PeerError, Recounted, SsaStoreError, Unavailable
from ssastore.keyspace import ANY_TAIL, GROUPS, address_of, slice16_of, slice_of
from ssastore.limits import CALL_DEADLINE_MS, DIAL_TIMEOUT_MS, RETRY_BASE_MS, RETRY_CAP_MS
from ssastore.messages import Accept, Delete, Get, GetBlob, Message, Put, PutBlob, Report, Scan, Shut, Status
from ssastore.transport.connection import Connection, Identity, Reply
from ssastore.transport.coverage import NOTHING
from ssastore.transport.knock import knock
from ssastore.transport.lookup import NOWHERE, Find
from ssastore.transport.prefixes import Prefixes, Reach
from ssastore.transport.waiting import Budget, until
from ssastore.wire import Body

log = logging.getLogger(__name__)

_SLICE_SHIFT = 48
_ARC_SHIFT = 56
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH)
"What routers answer for a prefix that nobody announces."
_DIALS_AN_ARC = 2
"""Dials under way to one 256th of the address space. At the start many calls want the same few workers and
need not all dial; and a node that does not answer must hold up nobody outside its own arc."""
_WATCH_S = 1.0
_ASKED_MAX = 8
"Slices that are asked, one after the other, for what the cluster is."

_TRIED_AGAIN = (Status.NOT_MINE, Status.OVERLOADED, Status.SILENT)
"Answers that may be another one soon; the first two perhaps elsewhere."

_UNCERTAIN = (Put, Delete, Accept)
"Requests that leave a doubt when their answer is lost."

_COUNTED = (Put, Delete, Get, Scan, Shut, PutBlob, GetBlob)
"Requests that are made otherwise when there are more planes than one (``core.counts``)."

_BORN = frozenset((Put.TYPE, Delete.TYPE))
"Requests of operations that are applied once, and so have a birth (``core.birth``)."

_OF_ALL_ATTEMPTS = frozenset(
    (
        Status.NOT_FOUND,
        Status.QUOTA,
        Status.PRECONDITION_FAILED,
        Status.UNKNOWN,
        Status.OUTRUN,
        Status.STALE,
        Status.BEHIND,
    )
)
"""Refusals that stand whatever became of an earlier attempt: it was looked for, or (of votes) another ballot
or configuration is in its place. All others are said of one attempt; an earlier one may still be taken."""


_FRESH_S = 0.1
"How lately a connection must have brought something to show that its node is there."


def _bear(message: Any, connection: Connection) -> None:
    """Give an operation its birth when it is sent for the first time; it keeps that for all attempts."""
    if message.born_ms == UNKNOWN_BIRTH and message.attempt == 1:
        message.born_ms = connection.node_ms()


class Pool:
    """Connections of one client to one service. Implements ``core.caller.Caller``."""

    def __init__(
        self,
        service: IPv6Network,
        port: int,
        identity: Identity,
        *,
        links: Links,
        randomness: Randomness,
        deadline_ms: int = CALL_DEADLINE_MS,
        use_hints: bool = True,
        follows: bool = True,
        find: Find | None = None,
    ) -> None:
        """Nothing connects before the first call.

        Args:
            service: the /64; NOWHERE where ``find`` is to say it.
            port: native port of every node.
            identity: for the greeting.
            links: how to reach an address.
            randomness: nonces and jitter.
            deadline_ms: bound on one call, retries included.
            use_hints: reuse connections by coverage; off, every call dials its address.
            follows: go to another service prefix when workers say so.
            find: looks the service's name up.
        """
        reach = Reach(self._connect_somewhere, self._arrived, lambda: bool(self._connections), self._is_heard)
        self.prefixes = Prefixes(service, port, reach, find)
        self._follows = follows
        self.identity = identity
        self._links = links
        self._randomness = randomness
        self.deadline_ms = deadline_ms
        self._use_hints = use_hints
        self._by_slice: dict[int, Connection] = {}
        "Who serves a slice, for those slices that were asked for since a hint last changed."
        self._hints: dict[Connection, int] = {}
        "Who said what it serves, newest last, and a bit for each slice at which that turned out to be wrong."
        self._shadowed: set[Connection] | None = None
        "Connections that no hint leads to, as newer ones serve all that they do; None: to be found out."
        self._connections: dict[Connection, IPv6Network] = {}
        """With the prefix that was dialled, in the order of their beginning: a set would be walked in the
        order of memory addresses."""
        self._dialling: dict[int, asyncio.Semaphore] = {}
        self._watchdog: asyncio.Task[None] | None = None
        self._is_closed = False
        self.dial_count = 0
        # One that was named may have become three since then, and then the one that is asked may be gone:
        # then nobody would tell. More never become fewer.
        self.replicas = identity.replicas if identity.replicas > 1 else 0
        self.cluster_id = identity.cluster_id

    @property
    def service(self) -> IPv6Network:
        """The service prefix in use."""
        return self.prefixes.service

    @property
    def port(self) -> int:
        """The native port of every node."""
        return self.prefixes.port

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    async def replica_count(self, position: int | None = None) -> int:
        """See ``core.caller.Caller``: any greeting tells."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.deadline_ms / 1000
        while not self.replicas:
            # Where the caller will go next, which costs no connection; then anywhere: its owner may be gone.
            iid = position or slice_of(0, self._randomness.below(GROUPS)).first | ANY_TAIL
            try:
                await self.call(Report(iid), iid, within_ms=self.deadline_ms // _ASKED_MAX)
            except Unavailable:
                position = None
                if loop.time() + RETRY_CAP_MS / 1000 >= deadline:
                    raise
                await asyncio.sleep(RETRY_CAP_MS / 1000)
        return self.replicas

    async def is_silent(self, iid: int, within_ms: int) -> bool:
        """See ``core.caller.Caller``. Dials, and hangs up: what is queued on a connection says nothing."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        known = self._by_slice.get(iid >> _SLICE_SHIFT)
        if known is not None and known.is_open and known.last_seen >= asked - _FRESH_S:
            return False
        knocking = spawn("knock", knock(self._links, address_of(self.service, iid), self.port))
        try:
            while not knocking.done():
                # Frames may come meanwhile: a network that loses packets may lose those of a dial.
                silent_since = asked if known is None else max(asked, known.last_seen)
                left_s = silent_since + within_ms / 1000 - loop.time()
                if left_s <= 0:
                    return True
                await asyncio.wait({knocking}, timeout=left_s)
            knocking.result()
            return False
        finally:
            knocking.cancel()

    def begin(self, message: Message, iid: int, body: Body = b"") -> asyncio.Future[Reply] | None:
        """See ``core.caller.Caller``."""
        connection = self._by_slice.get(iid >> _SLICE_SHIFT) or self._covering(iid)
        if connection is None or not connection.is_open:
            return None
        if message.TYPE in _BORN:
            _bear(message, connection)
        return connection.request(message.header(0), body)

    async def call(
        self, message: Message, iid: int, body: Body = b"", *, within_ms: int | None = None
    ) -> Reply:
        """Send a request to the worker that serves ``iid``; its OK reply.

        With ``within_ms`` there is somebody else to ask: an address that cannot be dialled is an error at
        once. Without, it is tried until the deadline.

        Raises:
            the class of ``core.caller.STATUS_ERRORS`` for a refusal,
            Unavailable: nobody answers at the address within the deadline,
            OutcomeUnknown: a write was sent and no answer came within the deadline,
            ConfigError, AccessDenied: from the greeting.
        """
        deadline = asyncio.get_running_loop().time() + (within_ms or self.deadline_ms) / 1000
        connection = self._by_slice.get(iid >> _SLICE_SHIFT) or self._covering(iid)
        if connection is not None and connection.is_open:
            if message.TYPE in _BORN:
                _bear(message, connection)
            try:
                if within_ms is None:
                    # No timer of its own: the watchdog ends what waits beyond the deadline.
                    reply = await connection.request(message.header(0), body)
                else:
                    reply = await until(deadline, connection.request(message.header(0), body))
            except OSError as error:
                budget = Budget(deadline, within_ms is None)
                return await self._retry(message, iid, body, budget, error, True)
            status = reply[0][0]
            if status == Status.OK:
                return reply
            budget = Budget(deadline, within_ms is None)
            return await self._settle(message, iid, body, budget, reply)
        budget = Budget(deadline, within_ms is None)
        return await self._retry(message, iid, body, budget, None, False)

    async def _settle(self, message: Message, iid: int, body: Body, budget: Budget, reply: Reply) -> Reply:
        """An answer that is not OK: raise it, or try again where that can help."""
        status, text = reply[0][0], str(reply[0][2])
        if status == Status.SILENT:
            if not budget.is_patient:
                raise Unavailable(text)
            return await self._retry(message, iid, body, budget, OSError(text), False)
        if status in (Status.NOT_MINE, Status.OVERLOADED):
            self._disbelieve(iid)
            return await self._retry(message, iid, body, budget, OSError(text), False)
        raise STATUS_ERRORS.get(status, PeerError)(text)

    async def _retry(
        self,
        message: Message,
        iid: int,
        body: Body,
        budget: Budget,
        cause: Exception | None,
        in_doubt: bool,
    ) -> Reply:
        """Dial and send until an answer or the deadline. ``in_doubt``: an attempt may have arrived."""
        loop = asyncio.get_running_loop()
        attempt = 0
        is_alone = self.replicas <= 1
        while not self._is_closed and loop.time() < budget.deadline:
            if is_alone and self.replicas > 1 and not in_doubt and isinstance(message, _COUNTED):
                # Others have told meanwhile that there is more than this one plane to ask.
                raise Recounted(str(self.replicas))
            is_sent = False
            try:
                async with asyncio.timeout_at(budget.deadline):
                    connection = await self._connection_for(iid)
                    is_sent = connection.is_open
                    if isinstance(message, (Put, Delete)):
                        _bear(message, connection)
                        # Who gets this must know that an earlier one may still be waiting somewhere.
                        message.attempt += in_doubt
                    reply = await connection.request(message.header(0), body)
                status = reply[0][0]
                if status == Status.OK:
                    return reply
                if status not in _TRIED_AGAIN:
                    if in_doubt and status not in _OF_ALL_ATTEMPTS and isinstance(message, _UNCERTAIN):
                        raise OutcomeUnknown(f"an earlier attempt was not answered: {reply[0][2]}")
                    raise STATUS_ERRORS.get(status, PeerError)(str(reply[0][2]))
                cause = OSError(str(reply[0][2]))
                if status != Status.SILENT:
                    self._disbelieve(iid)
                elif not budget.is_patient:
                    break  # The right node, and it has nothing to say: whoever asks has others to ask.
            except OSError as error:
                if isinstance(error, SsaStoreError):
                    if in_doubt and isinstance(message, _UNCERTAIN):
                        raise OutcomeUnknown(f"an earlier attempt was not answered: {error}") from None
                    raise
                # The deadline's own error says nothing: an earlier one may tell more. Without its trace, that
                # of a dial that fails: it has this frame, and so itself, and would be left to the collector.
                cause, in_doubt = error.with_traceback(None) if str(error) else cause, in_doubt or is_sent
                if not is_sent and not budget.is_patient:
                    break
            delay = min(RETRY_BASE_MS << attempt, RETRY_CAP_MS) * (500 + self._randomness.below(1000)) / 1e6
            attempt += 1
            if loop.time() + delay >= budget.deadline:
                break
            await asyncio.sleep(delay)
        where = f"slice {slice16_of(iid):04x} at [{address_of(self.service, iid)}]:{self.port}"
        if self.service is NOWHERE:
            where = "the service, whose name was not looked up yet,"
        cause = cause or OSError("the client was closed" if self._is_closed else "no answer in time")
        if in_doubt and isinstance(message, _UNCERTAIN):
            raise OutcomeUnknown(f"{where} took the request and did not answer: {cause}")
        raise Unavailable(f"{where} does not answer: {cause}{self._doubt(cause)}")

    def _doubt(self, cause: Exception) -> str:
        """What may be wrong with the prefix itself: it is unreachable as a whole, as far as is known here."""
        if getattr(cause, "errno", None) not in _UNREACHABLE or any(map(self._is_current, self._hints)):
            return ""
        return f"; nothing of {self.service} was reached: is that the service prefix of the cluster still?"

    async def _connection_for(self, iid: int) -> Connection:
        """An open connection to who serves ``iid``: by hint, else dialled."""
        await self.prefixes.refresh()
        if not self._use_hints:
            # Nobody uses what another one dialled: who waited for that would only be held up, and a node that
            # is asked whether it is there must not seem to be gone because another one of its arc is.
            return await self._dial(self.service, iid)
        gate = self._dialling.setdefault(iid >> _ARC_SHIFT, asyncio.Semaphore(_DIALS_AN_ARC))
        async with gate:
            # Another dial may have ended at the same worker while this one waited.
            known = self._covering(iid)
            if known is not None:
                return known
            connection = await self._dial(self.service, iid)
        return self._same_worker(connection)

    async def _dial(self, service: IPv6Network, iid: int, port: int | None = None) -> Connection:
        """A new connection. Raises OSError, ConfigError, AccessDenied."""
        self.dial_count += 1
        # Another prefix is a word only: it is this cluster's if who answers there is of it, and proves that.
        identity = self.identity
        if service != self.service and identity.cluster_id != self.cluster_id:
            identity = replace(identity, cluster_id=self.cluster_id)
        address = address_of(service, iid)
        if self.prefixes.is_hole(address):
            raise OSError(errno.EHOSTUNREACH, f"the name of the service says that nobody has {address}")
        try:
            connection = await self._links.dial(
                address, port or self.port, lambda: Connection(identity, self._randomness, self._covered)
            )
        except OSError:
            if service == self.service:
                self.prefixes.unreached()
            raise
        self._connections[connection] = service
        try:
            await connection.greeted()
            if self._is_closed:
                raise ConnectionAbortedError("the client was closed")
        except BaseException:
            self._forget(connection)
            connection.abort()
            raise
        if self._watchdog is None:
            self._watchdog = spawn("pool watchdog", self._watch())
        return connection

    def renumber(self, serial: int, service: IPv6Network) -> None:
        """Somebody says where the service is; what has the highest serial counts."""
        if self._follows and not self._is_closed:
            self.prefixes.renumber(serial, service)

    async def _connect_somewhere(self, service: IPv6Network, port: int) -> Connection:
        return await self._dial(service, slice_of(0, self._randomness.below(GROUPS)).first | ANY_TAIL, port)

    def _is_heard(self) -> bool:
        since = asyncio.get_running_loop().time() - DIAL_TIMEOUT_MS / 1000
        return any(known.is_open and known.last_seen > since for known in self._connections)

    def _arrived(self, connection: Connection) -> None:
        """Another prefix is in use: what waits for an answer gets it, nothing new is asked by old ones."""
        self._hints = {known: wrong for known, wrong in self._hints.items() if self._is_current(known)}
        self._hints_changed()
        self._covered(connection)

    def _is_current(self, connection: Connection) -> bool:
        return self._connections.get(connection) == self.service

    def _same_worker(self, fresh: Connection) -> Connection:
        """One connection a worker is enough: equal coverage means that it is the same one.

        At the start many calls dial at once, before any of them could know what the others reach.
        """
        for known in self._connections:
            if known is fresh or not known.is_open or self._connections[known] != self._connections[fresh]:
                continue
            if known.coverage == fresh.coverage != NOTHING:
                self._forget(fresh)
                fresh.close()
                self._covered(known)
                return known
        return fresh

    def _covered(self, connection: Connection) -> None:
        """A worker said what it serves: newest word wins. Of planes, all groups have the lowest number."""
        assert connection.welcome is not None
        self.cluster_id = connection.welcome.cluster_id
        told = [known.replicas for known in self._connections if known.is_open and known.replicas]
        self.replicas = min(told, default=self.replicas)
        if connection.prefix is not None:
            self.renumber(*connection.prefix)
        if self._use_hints and self._is_current(connection):
            self._hints.pop(connection, None)
            self._hints[connection] = 0
            self._hints_changed()

    def _hints_changed(self) -> None:
        self._by_slice.clear()
        self._shadowed = None

    def _covering(self, iid: int) -> Connection | None:
        """The open connection that last said that it serves an address, and has not said otherwise since."""
        slice16 = iid >> _SLICE_SHIFT
        for connection, wrong in reversed(self._hints.items()):
            is_hinted = connection.coverage.holds(iid) and not wrong >> slice16 & 1
            if is_hinted and connection.is_open:
                if connection.coverage.whole >> slice16 & 1:
                    self._by_slice[slice16] = connection
                return connection
        return None

    def _disbelieve(self, iid: int) -> None:
        """Who was said to serve an address does not: its hint was too old."""
        for connection, wrong in self._hints.items():
            if connection.coverage.holds(iid):
                self._hints[connection] = wrong | 1 << (iid >> _SLICE_SHIFT)
        self._hints_changed()

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if self.replicas == 1 and not self._connections and self._use_hints:
            # Nobody is left who would tell that there are more; without hints whoever is dialled next tells.
            self.replicas = 0
        if connection in self._hints:
            del self._hints[connection]
            self._hints_changed()

    def _is_useful(self, connection: Connection) -> bool:
        """Whether some hint leads to a connection."""
        if self._shadowed is None:
            self._shadowed = set()
            whole, parts = 0, set[range]()
            for known, wrong in reversed(self._hints.items()):
                left = known.coverage.beyond(whole, parts, wrong)
                if left == NOTHING:
                    self._shadowed.add(known)
                whole |= left.whole
                parts |= left.parts
        return connection in self._hints and connection not in self._shadowed

    async def _watch(self) -> None:
        """Drop connections that ended or that no hint leads to, abort those that answer nothing."""
        loop = asyncio.get_running_loop()
        patience_s = self.deadline_ms / 1000
        while True:
            await asyncio.sleep(min(_WATCH_S, patience_s / 4))
            for connection in list(self._connections):
                connection.check_alive(loop.time(), patience_s)
                if not connection.is_open:
                    self._forget(connection)
                elif connection.is_idle and not self._is_useful(connection):
                    connection.close()

    async def close(self) -> None:
        """Close all connections, for good: calls under way end, later ones raise Unavailable."""
        self._is_closed = True
        self.prefixes.close()
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        for connection in list(self._connections):
            connection.close()
            if connection.is_choked and not connection.is_idle:
                connection.abort()  # Its node does not read what is queued, and calls would wait for that.
        self._connections.clear()
        self._hints.clear()
        self._hints_changed()
        await asyncio.sleep(0)
