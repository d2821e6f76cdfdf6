"""Lines of a log that strangers cause: for each of them one a minute, with how many it stands for. Pure.

Else whoever reaches a port writes the log full.  Who has IPv6 has a /64 of addresses at least (RFC 6177), so
that is one stranger; and beyond some hundred at a time all others are one as well.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from math import inf

EVERY_S = 60.0
STRANGERS_MAX = 256
"Whose minute is not over: so many lines, and one more, are the most that a minute brings."
_OTHERS = "others"


class Seldom:
    """For one kind of line."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, int]] = {}
        "When there was a line, and how many have come since: the oldest line first."

    def count(self, peer: str, now_s: float) -> int:
        """For how many a line stands that is to be written now: this one, and those before without a line.

        0: no line, it is counted.  ``now_s``: seconds of a clock that does not go back.
        """
        who = _stranger(peer)
        said_s, since = self._said.get(who, (-inf, 0))
        if now_s - said_s >= EVERY_S:
            self._said.pop(who, None)
            self._forget_old(now_s)
            if len(self._said) >= STRANGERS_MAX:
                who = _OTHERS
                said_s, since = self._said.get(who, (-inf, 0))
        if now_s - said_s < EVERY_S:
            self._said[who] = said_s, since + 1
            return 0
        self._said.pop(who, None)
        self._said[who] = now_s, 0
        return since + 1

    def _forget_old(self, now_s: float) -> None:
        # Twice the time: who goes on has had a line by then, and what was counted is told in it.
        for who, (said_s, _) in list(self._said.items()):
            if now_s - said_s < 2 * EVERY_S:
                break
            del self._said[who]


def _stranger(peer: str) -> str:
    address = ip_address(peer.partition("%")[0])
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or int(address) >> 64)
