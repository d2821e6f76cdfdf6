"""The kernel's half of a connection: what has been written, what is on the way, what can be read.

A ``Pipe`` is one direction: the writer's send buffer, the wire and the window
together.  A ``Socket`` is one end: it receives from one pipe and writes to the other.
Two ends can see different things for a while: one is reset and the other knows
nothing yet, one is gone and the other writes into the void (half-open), until a packet
of the living end meets a host that does not know the connection and answers with a reset.

What was on the wire when its writer died still arrives.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Protocol
from zlib import crc32

from ssastore.sim.links import Link
from ssastore.sim.process import Process


class Mark(Enum):
    """What travels besides bytes: the last packet of the handshake, and the end of the stream."""

    OPEN = "open"
    END = "end"


Segment = bytes | Mark
Name = tuple[IPv6Address, int]
"Address and port of one end."

digits = lru_cache(maxsize=100_000)(str)
"An address as text, which takes long to write: few of them are dialled again and again."


class Waker(Protocol):
    """Who uses a socket: told when there may be something to read, or room to write."""

    def readable(self) -> None: ...

    def writable(self) -> None: ...


def connection_reset() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


class Pipe:
    """One direction. ``reader`` is set when the reading end exists.

    Args:
        name: for the trace.
        link: that it runs over; ``back`` is the other way, which acknowledgements take.
    """

    def __init__(self, name: str, link: Link, back: Link) -> None:
        self.link = link
        self.reader: Socket | None = None
        self.room = link.weather.window_bytes
        "Bytes that may still be written."
        self.latest_ns = 0
        "When the last segment that was sent arrives."
        self.is_abandoned = False
        "The writer's kernel has forgotten the connection: nothing is sent again."
        self._name = name
        self._mark = crc32(name.encode()) << 32
        "In the trace, with the checksum of a packet."
        self._back = back
        self._stalled: list[Segment] = []
        self._unacknowledged = 0
        self._writer: Waker | None = None
        "Waits for room."

    # -- the writing end ----------------------------------------------------------------------------

    def push(self, data: bytes, writer: Waker) -> int:
        """Send what fits; how many bytes that was. ``writer`` is told when there is room for the rest."""
        size = len(data)
        if size > self.room:
            self._writer = writer
            size = self.room
            if not size:
                return 0
            data = data[:size]
        self.room -= size
        for piece in self.link.pieces(data):
            self.send(piece)
        return size

    def send(self, segment: Segment) -> None:
        """Put a segment on the wire."""
        link = self.link
        size = len(segment) if isinstance(segment, bytes) else 0
        self.latest_ns = due_ns = link.arrival_ns(size, self.latest_ns)
        link.loop.at(due_ns, self._arrive, segment)

    def abandon(self) -> None:
        """The writer is gone: what a cut link holds up is lost."""
        self.is_abandoned = True
        self._stalled.clear()
        self._writer = None

    # -- the wire -----------------------------------------------------------------------------------

    def _arrive(self, segment: Segment) -> None:
        if not self._stalled and not self.link.is_held:
            self._deliver(segment)
        elif not self.is_abandoned:
            if not self._stalled:
                self.link.when_released(self._send_again)
            self._stalled.append(segment)

    def _send_again(self) -> None:
        if self.link.is_held:
            self.link.when_released(self._send_again)
            return
        stalled, self._stalled = self._stalled, []
        for segment in stalled:
            self._deliver(segment)

    def _deliver(self, segment: Segment) -> None:
        loop = self.link.loop
        if isinstance(segment, bytes):
            now_ns, checksum = loop.schedule.now_ns, crc32(segment)
            loop.trace.packet(now_ns, self._name, self._mark | checksum, len(segment), checksum)
        else:
            loop.note(f"{self._name} {segment.value}")
        assert self.reader is not None
        self.reader.arrived(segment)

    # -- the reading end ----------------------------------------------------------------------------

    def taken(self, size: int) -> None:
        """The application has read; the writer learns of the room when the acknowledgement arrives."""
        if self._back.is_held:
            if not self._unacknowledged:
                self._back.when_released(self._acknowledge)
            self._unacknowledged += size
            return
        self.room += size
        if self._writer is not None:
            self.link.loop.at(self._back.arrival_ns(0, 0), self._tell_writer)

    def _acknowledge(self) -> None:
        if self._back.is_held:
            self._back.when_released(self._acknowledge)
            return
        self.room += self._unacknowledged
        self._unacknowledged = 0
        self._tell_writer()

    def _tell_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.writable()


class Socket:
    """One end.

    Args:
        process: whose it is.
        names: own address and port, the peer's address and port.
        inbound, outbound: the pipes.
        on_open: called with the socket at the end of the handshake (passive end only).
        on_gone: called once when the kernel forgets the socket.
    """

    def __init__(
        self,
        process: Process,
        names: tuple[Name, Name],
        pipes: tuple[Pipe, Pipe],
        *,
        on_open: Callable[[Socket], None] | None = None,
        on_gone: Callable[[Socket], None],
    ) -> None:
        self.process = process
        self.sockname, self.peername = names
        self.inbound, self.outbound = pipes
        self.inbound.reader = self
        self.user: Waker | None = None
        self.received: list[bytes] = []
        self.has_ended = False
        "The peer will send no more."
        self.error: OSError | None = None
        self.is_shut = False
        "Closed by its process, or by the kernel for it."
        self.is_gone = False
        "The host lost power: nobody answers for this socket until the host is back."
        self._on_open = on_open
        self._on_gone = on_gone
        self._is_ended = False

    # -- from the wire ------------------------------------------------------------------------------

    def arrived(self, segment: Segment) -> None:
        """A segment has come through."""
        if not self.process.owner.is_up:
            return
        if self.is_gone or self.is_shut:
            if isinstance(segment, bytes):
                self.refuse()
        elif self.error is not None:
            return
        elif isinstance(segment, bytes):
            self.received.append(segment)
            self._wake()
        elif segment is Mark.OPEN:
            assert self._on_open is not None
            self._on_open(self)
        else:
            self.has_ended = True
            self._wake()

    def refuse(self) -> None:
        """Tell the peer that there is no such connection here; lost where the link is cut."""
        link = self.outbound.link
        if not link.is_held:
            link.loop.at(link.arrival_ns(0, self.outbound.latest_ns), self._reset_peer)

    def _reset_peer(self) -> None:
        peer = self.outbound.reader
        if peer is not None and not self.outbound.link.is_held:
            peer.reset()

    def reset(self) -> None:
        """A reset has arrived: what is still on the way here is lost, what was received can be read."""
        if self.is_shut or self.is_gone or self.error is not None:
            return
        loop = self.inbound.link.loop
        loop.note(f"{self.process.name} reset from {self.peername[0]}")
        self.error = connection_reset()
        self.outbound.abandon()
        self._forget()
        self._wake()

    def _wake(self) -> None:
        if self.user is not None:
            self.user.readable()

    # -- from the process ---------------------------------------------------------------------------

    def take(self, limit: int) -> bytes:
        """Bytes that were received, at most ``limit``; empty when there are none."""
        data = b""
        if self.received:
            data = self.received[0] if len(self.received) == 1 else b"".join(self.received)
            self.received.clear()
            if len(data) > limit:
                self.received.append(data[limit:])
                data = data[:limit]
            self.inbound.taken(len(data))
        return data

    def end(self) -> None:
        """Send no more; the peer can."""
        if not self._is_ended and not self.outbound.is_abandoned:
            self._is_ended = True
            self.outbound.send(Mark.END)

    def close(self) -> None:
        """Close as the kernel does: in good order, or with a reset when bytes were left unread."""
        if self.is_shut or self.is_gone:
            return
        self.is_shut = True
        if self.error is None:
            if self.received:
                self.refuse()
                self.outbound.abandon()
            else:
                self.end()
        self.received.clear()
        self._forget()

    def vanish(self) -> None:
        """The host loses power: no end, no reset."""
        self.is_gone = True
        self.outbound.abandon()
        self._forget()

    def _forget(self) -> None:
        self._on_gone(self)
