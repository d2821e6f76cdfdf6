"""AAAA for clients that know no rule: addresses of the unbound part of the front plane, others each time."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import dns.message
from click.testing import CliRunner

from ssastore.cli import cli
from ssastore.naming.answer import Whereabouts
from ssastore.naming.responder import Turns, answer, zone_of
from ssastore.naming.zone import front_addresses

A, B = IPv6Network("2001:db8:5a:1::/64"), IPv6Network("2001:db8:77:1::/64")
UNBOUND = [IPv6Network("2001:db8:5a:1:f000::/72"), IPv6Network("2001:db8:77:1:f000::/72")]
QUARTERS = [IPv6Network(f"2001:db8:5a:1:f0{quarter}::/74") for quarter in ("00", "40", "80", "c0")]


def test_addresses_lie_in_equal_parts_of_each_site() -> None:
    for draw in (lambda bound: 0, lambda bound: bound // 2, lambda bound: bound - 1):
        found = front_addresses([A, B], 4, draw)
        assert [address in UNBOUND[0] for address in found] == [True] * 4 + [False] * 4
        assert all(address in quarter for address, quarter in zip(found, QUARTERS, strict=False))
        assert all(address in UNBOUND[1] for address in found[4:])
    assert front_addresses([A], 0, lambda bound: 0) == []


def test_each_answer_has_others_and_begins_elsewhere() -> None:
    zone = zone_of("store.test", Whereabouts((A,)), [IPv6Address("2001:db8::80")], front=3)
    firsts, seen = set(), set()
    for _ in range(40):
        made = answer(zone, dns.message.make_query("store.test", "AAAA").to_wire(), 1232)
        assert made is not None
        found = [IPv6Address(item.to_text()) for item in dns.message.from_wire(made).answer[0]]
        assert len(found) == 4 and found.count(IPv6Address("2001:db8::80")) == 1
        assert sum(address in UNBOUND[0] for address in found) == 3
        firsts.add(next((at for at, quarter in enumerate(QUARTERS) if found[0] in quarter), -1))
        seen.update(found)
    assert len(seen) == 1 + 3 * 40 and len(firsts) > 2


def test_turns_are_even() -> None:
    turns = Turns()
    counts = [0] * 16
    for _ in range(160):
        counts[turns.below(16)] += 1
    assert min(counts) >= 9 and max(counts) <= 11


def test_a_zone_for_other_servers_has_them_too() -> None:
    words = ["dns", "zone", "store.example", str(A), "--front", "2", "--aaaa", "2001:db8::80"]
    lines = CliRunner().invoke(cli, words).output.splitlines()
    found = [IPv6Address(line.split()[-1]) for line in lines if " AAAA " in line]
    assert (
        found[0] == IPv6Address("2001:db8::80")
        and [address in UNBOUND[0] for address in found[1:]] == [True] * 2
    )
    assert CliRunner().invoke(cli, words).output.splitlines() == lines, "the same each time"
