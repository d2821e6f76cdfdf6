"""What the filter takes and what it is good for: ``python -m bench.filter [cost] [speed] [floods]``, as root.

cost    ns for a packet, by rule: the kernel runs the program a million times on one core
        (BPF_PROG_TEST_RUN); the driver's part is not in it
speed   packets that one core rejects in XDP at a veth, beside the generator's own limit
floods  latency of good traffic, quiet and under floods of ten times the pace, with the filter and without it
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from bench.filterfloods import RECORD, Floods, filtering, floods, running
from bench.filterlab import OUTSIDE, SERVICE, inside, row
from bench.packets import ACK, answer, frame, tcp
from ssastore.filter.kernel import Filter
from ssastore.rules.address import address_under
from ssastore.rules.hashes import ClientKeys, ServiceKeys, token_of
from ssastore.rules.record import record_from_text

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
_FRAMES = 5_000_000
_PACE = 2000
_FACTOR = 10
_ROUNDS = 3
_ROUND_S = 5.0


def print_cost() -> None:
    """What the program takes for a packet, by rule and by class."""
    print(f"\n{'ns for a packet, front=':24}{'kept':>10}{'broken':>12}{'known':>10}{'broken a second':>18}")
    for front in _FRONTS:
        record = record_from_text(f"v=SSA1; front={front}")
        keys = ServiceKeys(secrets=(_SECRET,))
        client = ClientKeys(token=token_of(_SECRET, _SOURCE))
        good = address_under(record.front, 15, _SOURCE, free=1, epoch=1, keys=client)
        with Filter(record) as judging:
            judging.set_keys([SERVICE], record.front.hop_s, keys)
            kept = judging.nanoseconds(frame(_SOURCE, good), _REPEAT)
            broken = judging.nanoseconds(frame(_SOURCE, good ^ 1 << 40 ^ 1), _REPEAT)
            judging.sort_for_queues()
            judging.answer(answer(_SOURCE, good, ACK, data=b"x"))
            known = judging.nanoseconds(frame(_SOURCE, good, tcp(ACK)), _REPEAT)
        print(f"{front:24}{kept:10}{broken:12}{known:10}{1e9 / max(1, broken):18,.0f}")


def print_speed() -> None:
    """Packets a second through XDP at a veth, on one core with what makes them."""
    wrong = frame(_SOURCE, 0x1000_0000_0000_0001).hex()
    with row() as hosts:

        def per_second() -> float:
            command = ["-m", "bench.filterspeed", "flood", "c0", wrong, str(_FRAMES)]
            told = subprocess.run(
                inside(hosts.outside, sys.executable, *command), check=True, capture_output=True, text=True
            )
            return _FRAMES / float(json.loads(told.stdout)["seconds"])

        dropping = inside(hosts.filter, sys.executable, "-m", "bench.filterspeed", "drop", OUTSIDE)
        with running(dropping, "dropping"):
            limit = max(per_second() for _ in range(_ROUNDS))
        with filtering(hosts, RECORD, _PACE):
            rejected = max(per_second() for _ in range(_ROUNDS))
    print("\nwrong-rule packets a second at a veth, generator (in the kernel) and XDP together on one core")
    print(f"{'rejected by the filter':40}{rejected:14,.0f}")
    print(f"{'generator and two instructions':40}{limit:14,.0f}")


def print_floods() -> None:
    """Good traffic beside floods."""
    print(f"\npace {_PACE} a second, floods {_FACTOR * _PACE}; {_ROUNDS} rounds of {_ROUND_S:g} s, medians")
    head = ("known p50 us", "p99 us", "x quiet", "failed", "new answered", "held", "flood /s", "its cores")
    print(f"{'':24}" + "".join(f"{name:>13}" for name in head))
    with floods() as lab:
        for name, is_filtered in (("with the filter", True), ("without", False)):
            found: dict[str | None, list[dict[str, Any]]] = {}
            for _ in range(_ROUNDS):
                for kind in (None, "wrong", "forged", "slow"):
                    found.setdefault(kind, []).append(_measured(lab, kind, is_filtered))
            quiet = _median(found[None], "known", "p99_us")
            for kind, rounds in found.items():
                print(_line(f"{name}, {kind or 'quiet'}", rounds, quiet), flush=True)


def _measured(lab: Floods, kind: str | None, is_filtered: bool) -> dict[str, Any]:
    if not is_filtered:
        return lab.measure(kind, _FACTOR * _PACE, _ROUND_S)
    with filtering(lab.hosts, RECORD, _PACE):
        return lab.measure(kind, _FACTOR * _PACE, _ROUND_S)


def _median(rounds: list[dict[str, Any]], what: str, figure: str) -> float:
    return statistics.median(float(found[what][figure]) for found in rounds)


def _line(name: str, rounds: list[dict[str, Any]], quiet_us: float) -> str:
    p99 = _median(rounds, "known", "p99_us")
    failed = sum(found["known"]["failed"] for found in rounds)
    tried, answered = (sum(found["new"][figure] for found in rounds) for figure in ("tried", "answered"))
    told = [f"{_median(rounds, 'known', 'p50_us'):.0f}", f"{p99:.0f}", f"{p99 / quiet_us:.2f}", f"{failed}"]
    told.append(f"{answered} of {tried}")
    if "flood" in rounds[0]:
        told += [
            f"{_median(rounds, 'flood', 'held'):,.0f}",
            f"{_median(rounds, 'flood', 'per_s'):,.0f}",
            f"{_median(rounds, 'flood', 'cores'):.2f}",
        ]
    return f"{name:24}" + "".join(f"{part:>13}" for part in told)


_PARTS = {"cost": print_cost, "speed": print_speed, "floods": print_floods}


def main() -> None:
    """See the module's docstring."""
    wanted = sys.argv[1:] or list(_PARTS)
    if unknown := set(wanted) - set(_PARTS):
        raise SystemExit(f"no such part: {', '.join(sorted(unknown))}; known are {', '.join(_PARTS)}")
    for part in wanted:
        _PARTS[part]()


if __name__ == "__main__":
    main()
