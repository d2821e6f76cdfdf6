"""Bad input on the level of HTTP: answered or cut off, nothing stored, and the next request works.

The numbers in the ids are rows of the catalogue of bad input.  What aiohttp's parser refuses by itself is
always a 400 as plain text with the connection closed; 414, 431 or 505 would say more and change nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ssastore.s3 import answers, connections, server
from tests.s3.raw import Sent, Signing, Site, Wire, sign, unsigned_chunks

BODY = b"body"
UNSIGNED_TRAILER = Signing(payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER")


def good(site: Site) -> Sent:
    """A PUT that would succeed."""
    return site.sign("PUT", "new", BODY)


def get(site: Site) -> Sent:
    return site.sign("GET", site.KEY)


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def in_chunks(site: Site) -> Sent:
    """A PUT that would succeed, its body (aws-chunked) to be sent with ``Transfer-Encoding: chunked``."""
    headers = [("x-amz-decoded-content-length", str(len(BODY))), ("Content-Encoding", "aws-chunked")]
    sent = site.sign("PUT", "new", unsigned_chunks(BODY), headers, signing=UNSIGNED_TRAILER)
    return sent.with_header("Content-Length", None).plus(("Transfer-Encoding", "chunked"))


FRAMED = unsigned_chunks(BODY)
SIZE = b"%x" % len(FRAMED)


def with_lines(*lines: bytes) -> Callable[[Site], bytes]:
    """A good PUT with more header lines, as they are."""

    def build(site: Site) -> bytes:
        return good(site).head()[:-2] + b"".join(lines) + b"\r\n" + BODY

    return build


def with_length(value: bytes) -> Callable[[Site], bytes]:
    def build(site: Site) -> bytes:
        head = good(site).head()
        assert head.count(b"Content-Length: 4\r\n") == 1
        return head.replace(b"Content-Length: 4\r\n", b"Content-Length: " + value + b"\r\n") + BODY

    return build


def with_coding(value: bytes) -> Callable[[Site], bytes]:
    def build(site: Site) -> bytes:
        head = in_chunks(site).head().replace(b"Transfer-Encoding: chunked", b"Transfer-Encoding: " + value)
        return head + SIZE + b"\r\n" + FRAMED + b"\r\n0\r\n\r\n"

    return build


def with_chunk(size_line: bytes, after: bytes = b"\r\n0\r\n\r\n") -> Callable[[Site], bytes]:
    def build(site: Site) -> bytes:
        return in_chunks(site).head() + size_line + FRAMED + after

    return build


def with_method(method: str) -> Callable[[Site], bytes]:
    return lambda site: site.sign(method, site.KEY).raw()


def with_host(value: str) -> Callable[[Site], bytes]:
    """Signed with that host, so that only its form is wrong."""

    def build(site: Site) -> bytes:
        return site.sign("GET", site.KEY, headers=[("Host", value)]).raw()

    return build


@dataclass(frozen=True)
class Row:
    """Bytes that are refused."""

    id: str
    build: Callable[[Site], bytes]
    status: int = 400
    code: str = ""
    "S3's name of the error; empty where aiohttp answers by itself."
    is_closed: bool = True


REFUSED = [
    Row("1 request line of 64 KiB", lambda site: b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: h\r\n\r\n"),
    Row("2 one header of 64 KiB", with_lines(b"X-A: " + b"a" * 65536 + b"\r\n")),
    Row("3 1000 headers", with_lines(*[b"X-%d: a\r\n" % number for number in range(1000)])),
    Row("4 header without colon", with_lines(b"header\r\n")),
    Row("5 header name with space", with_lines(b"x y: a\r\n")),
    Row("5 space before colon", with_lines(b"Transfer-Encoding : chunked\r\n")),
    Row("6 continuation line", with_lines(b"x: a\r\n b\r\n")),
    Row("7 bare LF everywhere", lambda site: good(site).head().replace(b"\r\n", b"\n") + BODY),
    Row("7 one bare LF", with_lines(b"x: a\n")),
    Row("7 bare CR", with_lines(b"x: a\rb\r\n")),
    Row("8 NUL in header", with_lines(b"x: a\0b\r\n")),
    Row("8 control character in header", with_lines(b"x: a\x01b\r\n")),
    Row("9 two lengths", with_lines(b"Content-Length: 5\r\n")),
    Row("9 two equal lengths", with_lines(b"Content-Length: 4\r\n")),
    *[
        Row(f"10 length {value[:12]!r}", with_length(value))
        for value in (b"+4", b"-1", b"0x4", b"4, 4", b"4_0", b"1" + b"0" * 30, b"4 4", b"", b"\xb2")
    ],
    Row("10 length 2^64 - 1", with_length(b"%d" % (2**64 - 1)), code="EntityTooLarge"),
    Row("11 length and coding", with_lines(b"Transfer-Encoding: chunked\r\n")),
    Row("12 gzip, chunked", with_coding(b"gzip, chunked"), 501, "NotImplemented"),
    *[
        Row(f"12 coding {value!r}", with_coding(value))
        for value in (
            b"xchunked",
            b"gzip",
            b"identity",
            b"chunked, gzip",
            b"chunked, chunked",
            b"\x0bchunked",
        )
    ],
    *[
        Row(f"13 chunk size {line!r}", with_chunk(line + b"\r\n"))
        for line in (
            b"+" + SIZE,
            b"0x" + SIZE,
            SIZE[:1] + b"_" + SIZE,
            b"f" * 20,
            b"-1",
            b"",
            b" " + SIZE,
            b"g",
        )
    ],
    Row("13 chunk size line with bare LF", with_chunk(SIZE + b"\n")),
    Row("13 chunk longer than its size", with_chunk(b"1\r\n")),
    Row("13 chunk ends in bare LF", with_chunk(SIZE + b"\r\n", b"\n0\r\n\r\n")),
    Row("16 trailer of 1 MiB", with_chunk(SIZE + b"\r\n", b"\r\n0\r\nx: " + b"a" * 2**20 + b"\r\n\r\n")),
    Row(
        "16 trailer of many lines", with_chunk(SIZE + b"\r\n", b"\r\n0\r\n" + b"x: a\r\n" * 10_000 + b"\r\n")
    ),
    Row("17 no host", lambda site: get(site).with_header("Host", None).raw()),
    Row("17 two hosts", lambda site: get(site).plus(("Host", "other")).raw()),
    *[
        Row(f"17 host {value}", with_host(value), 400, "InvalidRequest", is_closed=False)
        for value in ("a/b", "user@h", "user:word@h", "h?x", "h#x", "a b", "h\\x", '"h"')
    ],
    Row(
        "18 expect nonsense", lambda site: good(site).plus(("Expect", "more")).raw(), 417, "ExpectationFailed"
    ),
    Row("20 HTTP/9.9", lambda site: replace(get(site), version="HTTP/9.9").raw()),
    Row("20 HTTP/1.2", lambda site: replace(get(site), version="HTTP/1.2").raw()),
    Row("20 http/1.1", lambda site: replace(get(site), version="http/1.1").raw()),
    Row("20 words after the version", lambda site: replace(get(site), version="HTTP/1.1 x").raw()),
    Row("20 HTTP/0.9", lambda site: replace(get(site), version="HTTP/0.9").raw(), 505, "InvalidRequest"),
    Row("20 preface of HTTP/2", lambda site: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Row("20 TLS", lambda site: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)),
    # 400 and not 405: the parser knows no such method.
    Row("21 method BREW", with_method("BREW")),
    Row("21 method get", with_method("get")),
    *[
        Row(
            f"21 {method}",
            with_method(method),
            405,
            "MethodNotAllowed",
            False,
        )
        for method in ("PATCH", "TRACE", "CONNECT", "PROPFIND", "MKCOL")
    ],
    Row("21 asterisk form", lambda site: b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400, "InvalidURI", False),
    Row(
        "21 absolute form",  # signed as a path, sent as a URL: the signature covers what is sent
        lambda site: get(site).raw().replace(b"GET /", b"GET http://h/"),
        403,
        "SignatureDoesNotMatch",
        is_closed=False,
    ),
]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.id)
def test_refused(site: Site, row: Row) -> None:
    with site.wire() as wire:
        wire.send(row.build(site))
        answer = wire.answer()
        assert (answer.status, answer.code) == (row.status, row.code), answer
        assert b"Traceback" not in answer.body
        if row.is_closed:
            assert wire.is_closed()
        else:
            wire.send(get(site).raw())
            assert wire.answer().body == site.DATA


def test_http_2_is_not_spoken(site: Site) -> None:
    """The status line says what is (RFC 9110 section 6.2)."""
    with site.wire() as wire:
        wire.send(replace(get(site), version="HTTP/2.0").raw())
        assert wire.stream.read1().startswith(b"HTTP/1.1 505 ")
        assert wire.is_closed()


def test_http_0_9_is_not_spoken(site: Site) -> None:
    with site.wire() as wire:
        wire.send(b"GET /\r\n\r\n")
        assert b" 505 " in wire.stream.read1()
        assert wire.is_closed()


ACCEPTED: dict[str, Callable[[Site], bytes]] = {
    "10 blanks around a length": with_length(b" 4 "),
    "12 Chunked": with_coding(b"Chunked"),
    # The parser skips extensions without keeping them: 64 KiB of them cost nothing.
    "15 chunk extension of 64 KiB": with_chunk(SIZE + b";" + b"a" * 65536 + b"\r\n"),
    "16 a trailer that means nothing": with_chunk(SIZE + b"\r\n", b"\r\n0\r\nx: a\r\n\r\n"),
    "27 upgrade to h2c": lambda site: (
        good(site).plus(("Connection", "close, upgrade"), ("Upgrade", "h2c")).raw()
    ),
    "27 upgrade to a web socket": lambda site: (
        good(site)
        .plus(("Connection", "upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "eA=="))
        .raw()
    ),
    "empty lines before the request": lambda site: b"\r\n\r\n" + good(site).raw(),
    "HTTP/1.0": lambda site: replace(good(site), version="HTTP/1.0").raw(),
    "26 Accept of commas": lambda site: good(site).plus(("Accept", ",;" * 4000)).raw(),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(site: Site, name: str) -> None:
    """Odd but clear: exactly the body is stored."""
    answer = site.send(ACCEPTED[name](site))
    assert answer.status == 200, answer
    assert site.send(site.sign("GET", "new")).body == BODY
    assert site.send(site.sign("DELETE", "new")).status == 204


def test_26_odd_headers_cost_nothing(site: Site) -> None:
    for name in ("Accept", "Range", "If-None-Match", "If-Modified-Since", "Cookie", "Forwarded"):
        request = get(site).plus((name, ",;" * 4000)).raw()
        began = time.perf_counter()
        assert site.send(request).status in (200, 400)
        assert time.perf_counter() - began < 0.5, name


def test_28_a_compressed_body_is_never_inflated(site: Site) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    put = site.send(site.sign("PUT", "new", bomb, [("Content-Encoding", "gzip")]))
    assert put.headers["etag"] == f'"{hashlib.md5(bomb).hexdigest()}"'
    found = site.send(site.sign("GET", "new"))
    assert (found.body, found.headers["content-encoding"]) == (bomb, "gzip")
    site.send(site.sign("DELETE", "new"))


# -- bodies that do not come ------------------------------------------------------------------------


@pytest.fixture
def short_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled body is given up soon."""
    monkeypatch.setattr(server, "_BODY_STALL_S", 0.2)


