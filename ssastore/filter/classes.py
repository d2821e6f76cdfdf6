"""Which class a packet belongs to, and why: what the program in the kernel does, as a function.

Each packet has one reason, and each reason is of one class; packets are counted by reason.  Nothing here
knows bytes: whoever asks says what the headers are (``Packet``) and what is known besides (``Known``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from ssastore.rules.verdict import Verdict


class PacketClass(StrEnum):
    """What becomes of a packet, the best first."""

    KNOWN_GOOD = "known good"
    "Its client has proved its address in this flow."
    ASSUMED_GOOD = "assumed good"
    "It keeps the rule, and nothing more is known of it."
    POSSIBLY_BAD = "possibly bad"
    "It may pass where nobody better waits."
    REJECT = "reject"


class Reason(StrEnum):
    """Why: the counters. The first six are the verdicts on opening packets (``verdict.Verdict``)."""

    KEPT = "kept"
    OPEN = "open"
    RESERVED = "reserved"
    PLANE = "plane"
    LOCATOR = "locator"
    TAIL = "tail"
    FOREIGN = "foreign"
    "Not to the service: of no class."
    KNOWN = "known"
    "Of a known flow, or an error that quotes a packet of one."
    LATER = "later"
    "TCP that opens nothing, of no known flow, to an address that keeps the rule."
    STALE = "stale"
    "The same to an address that does not keep it, as one of a former epoch."
    FRAGMENT = "fragment"
    UNJUDGED = "unjudged"
    "ICMPv6: echo, and errors that quote no known flow."
    MALFORMED = "malformed"
    "Headers that nobody needs."
    UNBOUND = "unbound"
    "To the part of the front plane for clients that know no rule, while there is an attack."
    SUSPECT = "suspect"
    "An order says that it is possibly bad."
    ATTACK = "attack"
    "An order says that it is part of a detected attack."
    VULNERABILITY = "vulnerability"
    "An order says that it aims at a known vulnerability."
    INJECTED = "injected"
    "An order says so, for a reason of its own."


CLASS_OF = {
    **dict.fromkeys((Reason.KNOWN,), PacketClass.KNOWN_GOOD),
    **dict.fromkeys((Reason.KEPT, Reason.OPEN, Reason.LATER), PacketClass.ASSUMED_GOOD),
    **dict.fromkeys(
        (Reason.STALE, Reason.FRAGMENT, Reason.UNJUDGED, Reason.UNBOUND, Reason.SUSPECT),
        PacketClass.POSSIBLY_BAD,
    ),
    **dict.fromkeys((Reason.RESERVED, Reason.PLANE, Reason.LOCATOR, Reason.TAIL), PacketClass.REJECT),
    **dict.fromkeys(
        (Reason.MALFORMED, Reason.ATTACK, Reason.VULNERABILITY, Reason.INJECTED), PacketClass.REJECT
    ),
}
"""All reasons but FOREIGN."""


class Kind(Enum):
    """What the headers say; the numbers are the program's."""

    OPENING = 0
    "TCP with SYN and without ACK; UDP."
    SEGMENT = 1
    "Other TCP."
    REST = 2
    "A fragment that is not the first."
    ERROR = 3
    "An ICMPv6 error (type below 128)."
    ECHO = 4
    "Other ICMPv6."
    PASSING = 5
    "Nothing of the service's."
    BROKEN = 6
    "A routing header, too many headers, cut off."


@dataclass(frozen=True, slots=True)
class Packet:
    """What can be seen of a packet.

    ``verdict`` is that on its addresses (``ServiceRecord.check`` without a name), None where no rule is
    asked.
    """

    kind: Kind
    verdict: Verdict | None = None
    is_unbound: bool = False
    "To the part of the front plane for clients that know no rule."
    is_fragmented: bool = False
    "A first fragment, or one that is all of it."


@dataclass(frozen=True, slots=True)
class Known:
    """What is known besides."""

    has_queues: bool = True
    is_flow_known: bool = False
    "For an error: the flow that it quotes. Always False without queues."
    is_attacked: bool = False
    order: Reason | None = None
    "What an order says: SUSPECT, ATTACK, VULNERABILITY or INJECTED."


def reason_of(packet: Packet, known: Known) -> Reason:
    """Why a packet is in its class, ``CLASS_OF[reason]``."""
    if packet.kind is Kind.PASSING:
        return Reason.FOREIGN
    if packet.kind is Kind.BROKEN:
        return Reason.MALFORMED
    # Errors are never rejected: without Packet Too Big a connection hangs for ever.
    order = None if packet.kind is Kind.ERROR else known.order
    if order is not None and CLASS_OF[order] is PacketClass.REJECT:
        return order
    reason = _by_rule(packet, known)
    return reason if order is None or CLASS_OF[reason] is PacketClass.REJECT else order


def _by_rule(packet: Packet, known: Known) -> Reason:
    match packet.kind:
        case Kind.REST:
            return Reason.FRAGMENT
        case Kind.ECHO:
            return Reason.UNJUDGED
        case Kind.ERROR:
            return Reason.KNOWN if known.is_flow_known else Reason.UNJUDGED
        case Kind.SEGMENT if packet.is_fragmented:
            return Reason.FRAGMENT
        case Kind.SEGMENT if not known.has_queues:
            return Reason.LATER  # It passes in any case.
        case Kind.SEGMENT if known.is_flow_known:
            return Reason.KNOWN
    assert packet.verdict is not None
    is_good = not packet.verdict.is_break
    if is_good and packet.is_unbound and known.is_attacked:
        return Reason.UNBOUND
    if packet.kind is Kind.SEGMENT:
        return Reason.LATER if is_good else Reason.STALE
    return Reason.FRAGMENT if is_good and packet.is_fragmented else Reason(packet.verdict)
