"""asyncio's half of a connection: what a protocol sees, to the letter of the selector event loop.

The same tests run on this transport and on real sockets (``tests/sim``).
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from ssastore.sim.loop import VirtualLoop
from ssastore.sim.sockets import Socket, digits

_READ_BYTES = 256 * 1024
_HIGH_WATER_BYTES = 64 * 1024
_BYTES = (bytes, bytearray, memoryview)


class _ByteProtocol(Protocol):
    """What is called on the protocol beside ``deliver``."""

    def connection_made(self, transport: Any) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


def deliver(data: bytes, protocol: Any) -> None:
    """Let a protocol of either kind receive bytes, as asyncio does."""
    if not isinstance(protocol, asyncio.BufferedProtocol):
        protocol.data_received(data)
        return
    while data:
        room = memoryview(protocol.get_buffer(len(data)))
        count = min(len(room), len(data))
        room[:count] = data[:count]
        protocol.buffer_updated(count)
        data = data[count:]


class VirtualTransport(asyncio.Transport):
    """A transport on a simulated socket. ``connection_made`` is called soon, then reading starts."""

    def __init__(self, loop: VirtualLoop, socket: Socket, protocol: Any) -> None:
        super().__init__()
        self._loop = loop
        self._socket = socket
        self._protocol: _ByteProtocol = protocol
        self._context = socket.process.context.copy()
        self._buffer = bytearray()
        self._high = _HIGH_WATER_BYTES
        self._low = _HIGH_WATER_BYTES // 4
        self._is_protocol_paused = False
        self._is_reading = False
        self._is_paused = False
        self._is_wake_due = False
        self._is_closing = False
        self._is_lost = False
        "``connection_lost`` has been or will soon be called."
        self._has_written_eof = False
        self._soon(self._begin)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name not in ("sockname", "peername"):
            return default
        address, port = self._socket.sockname if name == "sockname" else self._socket.peername
        return digits(address), port, 0, 0

    def _soon(self, callback: Any, *args: Any) -> None:
        self._loop.call_soon(callback, *args, context=self._context)

    # -- state --------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._is_closing

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    # -- reading ------------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        return not self._is_closing and not self._is_paused

    def pause_reading(self) -> None:
        if not self._is_closing:
            self._is_paused = True

    def resume_reading(self) -> None:
        if not self._is_closing and self._is_paused:
            self._is_paused = False
            self.readable()

    def _begin(self) -> None:
        self._protocol.connection_made(self)
        self._is_reading = True
        self._socket.user = self
        self.readable()

    def readable(self) -> None:
        """The socket has bytes, its end or an error; read soon, if reading is on."""
        socket = self._socket
        if socket.error is not None and self._buffer:
            self.writable()  # a reset is noticed by who waits for room, too
        if self._is_wake_due or not self._is_reading or self._is_closing or self._is_paused:
            return
        if socket.received or socket.has_ended or socket.error is not None:
            self._is_wake_due = True
            self._soon(self._read_ready)

    def _read_ready(self) -> None:
        self._is_wake_due = False
        if self._is_lost or not self._is_reading or self._is_closing or self._is_paused:
            return
        data = self._socket.take(_READ_BYTES)
        if data:
            try:
                deliver(data, self._protocol)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._fail(error, "data_received")
                return
            self.readable()
        elif self._socket.error is not None:
            self._force_close(self._socket.error)
        elif self._socket.has_ended:
            self._ended()

    def _ended(self) -> None:
        try:
            keep_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error, "eof_received")
            return
        if keep_open:
            self._is_reading = False
        else:
            self.close()

    # -- writing ------------------------------------------------------------------------------------

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = _HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._maybe_pause_protocol()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not isinstance(data, _BYTES):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._has_written_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._is_lost:
            return
        if not self._buffer:
            if self._socket.error is not None:
                self._force_close(self._socket.error)
                return
            data = bytes(data)
            sent = self._socket.outbound.push(data, self)
            if sent == len(data):
                return
            data = data[sent:]
        self._buffer += data
        self._maybe_pause_protocol()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._is_closing or self._has_written_eof:
            return
        self._has_written_eof = True
        if not self._buffer:
            self._socket.end()

    def writable(self) -> None:
        """There is room in the socket again."""
        self._soon(self._write_ready)

    def _write_ready(self) -> None:
        if self._is_lost or not self._buffer:
            return
        if self._socket.error is not None:
            self._force_close(self._socket.error)
            return
        sent = self._socket.outbound.push(bytes(self._buffer), self)
        del self._buffer[:sent]
        if self._is_protocol_paused and len(self._buffer) <= self._low:
            self._is_protocol_paused = False
            self._protocol.resume_writing()  # may write, or close
        if self._buffer or self._is_lost:
            return
        if self._is_closing:
            self._is_lost = True
            self._call_connection_lost(None)
        elif self._has_written_eof:
            self._socket.end()

    def _maybe_pause_protocol(self) -> None:
        if len(self._buffer) > self._high and not self._is_protocol_paused:
            self._is_protocol_paused = True
            self._protocol.pause_writing()

    # -- end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if not self._buffer:
            self._is_lost = True
            self._soon(self._call_connection_lost, None)

    def abort(self) -> None:
        self._force_close(None)

    def _fail(self, error: BaseException, where: str) -> None:
        """The protocol raised: report it and give the connection up."""
        context = {"message": f"{where} failed", "exception": error, "transport": self}
        self._loop.call_exception_handler(context)
        self._force_close(error)

    def _force_close(self, error: BaseException | None) -> None:
        if self._is_lost:
            return
        self._buffer.clear()
        self._is_closing = self._is_lost = True
        self._soon(self._call_connection_lost, error)

    def _call_connection_lost(self, error: Any) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._socket.close()
            self._socket.user = None
