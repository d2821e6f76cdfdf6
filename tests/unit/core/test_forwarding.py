"""A former owner sends on just what it gave away, to whoever has it now, and for a while only."""

from __future__ import annotations

import math
from dataclasses import replace
from ipaddress import IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssastore.core.cluster import NodeRecord
from ssastore.core.forwarding import Forwarding
from ssastore.core.groups import GroupRecord, PlaneOwner
from ssastore.core.planner import owned_slices
from ssastore.env import Route
from ssastore.keyspace import Slice, minimal_cover, slice_of

SERVICE = IPv6Network("2001:db8:5a:1::/64")
NODES = [NodeRecord(f"n{number}", f"fd00::{number}") for number in range(1, 5)]
KEEP_S = 30.0


def records(owners: dict[int, str], others: str = "n1") -> list[GroupRecord]:
    """Groups with one plane; those that are not named are ``others``'."""
    return [GroupRecord(group, (PlaneOwner(owners.get(group, others)),)) for group in range(4096)]


def forwarding(*prefixes: str, now_s: float = 0.0) -> Forwarding:
    made = Forwarding("n1", KEEP_S)
    made.give([f"2001:db8:5a:1{prefix}" for prefix in prefixes], now_s)
    return made


def test_nothing_is_sent_on_at_first() -> None:
    made = Forwarding("n1", KEEP_S)
    assert made.next_at == math.inf and made.routes([SERVICE], records({}), NODES, 0.0) == set()


def test_a_part_of_a_prefix_that_moved_is_sent_to_its_owner() -> None:
    made = forwarding("::/70")
    found = made.routes([SERVICE], records({0x3FF: "n2", 0x100: "n3", 0x500: "n4"}), NODES, 1.0)
    assert found == {Route("2001:db8:5a:1:3ff::/80", "fd00::2"), Route("2001:db8:5a:1:100::/80", "fd00::3")}


def test_a_prefix_that_became_a_part_of_another_ones_is_sent_there() -> None:
    """The new owner had what is around it: what is sent on is no more than what was given away."""
    made = forwarding(":3f0::/80")
    assert made.routes([SERVICE], records({}, others="n2"), NODES, 1.0) == {
        Route("2001:db8:5a:1:3f0::/80", "fd00::2")
    }


def test_what_comes_back_is_not_sent_on_and_what_goes_further_is_sent_there() -> None:
    made = forwarding(":100::/80", ":200::/80")
    assert len(made.routes([SERVICE], records({0x100: "n2", 0x200: "n2"}), NODES, 1.0)) == 2
    found = made.routes([SERVICE], records({0x200: "n3"}), NODES, 2.0)
    assert found == {Route("2001:db8:5a:1:200::/80", "fd00::3")}


def test_it_ends_for_each_prefix_in_its_time() -> None:
    made = forwarding(":100::/80")
    made.give(["2001:db8:5a:1:200::/80"], 10.0)
    groups = records({0x100: "n2", 0x200: "n2"})
    assert made.next_at == KEEP_S and len(made.routes([SERVICE], groups, NODES, KEEP_S - 1)) == 2
    assert made.routes([SERVICE], groups, NODES, KEEP_S) == {Route("2001:db8:5a:1:200::/80", "fd00::2")}
    assert made.next_at == KEEP_S + 10 and made.routes([SERVICE], groups, NODES, KEEP_S + 10) == set()
    assert made.next_at == math.inf


def test_an_owner_of_whom_no_record_is_known_gets_nothing() -> None:
    assert forwarding(":100::/80").routes([SERVICE], records({0x100: "gone"}), NODES, 1.0) == set()


runs = st.lists(st.tuples(st.integers(0, 4095), st.integers(1, 900), st.sampled_from(["n1", "n2", "n3"])))
given_away = st.lists(st.tuples(st.integers(0, 4095), st.integers(4, 16)), min_size=1, max_size=6)


@settings(max_examples=50)
@given(runs, given_away)
def test_the_routes_are_what_was_given_away_and_is_others(
    changes: list[tuple[int, int, str]], gone: list[tuple[int, int]]
) -> None:
    owners = dict.fromkeys(range(4096), "n4")
    for first, count, node in changes:
        owners |= dict.fromkeys(range(first, min(4096, first + count)), node)
    groups = [replace(found) for found in records(owners)]
    made = Forwarding("n1", KEEP_S)
    pieces = []
    for group, depth in gone:
        first = slice_of(0, group).first
        pieces.append(Slice(first >> (64 - depth) << (64 - depth), depth))
    made.give([str(piece.network(SERVICE)) for piece in pieces], 0.0)
    found = made.routes([SERVICE], groups, NODES, 1.0)
    expected = {
        (group, owner)
        for group, owner in owners.items()
        if owner != "n1" and any(slice_of(0, group).first in piece for piece in pieces)
    }
    said = set()
    for route in found:
        network = IPv6Network(route.prefix)
        assert network.prefixlen <= 80
        first = int(network.network_address) >> 48 & 0xFFFF
        for group in range(first, first + (1 << (80 - network.prefixlen))):
            assert (group, "") not in said
            said.add((group, f"n{route.via[-1]}" if route.via else ""))
    assert said == expected
    covers = [minimal_cover(owned_slices(groups, node.name)) for node in NODES[1:]]
    assert len(found) <= sum(map(len, covers)) + len(gone) * 16


@pytest.mark.parametrize("prefix", ["::/68", ":8000::/65"])
def test_several_planes_at_once(prefix: str) -> None:
    made = forwarding(prefix)
    groups = [
        GroupRecord(group, tuple(PlaneOwner(name) for name in ("n2", "n3", "n4"))) for group in range(4096)
    ]
    found = made.routes([SERVICE], groups, NODES, 1.0)
    assert found == ({Route("2001:db8:5a:1::/68", "fd00::2")} if prefix == "::/68" else set())
