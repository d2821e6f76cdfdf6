"""What the control store wants, against what kernels have and routers are told: differences, in words. Pure.

    wanted      prefixes that a node owns, by the records that this gateway knows
    accepted    what its kernel delivers to it, read back there (``routes.seen``)
    announced   what routers are told of it; nobody's to say where it announces nothing itself

While slices move the three follow each other within a second, and what is heard of that is seconds old: a
difference counts as one (``is_red``) when it is there for longer.  What ends then is kept for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv6Network
from typing import Any, NamedTuple

from ssastore.core.groups import GroupRecord
from ssastore.core.ownership import OwnedPrefixes
from ssastore.limits import DRIFT_EVERY_MS

RED_AFTER_MS = 6000
"A node reads its routes every two seconds, notes what it announces every second, and is asked every two."
TOLD_MAX = 64
"Differences that are told one by one."
_ENDED_KEPT = 50
_MEND_S = DRIFT_EVERY_MS // 1000

NOT_ACCEPTED, NOT_OWNED = "not accepted", "accepted, not owned"
NOT_ANNOUNCED, NOT_TO_ANNOUNCE = "not announced", "announced, not owned"
NO_SESSION, NOT_READ = "no session", "not read"

_WORDS = {
    NOT_ACCEPTED: (
        "{node} owns {what} by the control store, and its kernel does not accept it: what is sent there is "
        f"refused. The node adds the route within {_MEND_S} s. If it stays: is its process running? "
        "`ssastore doctor --config FILE` on its host says more."
    ),
    NOT_OWNED: (
        "{node} accepts {what}, which it does not own: clients are told to ask elsewhere. The node takes the "
        f"route away within {_MEND_S} s. If it stays: `ip -6 route del local {{what}} dev lo proto 74` there."
    ),
    NOT_ANNOUNCED: (
        "{node} accepts {what} and tells no router of it: what is sent there from elsewhere is lost. "
        f"It tells them within {_MEND_S} s. If it stays: is its routing daemon running (`birdc show proto`)?"
    ),
    NOT_TO_ANNOUNCE: (
        "{node} tells routers {what}, which it does not own: they send it what is another's. It takes "
        f"that back within {_MEND_S} s. If it stays: restart the node."
    ),
    NO_SESSION: (
        "{node} has no session with its router {what}: nothing that it announces is heard there. Is that "
        "router up, and are the AS numbers right on both sides (`bgp_as`, `bgp_neighbours`)?"
    ),
    NOT_READ: "What {node} has cannot be compared: {what}.",
}
"What each kind means, and what to do."


class Difference(NamedTuple):
    """One thing that is not as the control store has it."""

    node: str
    kind: str
    what: str
    "Prefix, address of a router, or reason."

    @property
    def words(self) -> str:
        """What it means, and what to do."""
        return _WORDS[self.kind].format(node=self.node, what=self.what)


class Wanted:
    """What every node owns, as text; what did not change is not spelled again."""

    def __init__(self) -> None:
        self._owned = OwnedPrefixes()

    def of(
        self, nodes: Iterable[str], groups: Mapping[int, GroupRecord], services: Iterable[IPv6Network]
    ) -> dict[str, set[str]]:
        """By node: the fewest prefixes that are exactly what it owns, in every service prefix."""
        self._owned.show(groups.values())
        networks = tuple(services)
        return {
            name: {str(piece.network(service)) for service in networks for piece in self._owned.of(name)}
            for name in nodes
        }


def differences(node: str, wanted: set[str], seen: Mapping[str, Any] | None) -> Iterator[Difference]:
    """Of one node. ``seen``: what its host says; None: it keeps no routes itself, so nothing can differ."""
    if seen is None:
        return
    if why := seen.get("why"):
        yield Difference(node, NOT_READ, why)
    if "accepted" not in seen or why:
        return
    accepted, announced = set(seen["accepted"]), seen["announced"]
    for prefix in sorted(wanted - accepted):
        yield Difference(node, NOT_ACCEPTED, prefix)
    for prefix in sorted(accepted - wanted):
        yield Difference(node, NOT_OWNED, prefix)
    if announced is None:
        return
    for prefix in sorted((wanted & accepted).difference(announced)):
        yield Difference(node, NOT_ANNOUNCED, prefix)
    for prefix in sorted(set(announced) - wanted):
        yield Difference(node, NOT_TO_ANNOUNCE, prefix)
    for address, state in sorted(seen["neighbours"].items()):
        if state != "Established":
            yield Difference(node, NO_SESSION, address)


class Truth:
    """Differences over time."""

    def __init__(self) -> None:
        self._since_ms: dict[Difference, int] = {}
        self._looked_ms = 0
        self._ended: deque[tuple[int, int, Difference]] = deque(maxlen=_ENDED_KEPT)

    def look(
        self,
        wanted: Mapping[str, set[str]],
        seen: Callable[[str], tuple[bool, Mapping[str, Any] | None]],
        now_ms: int,
    ) -> dict[str, Any]:
        """What a page is told.

        Args:
            seen: of a node: whether it answered, and what its host says.
        """
        rows, found = [], list[Difference]()
        for name, prefixes in sorted(wanted.items()):
            is_heard, said = seen(name)
            if is_heard:
                found += differences(name, prefixes, said)
            rows.append(_row(name, prefixes, said, is_heard=is_heard))
        before, self._since_ms = self._since_ms, {}
        for difference in found:
            self._since_ms[difference] = before.get(difference, now_ms)
        for difference, since_ms in before.items():
            # What was not there for long was a move on its way.
            if difference not in self._since_ms and since_ms <= self._looked_ms - RED_AFTER_MS:
                self._ended.append((since_ms, now_ms, difference))
        self._looked_ms = now_ms
        return {
            "nodes": rows,
            "count": len(found),
            "differences": [
                {
                    **difference._asdict(),
                    "words": difference.words,
                    "since_ms": at,
                    "is_red": at <= now_ms - RED_AFTER_MS,
                }
                for difference, at in sorted(self._since_ms.items(), key=lambda item: item[1])[:TOLD_MAX]
            ],
            "ended": [
                {**difference._asdict(), "since_ms": since_ms, "ended_ms": ended_ms}
                for since_ms, ended_ms, difference in reversed(self._ended)
            ],
        }


def _row(name: str, wanted: set[str], said: Mapping[str, Any] | None, *, is_heard: bool) -> dict[str, Any]:
    """Counts of prefixes; None where nobody can say."""
    said = said or {}
    lists = {key: said.get(key) for key in ("accepted", "sent_on", "announced")}
    return {
        "name": name,
        "wanted": len(wanted),
        **{key: None if found is None else len(found) for key, found in lists.items()},
        "neighbours": said.get("neighbours", {}),
        "is_heard": is_heard,
        "is_kept": bool(said),
    }