PIECES: dict[str, Callable[[Site], list[bytes]]] = {
    "19 expect, then nothing": lambda site: [good(site).plus(("Expect", "100-continue")).head()],
    "23 no body": lambda site: [good(site).head()],
    "23 half a body": lambda site: [good(site).head() + BODY[:2]],
    "22 half a chunk": lambda site: [in_chunks(site).head() + SIZE + b"\r\n" + FRAMED[:5]],
    "22 no last chunk": lambda site: [in_chunks(site).head() + SIZE + b"\r\n" + FRAMED + b"\r\n"],
    # The parser tells nobody that the rest of a body is nonsense, if its head was well: that is a stall.
    "13 nonsense after the head": lambda site: [in_chunks(site).head(), b"+e\r\n" + FRAMED],
    "13 nonsense after a chunk": lambda site: [
        in_chunks(site).head(),
        SIZE + b"\r\n" + FRAMED[:5],
        FRAMED[5:] + b"xx",
    ],
}


@pytest.mark.parametrize("name", PIECES)
def test_a_stalled_body_is_given_up(site: Site, short_stall: None, name: str) -> None:
    with site.wire() as wire:
        for piece in PIECES[name](site):
            wire.send(piece)
            time.sleep(0.02)  # so that the pieces arrive one by one
        if name.startswith("19"):
            assert wire.stream.read(len(CONTINUE)) == CONTINUE
        answer = wire.answer()
        assert (answer.status, answer.code) == (400, "RequestTimeout"), answer
        assert answer.headers["connection"] == "close"


