"""What records say of a service, and the lines that say it: no name server is asked."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from shlex import split
from typing import Any

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.errors import ConfigError
from ssastore.naming.answer import Whereabouts, bounded_ttl, prefixes_of, record_of
from ssastore.naming.zone import apl_text, txt_text, zone_lines
from ssastore.rules.record import record_from_text

A, B = IPv6Network("2001:db8:5a:1::/64"), IPv6Network("2001:db8:77:1::/64")
RECORD = record_from_text("v=SSA1; replicas=3; front=source; hop=30")


def items(text: str) -> Any:
    return dns.rdata.from_text("IN", "APL", text).items  # type: ignore[attr-defined]


def wire_items(wire: bytes) -> Any:
    return dns.rdata.from_wire("IN", "APL", wire, 0, len(wire)).items  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "sites", "holes"),
    [
        ("2:2001:db8:5a:1::/64", [A], []),
        ("2:2001:db8:77:1::/64 2:2001:db8:5a:1::/64", [B, A], []),
        ("2:2001:db8:5a:1::/64 2:2001:db8:5a:1::/64", [A], []),
        ("1:192.0.2.0/24 2:2001:db8:5a:1::/64 !1:192.0.2.0/25", [A], []),
        ("2:2001:db8:5a:1::/64 !2:2001:db8:5a:1:f000::/68", [A], ["2001:db8:5a:1:f000::/68"]),
        ("2:2001:db8:5a:1::/64 !2:2001:db8:77:1::/68", [A], []),
        ("2:2001:db8:5a:1::/64 2:2001:db8:77:1::/64 !2:2001:db8:5a:1::/64", [B], []),
        ("2:2001:db8:5a:1::/64 2:2001:db8:77:1::/64 !2:2001:db8:5a::/48", [B], []),
    ],
)
def test_items_of_apl(text: str, sites: list[IPv6Network], holes: list[str]) -> None:
    assert prefixes_of(items(text)) == (tuple(sites), tuple(map(IPv6Network, holes)))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1:192.0.2.0/24", "no IPv6 prefix"),
        ("!2:2001:db8:5a:1::/64", "no IPv6 prefix that is not negated"),
        ("2:2001:db8:5a:1::/64 !2:2001:db8:5a:1::/64", "no IPv6 prefix that is not negated"),
        ("2:2001:db8:5a::/48", "must be a /64, got 2001:db8:5a::/48"),
        ("2:2001:db8:5a:1::/80", "must be a /64"),
        ("2:fe80::/64", "must be unicast"),
        ("2:ff02::/64", "must be unicast"),
        ("2:::/64", "must be unicast"),
        (" ".join(f"2:2001:db8:0:{n:x}::/64" for n in range(17)), "17 prefixes, more than 16"),
        (" ".join(["2:2001:db8:5a:1::/64"] * 257), "257 items, more than 256"),
    ],
)
def test_items_that_say_no_service(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        prefixes_of(items(text))
    assert complaint in str(refused.value)


def test_a_family_that_nobody_knows_is_ignored() -> None:
    known = bytes.fromhex("000240 08 20010db8005a0001".replace(" ", ""))
    unknown = bytes.fromhex("00632003aabbcc")
    assert prefixes_of(wire_items(unknown + known))[0] == (A,)


def test_bits_below_the_prefix_do_not_count() -> None:
    sloppy = bytes.fromhex("00024010 20010db8005a0001 0000000000000001".replace(" ", ""))
    assert prefixes_of(wire_items(sloppy))[0] == (A,)


@given(st.binary(max_size=64))
def test_any_bytes_are_an_answer_or_an_error_that_the_look_up_expects(wire: bytes) -> None:
    try:
        found = wire_items(wire)
    except dns.exception.DNSException:
        return
    try:
        prefixes_of(found)
    except ConfigError:
        pass


def test_record_among_other_texts() -> None:
    other, ours = (b"v=spf1 -all",), (b"v=SSA1; replicas=3; fr", b"ont=source; hop=30")
    assert record_of([other, ours]) == RECORD
    assert record_of([other]) is None
    with pytest.raises(ConfigError, match="2 service records"):
        record_of([ours, ours])
    with pytest.raises(ConfigError, match="replicas must be one of"):
        record_of([(b"v=SSA1; replicas=4",)])
    with pytest.raises(ConfigError):
        record_of([(b"v=SSA1; data=\xff",)])


def test_a_record_of_another_version_is_no_missing_one() -> None:
    """Who takes it for missing breaks a rule that it could not read."""
    with pytest.raises(ConfigError, match="v=ssa2, and this client knows v=SSA1"):
        record_of([(b"v=SSA2; front=telepathy",)])
    assert record_of([(b"v=SSA2; x=y",), (b"v = SSA1; replicas=3",)]) == record_from_text(
        "v=SSA1; replicas=3"
    )
    assert record_of([(b"v=SSA10",), (b"v=SSA1",)]) == record_from_text("v=SSA1")


def test_time_to_live_is_bounded() -> None:
    assert [bounded_ttl(*ttls) for ttls in ((0,), (2**31,), (300, 60), (3600,))] == [1, 3600, 60, 3600]


def test_an_address_is_in_a_site_and_in_no_hole() -> None:
    where = Whereabouts((A, B), (IPv6Network("2001:db8:5a:1:f000::/68"),))
    seen = [
        where.holds(IPv6Address(text))
        for text in ("2001:db8:5a:1::1", "2001:db8:5a:1:f::1", "2001:db8:5a:1:f000::1", "2001:db8::1")
    ]
    assert seen == [True, True, False, False]


def lines(form: str, **more: Any) -> list[str]:
    known: dict[str, Any] = {"record": RECORD, "ttl_s": 300, "form": form}
    return list(zone_lines("store.example", [A, B], **(known | more)))


def test_lines_of_a_zone_file() -> None:
    assert lines(
        "knot", holes=[IPv6Network("2001:db8:5a:1:f000::/68")], addresses=[IPv6Address("2001:db8::80")]
    ) == [
        "store.example. 300 IN APL 2:2001:db8:5a:1::/64 2:2001:db8:77:1::/64 !2:2001:db8:5a:1:f000::/68",
        '_ssa.store.example. 300 IN TXT "v=SSA1; port=7480; replicas=3; data=content; front=source; hop=30"',
        "store.example. 300 IN AAAA 2001:db8::80",
    ]
    assert lines("knot") == lines("bind") == lines("nsd")


def test_lines_for_editors_that_do_not_know_the_type() -> None:
    number = lines("generic")[0].removeprefix("store.example. 300 IN TYPE42 ")
    # What RFC 3597 writes is what the type itself would be.
    assert dns.rdata.from_text("IN", "TYPE42", number).to_text() == apl_text([A, B])


def test_commands_for_powerdns() -> None:
    assert lines("powerdns")[1] == f"pdnsutil add-record example _ssa.store TXT 300 '{txt_text(RECORD)}'"


@pytest.mark.parametrize(
    "name", ["", "foo bar.example", "a..b", "x" * 64 + ".example", "x'; touch y; '.example"]
)
def test_what_is_no_name_has_no_zone(name: str) -> None:
    try:
        written = list(zone_lines(name, [A], record=RECORD, ttl_s=300, form="powerdns"))
    except ConfigError:
        return
    # Whatever a name may hold, a shell takes each word for one.
    assert all(len(split(line)) == 7 and split(line)[1] == "add-record" for line in written)


def test_a_long_record_is_cut_into_strings() -> None:
    record = record_from_text("v=SSA1; prefix=" + ",".join(f"2001:db8:{n:x}::/64" for n in range(1, 17)))
    strings = dns.rdata.from_text("IN", "TXT", txt_text(record)).strings  # type: ignore[attr-defined]
    assert len(strings) == 2 and record_of([strings]) == record
