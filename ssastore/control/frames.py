"""What client and server of the embedded control store say to each other. Pure.

    offset  size  meaning
    0       4     length of what follows, big endian, at most 8 MiB
    4       n     one msgpack array

    client: [number, verb, *arguments]      a call; ``more`` and ``cancel`` speak of the watch of that number
    server: [number, PART, payload]         items of a list or events of a watch; more will come
            [number, DONE, payload]         the answer, the last frame of its number
            [number, ERROR, name, message]  likewise

Calls are answered in any order.  A watch is a call that is answered by parts until it
is cancelled or fails; the server sends a few parts ahead and one more for each ``more``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgpack

from ssastore.env import Compare, Event, Item, WatchCompacted, Write
from ssastore.errors import (
    BadFrame,
    Conflict,
    EnvironmentProblem,
    Overloaded,
    RequestError,
    SsaStoreError,
    StoreFull,
    Unavailable,
)
from ssastore.limits import CONTROL_FRAME_BYTES_MAX, CONTROL_PAGE_BYTES

LENGTH_BYTES = 4
PART, DONE, ERROR = range(3)

GET, LIST, TRANSACT, WATCH = "get", "list", "transact", "watch"
GRANT, KEEP_ALIVE, REVOKE = "grant", "keep_alive", "revoke"
MORE, CANCEL = "more", "cancel"

_ARGUMENTS: dict[str, tuple[type, ...]] = {
    GET: (str,),
    LIST: (str,),
    TRANSACT: (list, list),
    WATCH: (str, int),
    GRANT: (int,),
    KEEP_ALIVE: (int,),
    REVOKE: (int,),
    MORE: (),
    CANCEL: (),
}

# From the special to the general: an error travels as the first of these that it is.
_ERRORS: tuple[type[Exception], ...] = (
    WatchCompacted,
    RequestError,
    Conflict,
    StoreFull,
    EnvironmentProblem,
    Overloaded,
    Unavailable,
)
_ERROR_BY_NAME = {kind.__name__: kind for kind in _ERRORS}

_ITEM_OVERHEAD_BYTES = 32
"msgpack's share of an item or event, with room. Without it a page of tiny items outgrows its frame."
_REVISION_BYTES_MAX = CONTROL_FRAME_BYTES_MAX // 2
"Of one revision that a page is not ended in."

T = TypeVar("T", Item, Event)


@dataclass(frozen=True, slots=True)
class Request:
    """A client's frame with arguments of the right types."""

    number: int
    verb: str
    arguments: tuple[Any, ...]


def encode(*fields: Any) -> bytes:
    """One frame.

    Raises:
        RequestError: the fields are too large, a number has more than 64 bits, or text is not UTF-8.
    """
    try:
        packed: bytes = msgpack.packb(fields)
    except (OverflowError, UnicodeEncodeError) as error:
        raise RequestError(f"not a value of the control store: {error}") from error
    if len(packed) > CONTROL_FRAME_BYTES_MAX:
        raise RequestError(f"{len(packed)} bytes are too many for one request")
    return len(packed).to_bytes(LENGTH_BYTES, "big") + packed


def frame_length(prefix: bytes) -> int:
    """Length of the frame that ``prefix`` begins. BadFrame when it is above the bound."""
    length = int.from_bytes(prefix, "big")
    if length > CONTROL_FRAME_BYTES_MAX:
        raise BadFrame(f"a frame of {length} bytes")
    return length


def decode(packed: bytes) -> list[Any]:
    """The fields of a frame: a number and at least one more. BadFrame: no such thing."""
    try:
        fields = msgpack.unpackb(packed)
    except Exception as error:  # msgpack raises half a dozen unrelated types for bad input
        raise BadFrame(f"not msgpack: {type(error).__name__}") from error
    if type(fields) is not list or len(fields) < 2 or type(fields[0]) is not int:
        raise BadFrame("not an array that starts with a number")
    return fields


def decode_request(packed: bytes) -> Request:
    """A client's frame. BadFrame: no such verb, or arguments of other types."""
    number, verb, *arguments = decode(packed)
    types = _ARGUMENTS.get(verb) if type(verb) is str else None
    if types is None or tuple(type(argument) for argument in arguments) != types:
        raise BadFrame(f"no request {verb!r} with these arguments")
    if verb == TRANSACT:
        arguments = [_compares(arguments[0]), _writes(arguments[1])]
    return Request(number, verb, tuple(arguments))


def encode_error(number: int, error: Exception) -> bytes:
    """The frame that ends a call with an error of ours."""
    for kind in _ERRORS:
        if isinstance(error, kind):
            return encode(number, ERROR, kind.__name__, str(error))
    return encode(number, ERROR, EnvironmentProblem.__name__, f"{type(error).__name__}: {error}")


def decode_error(name: str, message: str) -> Exception:
    """Inverse of ``encode_error``."""
    return _ERROR_BY_NAME.get(name, SsaStoreError)(message)


def pages(records: Iterable[T]) -> Iterator[list[T]]:
    """Items or events in portions that fit a frame each; at least one, which may be empty.

    A portion ends with a revision: who has seen a part of one goes on behind all of it when the connection
    is lost then, and never sees the rest.
    """
    page: list[T] = []
    size = 0
    for record in records:
        is_between = bool(page) and record.revision != page[-1].revision
        # No transaction has so much in one revision; the end of many leases together may have.
        if size >= (CONTROL_PAGE_BYTES if is_between else _REVISION_BYTES_MAX):
            yield page
            page, size = [], 0
        page.append(record)
        size += len(record.key) + len(record.value or b"") + _ITEM_OVERHEAD_BYTES
    yield page


def pack_records(records: Iterable[T]) -> list[tuple[str, bytes | None, int]]:
    """Items or events as payload."""
    return [(record.key, record.value, record.revision) for record in records]


def _compares(rows: list[Any]) -> list[Compare]:
    return [Compare(*_row(row, (str, int))) for row in rows]


def _writes(rows: list[Any]) -> list[Write]:
    return [
        Write(*_row(row, (str, (bytes, type(None)), (int, type(None)))))  # key, value, lease
        for row in rows
    ]


def _row(row: Any, types: tuple[type | tuple[type, ...], ...]) -> list[Any]:
    if type(row) is not list or len(row) != len(types) or not all(map(isinstance, row, types)):
        raise BadFrame("a compare or a write of other fields")
    return row
