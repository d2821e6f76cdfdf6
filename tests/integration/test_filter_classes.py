"""The program's reasons beside the model's (``classes.reason_of``), packet by packet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network
from random import Random

import pytest

from bench.packets import (
    ACK,
    CLIENT_LOW,
    RST,
    SERVICE,
    SERVICE_PORT,
    SYN,
    SYN_ACK,
    answer,
    error_about,
    extension,
    fragment,
    frame,
    tcp,
    upper,
)
from ssastore.errors import EnvironmentProblem
from ssastore.filter import orders as orders_module
from ssastore.filter.classes import Kind, Known, Packet, Reason, reason_of
from ssastore.filter.kernel import Filter
from ssastore.filter.orders import Order, said_by
from ssastore.rules.address import address_under, is_unbound
from ssastore.rules.hashes import ClientKeys, ServiceKeys
from ssastore.rules.record import ServiceRecord, record_from_text
from tests.bpf import need_bpf

RECORD = record_from_text("v=SSA1; replicas=3; data=content+source; front=source; hop=30")
NOW_S = 30_000.0
KNOWN, STRANGER, OTHER = 0x20010DB800770008, 0x20010DB800780001, 0x20010DB800990001
"The /64 of clients."


@pytest.fixture
def judging() -> Iterator[Filter]:
    need_bpf()
    with Filter(RECORD) as loaded:
        loaded.set_keys([SERVICE], NOW_S, ServiceKeys())
        loaded.sort_for_queues()
        yield loaded


def right(source: int, epoch_offset: int = 0) -> int:
    epoch = RECORD.front.epoch_at(NOW_S) + epoch_offset
    return address_under(RECORD.front, 15, source, free=1, epoch=epoch, keys=ClientKeys())


UNBOUND = 0xF0AB_0000_0000_0001
WRONG = 0x1000_0000_0000_0001


def shapes(source: int, iid: int) -> Iterator[tuple[Kind, bool, int, bytes]]:
    """One packet of each kind: what it is, whether it is a fragment, its port, its bytes."""
    yield Kind.OPENING, False, SERVICE_PORT, frame(source, iid)
    yield Kind.OPENING, False, 0x5678, frame(source, iid, bytes.fromhex("1234567800080000"), kind=17)
    yield Kind.OPENING, True, SERVICE_PORT, frame(source, iid, fragment(has_more=True) + tcp(), kind=44)
    yield Kind.SEGMENT, False, SERVICE_PORT, frame(source, iid, extension(6) + tcp(ACK), kind=60)
    yield Kind.SEGMENT, False, SERVICE_PORT, frame(source, iid, tcp(RST))
    yield Kind.SEGMENT, True, SERVICE_PORT, frame(source, iid, fragment() + tcp(ACK), kind=44)
    yield Kind.REST, True, 0, frame(source, iid, fragment(place=3) + bytes(8), kind=44)
    yield Kind.ECHO, False, 0, frame(source, iid, bytes([128]) + bytes(7), kind=58)
    yield Kind.ERROR, False, 0, error_about(source, iid)
    yield Kind.ERROR, False, 0, error_about(source, iid, type_number=1)
    yield Kind.BROKEN, False, 0, frame(source, iid, extension(6) + tcp(), kind=43)
    yield Kind.PASSING, False, 0, frame(source, iid, service=IPv6Network("2001:db8:5a:2::/64"))


def expected(
    record: ServiceRecord, kind: Kind, is_fragmented: bool, source: int, iid: int, known: Known
) -> Reason:
    verdict = record.check(source, iid, unix_s=NOW_S, keys=ServiceKeys())
    asked = verdict if kind in (Kind.OPENING, Kind.SEGMENT) else None
    return reason_of(Packet(kind, asked, iid >> 60 == 15 and is_unbound(iid), is_fragmented), known)


PEACE: dict[Order, Reason] = {}
ORDERED = {
    Order("from", IPv6Network("2001:db8:77::/48")): Reason.SUSPECT,
    Order("from", IPv6Network("2001:db8:77:8::/64"), 0x5678): Reason.VULNERABILITY,
    Order("from", IPv6Network("2001:db8:78::/47")): Reason.SUSPECT,
    Order("from", IPv6Network((STRANGER << 64 | CLIENT_LOW, 128))): Reason.ATTACK,
    Order("to", IPv6Network((upper(SERVICE) << 64 | 0xF0AB << 48, 80))): Reason.INJECTED,
}


@pytest.mark.parametrize("orders", [PEACE, ORDERED], ids=["no orders", "orders"])
@pytest.mark.parametrize("is_attacked", [False, True], ids=["peace", "attack"])
def test_kernel_and_model_say_the_same(
    judging: Filter, orders: dict[Order, Reason], is_attacked: bool
) -> None:
    judging.set_attack(is_attacked)
    for order, reason in orders.items():
        judging.order(order, reason, 600)
    seen: Counter[Reason] = Counter()
    for source in (KNOWN, STRANGER, OTHER):
        for iid in (right(source), right(source, -1), right(source, -2), WRONG, UNBOUND, 0):
            # A flow that the service sends data in.
            if source == KNOWN:
                judging.answer(answer(source, iid, ACK, data=b"it is here"))
            for kind, is_fragmented, port, packet in shapes(source, iid):
                target = IPv6Address(upper(SERVICE) << 64 | iid)
                # Errors come from a router in between.
                sender = 0x20010DB800FF0000 if kind is Kind.ERROR else source
                said = said_by(orders, IPv6Address(sender << 64 | CLIENT_LOW), target, port)
                known = Known(True, source == KNOWN, is_attacked, said)
                wanted = expected(RECORD, kind, is_fragmented, source, iid, known)
                assert judging.reason(packet) is wanted, (kind, f"{iid:x}")
                seen[wanted] += 1
    wanted_at_least = {Reason.KEPT, Reason.KNOWN, Reason.STALE, Reason.TAIL, Reason.FRAGMENT, Reason.UNJUDGED}
    if orders:
        wanted_at_least |= {Reason.SUSPECT, Reason.ATTACK, Reason.VULNERABILITY, Reason.INJECTED}
        wanted_at_least -= {Reason.KNOWN}
    elif is_attacked:
        wanted_at_least |= {Reason.UNBOUND}
    assert wanted_at_least <= set(seen)


@pytest.mark.parametrize("has_queues", [True, False])
def test_noise_is_sorted_as_the_model_does(judging: Filter, has_queues: bool) -> None:
    judging._tell(has_queues=has_queues)
    random = Random(7)
    for _ in range(300):
        source, iid = random.getrandbits(64), random.getrandbits(64)
        for kind, is_fragmented, _, packet in shapes(source, iid):
            wanted = expected(RECORD, kind, is_fragmented, source, iid, Known(has_queues=has_queues))
            assert judging.reason(packet) is wanted


def test_several_prefixes_are_of_one_service(judging: Filter) -> None:
    networks = [IPv6Network(f"2001:db8:5a:{number:x}::/64") for number in range(1, 17)]
    judging.set_keys(networks[:15], NOW_S, ServiceKeys())
    found = [judging.reason(frame(KNOWN, WRONG, service=service)) for service in networks]
    assert found == [Reason.TAIL] * 15 + [Reason.FOREIGN]
    judging.set_keys(networks, NOW_S, ServiceKeys())
    assert judging.reason(frame(KNOWN, WRONG, service=networks[-1])) is Reason.TAIL


# -- known flows ----------------------------------------------------------------------------------------


def test_a_flow_is_known_when_its_client_acknowledges_what_only_it_was_sent(judging: Filter) -> None:
    iid = right(KNOWN)
    assert judging.reason(frame(KNOWN, iid, tcp(SYN))) is Reason.KEPT
    judging.answer(answer(KNOWN, iid, SYN_ACK, seq=0xFFFF_FFFF))
    assert judging.reason(frame(KNOWN, iid, tcp(ACK, ack=1))) is Reason.LATER, "a guess"
    assert judging.reason(frame(KNOWN, iid, tcp(ACK | RST, ack=0))) is Reason.LATER, "it wants no connection"
    assert judging.reason(frame(STRANGER, iid, tcp(ACK, ack=0))) is Reason.STALE, "somebody else"
    assert judging.reason(frame(KNOWN, iid, tcp(ACK, ack=0))) is Reason.KNOWN
    assert judging.reason(frame(KNOWN, iid, tcp(ACK, ack=99))) is Reason.KNOWN
    assert judging.reason(frame(KNOWN, iid, tcp(SYN))) is Reason.KEPT, "a SYN is always judged"


def test_a_flow_outlives_the_epoch_of_its_address(judging: Filter) -> None:
    iid = right(KNOWN)
    judging.answer(answer(KNOWN, iid, SYN_ACK, seq=5))
    judging.set_keys([SERVICE], NOW_S + 300, ServiceKeys())
    assert judging.reason(frame(KNOWN, iid, tcp(ACK))) is Reason.STALE
    assert judging.reason(frame(KNOWN, iid, tcp(ACK, ack=6))) is Reason.KNOWN
    assert judging.reason(frame(KNOWN, iid, tcp(SYN))) is Reason.LOCATOR


def test_the_service_says_when_a_flow_is_no_more(judging: Filter) -> None:
    iid = right(KNOWN)
    judging.answer(answer(KNOWN, iid, ACK, data=b"x"))
    assert judging.reason(frame(KNOWN, iid, tcp(ACK))) is Reason.KNOWN
    judging.answer(answer(KNOWN, iid, RST))
    assert judging.reason(frame(KNOWN, iid, tcp(ACK))) is Reason.LATER


def test_only_data_proves_anything_and_only_of_the_service(judging: Filter) -> None:
    """An ACK without data is also sent in answer to guesses, while a connection is being opened."""
    iid = right(KNOWN)
    judging.answer(answer(KNOWN, iid, ACK))
    assert judging.reason(frame(KNOWN, iid, tcp(ACK))) is Reason.LATER
    judging.set_keys([IPv6Network("2001:db8:5a:2::/64")], NOW_S, ServiceKeys())
    judging.answer(answer(KNOWN, iid, ACK, data=b"x"))
    judging.set_keys([SERVICE], NOW_S, ServiceKeys())
    assert judging.reason(frame(KNOWN, iid, tcp(ACK))) is Reason.LATER


def test_an_error_is_believed_if_it_quotes_what_came_from_there(judging: Filter) -> None:
    iid = right(KNOWN)
    judging.answer(answer(KNOWN, iid, ACK, data=b"x"))
    assert judging.reason(error_about(KNOWN, iid)) is Reason.KNOWN
    assert judging.reason(error_about(STRANGER, iid)) is Reason.UNJUDGED
    assert judging.reason(error_about(KNOWN, WRONG, quoted_iid=iid)) is Reason.UNJUDGED
    cut = error_about(KNOWN, iid)
    assert judging.reason(cut[: 14 + 40 + 8 + 40 + 3]) is Reason.UNJUDGED


def test_the_table_of_flows_is_bounded(judging: Filter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssastore.filter.header.FLOWS_MAX", 256)
    with Filter(RECORD) as small:
        small.set_keys([SERVICE], NOW_S, ServiceKeys())
        small.sort_for_queues()
        for number in range(3000):
            small.answer(answer(number, WRONG, ACK, data=b"x"))
        known = [small.reason(frame(number, WRONG, tcp(ACK))) is Reason.KNOWN for number in range(3000)]
    assert 0 < sum(known) <= 256 and not any(known[:1000]), "the oldest make room"


# -- orders ---------------------------------------------------------------------------------------------


def test_orders_end_by_themselves(judging: Filter) -> None:
    order = Order("from", IPv6Network("2001:db8:77::/48"))
    judging.order(order, Reason.ATTACK, 600)
    assert judging.reason(frame(KNOWN, right(KNOWN))) is Reason.ATTACK
    judging.order(order, Reason.INJECTED, 0.000001)
    assert judging.reason(frame(KNOWN, right(KNOWN))) is Reason.KEPT
    assert judging.orders() == {} and judging._told.order_count == 0


def test_orders_are_withdrawn(judging: Filter) -> None:
    order = Order("to", SERVICE, SERVICE_PORT)
    judging.order(order, Reason.INJECTED, 600)
    assert judging.reason(frame(KNOWN, right(KNOWN))) is Reason.INJECTED
    assert judging.withdraw(order) and not judging.withdraw(order)
    assert judging.reason(frame(KNOWN, right(KNOWN))) is Reason.KEPT


def test_orders_are_bounded(judging: Filter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssastore.filter.kernel.ORDERS_MAX", 3)
    assert orders_module.ORDERS_MAX > 3
    for number in range(3):
        judging.order(Order("from", IPv6Network((number << 64, 64))), Reason.ATTACK, 600)
    with pytest.raises(EnvironmentProblem, match="there are 3 orders"):
        judging.order(Order("from", IPv6Network("2001:db8::/32")), Reason.ATTACK, 600)
    judging.order(Order("from", IPv6Network("::/64")), Reason.SUSPECT, 600)
