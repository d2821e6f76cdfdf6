"""Dropping the records of deletes when nobody can need them any more. Pure."""

from __future__ import annotations

from ssastore.core.records import TOMBSTONES_END, TOMBSTONES_FIRST
from ssastore.core.register import TOMBSTONE, peek_slot
from ssastore.env import WriteTxn
from ssastore.errors import CorruptObject


def collect_tombstones(txn: WriteTxn, before_ms: int, limit: int) -> int:
    """Drop up to ``limit`` tombstones that were written before ``before_ms``; how many went.

    A key that was written again since has a live record, which stays.
    """
    before_ms = max(before_ms, 0)
    end = min(TOMBSTONES_FIRST + before_ms.to_bytes(8, "big"), TOMBSTONES_END)
    due: list[tuple[bytes, bytes]] = []
    for queue_key, stored_key in txn.scan(TOMBSTONES_FIRST, end):
        due.append((queue_key, bytes(stored_key)))
        if len(due) == limit:
            break
    # All reads before the first delete: a change that raises must not have written yet.
    expired = [stored_key for _, stored_key in due if _is_expired(txn, stored_key, before_ms)]
    for stored_key in expired:
        txn.delete(stored_key)
    for queue_key, _ in due:
        txn.delete(queue_key)
    return len(due)


def _is_expired(txn: WriteTxn, stored_key: bytes, before_ms: int) -> bool:
    try:
        stored = txn.get(stored_key)
        if stored is None:
            return False
        _, state, modified_ms, _, _ = peek_slot(bytes(stored))
    except CorruptObject:
        return False  # It stays, to be found and repaired, and holds up no other.
    return state == TOMBSTONE and modified_ms < before_ms
