"""Holds: which counting of a shard a write must belong to, where the bucket has a quota. Pure.

Somebody must know how much a shard holds, or nobody can say no in time.  The worker that
proposes for a shard takes a *hold* on it: at a majority of planes its mark (``core.shuts``) then names
that hold, and a value is accepted under no other.  So from then on all that comes was counted by
one worker, in its memory; what was there before it counts by reading it.

A hold is the quota's serial and a ballot.  Serials order what operators set, ballots order those
who hold; neither comes twice, so of two holds the later one is higher, everywhere.

A plane whose records were all read under the hold is *counted*: whatever it holds was reckoned with.  It says
so with each promise, and who makes firm what such a plane has (``core.settle``) may do so in the
name of the hold.
"""

from __future__ import annotations

from enum import IntEnum

from ssastore.core.replies import Refusal
from ssastore.errors import BadFrame
from ssastore.messages import HOLD_BYTES, Kind, Status

NOBODY = bytes(HOLD_BYTES)
"Before any hold."

_SERIAL_BYTES = 8

_WITH_ALL = b"\x02"

_COUNTED = frozenset(map(int, (Kind.OBJECT, Kind.VERSION, Kind.PART)))


class State(IntEnum):
    """How far a hold has come at a plane."""

    OFF = 0
    "The bucket has no quota any more."
    SET = 1
    COUNTED = 2


def is_counted_kind(kind: int) -> bool:
    """Whether records of a kind count against a quota: all that has bytes of users."""
    return kind in _COUNTED


def make_hold(serial: int, ballot: bytes) -> bytes:
    """A hold of its parts."""
    return serial.to_bytes(_SERIAL_BYTES, "big") + ballot


def serial_of(hold: bytes) -> int:
    """The serial of the quota that a hold was taken for."""
    return int.from_bytes(hold[:_SERIAL_BYTES], "big")


def ballot_of(hold: bytes) -> bytes:
    """The ballot in a hold."""
    return hold[_SERIAL_BYTES:]


def split_witness(witness: bytes) -> tuple[bytes, bool]:
    """The hold that a plane is under, if any, and whether it was counted. Raises BadFrame."""
    if len(witness) not in (0, HOLD_BYTES + 1):
        raise BadFrame("a promise names something that is no hold")
    return witness[:HOLD_BYTES], witness[HOLD_BYTES:] == _WITH_ALL


def check_held(kind: int, hold: bytes, held: bytes, state: int) -> None:
    """Refuse a value that was not counted under the hold that a plane is under.

    A delete as well: whoever counts the shard must hear what has become free.
    """
    if state != State.OFF and hold != held and kind in _COUNTED:
        raise Refusal(Status.HELD, held.hex())
