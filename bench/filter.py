"""What the filter takes for a packet, by rule: ``python -m bench.filter``, as root.

The kernel runs the program a million times on one core (BPF_PROG_TEST_RUN); the driver's part is not in it.
"""

from __future__ import annotations

from ipaddress import IPv6Network
from struct import pack

from ssastore.filter.kernel import Filter
from ssastore.rules.address import address_under
from ssastore.rules.hashes import ClientKeys, ServiceKeys, token_of
from ssastore.rules.record import record_from_text

_SERVICE = IPv6Network("2001:db8:5a:1::/64")
_SECRET = bytes(range(16))
_REPEAT = 1_000_000
_FRONTS = (
    "random",
    "source",
    "source; choices=4",
    "source; hop=30",
    "keyed; hop=30",
    "source; pow=16",
    "match",
)
_SOURCE = 0x20010DB800770008


def syn(iid: int) -> bytes:
    """An Ethernet frame with a SYN to an IID of the service."""
    tcp = pack(">HHIIBBHHH", 1234, 7480, 0, 0, 0x50, 0x02, 1000, 0, 0)
    addresses = pack(">QQ", _SOURCE, 9) + _SERVICE.network_address.packed[:8] + pack(">Q", iid)
    return b"\2" * 12 + b"\x86\xdd" + pack(">IHBB", 0x60000000, len(tcp), 6, 64) + addresses + tcp


def main() -> None:
    """See the module's docstring."""
    print(f"{'front=':24}{'kept, ns':>10}{'broken, ns':>12}{'broken a second':>18}")
    for front in _FRONTS:
        record = record_from_text(f"v=SSA1; front={front}")
        keys = ServiceKeys(secrets=(_SECRET,))
        client = ClientKeys(token=token_of(_SECRET, _SOURCE))
        good = address_under(record.front, 15, _SOURCE, free=1, epoch=1, keys=client)
        with Filter(record) as judging:
            judging.set_keys([_SERVICE], record.front.hop_s, keys)
            kept = judging.nanoseconds(syn(good), _REPEAT)
            broken = judging.nanoseconds(syn(good ^ 1 << 40 ^ 1), _REPEAT)
        print(f"{front:24}{kept:10}{broken:12}{1e9 / max(1, broken):18,.0f}")


if __name__ == "__main__":
    main()
