"""What the last round of a name left to its proposer: the next ballot, the value before it. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from ssastore.core.register import Ballot, Value
from ssastore.limits import PROPOSER_CACHE_BYTES, PROPOSER_CACHE_NAMES

_RECENT_BYTES = 320
"Memory of one remembered operation: a tuple, two byte strings, three integers."
_ENTRY_BYTES = 600


@dataclass(slots=True)
class Reserve:
    """Of one name.

    ``value`` has no data: it may only lead to a write, and a refusal must come from a majority of now.
    """

    ballot: Ballot
    cfg: int
    value: Value


class Reserves:
    """What the last round of each name left, bounded in names and in bytes; the oldest goes first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, Reserve] = OrderedDict()
        self._size = 0

    @staticmethod
    def _size_of(name: bytes, cached: Reserve) -> int:
        recent = len(cached.value.recent) * _RECENT_BYTES
        return len(name) + len(cached.value.metadata) + recent + _ENTRY_BYTES

    def add(self, name: bytes, ballot: Ballot, cfg: int, value: Value) -> None:
        """Remember the head of a value; a name is taken out before it is used, so it is never here twice."""
        cached = Reserve(ballot, cfg, replace(value, metadata=bytes(value.metadata), data=b""))
        self._entries[name] = cached
        self._size += self._size_of(name, cached)
        while len(self._entries) > PROPOSER_CACHE_NAMES or self._size > PROPOSER_CACHE_BYTES:
            oldest, dropped = self._entries.popitem(last=False)
            self._size -= self._size_of(oldest, dropped)

    def take(self, name: bytes) -> Reserve | None:
        """Take out: a reserved ballot is used once."""
        cached = self._entries.pop(name, None)
        if cached is not None:
            self._size -= self._size_of(name, cached)
        return cached

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._size = 0
