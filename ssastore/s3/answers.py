"""How an answer leaves: status line and headers (RFC 9112), and a body whose client has to read it.

aiohttp's own responses keep headers in a multi-dict, complete and check them one by one, and send each small
answer under a timer of its own, which together takes as long as everything else that a small GET costs.  Here
head and small body are one piece, and a timer runs only while a client does not read.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import HttpVersion11, web

from ssastore.limits import STALL_TIMEOUT_MS
from ssastore.metrics.requests import RequestCounts
from ssastore.wire import Body

_STALL_S = STALL_TIMEOUT_MS / 1000
_AT_ONCE_BYTES = 256 * 1024
"What a client must read in ``_STALL_S``."
_WAITING_BYTES_MAX = 64 * 1024
"So much may wait to be sent while the next piece is made: where asyncio itself asks for a pause."
_JOINED_BYTES_MAX = 32 * 1024
"Copying a body up to this size costs less than a second write."

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_WITHOUT_LENGTH = frozenset({204, 304})
"RFC 9110 section 8.6: it must not be sent, or need not be."
_DEFAULT_TYPE = "application/octet-stream"


def limit_unread(transport: asyncio.BaseTransport) -> None:
    """Have the kernel end a connection whose client takes none of what was sent for so long as it may stall.

    No timer here runs for the last bytes: they are the kernel's when the answer is given.  TCP_USER_TIMEOUT,
    RFC 5482 and tcp(7); it counts for a closed window, too.
    """
    found = transport.get_extra_info("socket")
    if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(_STALL_S * 1000))


class Answer(web.StreamResponse):
    """One answer; ``send`` what it has, then return it to aiohttp, which finds nothing left to do.

    Args:
        length: bytes of the body, those that an answer to HEAD does not send included.
        counts: where what is sent is counted.
    """

    def __init__(
        self,
        http: web.BaseRequest,
        status: int,
        headers: Mapping[str, str],
        length: int,
        *,
        closes: bool = False,
        counts: RequestCounts,
    ) -> None:
        """Raises ValueError for a header that would end its own line: nothing of it may be sent."""
        super().__init__(status=status)
        self._http = http
        self._counts = counts
        self._stays = http.keep_alive and not closes
        self._head = _head(http, status, headers, length, self._stays)

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection is good for another request."""
        return self._stays

    async def prepare(self, request: web.BaseRequest) -> None:
        """For aiohttp: everything was sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Likewise."""

    async def send(self, piece: Body) -> None:
        """Send the head, if it was not sent yet, and bytes of the body.

        Raises:
            TimeoutError: the client does not read: it must not keep chunks for ever.
            ConnectionError: it has gone.
        """
        head, self._head = self._head, b""
        if not head:
            await self._write(piece)
        elif len(piece) <= _JOINED_BYTES_MAX:
            await self._write(b"".join((head, piece)))
        else:
            await self._write(head)
            await self._write(piece)

    async def _write(self, data: Body) -> None:
        self._counts.sent_bytes += len(data)
        for at in range(0, len(data), _AT_ONCE_BYTES):
            transport = self._http.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client has gone")
            transport.write(
                data if len(data) <= _AT_ONCE_BYTES else memoryview(data)[at : at + _AT_ONCE_BYTES]
            )
            if transport.get_write_buffer_size() > _WAITING_BYTES_MAX:
                async with asyncio.timeout(_STALL_S):
                    await self._http.writer.drain()


def _head(http: web.BaseRequest, status: int, headers: Mapping[str, str], length: int, stays: bool) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if status not in _WITHOUT_LENGTH:
        lines.append(f"Content-Length: {length}\r\n")
        if length and "Content-Type" not in headers:
            lines.append(f"Content-Type: {_DEFAULT_TYPE}\r\n")
    if http.version == HttpVersion11:
        if not stays:
            lines.append("Connection: close\r\n")
    elif stays:
        lines.append("Connection: keep-alive\r\n")
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise ValueError("a header of an answer holds the end of a line")
    return f"{_LINES[status]}{text}\r\n".encode("utf-8", "surrogateescape")
