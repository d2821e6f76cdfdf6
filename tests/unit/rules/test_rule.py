"""The text of rules and of the record that a service publishes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.errors import ConfigError
from ssastore.keyspace import is_reserved_iid
from ssastore.rules.address import address_under, is_unbound, unreserved
from ssastore.rules.hashes import ClientKeys, ServiceKeys, token_of
from ssastore.rules.record import ServiceRecord, record_from_text
from ssastore.rules.rule import Binding, Rule, rule_from_text
from ssastore.rules.vectors import RULES
from ssastore.rules.verdict import Verdict, blind_rate, check, stranger_rate

NO_KEYS = ServiceKeys()


@pytest.mark.parametrize("text", RULES)
def test_text_of_a_rule_comes_back(text: str) -> None:
    assert rule_from_text(str(rule_from_text(text))) == rule_from_text(text)


def test_pow_and_hop_alone_mean_source() -> None:
    assert rule_from_text("pow:16") == Rule(Binding.SOURCE, Binding.SOURCE, work_bits=16)
    assert rule_from_text(" Hop:5 ") == rule_from_text("source+hop:5")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no such word in rule '': ''"),
        ("sauce", "no such word in rule 'sauce': 'sauce'; known are random"),
        ("source+source", "too many words"),
        ("content+source+keyed", "too many words"),
        ("source+content", "no such rule: source+content"),
        ("match+source", "no such rule: match+source"),
        ("content+random", "no such rule"),
        ("source+hop", "hop needs a number"),
        ("source+hop:-1", "hop needs a number"),
        ("source+hop:٣", "hop needs a number"),
        ("source+hop:86401", "hop must be 0 to 86400"),
        ("pow:21", "pow must be 0 to 20"),
        ("source+pow:1+pow:2", "pow is given twice"),
        ("source:4", "source takes no number"),
        ("content+choices:2", "choices needs a locator by source or keyed, not content"),
        ("content+source+choices:2", "choices needs a locator"),
        ("source+choices:0", "choices must be 1 to 16"),
        ("source+choices:17", "choices must be 1 to 16"),
        ("content+hop:5", "hop and pow need something that is hashed"),
        ("random+pow:5", "hop and pow need something that is hashed"),
        ("low", "low needs a number"),
        ("low:0", "low must be 1 to 59"),
        ("low:60", "low must be 1 to 59"),
        ("source+" * 50, "at most 100 characters"),
    ],
)
def test_wrong_rules_are_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        rule_from_text(text)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("v=SSA1", ServiceRecord()),
        (
            "v=SSA1; port=7480; replicas=3; data=content; front=source; hop=30; pow=0",
            ServiceRecord(replicas=3, front=rule_from_text("source+hop:30")),
        ),
        (
            "v=SSA1;data=content+source;front=keyed;choices=4;pow=8;hop=5;key=" + "ab" * 16 + ";later=x",
            ServiceRecord(
                data=rule_from_text("content+source+pow:8+hop:5"),
                front=rule_from_text("keyed+choices:4+pow:8+hop:5"),
                public=b"\xab" * 16,
            ),
        ),
    ],
)
def test_record_is_read(text: str, record: ServiceRecord) -> None:
    assert record_from_text(text) == record
    assert record_from_text(str(record)) == record


def test_record_text() -> None:
    record = ServiceRecord(replicas=3, front=rule_from_text("source+hop:30"))
    assert str(record) == "v=SSA1; port=7480; replicas=3; data=content; front=source; hop=30"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("port=7480", "begins with v=SSA1, got 'port=7480'"),
        ("v=SSA2; port=1", "begins with v=SSA1, got 'v=SSA2'"),
        ("v=SSA1; port", "not a field"),
        ("v=SSA1; port=1; PORT=2", "given twice"),
        ("v=SSA1; port=0", "port must be 1 to 65535"),
        ("v=SSA1; port=65536", "port must be 1 to 65535"),
        ("v=SSA1; port=8o80", "port must be a number"),
        ("v=SSA1; replicas=2", "replicas must be one of"),
        ("v=SSA1; data=source", "the locator of data follows the name"),
        ("v=SSA1; front=telepathy", "no such word"),
        ("v=SSA1; front=source+hop:5", "fields of their own"),
        ("v=SSA1; front=source; hop=x", "hop must be a number"),
        ("v=SSA1; front=source; choices=99", "choices must be 1 to 16"),
        ("v=SSA1; key=zz", "key must be 32 hexadecimal digits"),
        ("v=SSA1; key=abcd", "key must be 32 hexadecimal digits"),
        ("v=SSA1; key=" + "ab " * 16, "key must be 32 hexadecimal digits"),
        ("v=SSA1; choices=17", "choices must be 1 to 16"),
        ("v=SSA1; pow=21", "pow must be 0 to 20"),
        ("v=SSA1; hop=999999", "hop must be 0 to 86400"),
        ("v=SSA1; front=low:8", "a part of the front plane is for clients without a rule"),
        ("v=SSA1; prefix=2001:db8::/48", "must be a /64"),
        (
            "v=SSA1; prefix=" + ",".join(f"2001:db8:{n:x}::/64" for n in range(17)),
            "17 prefixes, more than 16",
        ),
        ("v=SSA1; " + "x=y;" * 300, "at most 1024 bytes"),
    ],
)
def test_wrong_records_are_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        record_from_text(text)
    assert complaint in str(refused.value)


@given(st.text(max_size=60))
def test_any_text_is_a_record_or_a_clear_error(text: str) -> None:
    for given_text in (text, "v=SSA1;" + text):
        try:
            record = record_from_text(given_text)
        except ConfigError:
            continue
        assert record_from_text(str(record)) == record


def test_rules_of_a_service_have_one_hop_and_one_pow() -> None:
    with pytest.raises(ConfigError, match="the same for all rules of a service"):
        ServiceRecord(data=rule_from_text("content+source+hop:5"), front=rule_from_text("source+hop:6"))


def test_each_plane_has_its_rule() -> None:
    record = ServiceRecord(replicas=3, data=rule_from_text("content+source"), front=rule_from_text("keyed"))
    check_at = lambda iid: record.check(1, iid, unix_s=0, keys=NO_KEYS)  # noqa: E731
    assert check_at(0x3000_0000_0000_0001) is Verdict.PLANE
    assert check_at(0xE000_0000_0000_0001) is Verdict.PLANE
    assert check_at(0x2000_0000_0000_0001) is Verdict.TAIL
    assert check_at(0xF0FF_FFFF_0000_0001) is Verdict.OPEN
    assert check_at(0xF100_0000_0000_0001) is Verdict.LOCATOR
    assert check_at(0) is Verdict.RESERVED


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.sampled_from(RULES))
def test_no_address_is_reserved_and_bound_ones_stay_out_of_the_unbound_part(
    source: int, free: int, text: str
) -> None:
    rule = rule_from_text(text)
    keys = ClientKeys(token=bytes(16))
    for place in (0, 0x0200_5EFF_FE00_0000, 0xDFF_FFFF_FFFF_FF80):
        for plane in (0, 15):
            iid = address_under(rule, plane, source, free=free, position=place, keys=keys)
            assert iid >> 60 == plane
            assert not is_reserved_iid(iid)
            assert rule.locator.value in ("match", "low", "inverted") or not is_unbound(iid)
            if not rule.is_hashed:
                assert not check(rule, source, iid, keys=NO_KEYS, position=place).is_break


def test_keyed_rules_need_a_token_and_named_ones_a_name() -> None:
    with pytest.raises(ConfigError, match="ssastore rule token"):
        address_under(rule_from_text("keyed"), 15, 1, keys=ClientKeys())
    with pytest.raises(ConfigError, match="needs the name of an object"):
        address_under(rule_from_text("content+source"), 0, 1, keys=ClientKeys())


def test_while_a_key_is_replaced_both_pass() -> None:
    rule, old, new = rule_from_text("source"), bytes(16), bytes(range(16))
    for key in (old, new):
        iid = address_under(rule, 15, 7, keys=ClientKeys(public=key))
        assert check(rule, 7, iid, keys=ServiceKeys((new, old))) is Verdict.KEPT
        assert check(rule, 7, iid, keys=ServiceKeys((new,))) is (
            Verdict.KEPT if key == new else Verdict.LOCATOR
        )


def test_while_a_secret_is_replaced_both_tokens_pass() -> None:
    old, new = bytes(16), bytes(range(16))
    for text in ("keyed", "content+keyed", "source+keyed", "keyed+pow:4"):
        rule = rule_from_text(text)
        for secret in (old, new):
            client = ClientKeys(token=token_of(secret, 7))
            iid = address_under(rule, 15, 7, position=5 << 40, keys=client)
            assert check(rule, 7, iid, keys=ServiceKeys(secrets=(new, old))) is Verdict.KEPT
        if text != "keyed+pow:4":
            assert check(rule, 7, iid, keys=ServiceKeys(secrets=(old,))).is_break


def test_the_first_epoch_has_one_neighbour() -> None:
    rule = rule_from_text("source+hop:30")
    assert [rule.epochs_allowed(epoch) for epoch in (0, 1, 7)] == [(0, 1), (1, 0, 2), (7, 6, 8)]
    assert rule_from_text("source").epochs_allowed(7) == (0,)
    for made, passes in ((0, True), (1, True), (2, False)):
        iid = address_under(rule, 15, 7, epoch=made, keys=ClientKeys())
        assert check(rule, 7, iid, epoch=0, keys=NO_KEYS).is_break is not passes


@pytest.mark.parametrize(
    ("text", "guess", "stranger"),
    [
        ("random", 1.0, 1.0),
        ("match", 2.0**-60, 1.0),
        ("source+choices:4", 4 * 2.0**-60, 1.0),
        ("source+hop:30", 3 * 2.0**-60, 1.0),
        ("keyed+choices:4+hop:30", 12 * 2.0**-60, 12 * 2.0**-60),
        ("source+keyed", 2.0**-60, 2.0**-32),
        ("keyed+source", 2.0**-60, 2.0**-28),
        ("content+source+pow:8", 2.0**-8, 1.0),
    ],
)
def test_how_often_a_guess_passes(text: str, guess: float, stranger: float) -> None:
    keys = ServiceKeys(secrets=(bytes(16),))
    assert blind_rate(rule_from_text(text), keys) == pytest.approx(guess)
    assert stranger_rate(rule_from_text(text), keys) == pytest.approx(stranger)


def test_choices_beyond_the_last_are_refused() -> None:
    wide, narrow = rule_from_text("source+choices:5"), rule_from_text("source+choices:4")
    iid = address_under(wide, 15, 7, free=4 << 32, keys=ClientKeys())
    assert check(wide, 7, iid, keys=NO_KEYS) is Verdict.KEPT
    assert check(narrow, 7, iid, keys=NO_KEYS) is Verdict.LOCATOR


@pytest.mark.parametrize(
    "iid", [0, 0x0200_5EFF_FE00_0000, 0x0200_5EFF_FEFF_FFFF, 0xFDFF_FFFF_FFFF_FF80, 2**64 - 2**57 - 1]
)
def test_reserved_identifiers_have_a_neighbour_that_is_not(iid: int) -> None:
    assert not is_reserved_iid(unreserved(iid)) and unreserved(iid) == iid ^ 0x01000080
    assert unreserved(iid ^ 0x01000080) == iid ^ 0x01000080


def test_a_record_judges_by_its_time_and_the_name() -> None:
    record = record_from_text("v=SSA1; data=content+source; front=source; hop=30")
    made = address_under(record.front, 15, 7, epoch=record.front.epoch_at(1000), keys=ClientKeys())
    assert record.check(7, made, unix_s=1000, keys=NO_KEYS) is Verdict.KEPT
    assert record.check(7, made, unix_s=2000, keys=NO_KEYS) is Verdict.LOCATOR
    data = address_under(record.data, 0, 7, position=5 << 32, epoch=33, keys=ClientKeys())
    assert record.check(7, data, unix_s=1000, keys=NO_KEYS, position=5 << 32) is Verdict.KEPT
    assert record.check(7, data, unix_s=1000, keys=NO_KEYS, position=6 << 32) is Verdict.LOCATOR


def test_epochs_follow_the_clock_and_an_address_dies_two_later() -> None:
    rule = rule_from_text("hop:5")
    assert [rule.epoch_at(at) for at in (0, 4.99, 5, 1_800_000_000)] == [0, 0, 1, 360_000_000]
    assert rule_from_text("source").epoch_at(1_800_000_000) == 0
    iid = address_under(rule, 15, 7, epoch=9, keys=ClientKeys())
    verdicts = [check(rule, 7, iid, epoch=epoch, keys=NO_KEYS) for epoch in range(7, 12)]
    assert verdicts == ["locator", "kept", "kept", "kept", "locator"]


def test_ten_thousand_clients_spread_evenly_over_four_gateways() -> None:
    rule = rule_from_text("source")
    counts = [0] * 4
    for client in range(10_000):
        iid = address_under(rule, 15, 0x20010DB8_00000000 + client, keys=ClientKeys())
        counts[((iid >> 48 & 0xFFF) - 0x100) * 4 // 0xF00] += 1
    assert all(2250 <= count <= 2750 for count in counts), counts
