"""Strangers cannot write a log full, and what they did is counted."""

from __future__ import annotations

from ssastore.transport.seldom import EVERY_S, STRANGERS_MAX, Seldom

PEER = "2001:db8::1"


def test_a_line_a_minute_stands_for_all_before() -> None:
    seldom = Seldom()
    assert seldom.count(PEER, 0.0) == 1
    assert [seldom.count(PEER, at / 10) for at in range(1, 500)] == [0] * 499
    assert seldom.count(PEER, EVERY_S) == 500
    assert seldom.count(PEER, EVERY_S + 1) == 0
    assert seldom.count(PEER, 2 * EVERY_S) == 2


def test_who_goes_on_loses_no_count_to_others() -> None:
    seldom = Seldom()
    assert [seldom.count(PEER, float(at)) for at in range(60)] == [1] + [0] * 59
    assert seldom.count("192.0.2.1", EVERY_S + 0.1) == 1
    assert seldom.count(PEER, EVERY_S + 0.2) == 60


def test_a_network_is_one_stranger() -> None:
    seldom = Seldom()
    assert seldom.count(PEER, 0.0) == 1
    assert seldom.count("2001:db8::ffff:1", 0.0) == 0
    assert seldom.count("2001:db8:0:1::1", 0.0) == 1
    assert seldom.count("fe80::1%eth0", 0.0) == 1
    assert [seldom.count(peer, 0.0) for peer in ("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1")] == [1, 1, 0]


def test_many_strangers_are_one_beyond_some() -> None:
    seldom = Seldom()
    for minute in range(3):
        lines = [seldom.count(f"2001:db8:{at:x}::1", minute * EVERY_S) for at in range(5000)]
        assert len([line for line in lines if line]) <= STRANGERS_MAX + 1
    # And are forgotten: who comes later is somebody again.
    assert seldom.count(PEER, 9 * EVERY_S) == 1
    assert seldom.count("192.0.2.1", 9 * EVERY_S) == 1
