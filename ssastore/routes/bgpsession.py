"""One BGP session of a speaker that only announces: its states, its timers, what it has told. Pure.

    OPEN_SENT --OPEN--> OPEN_CONFIRM --KEEPALIVE--> ESTABLISHED          RFC 4271, section 8
        '------------------- whatever else ----------------> CLOSED

It begins with a connection that was made and is over with it: connecting, and again after a while, is the
shell's (``bgpspeaker.py``), and so is the clock: ``now`` is in seconds, of any beginning.  Octets go in by
``receive``, those to be sent are taken by ``take``; once it is over there is a ``reason``.

What was told is the truth about the peer: ``tell`` sends the difference to what is wanted, withdrawals last,
so that an address whose prefixes are cut anew is led here all along.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, IPv6Network

from ssastore.routes import bgpmessages as bgp
from ssastore.routes.bgpmessages import BadMessage, Frames

OPENING_S = 240
"For an answer to OPEN (RFC 4271, section 8.2.2: a large value), and at most for its confirmation."
KEEPALIVES_A_HOLD = 3


class State(Enum):
    OPEN_SENT = "OpenSent"
    OPEN_CONFIRM = "OpenConfirm"
    ESTABLISHED = "Established"
    CLOSED = "Idle"


_EXPECTED = {
    State.OPEN_SENT: (bgp.OPEN,),
    State.OPEN_CONFIRM: (bgp.KEEPALIVE,),
    State.ESTABLISHED: (bgp.UPDATE, bgp.KEEPALIVE, bgp.ROUTE_REFRESH),
}
"Beside NOTIFICATION, which ends a session in any state."
_SUBCODES = {State.OPEN_SENT: 1, State.OPEN_CONFIRM: 2, State.ESTABLISHED: 3}
"Of an unexpected message (RFC 6608)."


@dataclass(frozen=True, slots=True)
class Peering:
    """What both ends have agreed on beforehand."""

    number: int
    "Of our autonomous system."
    peer_number: int
    identifier: int
    "32 bits that no other speaker of our system has."
    next_hop: IPv6Address
    hold_s: int
    "Offered; the shorter of both counts."


class Session:
    """From the connection to its end."""

    def __init__(self, peering: Peering, now: float) -> None:
        self.state = State.OPEN_SENT
        self.reason = ""
        "Why it is closed."
        self._peering = peering
        self._frames = Frames()
        self._hold_s: float = OPENING_S
        self._dead_at = now + OPENING_S
        self._alive_at = math.inf
        "When the peer has to hear from us."
        self._told: set[IPv6Network] = set()
        self._is_asked_for_all = False
        self._wanted: set[IPv6Network] = set()
        self._out = bytearray(bgp.encode_open(peering.number, peering.hold_s, peering.identifier))

    def is_over(self) -> bool:
        """Whether nothing goes in any more."""
        return self.state is State.CLOSED

    @property
    def next_at(self) -> float:
        """When ``tick`` is due, at the latest."""
        return min(self._dead_at, self._alive_at)

    def take(self) -> bytes:
        """What is to be sent now."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def receive(self, data: bytes, now: float) -> None:
        """Octets have come."""
        if self.is_over():
            return
        try:
            for kind, payload in self._frames.feed(data):
                self._message(kind, payload, now)
                if self.is_over():
                    return
            if self._is_asked_for_all:
                # Once, however often it asked in what came together.
                self._is_asked_for_all = False
                self._told.clear()
                self._update()
        except BadMessage as error:
            self._end(error.code, error.subcode, str(error), error.data)

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.is_over():
            return
        if now >= self._dead_at:
            self._end(bgp.HOLD_EXPIRED, 0, f"nothing came for {self._hold_s:g} s")
        elif now >= self._alive_at:
            self._keep_alive(now)

    def tell(self, wanted: set[IPv6Network]) -> None:
        """From now on these are announced, and nothing else."""
        self._wanted = set(wanted)
        if self.state is State.ESTABLISHED:
            self._update()

    def stop(self) -> None:
        """We end it: what was announced is gone at the peer."""
        if not self.is_over():
            self._end(bgp.CEASE, bgp.SHUTDOWN, "stopped")

    def lost(self, why: str) -> None:
        """The connection is gone."""
        if not self.is_over():
            self.state, self.reason = State.CLOSED, why

    def _message(self, kind: int, payload: bytes, now: float) -> None:
        self._heard(now)
        if kind == bgp.NOTIFICATION:
            self.lost(f"the peer said: {bgp.describe_notification(payload)}")
        elif kind not in _EXPECTED[self.state]:
            why = f"a message of type {kind} in {self.state.value}"
            raise BadMessage(bgp.STATE_ERROR, _SUBCODES[self.state], why)
        elif kind == bgp.OPEN:
            self._opened(payload, now)
        elif self.state is State.OPEN_CONFIRM:
            self.state = State.ESTABLISHED
            self._heard(now)
            self._update()
            self._out += bgp.encode_end()
        elif kind == bgp.ROUTE_REFRESH:
            self._is_asked_for_all = True

    def _opened(self, payload: bytes, now: float) -> None:
        peer, ours = bgp.decode_open(payload), self._peering
        if peer.number != ours.peer_number:
            why = f"the peer is of AS {peer.number}, not {ours.peer_number}"
            raise BadMessage(bgp.OPEN_ERROR, bgp.BAD_PEER_AS, why)
        if peer.identifier == ours.identifier and self._is_internal:
            raise BadMessage(bgp.OPEN_ERROR, bgp.BAD_IDENTIFIER, "the peer has our identifier")
        if not (peer.takes_ipv6 and peer.has_four_octets):
            why = "the peer takes no IPv6 prefixes, or no AS numbers of four octets"
            raise BadMessage(bgp.OPEN_ERROR, bgp.NO_CAPABILITY, why)
        self._hold_s = min(ours.hold_s, peer.hold_s) or math.inf
        self.state = State.OPEN_CONFIRM
        self._heard(now)
        self._keep_alive(now)

    def _heard(self, now: float) -> None:
        is_open = self.state is State.ESTABLISHED
        self._dead_at = now + (self._hold_s if is_open else min(self._hold_s, OPENING_S))

    @property
    def _is_internal(self) -> bool:
        return self._peering.number == self._peering.peer_number

    def _keep_alive(self, now: float) -> None:
        self._alive_at = now + self._hold_s / KEEPALIVES_A_HOLD
        self._out += bgp.encode_keepalive()

    def _update(self) -> None:
        ours = self._peering
        announced = bgp.encode_announcements(
            sorted(self._wanted - self._told, key=_longest_first),
            next_hop=ours.next_hop,
            number=ours.number,
            is_internal=self._is_internal,
        )
        withdrawn = bgp.encode_withdrawals(
            sorted(self._told - self._wanted, key=_longest_first, reverse=True)
        )
        self._out += b"".join(announced) + b"".join(withdrawn)
        self._told = set(self._wanted)

    def _end(self, code: int, subcode: int, why: str, data: bytes = b"") -> None:
        self._out += bgp.encode_notification(code, subcode, data)
        self.state, self.reason = State.CLOSED, why


def _longest_first(prefix: IPv6Network) -> tuple[int, int]:
    return -prefix.prefixlen, int(prefix.network_address)