def test_23_a_dripping_body_is_given_up(site: Site, short_stall: None) -> None:
    """A byte now and then is no progress: it would keep a connection for ever."""
    sent = site.sign("PUT", "new", bytes(1000))
    with site.wire() as wire:
        wire.send(sent.head())
        for _ in range(200):
            wire.send(b"\0")
            if select.select([wire.socket], [], [], 0.02)[0]:
                break
        else:
            pytest.fail("a byte now and then is taken for ever")
        answer = wire.answer()
    assert (answer.status, answer.code) == (400, "RequestTimeout"), answer


def test_a_slow_body_that_gets_on_is_taken(site: Site, short_stall: None) -> None:
    """More than the least rate: each pause is shorter than the limit, all of them are longer."""
    body = bytes(6 * server._BODY_BYTES_MIN)
    sent = site.sign("PUT", "new", body)
    with site.wire() as wire:
        wire.send(sent.head())
        for at in range(0, len(body), server._BODY_BYTES_MIN):
            wire.send(body[at : at + server._BODY_BYTES_MIN])
            time.sleep(0.06)
        assert wire.answer().status == 200
    assert site.send(site.sign("DELETE", "new")).status == 204


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: h\r\nX-A"])
def test_a_connection_without_a_request_is_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "_HEAD_S", 0.3)
    with site.wire() as wire:
        wire.send(sent)
        assert wire.is_closed()


