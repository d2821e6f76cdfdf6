"""How much a cluster stores, what it can store, when that is full. Pure, but for noting it from time to time.

usage    UsageHistory    what all workers together stored, some times in the last two weeks

The node that coordinates notes it, and only when every worker has answered: else a node that is away would
look as if much had been deleted.  What is forecast is the growth of all together: slices that move change
what each worker stores, and not that.

A name's copies lie in slices by its hash, so a worker gets of all bytes that are put as many parts of 4096 as
it has slices.  The cluster is full when the first worker, or the first disk, is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ssastore.core.cluster import Cluster
from ssastore.core.election import coordinator_of
from ssastore.core.fields import decode_fields, encode_fields, require, require_int
from ssastore.core.groups import GroupRecord
from ssastore.core.numbers import lane_of_slice, numbered_slice, slice_number
from ssastore.env import Clock, Compare, ControlStore, Item, Write
from ssastore.errors import SsaStoreError
from ssastore.keyspace import GROUPS, SLICE_BITS
from ssastore.limits import (
    DISK_RESERVE_BYTES,
    FORECAST_SPAN_MIN_MS,
    USAGE_EVERY_MS,
    USAGE_LOOK_MS,
    USAGE_NOTES_MAX,
)

log = logging.getLogger(__name__)

USAGE_KEY = "usage"

WorkerName = tuple[str, int]
"Of a node, and which of its workers."


class UsageNote(NamedTuple):
    """What was stored at a time."""

    at_ms: int
    used_bytes: int
    "Of all workers: every copy counts."
    replicas: int


@dataclass(frozen=True, slots=True)
class UsageHistory:
    """Notes, oldest first."""

    notes: tuple[UsageNote, ...] = ()

    def __post_init__(self) -> None:
        for note in self.notes:
            for what, value in zip(UsageNote._fields, note, strict=True):
                require_int(what, value, 0, 1 << 63)
            require(note.replicas > 0, "a note has replicas", note.replicas)

    def is_due(self, now_ms: int) -> bool:
        """Whether it is time for another one."""
        return not any(0 <= now_ms - note.at_ms < USAGE_EVERY_MS for note in self.notes)

    def with_note(self, note: UsageNote) -> UsageHistory:
        """With another one; without what a clock that was wrong has noted, and what is too old."""
        kept = [known for known in self.notes if known.at_ms < note.at_ms]
        return UsageHistory((*kept, note)[-USAGE_NOTES_MAX:])

    def encode(self) -> bytes:
        return encode_fields({"notes": [list(note) for note in self.notes]})

    @staticmethod
    def decode(value: bytes) -> UsageHistory:
        """Inverse of ``encode``. ConfigError: not such a record."""
        found = decode_fields(value, "history of usage", {"notes"})["notes"]
        is_list = type(found) is list and all(
            type(note) is list and len(note) == len(UsageNote._fields) for note in found
        )
        require(is_list, "a history of usage is a list of notes", found)
        return UsageHistory(tuple(UsageNote(*note) for note in found))

    @staticmethod
    def of(item: Item | None) -> UsageHistory:
        """Of what is there. ConfigError: not such a record."""
        return UsageHistory() if item is None else UsageHistory.decode(item.value)


class Growth(NamedTuple):
    """How fast users' bytes become more, by notes of some time."""

    bytes_per_day: float
    "Each byte counted once, however many copies it has. Below 0: they become fewer."
    days: float
    "From the first note to the last."
    notes: int


def growth_of(history: UsageHistory) -> Growth | None:
    """By a line through all notes; None while they are of too short a time to say anything."""
    notes = history.notes
    if len(notes) < 3 or notes[-1].at_ms - notes[0].at_ms < FORECAST_SPAN_MIN_MS:
        return None
    days = [(note.at_ms - notes[0].at_ms) / 86_400_000 for note in notes]
    sizes = [note.used_bytes / note.replicas for note in notes]
    middle, mean = sum(days) / len(days), sum(sizes) / len(sizes)
    slope = sum((day - middle) * (size - mean) for day, size in zip(days, sizes, strict=True))
    slope /= sum((day - middle) ** 2 for day in days)
    return Growth(slope, days[-1], len(notes))


