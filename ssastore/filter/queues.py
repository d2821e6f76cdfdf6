"""Queues behind the filter: HTB where packets leave for the service, one queue for each class that passes.

Known good goes first and is not held back.  Assumed good is paced to what the service can take in new
connections, possibly bad to less, when nobody better waits.  HTB counts bytes; with ``mpu`` whatever is
smaller counts as a whole SYN, so a rate in bytes is one in SYNs.  What has no class passes beside the queues.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ssastore.errors import ConfigError
from ssastore.filter.bpf import FilterRefused
from ssastore.filter.classes import PacketClass
from ssastore.filter.header import QDISC
from ssastore.filter.tools import run

SYN_BYTES = 128
"More than a SYN has with its link header and all options (94), so that each counts the same."
_KNOWN = "rate 100gbit ceil 100gbit burst 10mb cburst 10mb"
"More than the link."
_HELD_MS = {PacketClass.ASSUMED_GOOD: 100, PacketClass.POSSIBLY_BAD: 500}
"How long a queue may hold a packet: a SYN that waits for longer is sent again by its client (RFC 6298: 1 s)."
_SLOTS_MIN = 16
_KNOWN_SLOTS = 10_000

_NUMBERS = {PacketClass.KNOWN_GOOD: 1, PacketClass.ASSUMED_GOOD: 2, PacketClass.POSSIBLY_BAD: 3}


@dataclass(frozen=True, slots=True)
class Paces:
    """SYNs a second that are let through to the service: of the assumed good, of the possibly bad."""

    assumed_per_s: int = 2000
    suspect_per_s: int = 200

    def __post_init__(self) -> None:
        for rate in (self.assumed_per_s, self.suspect_per_s):
            if not 10 <= rate <= 10_000_000:
                raise ConfigError(f"a pace is 10 to 10,000,000 a second, got {rate}")


def commands(interface: str, paces: Paces) -> list[str]:
    """What tc(8) is told, a line for each."""
    told = [f"qdisc add dev {interface} root handle {QDISC:x}: htb default 0"]
    for name, number in _NUMBERS.items():
        pace = _pace_of(name, paces)
        rate = pace * SYN_BYTES * 8
        # Four SYNs at once at most.
        paced = f"rate {rate} ceil {rate} mpu {SYN_BYTES} burst {4 * SYN_BYTES} cburst {4 * SYN_BYTES}"
        slots = max(_SLOTS_MIN, pace * _HELD_MS[name] // 1000) if pace else _KNOWN_SLOTS
        at = f"dev {interface} parent {QDISC:x}:"
        # The quantum, which must be told for such rates, only matters between equals.
        order = f"prio {number} quantum 10000"
        told.append(f"class add {at} classid {QDISC:x}:{number} htb {paced if pace else _KNOWN} {order}")
        told.append(f"qdisc add {at}{number} handle {QDISC + number:x}: pfifo limit {slots}")
    return told


def _pace_of(name: PacketClass, paces: Paces) -> int:
    """SYNs a second; 0: not paced."""
    of_class = {PacketClass.ASSUMED_GOOD: paces.assumed_per_s, PacketClass.POSSIBLY_BAD: paces.suspect_per_s}
    return of_class.get(name, 0)


def set_queues(interface: str, paces: Paces) -> None:
    """Put the queues at an interface.

    Raises:
        FilterRefused: it has queues that somebody else chose, or tc(8) failed.
    """
    root = _root(interface)
    if root not in (None, f"{QDISC:x}:"):
        raise FilterRefused(f"{interface} has queues of its own (qdisc {root}): delete them first")
    # Those of a filter that was killed; without it they hold nothing back.
    remove_queues(interface)
    for line in commands(interface, paces):
        run("tc", *line.split())


def remove_queues(interface: str) -> None:
    """Take ours away, if they are there."""
    if _root(interface) == f"{QDISC:x}:":
        run("tc", "qdisc", "delete", "dev", interface, "root")


def counts(interface: str) -> dict[str, int]:
    """Packets by class since the queues were set: sent, and dropped for want of room."""
    by_handle = {entry["handle"]: entry for entry in _shown(interface)}
    found = {}
    for name, number in _NUMBERS.items():
        entry = by_handle.get(f"{QDISC + number:x}:", {"packets": 0, "drops": 0})
        found[f"{name}, sent"] = int(entry["packets"])
        found[f"{name}, dropped"] = int(entry["drops"])
    return found


def _root(interface: str) -> str | None:
    """The handle of the root qdisc, None for the kernel's default."""
    handles = [entry["handle"] for entry in _shown(interface) if entry.get("root")]
    return next((handle for handle in handles if handle != "0:"), None)


def _shown(interface: str) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = json.loads(run("tc", "-s", "-j", "qdisc", "show", "dev", interface) or "[]")
    return shown
