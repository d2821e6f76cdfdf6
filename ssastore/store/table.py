"""Changes that are not in LMDB yet: sealed records by key, and how they lie over what LMDB holds.

A deleted key is a record of its own, None: it hides what lies below.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from heapq import merge
from itertools import chain, islice
from typing import Final

Sealed = bytes | memoryview


class Missing(Enum):
    """Type of ``MISSING``."""

    MISSING = 0


MISSING: Final = Missing.MISSING
"What a layer says of a key that it knows nothing of."

Records = dict[bytes, bytes | None]


class Table:
    """A layer of many records, which can be listed in order of their keys."""

    __slots__ = ("_order", "records")

    def __init__(self, records: Records | None = None) -> None:
        self.records: Records = {} if records is None else records
        self._order: list[bytes] = []
        "Keys, sorted: the first ones of ``records``. That keeps its order, so those behind them are new."

    def copy(self) -> Table:
        """Another table of the same records."""
        copied = Table(self.records.copy())
        copied._order = self._order.copy()
        return copied

    def keys(self, first: bytes, end: bytes) -> Iterator[bytes]:
        """Keys with ``first <= key < end``, in order; those that are there now."""
        order = self._order
        if len(order) != len(self.records):
            # A sorted run and a few new ones: sorting merges them in one pass. A new list: who walks the old
            # one goes on with that.
            order = self._order = sorted([*order, *islice(self.records, len(order), None)])
        # One by one: most walks want the next key and no more.
        return map(order.__getitem__, range(bisect_left(order, first), bisect_left(order, end)))


def keys_of(layers: Iterable[Table | Records], first: bytes, end: bytes) -> Iterator[bytes]:
    """Sorted keys of all layers with ``first <= key < end``, each once. Plain dicts must be small."""
    runs: list[Iterator[bytes]] = []
    for layer in layers:
        if isinstance(layer, Table):
            runs.append(layer.keys(first, end))
        elif found := sorted(key for key in layer if first <= key < end):
            runs.append(iter(found))
    return _merged(runs) if len(runs) > 1 else chain(*runs)


def _merged(runs: list[Iterator[bytes]]) -> Iterator[bytes]:
    last: bytes | None = None
    for key in merge(*runs):
        if key != last:
            yield key
        last = key


def overlaid(
    keys: Callable[[bytes], Iterator[bytes]],
    sealed: Callable[[bytes], Sealed | Missing | None],
    base: Iterator[tuple[bytes, Sealed]],
    mutations: Callable[[], int] | None,
    first: bytes,
) -> Iterator[tuple[bytes, Sealed]]:
    """Records of layers over a base, in order of their keys.

    Args:
        keys: sorted keys of all layers, each once, from a key on.
        sealed: what the layers say of a key.
        base: what lies below them, in order; does not change.
        mutations: a number that changes whenever a layer does; the layers are then asked again. None: they
            do not change.
        first: where it begins.
    """
    above = keys(first)
    over = next(above, None)
    seen = 0 if mutations is None else mutations()
    below = next(base, None)
    while True:
        if mutations is not None and mutations() != seen:
            seen = mutations()
            above = keys(first)
            over = next(above, None)
        if over is not None and (below is None or over <= below[0]):
            if below is not None and below[0] == over:
                below = next(base, None)
            key, over = over, next(above, None)
            first = key + b"\0"
            value = sealed(key)
            if value is not None and value is not MISSING:
                yield key, value
        elif below is None:
            return
        elif over is None and mutations is None:
            yield below  # As mostly: nothing lies over the rest, nor will.
            yield from base
            return
        else:
            item, below = below, next(base, None)
            first = item[0] + b"\0"
            yield item