def test_who_asks_on_and_never_reads_is_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers without a stream fill the buffers as well: nobody's requests are enough."""
    monkeypatch.setattr(answers, "_STALL_S", 0.5)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(10)
        deaf.connect(("127.0.0.1", site.gateway.port))
        asking = b"GET /nobody-s-bucket/" + b"k" * 1000 + b" HTTP/1.1\r\nHost: h\r\n\r\n"
        with pytest.raises(ConnectionError):
            while True:
                deaf.sendall(asking * 10)


def test_a_connection_with_a_request_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_HEAD_S", 0.3)
    with site.wire() as wire:
        for _ in range(2):
            wire.send(site.sign("GET", Site.KEY).raw())
            assert wire.answer().body == Site.DATA
            time.sleep(0.4)
    http = site.gateway.http
    assert site.gateway.run(counted(http)) == 0


async def counted(http: Any) -> int:
    """Connections that are still to be ended."""
    return len(http._silent)


@pytest.mark.parametrize("name", ["22 short body", "22 short body, unsigned", "22 no last chunk"])
def test_a_body_cut_off_is_not_stored(site: Site, name: str) -> None:
    """The client has gone, or gone deaf: there may be no answer, and there must be no object."""
    data = good(site).head() + BODY[:2]
    if name.endswith("unsigned"):  # no digest would tell that half of it is missing
        unsigned = site.sign("PUT", "new", BODY, signing=Signing(payload="UNSIGNED-PAYLOAD"))
        data = unsigned.head() + BODY[:2]
    if name.endswith("chunk"):
        data = in_chunks(site).head() + SIZE + b"\r\n" + FRAMED + b"\r\n"
    with site.wire() as wire:
        wire.send(data)
        wire.end()
        assert wire.answer().status in (0, 400)
        assert wire.is_closed()


