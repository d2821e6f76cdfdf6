"""Floors: what absent records of a slice have promised. Pure.

A collected record leaves nothing behind but its slice's floor, which is at least every
ballot that the record had promised or accepted.  So an acceptor that has forgotten a
name still refuses what it had refused: absent means (promise = floor, accepted
nothing).  Its counter is a time, too, and not before that of any operation that was dropped
with a record: below it operations are forgotten (``core.birth``).  There is one floor a
slice, read only for absent records; it never goes down.
"""

from __future__ import annotations

from ssastore.core.records import floor_key, floor_key_for
from ssastore.core.register import NO_BALLOT, Ballot, Slot, Value, make_ballot
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import CorruptObject
from ssastore.messages import BALLOT_BYTES


def slice_of_key(stored_key: bytes) -> int:
    """The 16-bit slice number of a stored key."""
    return int.from_bytes(stored_key[:2], "big")


def read_floor(txn: ReadTxn, stored_key: bytes) -> Ballot:
    """The floor of the slice that a stored key is in. Raises CorruptObject: it is unknown."""
    key = floor_key_for(stored_key)
    stored = txn.get(key)
    if stored is None:
        return NO_BALLOT
    if len(stored) != BALLOT_BYTES:
        raise CorruptObject("a floor of another length", key)
    return bytes(stored)


def floor_over(slot: Slot, value: Value) -> Ballot:
    """The floor that a slot leaves when it is dropped with its value."""
    return max(slot.seen, make_ballot(value.latest_ms * 1000, 0, 0))


def raise_floor(txn: WriteTxn, slice16: int, ballot: Ballot) -> None:
    """Make a slice's floor at least ``ballot``; a rotten one must be repaired first (``core.repair``)."""
    key = floor_key(slice16)
    stored = txn.get(key)
    if stored is None or bytes(stored) < ballot:
        txn.put(key, ballot, use_reserve=True)
