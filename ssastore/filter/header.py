"""What the program is told: constants of the rule when it is compiled, keys and clock while it runs."""

from __future__ import annotations

from ipaddress import IPv6Network
from struct import Struct

from ssastore.rules.hashes import KEY_BYTES, ServiceKeys
from ssastore.rules.record import ServiceRecord
from ssastore.rules.rule import Binding
from ssastore.rules.verdict import Verdict

_NUMBERS = {binding: number for number, binding in enumerate(Binding)}
KEYS_IN_USE_MAX = 2

COUNTERS = (
    *(str(verdict) for verdict in Verdict),
    "foreign",
    "later",
    "unjudged",
    "malformed",
)
"""In the program's order: the verdicts on opening packets, then what is not of the service, what belongs to
an open connection, what passes unjudged (ICMPv6, fragments), and what has headers that nobody needs."""

_KEYS = Struct("=8sQII64s II")


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
    }
    return "".join(f"#define {name} {value}\n" for name, value in constants.items())


def keys_value(service: IPv6Network, offset_us: int, keys: ServiceKeys, *, is_monitor: bool) -> bytes:
    """The map's value: prefix, clock, keys in use, and whether packets are judged only.

    ``offset_us`` is Unix time less the time since boot, in microseconds.
    """
    assert max(len(keys.public), len(keys.secrets)) <= KEYS_IN_USE_MAX
    slots = b"".join(
        b"".join(known).ljust(KEYS_IN_USE_MAX * KEY_BYTES, b"\0") for known in (keys.public, keys.secrets)
    )
    prefix, clock = service.network_address.packed[:8], offset_us & (1 << 64) - 1
    return _KEYS.pack(prefix, clock, len(keys.public), len(keys.secrets), slots, is_monitor, 0)
