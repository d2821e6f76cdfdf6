"""BGP messages: golden octets, every cut, and what is refused with which words."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.routes import bgpmessages as bgp
from ssastore.routes.bgpmessages import BadMessage, Frames

MARKER = "ff" * 16
NEXT_HOP = IPv6Address("2001:db8:99::11")
PREFIXES = [IPv6Network("2001:db8:5a:1:1a3f::/80"), IPv6Network("2001:db8:5a:1:1400::/70")]

OPEN_HEX = (
    MARKER + "002d" + "01"
    "04" + "5ba0" + "0009" + "0a4a0011" + "10"
    "020e" + "0104" + "00020001" + "0200" + "4104" + "fa56ea11"
)  # fmt: skip
ANNOUNCED_HEX = (
    MARKER + "0051" + "02" + "0000" + "003a"
    "800e2a" + "0002" + "01" + "10" + NEXT_HOP.packed.hex() + "00"
    "50" + "20010db8005a00011a3f" + "46" + "20010db8005a000114"
    "40010100" + "400206" + "0201fa56ea11"
)  # fmt: skip
WITHDRAWN_HEX = MARKER + "0027" + "02" + "0000" + "0010" + "800f0d" + "000201" + "46" + "20010db8005a000114"


def whole(data: bytes) -> list[tuple[int, bytes]]:
    return list(Frames().feed(data))


def test_open_has_the_octets_of_the_rfcs() -> None:
    assert bgp.encode_open(4_200_000_017, 9, 0x0A4A0011).hex() == OPEN_HEX


def test_announcements_and_withdrawals_have_the_octets_of_the_rfcs() -> None:
    (announced,) = bgp.encode_announcements(
        PREFIXES, next_hop=NEXT_HOP, number=4_200_000_017, is_internal=False
    )
    assert announced.hex() == ANNOUNCED_HEX
    (withdrawn,) = bgp.encode_withdrawals(PREFIXES[1:])
    assert withdrawn.hex() == WITHDRAWN_HEX
    assert bgp.encode_end().hex() == MARKER + "001d" + "02" + "0000" + "0006" + "800f03000201"
    (internal,) = bgp.encode_announcements(PREFIXES, next_hop=NEXT_HOP, number=65001, is_internal=True)
    assert internal.endswith(bytes.fromhex("40010100" + "400200" + "40050400000064"))


def test_many_prefixes_take_many_messages_and_none_is_too_long() -> None:
    prefixes = list(IPv6Network("2001:db8:5a:1::/64").subnets(new_prefix=77))
    messages = list(
        bgp.encode_announcements(prefixes, next_hop=NEXT_HOP, number=4_200_000_017, is_internal=False)
    )
    assert len(messages) > 10 and all(len(message) <= bgp.MESSAGE_BYTES_MAX for message in messages)
    assert [kind for kind, _ in whole(b"".join(messages))] == [bgp.UPDATE] * len(messages)
    assert list(bgp.encode_announcements([], next_hop=NEXT_HOP, number=1, is_internal=False)) == []


def test_a_frame_is_waited_for_wherever_it_is_cut() -> None:
    stream = bytes.fromhex(OPEN_HEX) + bgp.encode_keepalive() + bytes.fromhex(ANNOUNCED_HEX)
    wanted = whole(stream)
    assert [kind for kind, _ in wanted] == [bgp.OPEN, bgp.KEEPALIVE, bgp.UPDATE]
    for cut in range(len(stream)):
        frames = Frames()
        assert [*frames.feed(stream[:cut]), *frames.feed(stream[cut:])] == wanted
    frames = Frames()
    assert [found for octet in stream for found in frames.feed(bytes((octet,)))] == wanted


def test_an_open_comes_back_as_it_was_written() -> None:
    ((_, payload),) = whole(bgp.encode_open(4_200_000_017, 9, 0x0A4A0011))
    found = bgp.decode_open(payload)
    assert (found.number, found.hold_s, found.identifier) == (4_200_000_017, 9, 0x0A4A0011)
    assert found.takes_ipv6 and found.has_four_octets and found.is_refreshable


@pytest.mark.parametrize(
    ("text", "code", "subcode", "data"),
    [
        ("00" + MARKER[2:] + "0013" + "04", 1, 1, ""),
        (MARKER + "0013" + "06", 1, 3, "06"),
        (MARKER + "0014" + "04", 1, 2, "0014"),
        (MARKER + "0012" + "04", 1, 2, "0012"),
        (MARKER + "1001" + "02", 1, 2, "1001"),
        (MARKER + "001c" + "01", 1, 2, "001c"),
    ],
)
def test_what_is_no_message_is_refused_at_its_header(text: str, code: int, subcode: int, data: str) -> None:
    """Before its payload has come: nobody makes us hold what will not be looked at."""
    with pytest.raises(BadMessage) as caught:
        whole(bytes.fromhex(text))
    assert (caught.value.code, caught.value.subcode, caught.value.data.hex()) == (code, subcode, data)


OPEN_PAYLOAD = bytes.fromhex(OPEN_HEX)[19:]


@pytest.mark.parametrize(
    ("payload", "subcode"),
    [
        (b"\x03" + OPEN_PAYLOAD[1:], bgp.BAD_VERSION),
        (OPEN_PAYLOAD[:3] + b"\0\2" + OPEN_PAYLOAD[5:], bgp.BAD_HOLD_TIME),
        (OPEN_PAYLOAD[:5] + bytes(4) + OPEN_PAYLOAD[9:], bgp.BAD_IDENTIFIER),
        (OPEN_PAYLOAD[:-1], 0),
        (OPEN_PAYLOAD + b"\0", 0),
        (OPEN_PAYLOAD[:11] + b"\x0f" + OPEN_PAYLOAD[12:], 0),
        (OPEN_PAYLOAD[:13] + b"\x40" + OPEN_PAYLOAD[14:], 0),
        (OPEN_PAYLOAD[:9] + b"\xff\xff", 0),
    ],
)
def test_an_open_that_cannot_be_answered_is_refused(payload: bytes, subcode: int) -> None:
    with pytest.raises(BadMessage) as caught:
        bgp.decode_open(payload)
    assert (caught.value.code, caught.value.subcode) == (bgp.OPEN_ERROR, subcode)


def test_the_long_form_of_parameters_is_understood() -> None:
    """RFC 9072."""
    capabilities = OPEN_PAYLOAD[10:]
    long = bytes((255, 255)) + (len(capabilities) + 1).to_bytes(2)
    widened = capabilities[:1] + b"\0" + capabilities[1:]
    assert bgp.decode_open(OPEN_PAYLOAD[:9] + long + widened) == bgp.decode_open(OPEN_PAYLOAD)


@given(st.binary(max_size=64))
def test_any_octets_after_the_fixed_part_of_an_open_are_taken_or_refused(rest: bytes) -> None:
    try:
        found = bgp.decode_open(OPEN_PAYLOAD[:9] + rest[:1] + rest[1:] if rest else OPEN_PAYLOAD[:9] + b"\0")
    except BadMessage as error:
        assert error.code == bgp.OPEN_ERROR
    else:
        assert found.hold_s == 9


@given(st.binary(max_size=5000))
def test_any_stream_is_cut_or_refused(stream: bytes) -> None:
    frames = Frames()
    try:
        for _, payload in frames.feed(bytes.fromhex(MARKER) + stream):
            assert len(payload) <= bgp.MESSAGE_BYTES_MAX
    except BadMessage as error:
        assert error.code == bgp.HEADER_ERROR