def test_more_bytes_than_the_length_are_another_request(site: Site) -> None:
    """Only the announced bytes are the body; what follows is read as a request, and is none."""
    with site.wire() as wire:
        wire.send(good(site).raw())
        assert wire.answer().status == 200
        wire.send(b"rest\r\n\r\n")
        assert wire.answer().status == 400
        assert wire.is_closed()
    assert site.send(site.sign("GET", "new")).body == BODY
    site.send(site.sign("DELETE", "new"))


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("PUT", "renameObject="),
        ("PUT", "encryption"),
        ("PUT", "annotation"),
        ("DELETE", "annotation="),
        ("DELETE", "next"),
    ],
)
def test_a_change_that_is_not_known_is_not_made_to_the_object(site: Site, method: str, query: str) -> None:
    answer = site.send(site.sign(method, site.KEY, b"", query=query))
    assert (answer.status, answer.code) == (501, "NotImplemented")


def test_an_append_is_refused(site: Site) -> None:
    answer = site.send(site.sign("PUT", site.KEY, BODY, [("x-amz-write-offset-bytes", "22")]))
    assert (answer.status, answer.code) == (501, "NotImplemented")


def test_nonsense_behind_a_request_in_one_write(site: Site) -> None:
    """The parser gives up both: one answer, which is a refusal, and nothing is stored."""
    with site.wire() as wire:
        wire.send(good(site).raw() + b"rest\r\n\r\n")
        assert wire.answer().status == 400
        assert wire.is_closed()


# -- one connection, many requests -----------------------------------------------------------------


class TestContinue:
    """``Expect: 100-continue``: the body is asked for only when the request has been found good."""

    def expecting(self, sent: Sent) -> bytes:
        return sent.plus(("Expect", "100-continue")).head()

    def test_a_good_request_is_told_to_go_on(self, site: Site) -> None:
        with site.wire() as wire:
            for _ in range(2):
                wire.send(self.expecting(good(site)))
                assert wire.stream.read(len(CONTINUE)) == CONTINUE
                wire.send(BODY)
                assert wire.answer().status == 200
        site.send(site.sign("DELETE", "new"))

    @pytest.mark.parametrize(
        ("code", "build"),
        [
            ("SignatureDoesNotMatch", lambda site: good(site).with_header("x-amz-date", "20200101T000000Z")),
            ("InvalidDigest", lambda site: site.sign("PUT", "new", BODY, [("Content-MD5", "x")])),
            ("NoSuchBucket", lambda site: sign(site.gateway.host, "PUT", "/no-such-bucket/new", BODY)),
            (
                "NotImplemented",
                lambda site: site.sign("PUT", "new", BODY, [("x-amz-server-side-encryption", "aws:kms")]),
            ),
            ("InvalidArgument", lambda site: site.sign("PUT", "new", BODY, [("x-amz-acl", "nobodys")])),
            (
                "InvalidArgument",
                lambda site: site.sign("PUT", "new", BODY, [("x-amz-grant-read", "id=no-such-user")]),
            ),
            (
                "InvalidRequest",
                lambda site: site.sign("PUT", "new", BODY, [("x-amz-object-lock-legal-hold", "ON")]),
            ),
        ],
    )
    def test_a_refused_one_is_not(self, site: Site, code: str, build: Callable[[Site], Sent]) -> None:
        """The body was not read, so the connection cannot be used again."""
        with site.wire() as wire:
            wire.send(self.expecting(build(site)))
            answer = wire.answer()
            assert (answer.code, answer.headers["connection"]) == (code, "close")

    def test_a_body_sent_without_waiting_is_taken(self, site: Site) -> None:
        with site.wire() as wire:
            wire.send(self.expecting(good(site)) + BODY)
            assert wire.stream.read(len(CONTINUE)) == CONTINUE
            assert wire.answer().status == 200
            wire.send(get(site).raw())
            assert wire.answer().body == site.DATA
        site.send(site.sign("DELETE", "new"))


