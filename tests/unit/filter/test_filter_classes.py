"""Classes, orders and queues, without a kernel."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from itertools import product
from struct import pack

import pytest

from ssastore.errors import ConfigError
from ssastore.filter.classes import CLASS_OF, Kind, Known, Packet, PacketClass, Reason, reason_of
from ssastore.filter.header import REASONS, Told, header
from ssastore.filter.orders import KEY_BYTES, Order, order_from, order_of_key, read_value, said_by, value_of
from ssastore.filter.queues import Paces, commands
from ssastore.rules.hashes import ServiceKeys
from ssastore.rules.record import ServiceRecord
from ssastore.rules.verdict import Verdict

KEEPS = Packet(Kind.SEGMENT, Verdict.KEPT)
BREAKS = Packet(Kind.SEGMENT, Verdict.TAIL)


@pytest.mark.parametrize(
    ("packet", "known", "reason", "kept_apart"),
    [
        (Packet(Kind.OPENING, Verdict.KEPT), Known(), "kept", PacketClass.ASSUMED_GOOD),
        (Packet(Kind.OPENING, Verdict.LOCATOR), Known(), "locator", PacketClass.REJECT),
        (Packet(Kind.OPENING, Verdict.OPEN, is_unbound=True), Known(), "open", PacketClass.ASSUMED_GOOD),
        (
            Packet(Kind.OPENING, Verdict.OPEN, is_unbound=True),
            Known(is_attacked=True),
            "unbound",
            PacketClass.POSSIBLY_BAD,
        ),
        (Packet(Kind.OPENING, Verdict.OPEN), Known(is_attacked=True), "open", PacketClass.ASSUMED_GOOD),
        (KEEPS, Known(), "later", PacketClass.ASSUMED_GOOD),
        (BREAKS, Known(), "stale", PacketClass.POSSIBLY_BAD),
        (BREAKS, Known(is_flow_known=True), "known", PacketClass.KNOWN_GOOD),
        (BREAKS, Known(has_queues=False), "later", PacketClass.ASSUMED_GOOD),
        (BREAKS, Known(is_flow_known=True, order=Reason.SUSPECT), "suspect", PacketClass.POSSIBLY_BAD),
        (BREAKS, Known(is_flow_known=True, order=Reason.ATTACK), "attack", PacketClass.REJECT),
        (Packet(Kind.REST), Known(), "fragment", PacketClass.POSSIBLY_BAD),
        (
            Packet(Kind.OPENING, Verdict.KEPT, is_fragmented=True),
            Known(),
            "fragment",
            PacketClass.POSSIBLY_BAD,
        ),
        (Packet(Kind.OPENING, Verdict.TAIL, is_fragmented=True), Known(), "tail", PacketClass.REJECT),
        (Packet(Kind.OPENING, Verdict.TAIL), Known(order=Reason.SUSPECT), "tail", PacketClass.REJECT),
        (Packet(Kind.ERROR), Known(order=Reason.INJECTED), "unjudged", PacketClass.POSSIBLY_BAD),
        (Packet(Kind.ERROR), Known(is_flow_known=True), "known", PacketClass.KNOWN_GOOD),
        (Packet(Kind.ECHO), Known(), "unjudged", PacketClass.POSSIBLY_BAD),
        (Packet(Kind.ECHO), Known(order=Reason.VULNERABILITY), "vulnerability", PacketClass.REJECT),
        (Packet(Kind.BROKEN), Known(), "malformed", PacketClass.REJECT),
    ],
)
def test_what_class_a_packet_is_of(
    packet: Packet, known: Known, reason: str, kept_apart: PacketClass
) -> None:
    assert reason_of(packet, known) == reason
    assert CLASS_OF[Reason(reason)] is kept_apart


def test_what_is_not_of_the_service_has_no_class() -> None:
    for order in (None, Reason.INJECTED):
        assert reason_of(Packet(Kind.PASSING), Known(order=order)) is Reason.FOREIGN
    assert set(CLASS_OF) == set(Reason) - {Reason.FOREIGN}


def test_errors_are_never_rejected() -> None:
    """Without Packet Too Big a connection hangs for ever, whatever is known or ordered."""
    orders = (None, Reason.SUSPECT, Reason.ATTACK, Reason.VULNERABILITY, Reason.INJECTED)
    for queues, flow, attack, order in product((True, False), (True, False), (True, False), orders):
        known = Known(queues, flow and queues, attack, order)
        assert CLASS_OF[reason_of(Packet(Kind.ERROR), known)] is not PacketClass.REJECT


def test_verdicts_are_the_first_reasons() -> None:
    """The program's numbers are places in this list."""
    assert REASONS[: len(Verdict)] == tuple(Verdict)


