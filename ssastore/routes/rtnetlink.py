"""One blocking rtnetlink socket: messages are pyroute2's or packed by the caller, the conversation is ours.

Nothing of pyroute2 is imported here: the package imports all of its parts, which was a fifth of the start of
a worker.  Its ``IPRoute`` could not be used anyway: since 0.9 it runs an asyncio loop of its own for each
request, which raises inside a coroutine, and ``IPRoute(netns=...)`` forks a process for the socket.  A plain
socket does neither, and need not wait either: the kernel has worked off a request and queued its answer
before ``send`` returns.

The socket belongs to the network namespace in which the calling thread was when it was made.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_REPLACE = 0x100
NLM_F_ACK_TLVS = NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLMSG_ERROR = 2
NLMSG_DONE = 3
"linux/netlink.h. What one bit means depends on the message: of a request, of its answer."

SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
"An acknowledgement does not repeat the whole request."
NETLINK_EXT_ACK = 11
"An error comes with a sentence."
NETLINK_GET_STRICT_CHK = 12
"The kernel filters dumps by the fields of the request, and refuses filters that it does not know."

RECEIVE_BYTES = 64 * 1024
"The kernel cuts a dump into datagrams of at most 32 KiB."

DUMP_ATTEMPTS = 8
"A table that changes while it is read is read again; one that never rests is an error."

NLMSGERR_ATTR_MSG = 1

T = TypeVar("T")

_HEADER = struct.Struct("=IHHII")
_ERROR = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")


class _Part(NamedTuple):
    """One message of a datagram; its payload is ``datagram[start:end]``."""

    kind: int
    flags: int
    sequence: int
    offset: int
    start: int
    end: int


class Rtnetlink:
    """Requests to the kernel's network configuration, one after the other."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def request(self, kind: int, message: Any, flags: int = 0) -> None:
        """Make one change.

        Args:
            kind: message type, such as ``RTM_NEWROUTE``.
            message: a pyroute2 message with its fields and attributes set.
            flags: ``NLM_F_CREATE`` and its like.

        Raises:
            OSError: the kernel refused; errno and its own words.
        """
        self._send(kind, _encoded(message), NLM_F_REQUEST | NLM_F_ACK | flags)
        self._collect(lambda datagram, part: None)

    def request_plainly(
        self, kind: int, fields: bytes, attributes: Iterable[tuple[int, bytes]], flags: int = 0
    ) -> None:
        """The same of fixed fields and attributes that are packed already.

        pyroute2 takes 0.2 ms to encode one, and a slice that has moved may change ten routes.
        """
        pieces = [fields]
        for number, value in attributes:
            size = _ATTRIBUTE.size + len(value)
            pieces += [_ATTRIBUTE.pack(size, number), value, bytes(_aligned(size) - size)]
        self._send(kind, b"".join(pieces), NLM_F_REQUEST | NLM_F_ACK | flags)
        self._collect(lambda datagram, part: None)

    def dump(self, kind: int, pattern: Any) -> list[Any]:
        """All objects that match the fields of ``pattern``, as of one moment, decoded by pyroute2.

        Raises:
            OSError: the kernel refused; EAGAIN when the table changed during every attempt.
        """
        message_class = type(pattern)

        def decode(datagram: bytes, part: _Part) -> Any:
            message = message_class(datagram, offset=part.offset)
            message.decode()
            return message

        return self._dump(kind, _encoded(pattern), decode)

    def dump_plainly(
        self, kind: int, pattern: bytes, fields: struct.Struct
    ) -> list[tuple[tuple[Any, ...], dict[int, bytes]]]:
        """The same as numbers and bytes: the fixed fields, as in ``pattern``, and the attributes by type.

        pyroute2 takes 0.3 ms for one object, and a router may have some thousand routes.
        """

        def decode(datagram: bytes, part: _Part) -> tuple[tuple[Any, ...], dict[int, bytes]]:
            found = fields.unpack_from(datagram, part.start)
            return found, _attributes(datagram, part.start + _aligned(fields.size), part.end)

        return self._dump(kind, pattern, decode)

    def _dump(self, kind: int, pattern: bytes, decode: Callable[[bytes, _Part], T]) -> list[T]:
        for _ in range(DUMP_ATTEMPTS):
            self._send(kind, pattern, NLM_F_REQUEST | NLM_F_DUMP)
            found, is_whole = self._collect(decode)
            if is_whole:
                return found
        raise OSError(errno.EAGAIN, "the table changed during every attempt to read it")

    def _send(self, kind: int, payload: bytes, flags: int) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self._socket.send(_HEADER.pack(_HEADER.size + len(payload), kind, flags, self._sequence, 0) + payload)

    def _collect(self, decode: Callable[[bytes, _Part], T]) -> tuple[list[T], bool]:
        """The objects up to the end of the answer, and whether they are of one moment."""
        found: list[T] = []
        is_whole = True
        while True:
            datagram = self._socket.recv(RECEIVE_BYTES)
            for part in _parts(datagram):
                # Left over from an answer that ended in an error half way.
                if part.sequence != self._sequence:
                    continue
                is_whole = is_whole and not part.flags & NLM_F_DUMP_INTR
                if part.kind in (NLMSG_DONE, NLMSG_ERROR):
                    _raise_if_refused(datagram, part)
                    return found, is_whole
                found.append(decode(datagram, part))


def _parts(datagram: bytes) -> Iterator[_Part]:
    offset = 0
    while offset < len(datagram):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        yield _Part(kind, flags, sequence, offset, offset + _HEADER.size, offset + length)
        offset += _aligned(length)


def _raise_if_refused(datagram: bytes, part: _Part) -> None:
    (status,) = _ERROR.unpack_from(datagram, part.start)
    if status == 0:
        return
    words = os.strerror(-status)
    if part.flags & NLM_F_ACK_TLVS:
        # After the status of an error stands the header of the request (NETLINK_CAP_ACK).
        echo = _HEADER.size if part.kind == NLMSG_ERROR else 0
        attributes = _attributes(datagram, part.start + _ERROR.size + echo, part.end)
        sentence = attributes.get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
        words = f"{words}: {sentence}" if sentence else words
    raise OSError(-status, words)


def _encoded(message: Any) -> bytes:
    """What a message of pyroute2 has after its header, which is ours."""
    message.reset()
    message.encode()
    return bytes(message.data[_HEADER.size :])


def _attributes(datagram: bytes, offset: int, end: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset < end:
        length, kind = _ATTRIBUTE.unpack_from(datagram, offset)
        found[kind] = datagram[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return found


def _aligned(length: int) -> int:
    return (length + 3) & ~3