def test_24_pipelined_requests_are_answered_in_order(site: Site) -> None:
    """2,000 requests in one write, each for another byte."""
    size = len(site.DATA)
    ranges = [number * 7 % size for number in range(2000)]
    requests = [get(site).plus(("Range", f"bytes={at}-{at}")).raw() for at in range(size)]
    with site.wire() as wire:
        wire.send(b"".join(requests[at] for at in ranges))
        for at in ranges:
            answer = wire.answer()
            assert (answer.status, answer.body) == (206, site.DATA[at : at + 1])


def test_the_unread_body_of_a_get_is_not_the_next_request(site: Site) -> None:
    """Smuggling: what an intermediary passed as a body must never be taken for a request."""
    inner = site.sign("DELETE", site.KEY).raw()
    outer = get(site).plus(("Content-Length", str(len(inner)))).head() + inner
    with site.wire() as wire:
        wire.send(outer + get(site).raw())
        assert wire.answer().body == site.DATA
        assert wire.answer().body == site.DATA


@pytest.mark.parametrize("size", [10, 300 * 1024])
def test_the_body_of_a_refused_request_is_not_the_next_one(site: Site, size: int) -> None:
    """A small body is read and dropped, a large one ends the connection."""
    inner = site.sign("DELETE", site.KEY).raw()
    body = (inner * (size // len(inner) + 1))[: max(size, len(inner))]
    sent = site.sign("PUT", "new", body, signing=Signing(secret_key="wrong"))
    with site.wire() as wire:
        wire.send(sent.raw())
        assert wire.answer().code == "SignatureDoesNotMatch"
        wire.send(get(site).raw())
        after = wire.answer()
        assert after.body == site.DATA if size == 10 else after.status == 0


def test_14_a_body_of_one_byte_chunks_is_cheap(site: Site) -> None:
    """Each byte in an HTTP chunk of its own; the parser joins them again."""
    data = bytes(100_000)
    framed = unsigned_chunks(data)
    headers = [("x-amz-decoded-content-length", str(len(data)))]
    sent = site.sign("PUT", "new", framed, headers, signing=UNSIGNED_TRAILER)
    head = sent.with_header("Content-Length", None).plus(("Transfer-Encoding", "chunked")).head()
    began = time.perf_counter()
    answer = site.send(head + b"".join(b"1\r\n%c\r\n" % byte for byte in framed) + b"0\r\n\r\n")
    assert answer.status == 200, answer
    assert time.perf_counter() - began < 3
    site.send(site.sign("DELETE", "new"))


def test_malformed_requests_are_one_line_in_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with Wire(site.gateway.port) as wire:
        wire.send(site.presign("GET", site.KEY).head()[:-2] + b"no colon\r\n\r\n")
        assert wire.answer().status == 400
    lines = [record for record in caplog.records if record.name.startswith(("ssastore", "aiohttp"))]
    assert [record.getMessage() for record in lines] == ["request.refused"]
    assert lines[0].__dict__["reason"] == "BadHttpMessage"
