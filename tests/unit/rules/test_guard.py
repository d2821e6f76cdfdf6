"""The check at a listening socket, of workers and of gateways."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest

from ssastore.rules.address import address_under
from ssastore.rules.guard import Guard
from ssastore.rules.hashes import PUBLIC_KEY, ClientKeys, ServiceKeys
from ssastore.rules.record import record_from_text
from ssastore.rules.verdict import Verdict

SERVICE = IPv6Network("2001:db8:5a:1::/64")
SOURCE = 0x20010DB800770008
PEER = (f"{IPv6Address(SOURCE << 64 | 5)}", 1234, 0, 0)
RECORD = record_from_text("v=SSA1; replicas=3; front=source; hop=5")
KEYS = ClientKeys(PUBLIC_KEY)


def guard(**options: bool) -> Guard:
    return Guard(RECORD, ServiceKeys(), lambda: [SERVICE], **options)


def own(iid: int) -> tuple[str, int, int, int]:
    return str(IPv6Address(int(SERVICE.network_address) | iid)), 7482, 0, 0


def ruled(now_ms: int, source: int = SOURCE) -> int:
    return address_under(RECORD.front, 15, source, epoch=RECORD.front.epoch_at(now_ms / 1000), keys=KEYS)


@pytest.mark.parametrize(
    ("iid", "of_worker", "of_gateway"),
    [
        (ruled(0), Verdict.KEPT, Verdict.KEPT),
        (ruled(0, SOURCE + 1), Verdict.LOCATOR, Verdict.LOCATOR),
        (0xF012 << 48 | 1, Verdict.OPEN, Verdict.OPEN),
        (0x0123 << 48 | 1, Verdict.OPEN, Verdict.PLANE),
        (0x7123 << 48 | 1, Verdict.PLANE, Verdict.PLANE),
    ],
)
def test_a_gateway_serves_the_front_plane_alone(iid: int, of_worker: Verdict, of_gateway: Verdict) -> None:
    """Else an address of another plane, whose rule is another one, were a way around its own."""
    assert guard().judge(PEER, own(iid), 0) is of_worker
    assert guard(is_front=True).judge(PEER, own(iid), 0) is of_gateway


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::1"])
def test_who_comes_by_ipv4_or_from_here_is_let_in(peer: str) -> None:
    """Also where IPv4 comes to a socket for both: then it has mapped addresses."""
    reached = ("10.0.0.2", 7482) if "." in peer and ":" not in peer else ("::ffff:10.0.0.2", 7482, 0, 0)
    assert guard(is_front=True).judge((peer, 5), reached, 0) is Verdict.OPEN


def test_a_client_follows_a_hundred_epochs_and_what_was_seen_is_dead_within_two() -> None:
    """``hop:5`` on a clock of its own, two clients' clocks up to an epoch apart from the gateway's."""
    judging = guard(is_front=True)
    for tenth in range(100 * 50):
        now_ms = 1_700_000_000_000 + tenth * 100
        for skew_ms in (-4900, 0, 4900):
            assert judging.lets_in(PEER, own(ruled(now_ms + skew_ms)), now_ms)
        begun_ms = now_ms // 5000 * 5000
        assert not judging.lets_in(PEER, own(ruled(begun_ms - 10_000)), now_ms), (
            "of the epoch before the last"
        )
    assert judging.verdicts[Verdict.KEPT] == 3 * 5000


def test_who_only_counts_lets_everybody_in() -> None:
    judging = guard(is_front=True, is_monitor=True)
    assert judging.lets_in(PEER, own(ruled(0, SOURCE + 1)), 0)
    assert judging.verdicts == {Verdict.LOCATOR: 1}


def test_what_has_no_source_that_a_rule_could_bind_is_let_in() -> None:
    judging = guard(is_front=True)
    assert judging.lets_in(("192.0.2.1", 5), ("192.0.2.2", 7482), 0)
    assert judging.lets_in(("::1", 5, 0, 0), ("::1", 7482, 0, 0), 0)
    assert not judging.lets_in(PEER, ("fd00::51", 7482, 0, 0), 0), "the host's own address is no way around"
