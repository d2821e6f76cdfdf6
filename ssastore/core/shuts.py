"""Marks of buckets that are being or were deleted: such a bucket takes no writes. Pure."""

from __future__ import annotations

from ssastore.core.records import shut_key
from ssastore.core.replies import Refusal
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import CorruptObject
from ssastore.messages import Accept, Put, Shut, Status


def is_shut(txn: ReadTxn, locator: int, bucket: int) -> bool:
    """Whether a bucket takes no writes by its mark in this locator. Raises CorruptObject."""
    mark = txn.get(shut_key(locator, bucket))
    return mark is not None and bool(mark[-1])


def check_open(request: Put | Accept, locator: int, txn: ReadTxn) -> None:
    """Refuse a write to a bucket that is shut by its mark in ``locator`` (``place.Served.mark_locator``)."""
    if is_shut(txn, locator, request.bucket):
        raise Refusal(Status.NO_BUCKET, "the bucket is being or was deleted")


def set_shut(request: Shut, locator: int, txn: WriteTxn) -> None:
    """Set or lift the mark in ``locator``."""
    mark = shut_key(locator, request.bucket)
    stored = txn.get(mark)
    if stored is not None and (request.attempt, not request.shut) < _step(stored):
        # A late repetition of an earlier step changes nothing.
        raise Refusal(Status.PRECONDITION_FAILED, "a later step of a deletion was here before")
    txn.put(mark, request.attempt.to_bytes(8, "big"), bytes([request.shut]), use_reserve=True)


def take_mark(txn: WriteTxn, stored_key: bytes, mark: bytes) -> bool:
    """Take another plane's mark if it is of a later step than the one here, or that is rotten."""
    try:
        stored = txn.get(stored_key)
    except CorruptObject:
        stored = None
    if stored is not None and _step(stored) >= _step(mark):
        return False
    txn.put(stored_key, mark, use_reserve=True)
    return True


def _step(mark: bytes | memoryview) -> tuple[int, bool]:
    """Which step of which deletion a mark is from: of one deletion, reopening comes last."""
    return int.from_bytes(mark[:-1], "big"), not mark[-1]
