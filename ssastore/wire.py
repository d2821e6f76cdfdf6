"""Frames of the native protocol: bytes to (header, body) and back.

    offset  size  meaning
    0       4     length of what follows, big endian: 2 + header + body
    4       2     length of the header, big endian
    6       h     header: one msgpack array, first item the message type
    6+h     ...   body: raw bytes (object data, a blob, a page of a listing)

The header is small and typed, the body is never copied into msgpack.  A decoder
takes bytes cut anywhere; what is not a frame raises ``BadFrame`` and the
connection must be closed, since there is no way to find the next frame.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack

from ssastore.errors import BadFrame, ObjectTooLarge
from ssastore.limits import FRAME_BODY_BYTES_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX, KIB

Header = list[Any]
Body = bytes | memoryview
Frame = tuple[Header, Body]

_PREFIX = struct.Struct(">IH")
_PREFIX_BYTES = _PREFIX.size
_LENGTH_BYTES = 4
_HEADER_ITEMS_MAX = 64
_COPY_BYTES_MAX = 64 * KIB
"Bodies up to this size are copied into one buffer with their header: cheaper than a second write."

_LARGE_BYTES = 128 * KIB
"The rest of a frame above this size is received where it is to be: one copy less."

_pack = msgpack.Packer().pack
"Of one packer: ``packb`` makes a new one, with its buffer, for each call, which takes four times as long."
_unpackb = msgpack.unpackb


def encode(header: Header, body: Body = b"") -> list[Body]:
    """One frame as buffers to be written in order.

    Raises:
        ObjectTooLarge: header or body is above its limit.
    """
    packed = _pack(header)
    if len(packed) > FRAME_HEADER_BYTES_MAX or len(body) > FRAME_BODY_BYTES_MAX:
        raise ObjectTooLarge(f"a frame of {len(packed)} + {len(body)} bytes is above the limit")
    start = _PREFIX.pack(2 + len(packed) + len(body), len(packed)) + packed
    if not body:
        return [start]
    if len(body) <= _COPY_BYTES_MAX:
        return [b"".join((start, body))]
    return [start, body]


def _refuse_ext(code: int, data: bytes) -> None:
    raise BadFrame(f"extension type {code} in a header")


def decode_header(packed: Body) -> Header:
    """A frame's header.

    Raises:
        BadFrame: not exactly one msgpack array of at most 64 items with an integer first.
    """
    try:
        header = _unpackb(
            packed,
            max_array_len=_HEADER_ITEMS_MAX,
            max_map_len=0,
            max_ext_len=0,
            ext_hook=_refuse_ext,
        )
    except BadFrame:
        raise
    except Exception as error:  # msgpack raises half a dozen unrelated types for bad input
        raise BadFrame(f"header is not msgpack: {type(error).__name__}") from error
    if type(header) is not list or not header or type(header[0]) is not int:
        raise BadFrame("header is not an array that starts with a message type")
    return header


class FrameDecoder:
    """Cuts a byte stream into frames. Keeps at most one unfinished frame.

    Of a large frame the rest can be received where it is to be: ``room`` until it is empty, ``fill`` for
    what was put there.  ``feed`` takes bytes in any case.
    """

    __slots__ = ("_have", "_large", "_limit", "_need", "_pieces")

    def __init__(self, limit: int = FRAME_BYTES_MAX) -> None:
        """``limit`` bounds a frame in bytes; small before the greeting, so strangers cost little."""
        self._pieces: list[Body] = []
        self._large: memoryview | None = None
        self._have = 0
        self._need = 0
        self._limit = limit

    def allow(self, limit: int) -> None:
        """Raise the bound on frames to ``limit`` bytes."""
        self._limit = limit

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return self._have

    def room(self) -> memoryview | None:
        """Where the rest of a large unfinished frame belongs; None when no such frame is under way."""
        return None if self._large is None else self._large[self._have :]

    def fill(self, count: int) -> list[Frame]:
        """So many bytes were put into ``room``; the frame, if it is complete. Raises BadFrame."""
        assert self._large is not None
        self._have += count
        if self._have < self._need:
            return []
        data, self._large = self._large, None
        return self._cut(data.toreadonly())

    def feed(self, data: bytes) -> list[Frame]:
        """Frames that are complete with ``data``, in order.

        Raises:
            BadFrame: a length is impossible or a header is not valid.
        """
        if self._large is not None:
            count = min(self._need - self._have, len(data))
            self._large[self._have : self._have + count] = data[:count]
            frames = self.fill(count)
            return frames + self._cut(data[count:]) if count < len(data) else frames
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
        return self._cut(data)

    def _cut(self, data: Body) -> list[Frame]:
        """The frames of bytes that begin with one; what is unfinished at the end is kept."""
        frames: list[Frame] = []
        at, total = 0, len(data)
        while total - at > _LENGTH_BYTES + 1:
            length, header_length = _PREFIX.unpack_from(data, at)
            if length > self._limit or header_length + 2 > length or not header_length:
                raise BadFrame(f"frame of {length} bytes with a header of {header_length}")
            if length - 2 - header_length > FRAME_BODY_BYTES_MAX:
                raise BadFrame(f"frame with a body of {length - 2 - header_length} bytes")
            end = at + _LENGTH_BYTES + length
            if end > total:
                self._need = end - at
                break
            at += _PREFIX_BYTES
            body_at = at + header_length
            header = decode_header(data[at:body_at])
            is_small = end - body_at <= _COPY_BYTES_MAX
            frames.append((header, data[body_at:end] if is_small else memoryview(data)[body_at:end]))
            at = end
        else:
            self._need = _PREFIX_BYTES
        self._have = total - at
        if self._have:
            rest = data[at:] if at else data
            if self._need > _LARGE_BYTES:
                large = bytearray(self._need)
                large[: self._have] = rest
                self._large = memoryview(large)
            else:
                self._pieces.append(rest)
        return frames
