"""Marks of buckets: one that is deleted takes no writes, one with a quota takes counted ones only. Pure.

    attempt u64 | shut u8                          which deletion, and whether it is shut
    attempt u64 | hold 24 | state u8 | shut u8     where the bucket has, or had, a quota (``core.holds``)

Both come in steps of their own, and of each the later one counts.  A bucket that was never
deleted and never had a quota has no mark: its writes cost one look at nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ssastore.core.holds import NOBODY, State, check_held
from ssastore.core.records import shut_key
from ssastore.core.replies import Refusal
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import CorruptObject
from ssastore.messages import HOLD_BYTES, Accept, Hold, Put, Shut, Status
from ssastore.wire import Body

_SHORT = 9
_LONG = _SHORT + HOLD_BYTES + 1


class BucketMark(NamedTuple):
    """A mark, taken apart."""

    attempt: int = 0
    is_shut: bool = False
    hold: bytes = NOBODY
    state: int = State.OFF

    def encode(self) -> bytes:
        held = b"" if self.hold == NOBODY else self.hold + bytes([self.state])
        return self.attempt.to_bytes(8, "big") + held + bytes([self.is_shut])

    def later(self, other: BucketMark) -> BucketMark:
        """The later step of both, of the deletion and of the quota each.

        What another plane holds was not counted with what is here: so a hold that is taken over is only set.
        """
        shut = max(self, other, key=lambda mark: (mark.attempt, not mark.is_shut))
        held = other if other.hold > self.hold else self
        state = held.state if held is self else min(held.state, State.SET)
        return BucketMark(shut.attempt, shut.is_shut, held.hold, state)

    @property
    def told(self) -> BucketMark:
        """The mark as planes compare it: which of them was counted differs."""
        return self._replace(state=min(self.state, State.SET))


def decode_mark(stored: bytes | memoryview | None) -> BucketMark:
    """The mark of its stored bytes. Raises CorruptObject."""
    if stored is None:
        return BucketMark()
    stored = bytes(stored)
    attempt = int.from_bytes(stored[:8], "big")
    if len(stored) == _SHORT:
        return BucketMark(attempt, bool(stored[-1]))
    if len(stored) != _LONG or stored[-2] > State.COUNTED:
        raise CorruptObject("the mark of a bucket is not one")
    return BucketMark(attempt, bool(stored[-1]), stored[8 : 8 + HOLD_BYTES], stored[-2])


def is_shut(txn: ReadTxn, locator: int, bucket: int) -> bool:
    """Whether a bucket takes no writes by its mark in this locator. Raises CorruptObject."""
    mark = txn.get(shut_key(locator, bucket))
    return mark is not None and bool(mark[-1])


def check_open(request: Put | Accept, locator: int, txn: ReadTxn, *, hold: bytes) -> None:
    """Refuse a write that the bucket's mark in ``locator`` (``place.Served.mark_locator``) does not allow."""
    stored = txn.get(shut_key(locator, request.bucket))
    if stored is None:
        return
    if stored[-1]:
        raise Refusal(Status.NO_BUCKET, "the bucket is being or was deleted")
    if len(stored) > _SHORT:
        mark = decode_mark(stored)
        check_held(request.kind, hold, mark.hold, mark.state)


def hold_witness(txn: ReadTxn, locator: int, bucket: int) -> bytes:
    """Under which hold a shard is, and its state, if under any. Raises CorruptObject."""
    stored = txn.get(shut_key(locator, bucket))
    if stored is None or len(stored) == _SHORT:
        return b""
    mark = decode_mark(stored)
    return b"" if mark.state == State.OFF else mark.hold + bytes([mark.state])


def set_shut(request: Shut, locator: int, txn: WriteTxn) -> None:
    """Set or lift the mark in ``locator``."""
    key = shut_key(locator, request.bucket)
    mark = decode_mark(txn.get(key))
    if (request.attempt, not request.shut) < (mark.attempt, not mark.is_shut):
        # A late repetition of an earlier step changes nothing.
        raise Refusal(Status.PRECONDITION_FAILED, "a later step of a deletion was here before")
    changed = mark._replace(attempt=request.attempt, is_shut=request.shut)
    txn.put(key, changed.encode(), use_reserve=True)


def set_hold(request: Hold, locator: int, txn: WriteTxn) -> None:
    """Take a step of a hold in ``locator``: a later one replaces it, and only what is set is counted."""
    key = shut_key(locator, request.bucket)
    mark = decode_mark(txn.get(key))
    is_own = mark.hold == request.hold
    if mark.hold > request.hold or (request.step == State.COUNTED and not is_own):
        raise Refusal(Status.HELD, mark.hold.hex())
    if is_own and mark.state >= request.step:
        return
    txn.put(key, mark._replace(hold=request.hold, state=request.step).encode(), use_reserve=True)


def take_mark(txn: WriteTxn, stored_key: bytes, mark: bytes) -> bool:
    """Take of another plane's mark what is of a later step than what is here, or is rotten."""
    try:
        stored = txn.get(stored_key)
        own = decode_mark(stored)
    except CorruptObject:
        stored, own = None, BucketMark()
    changed = own.later(decode_mark(mark))
    if stored is not None and changed == own:
        return False
    txn.put(stored_key, changed.encode(), use_reserve=True)
    return True


def merge_marks(values: Iterable[Body]) -> bytes:
    """What several planes know of a bucket, for a plane that knows nothing any more. Raises CorruptObject."""
    merged = BucketMark()
    for value in values:
        merged = merged.later(decode_mark(value))
    return merged.encode()


def told_mark(value: bytes | memoryview) -> bytes:
    """A stored mark as planes compare it; one that makes no sense as it is."""
    try:
        return decode_mark(value).told.encode()
    except CorruptObject:
        return bytes(value)
