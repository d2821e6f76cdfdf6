"""Other ways to spread a key space over nodes, as calculations: who has how much, and what moves.

What the text proposes: equal slices, given out evenly, either as contiguous arcs (``i * nodes // slices``)
or scattered (``i % nodes``). Redis Cluster: 16384 slots, even, and a rebalance that moves no more than it
must. Maglev: the table of the NSDI 2016 paper. Jump hash: Lamping and Veach 2014.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from ssastore.keyspace import range_cover

TEXT_SLICES = 1024
TEXT_SLICES_MORE = 16384
REDIS_SLOTS = 16384
MAGLEV_TABLE = 65537
JUMP_KEYS = 65536
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Row:
    """One scheme at one count of nodes."""

    scheme: str
    nodes: int
    max_over_mean: float
    largest: float
    "Slices (/80s for ours), slots or entries of the fullest node."
    prefixes_mean: float | None
    "None: it is no scheme of addresses."
    prefixes_max: int | None
    added: float
    "What moves when one node comes, measured by the newcomer's even share."
    lost: float
    "What moves when the last node goes, measured by what it had."


def contiguous(slices: int) -> Callable[[int], list[int]]:
    """Arcs as even as can be."""
    return lambda nodes: [at * nodes // slices for at in range(slices)]


def scattered(slices: int) -> Callable[[int], list[int]]:
    """Round and round."""
    return lambda nodes: [at % nodes for at in range(slices)]


def maglev(nodes: int, size: int = MAGLEV_TABLE) -> list[int]:
    """Owner of each entry of a Maglev table: nodes take turns, each with its next free preference."""
    starts = [xxh3_64_intdigest(b"offset%d" % node) % size for node in range(nodes)]
    skips = [xxh3_64_intdigest(b"skip%d" % node) % (size - 1) + 1 for node in range(nodes)]
    table, filled = [-1] * size, 0
    while True:
        for node in range(nodes):
            at = starts[node]
            while table[at] >= 0:
                at = (at + skips[node]) % size
            table[at], starts[node] = node, (at + skips[node]) % size
            filled += 1
            if filled == size:
                return table


def jump(nodes: int, keys: int = JUMP_KEYS) -> list[int]:
    """Owner of each of ``keys`` keys by jump hash."""
    owners = []
    for number in range(keys):
        key, last, at = xxh3_64_intdigest(b"key%d" % number), -1, 0
        while at < nodes:
            last = at
            key = (key * 2862933555777941757 + 1) & _MASK
            at = int((last + 1) * ((1 << 31) / ((key >> 33) + 1)))
        owners.append(last)
    return owners


def moved(before: Sequence[int], after: Sequence[int]) -> int:
    """How many have another owner."""
    return sum(old != new for old, new in zip(before, after, strict=True))


def prefixes_of(owners: Sequence[int]) -> list[int]:
    """Prefixes that each node announces, for owners of equal slices in address order."""
    counts: Counter[int] = Counter()
    first = 0
    for at in range(1, len(owners) + 1):
        if at == len(owners) or owners[at] != owners[first]:
            counts[owners[first]] += len(range_cover(first, at))
            first = at
    return list(counts.values())


def row_of(scheme: str, owners_at: Callable[[int], list[int]], nodes: int, *, has_prefixes: bool) -> Row:
    """A scheme's figures; nodes without anything count in every mean."""
    owners = owners_at(nodes)
    size, loads = len(owners), Counter(owners)
    prefixes = prefixes_of(owners) if has_prefixes else None
    return Row(
        scheme,
        nodes,
        max(loads.values()) * nodes / size,
        max(loads.values()),
        sum(prefixes) / nodes if prefixes else None,
        max(prefixes) if prefixes else None,
        moved(owners, owners_at(nodes + 1)) * (nodes + 1) / size,
        moved(owners, owners_at(nodes - 1)) / max(1, loads[nodes - 1]),
    )


def redis_row(nodes: int) -> Row:
    """Slots dealt evenly; a rebalance gives a new node its share, and a leaving one's slots to the others."""
    most = -(-REDIS_SLOTS // nodes)
    newcomer = REDIS_SLOTS // (nodes + 1)
    added = newcomer * (nodes + 1) / REDIS_SLOTS
    return Row(
        f"Redis Cluster, {REDIS_SLOTS} slots", nodes, most * nodes / REDIS_SLOTS, most, None, None, added, 1.0
    )


def rows_at(nodes: int) -> list[Row]:
    """All schemes at one count of nodes."""
    rows = [
        row_of(f"text, {slices} slices, {how.__name__}", how(slices), nodes, has_prefixes=True)
        for slices in (TEXT_SLICES, TEXT_SLICES_MORE)
        for how in (contiguous, scattered)
    ]
    rows.append(redis_row(nodes))
    rows.append(row_of(f"Maglev, table of {MAGLEV_TABLE}", maglev, nodes, has_prefixes=False))
    rows.append(row_of(f"jump hash of {JUMP_KEYS} keys", jump, nodes, has_prefixes=False))
    return rows
