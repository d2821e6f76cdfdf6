"""Heads of answers byte by byte, and clients that do not read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiohttp import HttpVersion10, HttpVersion11, web

from ssastore.metrics.requests import RequestCounts
from ssastore.s3 import answers
from ssastore.s3.answers import Answer


class Wire:
    """What an Answer needs of aiohttp's request: a transport, and a writer that waits for ``read``."""

    def __init__(self, *, version: Any = HttpVersion11, keep_alive: bool = True) -> None:
        self.version = version
        self.keep_alive = keep_alive
        self.transport: Wire | None = self
        self.writer = self
        self.sent: list[bytes] = []
        self.waiting = 0
        self.drained = asyncio.Event()
        self.has_gone = False

    def is_closing(self) -> bool:
        return self.has_gone

    def write(self, data: bytes) -> None:
        self.sent.append(bytes(data))
        self.waiting += len(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    async def drain(self) -> None:
        await self.drained.wait()

    @property
    def request(self) -> web.BaseRequest:
        return cast(web.BaseRequest, self)


async def sent_by(wire: Wire, status: int, headers: dict[str, str], body: bytes, **options: bool) -> bytes:
    answer = Answer(wire.request, status, headers, len(body), counts=RequestCounts(), **options)
    await answer.send(body)
    return b"".join(wire.sent)


async def test_a_small_answer_is_one_piece() -> None:
    wire = Wire()
    found = await sent_by(wire, 200, {"ETag": '"x"', "Content-Type": "text/plain"}, b"data")
    assert (
        found == b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\ndata'
    )
    assert len(wire.sent) == 1


async def test_a_body_says_what_it_is_and_an_empty_one_need_not() -> None:
    assert b"Content-Type: application/octet-stream\r\n" in await sent_by(Wire(), 200, {}, b"data")
    assert await sent_by(Wire(), 200, {}, b"") == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("status", [204, 304])
async def test_what_has_no_body_says_no_length(status: int) -> None:
    assert b"Content-Length" not in await sent_by(Wire(), status, {}, b"")


async def test_an_answer_to_head_says_the_length_of_what_it_leaves_out() -> None:
    wire = Wire()
    await Answer(wire.request, 200, {}, 7, counts=RequestCounts()).send(b"")
    assert b"Content-Length: 7\r\n" in wire.sent[0]
    assert wire.sent[0].endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("version", "keep_alive", "closes", "line"),
    [
        (HttpVersion11, True, False, None),
        (HttpVersion11, False, False, b"close"),
        (HttpVersion11, True, True, b"close"),
        (HttpVersion10, True, False, b"keep-alive"),
        (HttpVersion10, False, False, None),
    ],
)
async def test_whether_the_connection_stays_is_said_where_it_is_not_the_rule(
    version: Any, keep_alive: bool, closes: bool, line: bytes | None
) -> None:
    wire = Wire(version=version, keep_alive=keep_alive)
    answer = Answer(wire.request, 200, {}, 0, closes=closes, counts=RequestCounts())
    await answer.send(b"")
    found = [part for part in wire.sent[0].split(b"\r\n") if part.startswith(b"Connection: ")]
    assert found == ([] if line is None else [b"Connection: " + line])
    assert answer.keep_alive is (keep_alive and not closes)


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b"])
@pytest.mark.parametrize("is_name", [False, True])
async def test_a_header_cannot_end_its_line(value: str, is_name: bool) -> None:
    wire = Wire()
    with pytest.raises(ValueError, match="end of a line"):
        Answer(
            wire.request, 200, {value: "x"} if is_name else {"x-amz-meta-a": value}, 0, counts=RequestCounts()
        )
    assert not wire.sent


async def test_bytes_that_were_no_text_go_back_as_they_came() -> None:
    assert b"x: \xff\xc3\xa4\r\n" in await sent_by(Wire(), 200, {"x": "\udcffä"}, b"")


async def test_a_large_body_waits_for_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    answer = Answer(wire.request, 200, {}, 1 << 20, counts=RequestCounts())
    sending = asyncio.create_task(answer.send(bytes(1 << 20)))
    await asyncio.sleep(0.01)
    assert 0 < wire.waiting < 600_000
    wire.drained.set()
    await sending
    assert b"".join(wire.sent).endswith(bytes(1 << 20))


async def test_who_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_STALL_S", 0.01)
    with pytest.raises(TimeoutError):
        await Answer(Wire().request, 200, {}, 1 << 20, counts=RequestCounts()).send(bytes(1 << 20))


@pytest.mark.parametrize("is_closing", [True, False])
async def test_nothing_is_sent_to_who_has_gone(is_closing: bool) -> None:
    wire = Wire()
    answer = Answer(wire.request, 200, {}, 0, counts=RequestCounts())
    wire.has_gone = is_closing
    wire.transport = wire if is_closing else None
    with pytest.raises(ConnectionError):
        await answer.send(b"")
    assert not wire.sent
