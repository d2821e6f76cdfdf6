"""multipart/form-data, read as it comes: fields into memory, the file as a stream (RFC 7578). Pure.

What comes before the file is bounded; what comes after it is ignored, as S3 does, but must be a form to
its end.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

from ssastore.limits import FORM_BYTES_MAX, FORM_TAIL_BYTES_MAX
from ssastore.s3.errors import S3Error

_BOUNDARY = re.compile(
    r"""multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))\s*(?:;|$)""", re.I
)
_DISPOSITION = re.compile(rb"content-disposition:\s*form-data\s*(;.*)", re.I)
_PARAMETER = re.compile(rb';\s*([a-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.I)
_TYPE = re.compile(rb"content-type:\s*(.*)", re.I)
_FILE = "file"


class Fields(Mapping[str, str]):
    """Form fields, or headers made of them: names in any case."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = {name.lower(): value for name, value in fields.items()}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@dataclass(frozen=True, slots=True)
class Head:
    """What a part of a form says of itself."""

    name: str
    filename: str | None
    content_type: str | None


def parse_boundary(content_type: str | None) -> bytes:
    """The boundary of a form. S3Error PreconditionFailed for what is no form, MalformedPOSTRequest."""
    text = (content_type or "").strip()
    if not text.lower().startswith("multipart/form-data"):
        raise S3Error(
            "PreconditionFailed",
            "Bucket POST must be of the enclosure-type multipart/form-data",
            Condition="Bucket POST must be of the enclosure-type multipart/form-data",
        )
    found = _BOUNDARY.match(text)
    if found is None or not text.isascii():
        raise _malformed()
    return (found[1] or found[2]).encode()


def _malformed() -> S3Error:
    return S3Error("MalformedPOSTRequest")


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _malformed() from None


def _parse_head(block: bytes) -> Head:
    found = content_type = None
    for line in block.split(b"\r\n"):
        found = _DISPOSITION.fullmatch(line) or found
        typed = _TYPE.fullmatch(line)
        content_type = _text(typed[1].strip()) if typed else content_type
    if found is None:
        raise _malformed()
    parameters = {
        raw[1].lower(): raw[3] if raw[2] is None else re.sub(rb"\\(.)", rb"\1", raw[2])
        for raw in _PARAMETER.finditer(found[1])
    }
    if b"name" not in parameters:
        raise _malformed()
    filename = parameters.get(b"filename")
    return Head(_text(parameters[b"name"]), None if filename is None else _text(filename), content_type)


class FormReader:
    """Reads one form. First ``fields``, then all of ``file``."""

    def __init__(self, pieces: AsyncIterator[bytes], boundary: bytes) -> None:
        self._pieces = pieces
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter has no line before it.
        self._buffer = bytearray(b"\r\n")
        self._taken = 0

    async def _more(self) -> None:
        """Take one more piece. S3Error MalformedPOSTRequest at the end."""
        piece = await anext(self._pieces, None)
        if piece is None:
            raise _malformed()
        self._buffer += piece

    async def _until(self, mark: bytes, most: int) -> bytes:
        """The bytes before ``mark``, which is taken as well. S3Error for more than ``most``."""
        start = 0
        while (at := self._buffer.find(mark, start)) < 0:
            if len(self._buffer) > most + len(mark):
                raise S3Error("MaxPostPreDataLengthExceeded")
            start = max(0, len(self._buffer) - len(mark) + 1)
            await self._more()
        if at > most:
            raise S3Error("MaxPostPreDataLengthExceeded")
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return found

    async def _is_last(self) -> bool:
        """What follows a delimiter: the end of the form, or one more part."""
        while len(self._buffer) < 2:
            await self._more()
        ending = bytes(self._buffer[:2])
        del self._buffer[:2]
        if ending not in (b"--", b"\r\n"):
            raise _malformed()
        return ending == b"--"

    async def fields(self) -> tuple[dict[str, str], Head]:
        """The fields before the file, by name in lower case, and what is said of the file.

        Raises:
            S3Error: MaxPostPreDataLengthExceeded; MalformedPOSTRequest; InvalidArgument for no file.
        """
        found: dict[str, str] = {}
        left = FORM_BYTES_MAX
        if await self._until(self._delimiter, left):
            raise _malformed()
        while not await self._is_last():
            block = await self._until(b"\r\n\r\n", left)
            head = _parse_head(block)
            if head.name.lower() == _FILE:
                return found, head
            value = await self._until(self._delimiter, left - len(block))
            left -= len(block) + len(value)
            if head.name.lower() in found:
                raise S3Error("InvalidArgument", "A field was given twice.", ArgumentName=head.name[:64])
            found[head.name.lower()] = _text(value)
        message = "POST requires exactly one file upload per request."
        raise S3Error("InvalidArgument", message, ArgumentName="file", ArgumentValue="0")

    async def file(self) -> AsyncIterator[bytes]:
        """The bytes of the file; ends only when the form has ended."""
        while (at := self._buffer.find(self._delimiter)) < 0:
            ready = len(self._buffer) - len(self._delimiter) + 1
            if ready > 0:
                piece = bytes(self._buffer[:ready])
                del self._buffer[:ready]
                yield piece
            await self._more()
        if at:
            yield bytes(self._buffer[:at])
        del self._buffer[: at + len(self._delimiter)]
        await self._finish()

    async def _finish(self) -> None:
        left = FORM_TAIL_BYTES_MAX
        while not await self._is_last():
            left -= len(await self._until(self._delimiter, left))
        left -= len(self._buffer)
        async for piece in self._pieces:
            left -= len(piece)
            if left < 0:
                break
        if left < 0:
            raise _malformed()
