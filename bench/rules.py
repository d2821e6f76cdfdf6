"""What rules cost a client and a gateway, and how evenly they spread clients: ``python -m bench.rules``.

An address is computed once for a connection, and checked once where it is accepted.  What the filter in the
kernel takes for a packet is ``python -m bench.filter``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean

from ssastore.core.front import FrontRecord, GateRecord, planned
from ssastore.keyspace import FRONT_PLANE
from ssastore.rules.address import address_under
from ssastore.rules.hashes import ClientKeys, ServiceKeys, token_of
from ssastore.rules.rule import Rule, rule_from_text
from ssastore.rules.verdict import Verdict, check

_SECRET = bytes(range(16))
_FIRST = 0x20010DB8_00000000
"The clients' /64s are those that follow."
_RULES = ("random", "source", "source+choices:4", "source+hop:5", "keyed+hop:5", "match")
_WORK = (4, 8, 12, 16)
_SPREAD = 10_000
_GATEWAYS = 4


def _iid(rule: Rule, source: int, draw: int) -> int:
    free = draw * 0x9E3779B97F4A7C15 % 2**64
    keys = ClientKeys(token=token_of(_SECRET, source))
    return address_under(rule, FRONT_PLANE, source, free=free, epoch=1, keys=keys)


def _microseconds(work: Callable[[int], object], count: int) -> float:
    started = time.process_time()
    for number in range(count):
        work(number)
    return (time.process_time() - started) / count * 1e6


def costs(rule: Rule, count: int) -> tuple[float, float]:
    """CPU time in microseconds to compute an address, and to check one; means over so many clients."""
    keys = ServiceKeys(secrets=(_SECRET,))
    made = _microseconds(lambda number: _iid(rule, _FIRST + number, number), count)
    iid = _iid(rule, _FIRST, 1)
    assert check(rule, _FIRST, iid, epoch=1, keys=keys) in (Verdict.KEPT, Verdict.OPEN)
    checked = _microseconds(lambda number: check(rule, _FIRST, iid, epoch=1, keys=keys), 2000)
    return made, checked


def spread(rule: Rule) -> dict[str, int]:
    """How many of the clients each gateway gets."""
    names = [f"gw{number}" for number in range(1, _GATEWAYS + 1)]
    record = planned(FrontRecord(), [GateRecord(name, f"fd00::{at + 1}") for at, name in enumerate(names)])
    pieces = [(piece, name) for name in names for piece in record.slices_of(name)]
    counts = dict.fromkeys(names, 0)
    for number in range(_SPREAD):
        iid = _iid(rule, _FIRST + number, number)
        counts[next(name for piece, name in pieces if iid in piece)] += 1
    return counts


def main() -> None:
    """See the module's docstring."""
    print(f"{'front=':20}{'address, us':>14}{'check, us':>12}   {_SPREAD} clients at {_GATEWAYS} gateways")
    for text in _RULES:
        rule = rule_from_text(text)
        made, checked = costs(rule, 2000)
        counts = spread(rule).values()
        worst = max(abs(count / fmean(counts) - 1) for count in counts)
        print(
            f"{text:20}{made:14.1f}{checked:12.1f}   {min(counts)} to {max(counts)}, {100 * worst:.1f} % off"
        )
    for bits in _WORK:
        rule = rule_from_text(f"pow:{bits}")
        made, checked = costs(rule, max(48, 20_000 >> bits))
        print(f"{rule!s:20}{made:14.1f}{checked:12.1f}   some {1 << bits} hashes an address")


if __name__ == "__main__":
    main()
