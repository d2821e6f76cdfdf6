"""A connection that carries frames: what both sides share.

Output is collected and written for several frames at once: that is one system call
for all of them.  Not for too many, though: the peer is to begin with the first while
the rest are still being made, else each side waits while the other one works.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast
from weakref import WeakKeyDictionary

from ssastore.errors import PeerError
from ssastore.limits import FLUSH_FRAMES, WRITE_BUFFER_BYTES
from ssastore.wire import Body, Frame, FrameDecoder, Header, encode

_SMALL_BYTES = 64 * 1024
_RECEIVED_BYTES = 256 * 1024

_landings: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()
"Of each event loop: where small frames are received. What came is copied before anything else runs."


class FrameChannel(asyncio.BufferedProtocol):
    """Frames in, frames out, with flow control. Subclasses say what a frame does."""

    def __init__(self, frame_limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder(frame_limit)
        self._backlog: deque[Frame] = deque()
        self._out: list[Body] = []
        self._out_frames = 0
        self._out_bytes = 0
        self._flush_due = False
        self._choked = False
        self.last_seen = self._loop.time()
        landing = _landings.get(self._loop)
        if landing is None:
            landing = _landings[self._loop] = memoryview(bytearray(_RECEIVED_BYTES))
        self._landing = landing
        self._room: memoryview | None = None

    # -- subclasses ---------------------------------------------------------------------------------

    def handle(self, frames: deque[Frame]) -> None:
        """Take frames from the left; may leave some, to be called again after ``wake``."""
        raise AssertionError("subclasses handle frames")

    def on_peer_error(self, error: PeerError) -> None:
        """The peer broke the protocol; the connection is about to be closed."""

    # -- asyncio.BufferedProtocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # At once to the kernel, which has a buffer of its own: uvloop keeps what is below the limit until the
        # end of the turn. What the kernel does not take means that the peer is slow, and to stop. Under TLS a
        # limit of 0 is reached by nothing at all: asyncio compares with "at least".
        if transport.get_extra_info("sslcontext") is None:
            self._transport.set_write_buffer_limits(high=0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._backlog.clear()
        self._out.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        self._room = self._decoder.room()
        return self._landing if self._room is None else self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.last_seen = self._loop.time()
        try:
            if self._room is None:
                self._backlog.extend(self._decoder.feed(bytes(self._landing[:nbytes])))
            else:
                self._backlog.extend(self._decoder.fill(nbytes))
            if self._backlog:
                self.handle(self._backlog)
        except PeerError as error:
            self.fail(error)

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self.wake()

    # -- for subclasses -----------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_choked(self) -> bool:
        """The peer reads slower than we write: stop making output."""
        return self._choked

    def wake(self) -> None:
        """Handle what was left in the backlog."""
        if not self._backlog or not self.is_open:
            return
        try:
            self.handle(self._backlog)
        except PeerError as error:
            self.fail(error)

    def send(self, header: Header, body: Body = b"") -> None:
        """Queue one frame; it leaves at the end of this turn of the loop, or sooner when it is not alone."""
        if self._transport is None:
            return
        pieces = encode(header, body)
        self._out += pieces
        self._out_bytes += len(pieces[0]) + (len(body) if len(pieces) > 1 else 0)
        self._out_frames += 1
        if self._out_frames >= FLUSH_FRAMES or self._out_bytes >= WRITE_BUFFER_BYTES:
            self.flush()
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        self._flush_due = False
        self.flush()

    def flush(self) -> None:
        """Hand everything queued to the transport."""
        out, self._out = self._out, []
        self._out_frames = self._out_bytes = 0
        if not out or self._transport is None or self._transport.is_closing():
            return
        small: list[Body] = []
        for piece in out:
            if len(piece) < _SMALL_BYTES:
                small.append(piece)
                continue
            if small:
                self._transport.write(b"".join(small))
                small.clear()
            self._transport.write(piece)
        if small:
            self._transport.write(small[0] if len(small) == 1 else b"".join(small))

    def fail(self, error: PeerError) -> None:
        """Close because the peer broke the protocol. What is queued still leaves."""
        self._backlog.clear()
        self.on_peer_error(error)
        self.close()

    def close(self) -> None:
        """Send what is queued, then close."""
        # Once: of a second time the transports of TLS make something that knows no connection any more.
        if self._transport is not None and not self._transport.is_closing():
            self.flush()
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what is queued is dropped."""
        if self._transport is not None:
            self._transport.abort()
