"""A session against a peer that is written out: what it says in which state, its timers, its end."""

from __future__ import annotations

import math
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from ssastore.routes import bgpmessages as bgp
from ssastore.routes.bgpmessages import Frames
from ssastore.routes.bgpsession import OPENING_S, Peering, Session, State

OURS = Peering(4_200_000_017, 4_200_000_001, 17, IPv6Address("2001:db8:99::11"), 9)
WIDE, NARROW = IPv6Network("2001:db8:5a:1:1000::/68"), IPv6Network("2001:db8:5a:1:1a3f::/80")
REFRESH = bytes.fromhex("ff" * 16 + "0017" + "05" + "00020001")


def sent(session: Session) -> list[tuple[int, bytes]]:
    return list(Frames().feed(session.take()))


def kinds(session: Session) -> list[int]:
    return [kind for kind, _ in sent(session)]


def peer_open(number: int = 4_200_000_001, hold_s: int = 90) -> bytes:
    return bgp.encode_open(number, hold_s, 1)


def established(peering: Peering = OURS, now: float = 0.0, hold_s: int = 90) -> Session:
    session = Session(peering, now)
    session.receive(peer_open(peering.peer_number, hold_s), now)
    session.receive(bgp.encode_keepalive(), now)
    assert session.state is State.ESTABLISHED
    return session


def notification(session: Session) -> tuple[int, int]:
    """The session is over, and these were its last words."""
    assert session.state is State.CLOSED
    kind, payload = sent(session)[-1]
    assert kind == bgp.NOTIFICATION
    return payload[0], payload[1]


def test_it_opens_confirms_and_tells_all_that_is_wanted() -> None:
    session = Session(OURS, 0.0)
    session.tell({NARROW})
    assert kinds(session) == [bgp.OPEN]
    session.receive(peer_open(), 0.1)
    assert session.state is State.OPEN_CONFIRM and kinds(session) == [bgp.KEEPALIVE]
    session.receive(bgp.encode_keepalive(), 0.2)
    assert session.state is State.ESTABLISHED
    (told, end) = sent(session)
    assert told[0] == bgp.UPDATE and NARROW.network_address.packed[:10] in told[1]
    assert end[1] == bgp.encode_end()[19:]


def test_only_the_difference_is_told_and_withdrawals_come_last() -> None:
    session = established()
    session.take()
    session.tell({WIDE})
    session.take()
    session.tell({NARROW})
    announced, withdrawn = [payload for _, payload in sent(session)]
    assert NARROW.network_address.packed[:10] in announced and b"\x80\x0e" in announced
    assert withdrawn[4:6] == b"\x80\x0f"
    session.tell({NARROW})
    assert session.take() == b""


def test_a_refresh_is_answered_with_everything() -> None:
    session = established()
    session.tell({WIDE, NARROW})
    whole = session.take()
    for times in (1, 200):
        session.receive(times * REFRESH, 1.0)
        assert session.take() == whole[len(bgp.encode_open(OURS.number, 9, 17)) + 19 + 29 :]


def test_it_keeps_alive_three_times_a_hold_and_ends_after_it() -> None:
    session = established()
    session.take()
    assert session.next_at == pytest.approx(3)
    session.tick(2.9)
    assert session.take() == b""
    session.tick(3.0)
    assert kinds(session) == [bgp.KEEPALIVE] and session.next_at == pytest.approx(6)
    session.receive(bgp.encode_keepalive(), 5.0)
    session.tick(13.9)
    assert session.state is State.ESTABLISHED
    session.tick(14.0)
    assert notification(session) == (bgp.HOLD_EXPIRED, 0)


def test_the_shorter_hold_time_counts_and_zero_is_for_ever() -> None:
    assert established(hold_s=3).next_at == pytest.approx(1)
    assert established(hold_s=0).next_at == math.inf


