"""What the program is told: constants when it is compiled; keys, prefixes and clock while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv6Network
from struct import Struct

from ssastore.filter.classes import Reason
from ssastore.filter.orders import ORDERS_MAX
from ssastore.rules.hashes import KEY_BYTES, ServiceKeys
from ssastore.rules.record import PREFIXES_MAX, ServiceRecord
from ssastore.rules.rule import Binding

_NUMBERS = {binding: number for number, binding in enumerate(Binding)}
KEYS_IN_USE_MAX = 2
FLOWS_MAX = 262_144
"Known flows; the one that was seen longest ago makes room. Some 30 MB of the kernel."
FLOW_IDLE_S = 3600
"A connection that is silent for longer is judged again; it still passes."
OPENINGS_MAX = 65_536
"At 2,000 a second each has half a minute, and a client answers in one round trip."
OPENING_S = 75
"Linux gives up a handshake after 63 s."

QDISC = 0x55A
"The queues' major number: a class is named 55a:1, 55a:2, 55a:3."

REASONS = tuple(str(reason) for reason in Reason)
COUNTERS = (*REASONS, "unmarked")
"""In the program's order; ``unmarked``: a driver leaves no room for the class, so a packet is not queued."""

_TOLD = Struct(f"={8 * PREFIXES_MAX}sQ8I64s")


def header(record: ServiceRecord) -> str:
    """``rule.h`` for a record."""
    hashed = record.front if record.front.is_hashed else record.data
    constants = {
        **{str(binding).upper(): number for binding, number in _NUMBERS.items()},
        "REPLICAS": record.replicas,
        "DATA_TAIL": _NUMBERS[record.data.tail],
        "FRONT_LOCATOR": _NUMBERS[record.front.locator],
        "FRONT_TAIL": _NUMBERS[record.front.tail],
        "CHOICES": record.front.choices,
        "WORK_BITS": hashed.work_bits,
        "HOP_S": hashed.hop_s,
        "PREFIXES_MAX": PREFIXES_MAX,
        "FLOWS_MAX": FLOWS_MAX,
        "FLOW_IDLE_S": FLOW_IDLE_S,
        "OPENINGS_MAX": OPENINGS_MAX,
        "OPENING_S": OPENING_S,
        "ORDERS_MAX": ORDERS_MAX,
        "QDISC": QDISC,
    }
    return "".join(f"#define {name} {value}\n" for name, value in constants.items())


@dataclass(frozen=True, slots=True)
class Told:
    """What a running program judges by.

    ``offset_us`` is Unix time less the time since boot, in microseconds.  ``is_monitor``: all passes, and is
    counted.  ``order_count``: no packet is looked up in a trie that is empty.
    """

    services: tuple[IPv6Network, ...] = ()
    keys: ServiceKeys = field(default_factory=ServiceKeys)
    offset_us: int = 0
    is_monitor: bool = False
    has_queues: bool = False
    is_attacked: bool = False
    order_count: int = 0

    def packed(self) -> bytes:
        """The map's value (``struct told``)."""
        keys = self.keys
        assert max(len(keys.public), len(keys.secrets)) <= KEYS_IN_USE_MAX
        assert len(self.services) <= PREFIXES_MAX
        slots = b"".join(
            b"".join(known).ljust(KEYS_IN_USE_MAX * KEY_BYTES, b"\0") for known in (keys.public, keys.secrets)
        )
        prefixes = b"".join(service.network_address.packed[:8] for service in self.services)
        counts = len(self.services), len(keys.public), len(keys.secrets)
        claims = self.is_monitor, self.has_queues, self.is_attacked
        clock = self.offset_us & (1 << 64) - 1
        return _TOLD.pack(prefixes, clock, *counts, *claims, self.order_count, 0, slots)
