"""Orders: what somebody who watches has found, and the filter cannot see by itself.  They end by themselves.

An order names packets by a prefix of their source or of their target, and a port if it is for one only.
The program asks a trie for each of the four (source or target, any port or this one) and takes the longest
prefix of each; a reason to reject goes before SUSPECT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from struct import Struct
from typing import Any

from ssastore.errors import ConfigError
from ssastore.filter.classes import Reason

ORDERS_MAX = 4096
"Each takes some 100 bytes of the kernel, and a moment when all are looked through."
ORDER_S_MAX = 86_400
"An attack that is longer is worth a second order; one that nobody remembers is not."
REASONS = (Reason.SUSPECT, Reason.ATTACK, Reason.VULNERABILITY, Reason.INJECTED)
_SIDES = ("from", "to")

_KEY = Struct("=IBx2s16s")
_BEFORE_ADDRESS_BITS = 32
KEY_BYTES = _KEY.size
_VALUE = Struct("=QI4x")
VALUE_BYTES = _VALUE.size


@dataclass(frozen=True, slots=True)
class Order:
    """Which packets: those ``side`` ("from", "to") a prefix, and to ``port`` unless it is 0."""

    side: str
    prefix: IPv6Network
    port: int = 0

    def __post_init__(self) -> None:
        if self.side not in _SIDES:
            raise ConfigError(f"an order is for packets from or to a prefix, not {self.side!r}")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"a port is 1 to 65535, got {self.port}")

    @property
    def key(self) -> bytes:
        """The trie's key."""
        bits, side = _BEFORE_ADDRESS_BITS + self.prefix.prefixlen, _SIDES.index(self.side)
        return _KEY.pack(bits, side, self.port.to_bytes(2, "big"), self.prefix.network_address.packed)

    def covers(self, source: IPv6Address, target: IPv6Address, port: int) -> bool:
        """Whether it is for a packet; ``port`` 0: the packet names none."""
        return (source if self.side == "from" else target) in self.prefix and self.port in (0, port)

    def __str__(self) -> str:
        return f"{self.side} {self.prefix}" + (f" port {self.port}" if self.port else "")


def order_of_key(key: bytes) -> Order:
    """The order that a key of the trie stands for."""
    bits, side, port, address = _KEY.unpack(key)
    prefix = IPv6Network((address, bits - _BEFORE_ADDRESS_BITS))
    return Order(_SIDES[side], prefix, int.from_bytes(port, "big"))


def value_of(reason: Reason, until_ns: int, numbers: tuple[str, ...]) -> bytes:
    """The trie's value: when it ends, in ns since boot, and the reason's place in ``numbers``."""
    return _VALUE.pack(until_ns, numbers.index(reason))


def read_value(value: bytes, numbers: tuple[str, ...]) -> tuple[Reason, int]:
    """Reason and end of a value."""
    until_ns, number = _VALUE.unpack(value)
    return Reason(numbers[number]), until_ns


def said_by(
    orders: Mapping[Order, Reason], source: IPv6Address, target: IPv6Address, port: int
) -> Reason | None:
    """What orders say of a packet, as the program finds it."""
    found = None
    for asked_port in dict.fromkeys((0, port)):
        for side in _SIDES:
            fitting = [
                order
                for order in orders
                if (order.side, order.port) == (side, asked_port) and order.covers(source, target, port)
            ]
            if fitting:
                said = orders[max(fitting, key=lambda order: order.prefix.prefixlen)]
                if said is not Reason.SUSPECT:
                    return said
                found = said
    return found


def order_from(fields: Mapping[str, Any]) -> Order:
    """An order as it is sent to a running filter. Raises ConfigError: it is none."""
    try:
        prefix = IPv6Network(str(fields["prefix"]))
    except (KeyError, ValueError) as error:
        raise ConfigError(f"not an IPv6 prefix: {error}") from None
    port = fields.get("port", 0)
    if not isinstance(port, int):
        raise ConfigError(f"a port is a number, got {port!r}")
    return Order(str(fields.get("side", "from")), prefix, port)
