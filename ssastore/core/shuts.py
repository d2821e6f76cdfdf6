"""Marks of buckets that are being or were deleted: such a bucket takes no writes. Pure."""

from __future__ import annotations

from ssastore.core.records import shut_key
from ssastore.core.replies import Refusal, Reply
from ssastore.env import ReadTxn, WriteTxn
from ssastore.messages import Accept, Put, Shut, Status


def _shut_locator(locator: int, shards: int) -> int:
    """Where the mark of a shut bucket stands: in the shard's locator, or once in the /80 if hashed."""
    return locator if shards else locator & ~0xFFFF


def check_open(request: Put | Accept, locator: int, txn: ReadTxn) -> None:
    """Refuse a write to a shut bucket."""
    mark = txn.get(shut_key(_shut_locator(locator, request.shards), request.bucket))
    if mark is not None and mark[-1]:
        raise Refusal(Status.NO_BUCKET, "the bucket is being or was deleted")


def set_shut(request: Shut, locator: int, txn: WriteTxn) -> Reply:
    """Set or lift the mark."""
    mark = shut_key(_shut_locator(locator, request.shards), request.bucket)
    stored = txn.get(mark)
    if stored is not None:
        # Of one deletion, reopening comes last: a late repetition of its shutting changes nothing.
        last = int.from_bytes(stored[:-1], "big"), not stored[-1]
        if (request.attempt, not request.shut) < last:
            raise Refusal(Status.PRECONDITION_FAILED, "a later step of a deletion was here before")
    txn.put(mark, request.attempt.to_bytes(8, "big"), bytes([request.shut]), use_reserve=True)
    return [], b""
