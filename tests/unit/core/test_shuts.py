"""Marks of buckets: shut by deletions, held for quotas; each by steps of its own."""

from __future__ import annotations

import pytest

from ssastore.core.holds import NOBODY, State, make_hold, serial_of, split_witness
from ssastore.core.records import shut_key
from ssastore.core.register import make_ballot
from ssastore.core.replies import Refusal
from ssastore.core.shuts import (
    BucketMark,
    check_open,
    decode_mark,
    hold_witness,
    is_shut,
    merge_marks,
    set_hold,
    set_shut,
    take_mark,
    told_mark,
)
from ssastore.env import WriteTxn
from ssastore.errors import BadFrame, CorruptObject
from ssastore.messages import Accept, Hold, Kind, Shut, Status
from ssastore.store.memory import MemoryWriteTxn, Records

LOCATOR, BUCKET = 0x0528EB22, 7
KEY = shut_key(LOCATOR, BUCKET)
EARLY, LATE = make_hold(1, make_ballot(5, 1, 1)), make_hold(1, make_ballot(6, 1, 1))
NEXT_QUOTA = make_hold(2, make_ballot(1, 1, 1))


def shut(attempt: int, *, is_shut: bool) -> Shut:
    return Shut(LOCATOR << 32, BUCKET, 16, 1, attempt, is_shut)


def hold(held: bytes, step: int = State.SET) -> Hold:
    return Hold(LOCATOR << 32, BUCKET, 16, 1, held, step, 3)


def accept(kind: int = Kind.OBJECT) -> Accept:
    return Accept(LOCATOR << 32, kind, BUCKET, 16, b"key", 1, bytes(16), bytes(16))


def refused(held: bytes, txn: WriteTxn, *, kind: int = Kind.OBJECT) -> Status | None:
    try:
        check_open(accept(kind), LOCATOR, txn, hold=held)
    except Refusal as refusal:
        return refusal.status
    return None


@pytest.fixture
def txn() -> MemoryWriteTxn:
    return MemoryWriteTxn(Records(), 1 << 20)


def test_mark_without_a_quota_is_as_short_as_ever(txn: MemoryWriteTxn) -> None:
    set_shut(shut(3, is_shut=True), LOCATOR, txn)
    assert bytes(txn.get(KEY) or b"") == bytes(7) + b"\3\1"
    assert is_shut(txn, LOCATOR, BUCKET) and hold_witness(txn, LOCATOR, BUCKET) == b""


def test_shutting_and_holding_leave_each_other_alone(txn: MemoryWriteTxn) -> None:
    set_hold(hold(EARLY), LOCATOR, txn)
    set_shut(shut(1, is_shut=True), LOCATOR, txn)
    assert refused(EARLY, txn) == Status.NO_BUCKET
    set_hold(hold(LATE), LOCATOR, txn)
    set_shut(shut(1, is_shut=False), LOCATOR, txn)
    assert decode_mark(txn.get(KEY)) == BucketMark(1, False, LATE, State.SET)
    with pytest.raises(Refusal, match="later step"):
        set_shut(shut(1, is_shut=True), LOCATOR, txn)


def test_only_what_was_counted_under_the_hold_passes(txn: MemoryWriteTxn) -> None:
    assert refused(b"", txn) is None
    set_hold(hold(LATE), LOCATOR, txn)
    for held in (b"", EARLY, NEXT_QUOTA):
        assert refused(held, txn) == Status.HELD
    assert refused(LATE, txn) is None
    assert refused(b"", txn, kind=Kind.UPLOAD) is None
    for kind in (Kind.VERSION, Kind.PART):
        assert refused(b"", txn, kind=kind) == Status.HELD
    set_hold(hold(NEXT_QUOTA, State.OFF), LOCATOR, txn)
    assert refused(b"", txn) is None and refused(LATE, txn) is None


def test_later_holds_replace_earlier_ones_and_never_the_other_way(txn: MemoryWriteTxn) -> None:
    set_hold(hold(LATE), LOCATOR, txn)
    with pytest.raises(Refusal, match=LATE.hex()):
        set_hold(hold(EARLY), LOCATOR, txn)
    set_hold(hold(NEXT_QUOTA), LOCATOR, txn)
    with pytest.raises(Refusal, match=NEXT_QUOTA.hex()):
        set_hold(hold(LATE), LOCATOR, txn)


def test_only_what_is_set_is_counted(txn: MemoryWriteTxn) -> None:
    with pytest.raises(Refusal):
        set_hold(hold(EARLY, State.COUNTED), LOCATOR, txn)
    set_hold(hold(EARLY), LOCATOR, txn)
    with pytest.raises(Refusal):
        set_hold(hold(LATE, State.COUNTED), LOCATOR, txn)
    assert split_witness(hold_witness(txn, LOCATOR, BUCKET)) == (EARLY, False)
    set_hold(hold(EARLY, State.COUNTED), LOCATOR, txn)
    set_hold(hold(EARLY), LOCATOR, txn)
    assert split_witness(hold_witness(txn, LOCATOR, BUCKET)) == (EARLY, True), "set again changes nothing"


def test_another_plane_is_believed_what_it_is_under_and_not_that_it_was_counted(txn: MemoryWriteTxn) -> None:
    theirs = BucketMark(2, True, LATE, State.COUNTED).encode()
    set_hold(hold(EARLY), LOCATOR, txn)
    assert take_mark(txn, KEY, theirs)
    assert decode_mark(txn.get(KEY)) == BucketMark(2, True, LATE, State.SET)
    assert not take_mark(txn, KEY, theirs)
    assert not take_mark(txn, KEY, BucketMark(1, True, EARLY, State.COUNTED).encode())
    merged = merge_marks([theirs, BucketMark(3, False, EARLY, State.COUNTED).encode()])
    assert decode_mark(merged) == BucketMark(3, False, LATE, State.SET)


def test_planes_of_which_one_was_counted_are_alike() -> None:
    counted, held = (BucketMark(1, False, LATE, state).encode() for state in (State.COUNTED, State.SET))
    assert told_mark(counted) == told_mark(held) == held
    off = BucketMark(1, False, LATE, State.OFF).encode()
    assert told_mark(off) == off != told_mark(held)


def test_holds_are_in_the_order_of_quotas_and_then_of_ballots() -> None:
    assert NOBODY < EARLY < LATE < NEXT_QUOTA
    assert serial_of(NEXT_QUOTA) == 2


@pytest.mark.parametrize("stored", [b"", b"x", bytes(10), bytes(32) + b"\3\0"])
def test_what_is_no_mark_is_damaged(stored: bytes) -> None:
    with pytest.raises(CorruptObject):
        decode_mark(stored)
    assert told_mark(stored) == stored


def test_what_is_no_witness_is_a_bad_frame() -> None:
    with pytest.raises(BadFrame):
        split_witness(bytes(24))
