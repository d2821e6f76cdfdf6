"""Frames: however the bytes are cut, the same frames come out; what is no frame is a BadFrame and
nothing else. The examples of docs/reference/wire-format.md are the golden vectors."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssastore.client import native_etag
from ssastore.core.metadata import Metadata
from ssastore.core.place import Place
from ssastore.core.register import LIVE, make_ballot
from ssastore.errors import BadFrame, ObjectTooLarge
from ssastore.limits import FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES_MAX, KIB
from ssastore.messages import (
    PROTOCOL_VERSION,
    REQUESTS,
    Get,
    Hello,
    Kind,
    Proof,
    Put,
    Status,
    Welcome,
    decode_request,
)
from ssastore.transport.greeting import CLIENT_SIDE, NODE_SIDE, proof
from ssastore.wire import Frame, FrameDecoder, Header, decode_header, encode
from tests.direct import iid_of_record

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "wire-format.md"
BALLOT = make_ballot(1_700_000_000_000_000, 1, 1)
Cut = Callable[[bytes], Iterator[bytes]]


def packed(header: Header, body: bytes = b"") -> bytes:
    return b"".join(encode(header, body))


def raw(header: bytes, body: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame of any header bytes, with the length that belongs to it or another one."""
    length = 2 + len(header) + len(body) if length is None else length
    return length.to_bytes(4, "big") + len(header).to_bytes(2, "big") + header + body


def feed(decoder: FrameDecoder, pieces: Iterator[bytes]) -> list[tuple[Header, bytes]]:
    return [(header, bytes(body)) for piece in pieces for header, body in decoder.feed(piece)]


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[at : at + 1]


headers = st.lists(
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20) | st.booleans(),
    max_size=10,
).map(lambda fields: [3, *fields])
frames = st.lists(st.tuples(headers, st.binary(max_size=200)), min_size=1, max_size=5)


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@given(sent=frames)
@settings(max_examples=50)
def test_frames_survive_any_feeding(cut: Cut, sent: list[tuple[Header, bytes]]) -> None:
    data = b"".join(packed(*frame) for frame in sent)
    decoder = FrameDecoder()
    assert feed(decoder, cut(data)) == sent
    assert decoder.pending_bytes == 0


@given(sent=frames, places=st.lists(st.integers(0, 2000), max_size=6))
def test_frames_survive_any_cut(sent: list[tuple[Header, bytes]], places: list[int]) -> None:
    data = b"".join(packed(*frame) for frame in sent)
    cuts = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    pieces = (data[low:high] for low, high in pairwise(cuts))
    assert feed(FrameDecoder(), pieces) == sent


def test_frame_cut_anywhere_waits() -> None:
    data = packed([16, 1, b"key"], b"body")
    for end in range(len(data)):
        decoder = FrameDecoder()
        assert decoder.feed(data[:end]) == []
        assert decoder.pending_bytes == end
        assert feed(decoder, whole(data[end:])) == [([16, 1, b"key"], b"body")]


def test_tail_is_kept_for_the_next_frame() -> None:
    first, second = packed([1, 2]), packed([3, 4], b"xyz")
    decoder = FrameDecoder()
    assert feed(decoder, whole(first + second[:7])) == [([1, 2], b"")]
    assert decoder.pending_bytes == 7
    assert feed(decoder, whole(second[7:] + first)) == [([3, 4], b"xyz"), ([1, 2], b"")]


@pytest.mark.parametrize("size", [0, 1, 64 * KIB, 64 * KIB + 1, FRAME_BODY_BYTES_MAX])
def test_bodies_of_all_sizes(size: int) -> None:
    body = bytes(size)
    pieces = encode([24, 1], body)
    if size > 64 * KIB:
        assert pieces[1] is body, "a large body must not be copied"
    ((header, found),) = FrameDecoder().feed(b"".join(pieces))
    assert (header, len(found)) == ([24, 1], size) and found == body


def test_frame_above_the_limits_is_not_made() -> None:
    encode([1, b"x" * (FRAME_HEADER_BYTES_MAX - 5)])
    with pytest.raises(ObjectTooLarge):
        encode([1, b"x" * (FRAME_HEADER_BYTES_MAX - 4)])
    with pytest.raises(ObjectTooLarge):
        encode([1], bytes(FRAME_BODY_BYTES_MAX + 1))


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


