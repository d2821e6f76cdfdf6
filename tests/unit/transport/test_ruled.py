"""Links that keep a rule, and the guard that judges what they dial."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from ssastore.errors import ConfigError
from ssastore.rules.guard import Guard
from ssastore.rules.hashes import ServiceKeys, token_of
from ssastore.rules.record import ServiceRecord, record_from_text
from ssastore.rules.verdict import Verdict
from ssastore.transport.ruled import RuledLinks, ruled, source_of
from tests.direct import SeededRandomness, StillClock

WANTED = IPv6Address("2001:db8:5a:1:28b6:5d07:3f92:5c9d")
SOURCE = IPv6Address("2001:db8:77:8::9")
SECRET = bytes(range(16))
SERVICE = IPv6Network("2001:db8:5a:1::/64")


class Dials:
    """Links that only note what they are to dial."""

    def __init__(self) -> None:
        self.addresses: list[IPv6Address] = []

    async def dial(self, address: IPv6Address, port: int, protocol: Any) -> Any:
        self.addresses.append(address)


class World:
    def __init__(self, text: str, **more: Any) -> None:
        self.record = record_from_text(text)
        self.clock = StillClock()
        self.dials = Dials()
        self.links = RuledLinks(
            self.dials,
            self.record,
            self.clock,
            SeededRandomness(),
            source=lambda address: int(SOURCE) >> 64,
            **more,
        )
        self.guard = Guard(self.record, ServiceKeys((self.record.public,), (SECRET,)), lambda: [SERVICE])

    async def dial(self, wanted: IPv6Address = WANTED) -> IPv6Address:
        await self.links.dial(wanted, 7480, None)  # type: ignore[arg-type]
        return self.dials.addresses[-1]

    def judge(self, address: IPv6Address, peer: IPv6Address = SOURCE) -> Verdict:
        return self.guard.judge((str(peer), 1, 0, 0), (str(address), 7480, 0, 0), self.clock.now_ms())


@pytest.mark.parametrize("text", ["v=SSA1; replicas=3", "v=SSA1; replicas=3; front=source; hop=5"])
async def test_without_a_rule_for_the_plane_the_address_is_as_it_is(text: str) -> None:
    world = World(text)
    assert await world.dial() == WANTED
    assert world.judge(WANTED) is Verdict.OPEN


@pytest.mark.parametrize("limits", ["", "; hop=5", "; pow=6", "; pow=10; hop=60"])
@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ("content+source", {}),
        ("content+keyed", {"token": token_of(SECRET, int(SOURCE) >> 64)}),
        ("content+keyed", {"secret": SECRET}),
    ],
)
async def test_the_place_stays_and_the_tail_keeps_the_rule(rule: str, limits: str, more: Any) -> None:
    world = World(f"v=SSA1; replicas=3; data={rule}{limits}", **more)
    dialled = await world.dial()
    assert int(dialled) >> 32 == int(WANTED) >> 32 and dialled != WANTED
    assert world.judge(dialled) is Verdict.KEPT
    assert world.judge(WANTED) is Verdict.TAIL
    assert world.judge(dialled, IPv6Address("2001:db8:77:9::9")) is Verdict.TAIL
    assert world.guard.verdicts == {Verdict.KEPT: 1, Verdict.TAIL: 2}


async def test_each_dial_is_of_its_time() -> None:
    world = World("v=SSA1; replicas=3; data=content+source; hop=5")
    seen = []
    for _ in range(4):
        seen.append(await world.dial())
        assert world.judge(seen[-1]) is Verdict.KEPT
        world.clock.ms += 5000
    assert len(set(seen)) == 4
    # The clock is five seconds on: the last one's epoch is the neighbour, those before are over.
    assert [world.judge(address) for address in seen] == ["tail", "tail", "tail", "kept"]


async def test_keyed_without_a_token_is_an_error() -> None:
    with pytest.raises(ConfigError, match="a token is needed"):
        await World("v=SSA1; replicas=3; data=content+keyed").dial()


async def test_what_has_no_source_is_not_judged() -> None:
    guard = World("v=SSA1; replicas=3; data=content+source").guard
    own = (str(WANTED), 7480, 0, 0)
    for peer in (("::1", 1, 0, 0), ("192.0.2.1", 1), None):
        assert guard.judge(peer, own, 0) is Verdict.OPEN
    assert guard.judge(("fe80::1%eth0", 1, 0, 2), own, 0) is Verdict.TAIL


async def test_planes_that_came_since_have_the_rule_too() -> None:
    """A record that is kept for an hour says one replica, and there are three."""
    world = World("v=SSA1; replicas=1; data=content+source")
    dialled = await world.dial()
    assert dialled != WANTED and world.judge(dialled) is Verdict.PLANE
    grown = Guard(replace(world.record, replicas=3), ServiceKeys(), lambda: [SERVICE])
    assert grown.judge((str(SOURCE), 1), (str(dialled), 1), 0) is Verdict.KEPT


async def test_an_address_that_is_not_of_the_service_is_no_way_around_the_rule() -> None:
    guard = World("v=SSA1; replicas=3; data=content+source").guard
    for own in ("2001:db8:77:8::2", "fe80::f0ab:1%eth0", "2001:db8:5a:2:f0ab::1"):
        assert guard.judge((str(SOURCE), 1, 0, 0), (own, 7480, 0, 0), 0) is Verdict.PLANE


def test_the_kernel_says_where_it_would_dial_from() -> None:
    assert source_of(IPv6Address("::1")) == 0


def test_a_cluster_without_rules_has_plain_links() -> None:
    dials = Dials()
    assert ruled(dials, None, StillClock(), SeededRandomness()) is dials
    kept = ruled(dials, (ServiceRecord(), ServiceKeys()), StillClock(), SeededRandomness())
    assert isinstance(kept, RuledLinks)