def test_what_the_program_is_told() -> None:
    """The layout of the map's value, and that every constant of the program is defined."""
    service = IPv6Network("2001:db8:5a:1::/64")
    keys = ServiceKeys((b"p" * 16,), (b"s" * 16, b"t" * 16))
    value = Told((service,), keys, 5, is_monitor=True, order_count=3).packed()
    assert len(value) == 128 + 8 + 32 + 64
    assert value[:8] == service.network_address.packed[:8] and not any(value[8:128])
    assert value[128:168] == pack("=Q8I", 5, 1, 1, 2, 1, 0, 0, 3, 0)
    assert value[168:200] == b"p" * 16 + bytes(16) and value[200:] == b"s" * 16 + b"t" * 16
    defined = {line.split()[1] for line in header(ServiceRecord()).splitlines()}
    assert {"REPLICAS", "DATA_TAIL", "FRONT_LOCATOR", "CHOICES", "WORK_BITS", "HOP_S", "KEYED"} <= defined


def network(text: str) -> IPv6Network:
    return IPv6Network(text)


CLIENTS, ONE = network("2001:db8:77::/48"), network("2001:db8:77:8::9/128")
SERVICE = network("2001:db8:5a:1::/64")


@pytest.mark.parametrize(
    "order",
    [
        Order("from", CLIENTS),
        Order("to", SERVICE, 7480),
        Order("from", ONE, 65535),
        Order("to", network("::/0")),
    ],
)
def test_an_order_is_read_from_its_key(order: Order) -> None:
    assert len(order.key) == KEY_BYTES
    assert order_of_key(order.key) == order
    asked = {"side": order.side, "prefix": str(order.prefix), "port": order.port}
    assert order_from(asked) == order


def test_values_of_orders() -> None:
    assert read_value(value_of(Reason.ATTACK, 12, REASONS), REASONS) == (Reason.ATTACK, 12)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({}, "not an IPv6 prefix"),
        ({"prefix": "10.0.0.0/8"}, "not an IPv6 prefix"),
        ({"prefix": "2001:db8::1/64"}, "host bits"),
        ({"prefix": "::/0", "port": 65536}, "a port is"),
        ({"prefix": "::/0", "port": "80"}, "a port is a number"),
        ({"prefix": "::/0", "side": "via"}, "from or to"),
    ],
)
def test_what_is_no_order(asked: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        order_from(asked)


def test_the_longest_prefix_speaks_and_rejecting_goes_first() -> None:
    source, target = IPv6Address("2001:db8:77:8::9"), IPv6Address("2001:db8:5a:1::5")
    orders = {Order("from", CLIENTS): Reason.ATTACK, Order("from", ONE): Reason.SUSPECT}
    assert said_by(orders, source, target, 80) is Reason.SUSPECT
    assert said_by(orders, IPv6Address("2001:db8:77::1"), target, 80) is Reason.ATTACK
    assert said_by(orders, IPv6Address("2001:db8:78::1"), target, 80) is None
    orders[Order("to", SERVICE, 80)] = Reason.VULNERABILITY
    assert said_by(orders, source, target, 80) is Reason.VULNERABILITY
    assert said_by(orders, source, target, 81) is Reason.SUSPECT
    assert said_by(orders, source, target, 0) is Reason.SUSPECT, "what names no port is to none"


def test_queues() -> None:
    """The pace is one in SYNs: each counts as 128 bytes, and a queue is as long as a SYN is worth waiting."""
    lines = commands("eth1", Paces(2000, 200))
    assert lines[0] == "qdisc add dev eth1 root handle 55a: htb default 0"
    assert "classid 55a:2 htb rate 2048000 ceil 2048000 mpu 128 burst 512" in lines[3]
    assert lines[4] == "qdisc add dev eth1 parent 55a:2 handle 55c: pfifo limit 200"
    assert "classid 55a:3 htb rate 204800" in lines[5] and lines[6].endswith("pfifo limit 100")
    with pytest.raises(ConfigError, match="a pace is"):
        Paces(0, 10)
