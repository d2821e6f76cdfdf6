"""Requests: exact types, exact numbers of fields, ranges. Anything else is a BadFrame."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.errors import BadFrame
from ssastore.limits import KEY_BYTES_MAX, SHARDS_MAX, STORED_KEY_BYTES_MAX, SURVEY_SLICES_MAX
from ssastore.messages import (
    REQUESTS,
    Accept,
    Changes,
    Collect,
    Copy,
    Count,
    CountSlices,
    Delete,
    Fence,
    Fetch,
    Get,
    GetBlob,
    Hello,
    Hold,
    Mark,
    Message,
    Prepare,
    Proof,
    Pull,
    Put,
    PutBlob,
    Read,
    Recheck,
    References,
    Report,
    Scan,
    Seal,
    Shut,
    StartScrub,
    Status,
    Survey,
    SurveySlices,
    Total,
    Welcome,
    decode_request,
)

IID = 0x0123_4567_89AB_CDEF
OP_ID = b"o" * 16
DIGEST = b"d" * 32
NONCE = b"n" * 16
BALLOT = b"b" * 16

SAMPLES: list[Message] = [
    Get(IID, 0x10, 5, 16, b"key", False),
    Put(IID, 0x10, 5, 16, b"key", OP_ID, 3, "etag", 1, 0, b"metadata"),
    Delete(IID, 0x20, 5, 0, b"key", OP_ID, 0, "", 2, 250),
    Scan(IID, 0x21, 5, 16, 15, b"pre", b"after", b"/", 1000, True),
    Shut(IID, 5, 16, 3, 1, True),
    PutBlob(IID, DIGEST, b"reference"),
    GetBlob(IID, DIGEST),
    Report(IID),
    Read(IID, 0x10, 5, 16, b"key", True),
    Prepare(IID, 0x10, 5, 16, b"key", 1, BALLOT),
    Accept(IID, 0x10, 5, 16, b"key", 1, BALLOT, bytes(16)),
    Collect(IID, 0x10, 5, 16, b"key", 1, BALLOT),
    Survey(IID, b"after", b"end", True),
    SurveySlices(IID, b"\x0a\x42"),
    References(IID, bytes(32)),
    Recheck(IID, b"\x0a\x42\x00\x01\x10key"),
    StartScrub(IID),
    Fence(IID, b"\x00\x00\x0a\x3f" + bytes(7) + b"\x02"),
    Pull(IID, b"\x00\x00\x0a\x3f" + bytes(7) + b"\x02", b"after"),
    Mark(IID, 7, 3, 1000),
    Copy(IID, b"\x00\x00\x0a\x3f" + bytes(7) + b"\x02", 0, b"after"),
    Changes(IID, b"\x00\x00\x0a\x3f" + bytes(7) + b"\x02", 7, 0),
    Seal(IID, b"\x00\x00\x0a\x3f" + bytes(7) + b"\x02"),
    Total(IID, b"\x00\x00\x0a\x3f" + bytes(7) + b"\x02"),
    Fetch(IID, b"\x00\x00\x0a\x3f" + bytes(7) + b"\x02", bytes(40)),
    CountSlices(IID, b"\x00\x00\x0a\x3f" + bytes(7) + b"\x02"),
    Count(IID, 5, 16, 15),
    Hold(IID, 5, 16, 15, b"h" * 24, 1, 3),
]
GREETINGS: list[Message] = [
    Hello(1, "xxh3-64", 1, 3, "client", "KEY", NONCE, ""),
    Welcome(1, "xxh3-64", 1, 3, "ab" * 16, NONCE),
    Proof(b"m" * 32),
]
names = [type(sample).__name__ for sample in SAMPLES + GREETINGS]


def test_every_request_has_a_sample() -> None:
    assert {type(sample) for sample in SAMPLES} == set(REQUESTS.values())
    assert {message.TYPE: message for message in REQUESTS.values()} == REQUESTS


def test_no_request_type_is_a_status() -> None:
    """A client tells replies from coverage by the first item, a node requests from greetings."""
    assert Status.COVERAGE not in REQUESTS
    assert not {1, 2, 3} & REQUESTS.keys()


@pytest.mark.parametrize("message", SAMPLES + GREETINGS, ids=names)
def test_round_trip(message: Message) -> None:
    header = message.header(42)
    assert header[:2] == [message.TYPE, 42]
    assert type(message).decode(header) == message
    if message.TYPE in REQUESTS:
        assert decode_request(header) == message


@pytest.mark.parametrize("message", SAMPLES + GREETINGS, ids=names)
def test_types_are_those_of_the_fields(message: Message) -> None:
    """The table of types and the fields are written apart: they must agree, item by item."""
    assert tuple(map(type, message.header(1))) == message.TYPES


@pytest.mark.parametrize("message", SAMPLES + GREETINGS, ids=names)
def test_missing_and_extra_fields_are_refused(message: Message) -> None:
    header = message.header(1)
    for wrong in (header[:-1], [*header, 0], header[:1], [*header, *header]):
        with pytest.raises(BadFrame):
            type(message).decode(wrong)


@pytest.mark.parametrize("message", SAMPLES + GREETINGS, ids=names)
def test_field_of_another_type_is_refused(message: Message) -> None:
    """A boolean is no integer, text no bytes, and so on, for every field."""
    stranger: list[Any] = [True, 1, 1.5, float("nan"), "text", b"bytes", None, [1]]
    header = message.header(1)
    for at in range(1, len(header)):
        for value in stranger:
            if type(value) is not type(header[at]):
                with pytest.raises(BadFrame):
                    type(message).decode([*header[:at], value, *header[at + 1 :]])


def changed(message: Message, **fields: Any) -> list[Any]:
    copy = type(message).decode(message.header(1))
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy.header(1)


GET, PUT, DELETE, SCAN, SHUT, PUT_BLOB, GET_BLOB, _, READ, PREPARE, ACCEPT, *_OF_UPKEEP = SAMPLES
COLLECT, SURVEY, SURVEY_SLICES, REFERENCES, RECHECK, _, FENCE, PULL, MARK, *_OF_MOVES = _OF_UPKEEP
COPY, CHANGES, SEAL, TOTAL, FETCH, COUNT_SLICES, COUNT, HOLD = _OF_MOVES
HELLO, WELCOME, PROOF = GREETINGS
OUT_OF_RANGE = [
    (GET, {"bucket": -1}),
    (GET, {"bucket": 1 << 64}),
    (GET, {"shards": -1}),
    (GET, {"shards": SHARDS_MAX + 1}),
    (GET, {"key": b""}),
    (GET, {"key": b"k" * (STORED_KEY_BYTES_MAX - 12)}),
    (GET, {"kind": 0x08}),
    (GET, {"kind": 0x40}),
    (GET, {"kind": 0}),
    (GET, {"kind": -1}),
    (COUNT_SLICES, {"moves": b""}),
    (COUNT, {"shards": 0}),
    (COUNT, {"shard": 16}),
    (COUNT, {"bucket": 1 << 64}),
    (HOLD, {"shards": 0}),
    (HOLD, {"shard": 16}),
    (HOLD, {"hold": b"h" * 23}),
    (HOLD, {"step": 3}),
    (HOLD, {"step": -1}),
    (HOLD, {"replicas": 16}),
    (ACCEPT, {"hold": b"h" * 23}),
    (PUT, {"kind": 0x41}),
    (PUT, {"op_id": b"o" * 15}),
    (PUT, {"op_id": b"o" * 17}),
    (PUT, {"condition": 6}),
    (PUT, {"condition": -1}),
    (DELETE, {"op_id": b""}),
    (DELETE, {"condition": 6}),
    (DELETE, {"kind": 0x40}),
    (PUT, {"attempt": 0}),
    (PUT, {"attempt": -1}),
    (PUT, {"born_ms": -(1 << 63)}),
    (DELETE, {"attempt": 0}),
    (DELETE, {"born_ms": 1 << 63}),
    (READ, {"kind": 0x40}),
    (READ, {"key": b""}),
    (PREPARE, {"ballot": b"b" * 15}),
    (PREPARE, {"kind": 0x40}),
    (PREPARE, {"shards": SHARDS_MAX + 1}),
    (ACCEPT, {"ballot": b"b" * 17}),
    (ACCEPT, {"reserved": b""}),
    (ACCEPT, {"kind": 0x08}),
    (COLLECT, {"ballot": b"b" * 15}),
    (COLLECT, {"kind": 0x40}),
    (COLLECT, {"key": b""}),
    (SURVEY, {"after": b"p" * (STORED_KEY_BYTES_MAX + 1)}),
    (SURVEY, {"end": b"p" * (STORED_KEY_BYTES_MAX + 1)}),
    (SURVEY_SLICES, {"slices": b"odd"}),
    (SURVEY_SLICES, {"slices": bytes(2 * SURVEY_SLICES_MAX + 2)}),
    (REFERENCES, {"digest": DIGEST[1:]}),
    (RECHECK, {"key": b"\x0a\x42\x00\x01\x10"}),
    (RECHECK, {"key": b"p" * (STORED_KEY_BYTES_MAX + 1)}),
    (SCAN, {"shard": 16}),
    (SCAN, {"shard": -1}),
    (SCAN, {"shards": 0, "shard": 1}),
    (SCAN, {"limit": 0}),
    (SCAN, {"limit": -1}),
    (SCAN, {"kind": 0x40}),
    (SCAN, {"prefix": b"p" * (STORED_KEY_BYTES_MAX + 1)}),
    (SCAN, {"after": b"p" * (STORED_KEY_BYTES_MAX + 1)}),
    (SCAN, {"delimiter": b"p" * (STORED_KEY_BYTES_MAX + 1)}),
    (SHUT, {"shard": 16}),
    (SHUT, {"attempt": 0}),
    (SHUT, {"attempt": 1 << 64}),
    (PUT_BLOB, {"digest": DIGEST[1:]}),
    (PUT_BLOB, {"reference": b"r" * (STORED_KEY_BYTES_MAX + 1)}),
    (GET_BLOB, {"digest": DIGEST + b"d"}),
    (FENCE, {"stands": b""}),
    (FENCE, {"stands": bytes(11)}),
    (FENCE, {"stands": bytes(13)}),
    (FENCE, {"stands": bytes(1548)}),
    (PULL, {"stands": b""}),
    (PULL, {"after": b"p" * (STORED_KEY_BYTES_MAX + 1)}),
    (COPY, {"session": -1}),
    (COPY, {"moves": b"odd"}),
    (COPY, {"after": bytes(STORED_KEY_BYTES_MAX + 1)}),
    (CHANGES, {"session": 0}),
    (CHANGES, {"seen": -1}),
    (SEAL, {"moves": b"odd"}),
    (TOTAL, {"moves": b"odd"}),
    (FETCH, {"key": b""}),
    (MARK, {"env": 0}),
    (MARK, {"env": 1 << 32}),
    (MARK, {"boot": -1}),
    (MARK, {"boot": 1 << 32}),
    (MARK, {"sequence": -1}),
    (HELLO, {"role": "root"}),
    (HELLO, {"role": ""}),
    (HELLO, {"nonce": b""}),
    (HELLO, {"key_id": "k" * 129}),
    (HELLO, {"cluster_id": "c" * 65}),
    (WELCOME, {"nonce": b"n" * 17}),
    (PROOF, {"mac": b"m" * 31}),
]


@pytest.mark.parametrize(("message", "fields"), OUT_OF_RANGE, ids=str)
def test_field_out_of_range_is_refused(message: Message, fields: dict[str, Any]) -> None:
    with pytest.raises(BadFrame):
        type(message).decode(changed(message, **fields))


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (GET, {"bucket": (1 << 64) - 1, "shards": SHARDS_MAX}),
        (GET, {"key": b"k" * (STORED_KEY_BYTES_MAX - 13)}),
        (GET, {"iid": -1}),
        (SCAN, {"limit": 10**9}),
        (SURVEY, {"after": b"", "end": b""}),
        (SURVEY_SLICES, {"slices": b""}),
        (SCAN, {"shards": 0, "shard": 0}),
        (SHUT, {"attempt": (1 << 64) - 1, "shut": False}),
        (PUT_BLOB, {"reference": b""}),
        (FENCE, {"stands": bytes(1536)}),
        (PULL, {"after": b""}),
        (MARK, {"boot": 0, "sequence": 0}),
        (HELLO, {"replicas": 0, "key_id": "", "cluster_id": ""}),
    ],
    ids=str,
)
def test_field_at_its_bound_is_taken(message: Message, fields: dict[str, Any]) -> None:
    header = changed(message, **fields)
    assert type(message).decode(header).header(1) == header


def test_longest_keys_of_uploads_and_parts_fit() -> None:
    part = b"k" * KEY_BYTES_MAX + b"\0" + b"f" * 32 + b"\x27\x10"
    assert decode_request(Get(IID, 0x21, 5, 16, part, True).header(1)).key == part


@pytest.mark.parametrize("kind", [0, 4, 15, 23, 34, 100, 2**64 - 1, -1])
def test_unknown_type_is_refused(kind: int) -> None:
    with pytest.raises(BadFrame, match=f"unknown message type {kind}"):
        decode_request([kind, 1, IID])


fields = st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20) | st.booleans()


@given(kind=st.sampled_from(sorted(REQUESTS)), rest=st.lists(fields | st.none() | st.floats(), max_size=12))
def test_random_header_is_a_request_or_a_bad_frame(kind: int, rest: list[Any]) -> None:
    try:
        message = decode_request([kind, *rest])
    except BadFrame:
        return
    assert message.header(rest[0]) == [kind, *rest]