@dataclass(frozen=True, slots=True)
class Fill:
    """How full one worker is."""

    used_bytes: int
    limit_bytes: int
    "What records may fill of its map."
    disk_free_bytes: int
    "Of the disk, which the workers of a node share."


class Usable(NamedTuple):
    """What users can store, each byte counted once."""

    used_bytes: int
    free_bytes: int
    "Until the first worker or disk is full."
    first_full: str
    "Which that is; empty when nobody has a share."


def shares_of(cluster: Cluster) -> dict[WorkerName, float]:
    """What part of all bytes that users put goes to each worker; all together have the number of replicas."""
    workers = {node.name: node.workers for node in cluster.nodes}
    shares: defaultdict[WorkerName, float] = defaultdict(float)
    for record in cluster.groups:
        for view in record.views():
            number = slice_number(0, view.part)
            pieces = 1 << (numbered_slice(number).depth - SLICE_BITS)
            for owner in view.owners:
                shares[owner, lane_of_slice(number) % workers[owner]] += 1 / (GROUPS * pieces)
    return dict(shares)


def usable(fills: Mapping[WorkerName, Fill], shares: Mapping[WorkerName, float]) -> Usable:
    """Of a cluster whose workers have all said how full they are."""
    room: dict[str, float] = {}
    by_node: defaultdict[str, float] = defaultdict(float)
    for (node, worker), share in shares.items():
        if share > 0:
            by_node[node] += share
            fill = fills[node, worker]
            room[f"{node} worker {worker}"] = max(0, fill.limit_bytes - fill.used_bytes) / share
    for node, share in by_node.items():
        disks = [fill.disk_free_bytes for (name, _), fill in fills.items() if name == node]
        room[f"the disk of {node}"] = max(0, min(disks) - DISK_RESERVE_BYTES) / share
    first = min(room, key=lambda name: (room[name], name), default="")
    # As many copies as there are now: while planes are added that is not what the cluster's record says.
    used = sum(fill.used_bytes for fill in fills.values()) / (sum(shares.values()) or 1)
    return Usable(round(used), int(room.get(first, 0)), first)


def even_planes(groups: Mapping[int, GroupRecord]) -> int:
    """How many planes every group has; 0 while some are given more: that looks like growth."""
    counts = {len(record.planes) for record in groups.values()}
    return counts.pop() if len(counts) == 1 else 0


class Historian:
    """Notes what is stored, while its node coordinates.

    Args:
        measure: what all workers store together; None when one of them does not answer.
        replicas: planes that hold data now; 0: nothing is noted.
    """

    def __init__(
        self,
        control: ControlStore,
        node: str,
        measure: Callable[[], Awaitable[int | None]],
        replicas: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._control = control
        self._node = node
        self._measure = measure
        self._replicas = replicas
        self._clock = clock

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(USAGE_LOOK_MS / 1000)
            try:
                await self.round()
            except (SsaStoreError, OSError) as error:
                log.warning("usage.not_noted", extra={"reason": str(error)})

    async def round(self) -> bool:
        """Note it, if it is due; whether it was noted. Raises ConfigError, Unavailable."""
        if await coordinator_of(self._control) != self._node:
            return False
        item = await self._control.get(USAGE_KEY)
        history = UsageHistory.of(item)
        if not history.is_due(self._clock.now_ms()):
            return False
        used_bytes, replicas = await self._measure(), self._replicas()
        if used_bytes is None or not replicas:
            return False
        note = UsageNote(self._clock.now_ms(), used_bytes, replicas)
        compare = Compare(USAGE_KEY, item.revision if item is not None else 0)
        written = Write(USAGE_KEY, history.with_note(note).encode())
        return await self._control.transact([compare], [written]) is not None
