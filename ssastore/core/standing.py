"""What an environment may do for a slice: a judgement from the group's record and from its own disk. Pure.

The control store says which environment votes for a slice, since which epoch, under
which cfg.  The environment's own disk says how far the slice's data here has come: its
*standing*, the epoch that the data is complete for and the highest cfg that it ever
adopted.  Neither alone gives a vote:

    the record names      in state       epoch, against the standing's      the slice is
    another environment   any            -                                  QUARANTINED
    this environment      RECOVERING     one above it: the data is here     FILLED
    this environment      RECOVERING     else                               RECOVERING
    this environment      ACTIVE         equal                              ACTIVE, under the record's cfg
    this environment      ACTIVE         above it: the data is older        QUARANTINED
    this environment      ACTIVE         below it: the record is older      UNKNOWN
    this environment      MOVING         as of ACTIVE; sealed for its h     SEALED
    (any of these, under a cfg or an epoch below the standing's: the record is older)   UNKNOWN

The epoch of a slice that is ACTIVE or MOVING is ``complete_epoch``: a move that is
begun or cancelled raises the record's epoch and leaves the data complete.  Therefore a seal
needs no undoing: it holds for the one MOVING whose epoch it names, and is dead under
every later record that has this environment as its owner.

Only ACTIVE votes.  SEALED has given its last vote, unless the move is cancelled.
QUARANTINED leaves only through a recovery.  UNKNOWN waits for a control store that is not
older than this disk.  An environment that adopted a cfg never votes under a lower one,
whatever it is told: that is the *fence*.

A standing is stored once it differs from that of an untouched slice, so there is
nothing to write when a cluster is formed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import Enum
from typing import Any, NamedTuple

from ssastore.core.boot import Environment
from ssastore.core.groups import MOVING as RECORD_MOVING
from ssastore.core.groups import RECOVERING as RECORD_RECOVERING
from ssastore.core.groups import GroupRecord
from ssastore.core.numbers import is_part_number
from ssastore.core.records import STANDINGS_END, STANDINGS_FIRST, slice_of_standing, standing_key
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import BadFrame, CorruptObject
from ssastore.messages import STAND_BYTES

_STANDING = struct.Struct(">QQQ")
_PART_BYTES = 4
_UNSEALED_BYTES = 16
"A standing that was never sealed has no third field, as before there were seals."
_STAND = struct.Struct(">IQ")

assert _STAND.size == STAND_BYTES


class State(Enum):
    """What a slice is to the environment of its owner."""

    ACTIVE = "ACTIVE"
    SEALED = "SEALED"
    FILLED = "FILLED"
    RECUT = "RECUT"
    "Split or merged, and that is not noted on the disk yet; never judged, and over in a moment."
    RECOVERING = "RECOVERING"
    QUARANTINED = "QUARANTINED"
    UNKNOWN = "UNKNOWN"


class Standing(NamedTuple):
    """How far a slice's data in this environment has come. The default is that of an untouched slice."""

    epoch: int = 1
    "The epoch that the data is complete for."
    cfg: int = 1
    "The highest configuration that was ever adopted: the fence."
    seal: int = 0
    "The last handover that the slice was sealed for, or began to be filled by; 0: none."


UNTOUCHED = Standing()
DAMAGED = Standing(0, 1)


def judge(record: GroupRecord, plane: int, environment: Environment, standing: Standing) -> State:
    """What a plane of a group is to an environment with this standing of the slice on its disk.

    Whoever asks knows that the environment is one of the plane's owner.
    """
    found = record.planes[plane]
    if (found.env or environment.first_env) != environment.env_id:
        return State.QUARANTINED
    if record.cfg < standing.cfg or found.epoch < standing.seal:
        return State.UNKNOWN
    if found.state == RECORD_RECOVERING:
        return State.FILLED if standing.epoch == found.epoch + 1 else State.RECOVERING
    if found.complete_epoch != standing.epoch:
        return State.QUARANTINED if found.complete_epoch > standing.epoch else State.UNKNOWN
    is_sealed = found.state == RECORD_MOVING and standing.seal == found.epoch
    return State.SEALED if is_sealed else State.ACTIVE


def read_standings(txn: ReadTxn) -> dict[int, Standing]:
    """The standings that differ from UNTOUCHED, by slice.

    A damaged one is that of a slice whose data is complete for nothing: it is recovered.  The fence is
    not lost with it, as the group's record, which a start reads, is never behind it.
    """
    found: dict[int, Standing] = {}
    first = STANDINGS_FIRST
    while True:
        try:
            for key, value in txn.scan(first, STANDINGS_END):
                found[slice_of_standing(key)] = decode_standing(value)
            break
        except CorruptObject as error:
            if not error.key:
                raise
            found[slice_of_standing(error.key)] = DAMAGED
            first = error.key + b"\0"
    found.pop(-1, None)
    return found


def decode_standing(value: bytes | memoryview) -> Standing:
    """A stored standing; DAMAGED when it is none."""
    if len(value) not in (_UNSEALED_BYTES, _STANDING.size):
        return DAMAGED
    return Standing(*_STANDING.unpack(bytes(value).ljust(_STANDING.size, b"\0")))


def write_standing(txn: WriteTxn, number: int, standing: Standing) -> None:
    """Make a standing durable with the transaction."""
    packed = _STANDING.pack(*standing)
    txn.put(standing_key(number), packed if standing.seal else packed[:_UNSEALED_BYTES], use_reserve=True)


def pack_stands(stands: Iterable[tuple[int, int]]) -> bytes:
    """Parts and their cfgs, as they travel in Fence and Pull."""
    return b"".join([_STAND.pack(part, cfg) for part, cfg in stands])


def unpack_stands(packed: bytes) -> list[tuple[int, int]]:
    """Inverse of ``pack_stands``. Raises BadFrame: no such part."""
    stands = list(_STAND.iter_unpack(packed))
    check_parts([part for part, _ in stands])
    return stands


def pack_parts(parts: Iterable[int]) -> bytes:
    """Parts, as a reply names them."""
    return b"".join([part.to_bytes(_PART_BYTES, "big") for part in parts])


def unpack_parts(packed: Any) -> list[int]:
    """Inverse of ``pack_parts``. Raises BadFrame: that is no list of parts."""
    if type(packed) is not bytes or len(packed) % _PART_BYTES:
        raise BadFrame("not a list of parts")
    at = range(0, len(packed), _PART_BYTES)
    return check_parts([int.from_bytes(packed[first : first + _PART_BYTES], "big") for first in at])


def check_parts(parts: list[int]) -> list[int]:
    """The same. Raises BadFrame: there is no such part."""
    if not all(is_part_number(part) for part in parts):
        raise BadFrame("no such part of a group")
    return parts
