"""Forgetting deletes when nobody can need them any more. Coroutines on Tools, and their transactions.

With one replica a tombstone is dropped in one transaction.  With several all planes must
hold it under one ballot first (``core.settle``): a plane that missed the delete would
bring the object back.  Either way the slice's floor keeps what the record had promised.

Every tombstone stands in a queue by its time.  Plane 0 begins; a plane whose record is still
there later goes on, since plane 0 may never have had it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from ssastore.core.floors import floor_over, raise_floor, read_floor, slice_of_key
from ssastore.core.records import TOMBSTONES_END, TOMBSTONES_FIRST
from ssastore.core.register import LIVE, NO_BALLOT, Ballot, Slot, counter_of, decode_slot, decode_value
from ssastore.core.survey import walk
from ssastore.core.tools import Tools
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import CorruptObject, SsaStoreError

log = logging.getLogger(__name__)

_BATCH = 500
_BATCHES_MAX = 200
_AT_ONCE = 32


class Collector:
    """Collects the tombstones of one environment."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(self) -> None:
        """Collect what is due now."""
        kept_ms = self._tools.rules.tombstone_kept_ms
        first = TOMBSTONES_FIRST
        for _ in range(_BATCHES_MAX):
            before_ms = max(self._tools.clock.now_ms() - kept_ms, 0)
            with self._tools.store.read() as txn:
                due = due_entries(txn, first, before_ms)
            if not due:
                return
            await self._tools.store.submit(partial(self._drop_alone, due=due, before_ms=before_ms))
            await self._collect_everywhere([e for e in due if not self._is_alone(e[1])], before_ms)
            first = due[-1][0] + b"\0"

    def _is_alone(self, stored_key: bytes) -> bool:
        """Whether a record has one replica; a rotten entry of the queue is nobody's."""
        return not stored_key or self._tools.replicas_of(stored_key) == 1

    def _drop_alone(self, txn: WriteTxn, due: Sequence[tuple[bytes, bytes]], before_ms: int) -> int:
        """Drop those of one replica; how many went."""
        alone = [entry for entry in due if self._is_alone(entry[1])]
        return drop_tombstones(txn, alone, before_ms) if alone else 0

    async def _collect_everywhere(self, due: list[tuple[bytes, bytes]], before_ms: int) -> None:
        done: list[bytes] = []
        for at in range(0, len(due), _AT_ONCE):
            some = due[at : at + _AT_ONCE]
            ended = await asyncio.gather(*[self._collect_queued(*entry, before_ms) for entry in some])
            done += [queue_key for (queue_key, _), is_done in zip(some, ended, strict=True) if is_done]
        await self._tools.store.submit(partial(_delete_all, keys=done))

    async def _collect_queued(self, queue_key: bytes, stored_key: bytes, before_ms: int) -> bool:
        """Work on one entry of the queue; whether it is done with."""
        with self._tools.store.read() as txn:
            slot = _dead_slot(txn, stored_key)
        if slot is None:
            return True  # Collected by another plane's doing, or written again.
        queued_ms = int.from_bytes(queue_key[5:13], "big")
        later_ms = (stored_key[0] >> 4) * self._tools.rules.tombstone_kept_ms // 4
        if not is_idle(slot, before_ms) or queued_ms > before_ms - later_ms:
            return False
        return await self._collect(stored_key, slot.seen)

    async def collect(self, stored_key: bytes) -> bool:
        """Collect a dead record that a scrub has met; whether it went."""
        before_ms = self._tools.clock.now_ms() - self._tools.rules.tombstone_kept_ms
        with self._tools.store.read() as txn:
            slot = _dead_slot(txn, stored_key)
        if slot is None or not is_idle(slot, before_ms):
            return False
        if self._is_alone(stored_key):
            due = [(b"", stored_key)]
            return await self._tools.store.submit(partial(self._drop_alone, due=due, before_ms=before_ms)) > 0
        return await self._collect(stored_key, slot.seen)

    async def _collect(self, stored_key: bytes, seen: Ballot) -> bool:
        tools = self._tools
        name = tools.names.of_stored(stored_key)
        if name is None:
            return False
        try:
            return await tools.settler.collect(name.label, tools.coordinator.planes_of(name), seen)
        except SsaStoreError as error:
            log.debug("tombstone.not_collected", extra={"reason": str(error)})
            return False


def is_idle(slot: Slot, before_ms: int) -> bool:
    """Whether nothing was promised or accepted in a slot since ``before_ms``.

    What it leaves becomes a floor, and so the time below which a call may have been forgotten: one that is
    under way now must not fall under it.
    """
    return counter_of(floor_over(slot, decode_value(slot.value))) // 1000 < before_ms


def due_entries(txn: ReadTxn, first: bytes, before_ms: int, limit: int = _BATCH) -> list[tuple[bytes, bytes]]:
    """(queue key, stored key) of tombstones written before ``before_ms``, oldest first, up to ``limit``.

    A rotten entry comes with no stored key.
    """
    end = min(TOMBSTONES_FIRST + before_ms.to_bytes(8, "big"), TOMBSTONES_END)
    due: list[tuple[bytes, bytes]] = []
    if first < end:
        for queue_key, stored_key in walk(txn, first, end):
            due.append((queue_key, b"" if stored_key is None else bytes(stored_key)))
            if len(due) == limit:
                break
    return due


def drop_tombstones(txn: WriteTxn, due: Sequence[tuple[bytes, bytes]], before_ms: int) -> int:
    """Drop tombstones by themselves, with one replica; how many went. A key that was written again stays."""
    expired: list[bytes] = []
    done: list[bytes] = []
    floors: dict[int, Ballot] = {}
    # All reads before the first write: a change that raises must not have written yet.
    for queue_key, stored_key in due:
        slot = _dead_slot(txn, stored_key) if stored_key else None
        if slot is None or is_idle(slot, before_ms):
            done.append(queue_key)
        if slot is not None and is_idle(slot, before_ms):
            expired.append(stored_key)
            slice16 = slice_of_key(stored_key)
            floor = floor_over(slot, decode_value(slot.value))
            floors[slice16] = max(floors.get(slice16, NO_BALLOT), read_floor(txn, stored_key), floor)
    for slice16, floor in floors.items():
        raise_floor(txn, slice16, floor)
    for key in [*expired, *filter(None, done)]:
        txn.delete(key)
    return len(expired)


def drop_promise(txn: WriteTxn, stored_key: bytes, before_ms: int) -> bool:
    """Drop a slot that has promised and never accepted, by itself: the floor keeps the promise."""
    try:
        stored = txn.get(stored_key)
    except CorruptObject:
        return False
    slot = decode_slot(bytes(stored), NO_BALLOT) if stored is not None else None
    if slot is None or slot.accepted != NO_BALLOT or not is_idle(slot, before_ms):
        return False
    raise_floor(txn, slice_of_key(stored_key), slot.promise)
    return txn.delete(stored_key)


def _delete_all(txn: WriteTxn, keys: Sequence[bytes]) -> None:
    for key in keys:
        txn.delete(key)


def _dead_slot(txn: ReadTxn, stored_key: bytes) -> Slot | None:
    """The slot of a record that says "no object"; None when there is none, or it cannot be read."""
    try:
        stored = txn.get(stored_key)
        if stored is None:
            return None
        slot = decode_slot(bytes(stored), NO_BALLOT)
        return slot if slot.accepted != NO_BALLOT and decode_value(slot.value).state != LIVE else None
    except CorruptObject:
        return None  # It stays, to be found and repaired, and holds up no other.