BAD = {
    "length 0": b"\0\0\0\0\0\0",
    "length below its own header": raw(b"\x91\x01", length=3),
    "length 2^32 - 1": b"\xff\xff\xff\xff\0\x01",
    "header of no bytes": raw(b""),
    "body above a chunk": raw(b"\x91\x01", length=2 + 2 + FRAME_BODY_BYTES_MAX + 1),
    "TLS client hello": bytes.fromhex("1603010200010001fc0303"),
    "HTTP request": b"GET / HTTP/1.1\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SSH banner": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "no msgpack": raw(b"\xc1"),
    "cut msgpack": raw(b"\x92\x01"),
    "msgpack with a tail": raw(b"\x91\x01\x01"),
    "no array": raw(b"\x01"),
    "empty array": raw(b"\x90"),
    "array of 65": raw(msgpack.packb([1] * 65)),
    "array that claims 10^8 items": raw(b"\xdd\x05\xf5\xe1\x00"),
    "map that claims 10^8 items": raw(b"\xdf\x05\xf5\xe1\x00"),
    "string that claims 10^8 bytes": raw(b"\x92\x01\xdb\x05\xf5\xe1\x00"),
    "500 nested claims": raw(b"\xdd\x05\xf5\xe1\x00" * 500),
    "deep nesting": raw(nested(60_000)),
    "map": raw(b"\x92\x01\x80\xa0"),
    "map with duplicate keys": raw(b"\x92\x01\x82\x01\x02\x01\x03"),
    "extension": raw(b"\x92\x01\xd4\x05\x00"),
    "empty extension": raw(b"\x92\x01\xc7\x00\x05"),
    "timestamp": raw(b"\x92\x01" + msgpack.packb(msgpack.Timestamp(1, 2))),
    "text that is not UTF-8": raw(b"\x92\x01\xa2\xff\xfe"),
    "surrogate": raw(b"\x92\x01\xa3\xed\xa0\x80"),
    "type that is text": raw(b"\x91\xa1x"),
    "type that is a boolean": raw(b"\x91\xc3"),
    "type that is a float": raw(b"\x91\xcb\x3f\xf0\0\0\0\0\0\0"),
    "type that is nil": raw(b"\x91\xc0"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_what_is_no_frame_is_refused(cut: Cut, name: str) -> None:
    with pytest.raises(BadFrame):
        feed(FrameDecoder(), cut(packed([1, 2]) + BAD[name]))


def test_claims_cost_no_memory() -> None:
    """A few bytes that announce 10^8 items, or nest deeply, are refused before anything is made of them."""
    tracemalloc.start()
    try:
        for name, data in BAD.items():
            with pytest.raises(BadFrame):
                FrameDecoder().feed(data)
            _, peak = tracemalloc.get_traced_memory()
            assert peak < 4 * len(data) + 256 * KIB, name
            tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()


def test_bound_before_and_after_the_greeting() -> None:
    frame = packed([1, 2], bytes(1500))
    with pytest.raises(BadFrame):
        FrameDecoder(1024).feed(frame[:6])  # Refused by its length, before the rest is there.
    decoder = FrameDecoder(1024)
    decoder.allow(4096)
    assert len(decoder.feed(frame)) == 1


@given(st.binary(max_size=300))
@example(b"\xff" * 64)
def test_garbage_is_refused_or_waited_for(data: bytes) -> None:
    """Nothing but BadFrame comes out of a decoder that is given what a stranger sends."""
    decoder = FrameDecoder()
    try:
        decoder.feed(data)
    except BadFrame:
        return
    assert decoder.pending_bytes <= len(data)


@given(st.binary(max_size=120))
def test_garbage_header_is_refused_or_an_array(data: bytes) -> None:
    try:
        header = decode_header(data)
    except BadFrame:
        return
    assert type(header[0]) is int


@given(data=st.data())
def test_damaged_frame_gives_a_request_or_bad_frame(data: st.DataObject) -> None:
    """One changed byte of a real request: another request, a wait, or BadFrame; never another error."""
    frame = bytearray(packed(put_example().header(7), b"hello\n"))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] = data.draw(st.integers(0, 255))
    try:
        for header, _ in FrameDecoder().feed(bytes(frame)):
            decode_request(header)
    except BadFrame:
        pass


# -- the document -----------------------------------------------------------------------------------


def put_example() -> Put:
    """The object of the document: indexed bucket of 16 shards, key cat.jpg."""
    place = Place(0x1122334455667788, 16)
    iid = iid_of_record(place, b"cat.jpg")
    metadata = Metadata(native_etag(blake3(b"hello\n").hexdigest()), 6).encode()
    op_id = bytes(range(16))
    return Put(
        iid, int(Kind.OBJECT), place.bucket, 16, b"cat.jpg", op_id, 0, "", 1, 1_699_999_999_990, metadata
    )


def greeting_example() -> tuple[Hello, Welcome]:
    cluster = "ab" * 16
    hello = Hello(PROTOCOL_VERSION, "xxh3-64", 1, 1, "client", "KEY", bytes(range(16)), cluster)
    return hello, Welcome(PROTOCOL_VERSION, "xxh3-64", 1, 1, cluster, bytes(range(16, 32)))


def examples() -> dict[str, bytes]:
    hello, welcome = greeting_example()
    put = put_example()
    get = Get(put.iid, put.kind, put.bucket, put.shards, put.key, False, 3)
    moment = 1_700_000_000_000
    return {
        "hello": packed(hello.header(0)),
        "welcome": packed(welcome.header(0)),
        "proof-client": packed(Proof(proof(b"secret", CLIENT_SIDE, hello, welcome)).header(0)),
        "proof-node": packed(Proof(proof(b"secret", NODE_SIDE, hello, welcome)).header(0)),
        "put": packed(put.header(7), b"hello\n"),
        "put-reply": packed([int(Status.OK), 7, moment, True]),
        "get": packed(get.header(8)),
        "get-reply": packed([int(Status.OK), 8, 1, BALLOT, LIVE, moment, put.metadata], b"hello\n"),
        "not-mine": packed([int(Status.NOT_MINE), 9, "slice 0528 is not served here"]),
    }


def documented() -> dict[str, bytes]:
    """Hexadecimal blocks of the document by name; text after two spaces and a semicolon is comment."""
    found: dict[str, bytes] = {}
    for name, block in re.findall(r"```hex ([a-z-]+)\n(.*?)```", DOCUMENT.read_text(), re.S):
        lines: list[Any] = [line.split(";")[0] for line in block.splitlines()]
        found[name] = bytes.fromhex("".join(lines))
    return found


@pytest.mark.parametrize("name", examples())
def test_document_shows_the_bytes_that_are_sent(name: str) -> None:
    assert documented()[name].hex() == examples()[name].hex()


def test_document_has_no_other_examples() -> None:
    assert documented().keys() == examples().keys()
    assert put_example().iid == 0x0528EB22EB27F281, "the vector of the address document"


def test_documented_put_decodes() -> None:
    frames_found: list[Frame] = FrameDecoder().feed(documented()["put"])
    ((header, body),) = frames_found
    assert decode_request(header) == put_example() and body == b"hello\n" and header[1] == 7


def test_document_lists_every_status_and_every_request() -> None:
    text = DOCUMENT.read_text()
    statuses = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", text, re.M)
    assert statuses == [(str(status.value), status.name) for status in Status]
    requests = re.findall(r"^\| (\d+) \| ([A-Z][A-Za-z]+) \|", text, re.M)
    known = [(str(kind), message.__name__) for kind, message in REQUESTS.items()]
    assert [row for row in requests if row not in statuses] == known


LARGE = 300 * KIB


def test_large_frame_is_received_where_it_is_to_be() -> None:
    body = bytes(range(256)) * (LARGE // 256)
    data = packed([24, 1], body) + packed([1, 2], b"next")
    decoder = FrameDecoder()
    assert decoder.room() is None
    assert decoder.feed(data[:100]) == []
    found: list[tuple[Header, bytes]] = []
    at = 100
    while (room := decoder.room()) is not None:
        count = min(len(room), 70_000)
        room[:count] = data[at : at + count]
        at += count
        found += [(header, bytes(body)) for header, body in decoder.fill(count)]
    found += feed(decoder, whole(data[at:]))
    assert found == [([24, 1], body), ([1, 2], b"next")]
    assert decoder.pending_bytes == 0


def test_large_body_is_not_copied_again_and_cannot_be_changed() -> None:
    data = packed([24, 1], bytes(LARGE))
    decoder = FrameDecoder()
    decoder.feed(data[:1000])
    room = decoder.room()
    assert room is not None and len(room) == len(data) - 1000
    room[:] = data[1000:]
    ((_, body),) = decoder.fill(len(room))
    assert isinstance(body, memoryview) and body.readonly and body.obj is room.obj


@given(
    places=st.lists(st.integers(0, LARGE + 100), max_size=6),
    sizes=st.lists(st.sampled_from([0, 5, LARGE]), min_size=1, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_large_frames_survive_any_cut(places: list[int], sizes: list[int]) -> None:
    sent: list[tuple[Header, bytes]] = [([3, size], bytes(size)) for size in sizes]
    data = b"".join(packed(*frame) for frame in sent)
    cuts = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    assert feed(FrameDecoder(), (data[low:high] for low, high in pairwise(cuts))) == sent


def test_broken_header_of_a_large_frame_is_refused() -> None:
    data = raw(b"\xc1", length=LARGE + 3) + bytes(LARGE)
    decoder = FrameDecoder()
    assert decoder.feed(data[:1000]) == []
    with pytest.raises(BadFrame):
        decoder.feed(data[1000:])