def test_without_a_hold_time_nothing_is_sent_or_expected_once_it_is_confirmed() -> None:
    """RFC 4271, section 4.2. One KEEPALIVE confirms each OPEN, and that is not waited for without end."""
    session = Session(OURS, 0.0)
    session.receive(peer_open(hold_s=0), 1.0)
    assert kinds(session) == [bgp.OPEN, bgp.KEEPALIVE] and session.next_at == 1.0 + OPENING_S
    session.receive(bgp.encode_keepalive(), 2.0)
    session.take()
    session.tick(1e6)
    assert session.state is State.ESTABLISHED and session.take() == b""
    silent = Session(OURS, 0.0)
    silent.receive(peer_open(hold_s=0), 1.0)
    silent.tick(1.0 + OPENING_S)
    assert notification(silent) == (bgp.HOLD_EXPIRED, 0)


def test_who_does_not_answer_an_open_is_given_up() -> None:
    session = Session(OURS, 0.0)
    session.tick(OPENING_S)
    assert notification(session) == (bgp.HOLD_EXPIRED, 0)


def test_an_internal_session_has_the_same_number_and_another_identifier() -> None:
    internal = replace(OURS, peer_number=OURS.number)
    established(internal)
    session = Session(replace(internal, identifier=1), 0.0)
    session.receive(peer_open(OURS.number), 0.0)
    assert notification(session) == (bgp.OPEN_ERROR, bgp.BAD_IDENTIFIER)


def test_a_peer_of_another_system_is_refused() -> None:
    session = Session(OURS, 0.0)
    session.receive(peer_open(65_001), 0.0)
    assert notification(session) == (bgp.OPEN_ERROR, bgp.BAD_PEER_AS)
    assert session.reason == "the peer is of AS 65001, not 4200000001"


def test_a_peer_that_takes_no_ipv6_is_refused() -> None:
    plain = bytes.fromhex("ff" * 16 + "001d" + "01" + "04" + "fde9" + "005a" + "00000001" + "00")
    session = Session(replace(OURS, peer_number=65_001), 0.0)
    session.receive(plain, 0.0)
    assert notification(session) == (bgp.OPEN_ERROR, bgp.NO_CAPABILITY)


@pytest.mark.parametrize(
    ("state", "message", "subcode"),
    [
        (State.OPEN_SENT, bgp.encode_keepalive(), 1),
        (State.OPEN_SENT, bgp.encode_end(), 1),
        (State.OPEN_CONFIRM, peer_open(), 2),
        (State.OPEN_CONFIRM, bgp.encode_end(), 2),
        (State.OPEN_CONFIRM, REFRESH, 2),
        (State.ESTABLISHED, peer_open(), 3),
    ],
)
def test_a_message_out_of_turn_ends_the_session(state: State, message: bytes, subcode: int) -> None:
    session = established() if state is State.ESTABLISHED else Session(OURS, 0.0)
    if state is State.OPEN_CONFIRM:
        session.receive(peer_open(), 0.0)
    assert session.state is state
    session.receive(message, 0.0)
    assert notification(session) == (bgp.STATE_ERROR, subcode)


def test_the_peers_last_words_are_the_reason_and_are_not_answered() -> None:
    session = established()
    session.take()
    session.receive(bgp.encode_notification(bgp.CEASE, bgp.SHUTDOWN), 1.0)
    assert (session.state, session.take()) == (State.CLOSED, b"")
    assert session.reason == "the peer said: cease (6, 2)"
    session.receive(peer_open(), 1.0)
    session.tick(1e9)
    assert session.take() == b""


def test_what_a_router_announces_is_not_believed_and_keeps_the_session_alive() -> None:
    session = established()
    session.take()
    (update,) = bgp.encode_announcements([WIDE], next_hop=OURS.next_hop, number=1, is_internal=False)
    session.receive(update, 8.0)
    session.tick(16.0)
    assert session.state is State.ESTABLISHED


def test_who_stops_says_so() -> None:
    session = established()
    session.stop()
    assert notification(session) == (bgp.CEASE, bgp.SHUTDOWN)
