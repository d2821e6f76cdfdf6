"""How far an environment has come, told to others: its boot number, and a counter on its own disk.

The counter is raised every few seconds, by a change like any other, and told when that
is durable.  A store keeps changes in their order: a disk that still shows the counter
holds all that was acknowledged before it was raised.  So an environment whose disk shows
less than what others were told has lost what it may have voted: it must not vote again
(``core.boot``).  Marks are kept in the control store and by two peers; each of them
alone is enough to find out.

    mark/ENV   in the control store: boot and sequence, changed only by compare-and-set
"""

from __future__ import annotations

import json
import struct
from typing import NamedTuple

from ssastore.core.records import MARKS_END, MARKS_FIRST, mark_key
from ssastore.core.survey import walk
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import ConfigError, CorruptObject

_PREFIX = "mark/"
_STORED = struct.Struct(">IQ")
_FORMAT = 1


class Watermark(NamedTuple):
    """``sequence`` counts the marks that were made durable; both numbers only grow."""

    boot: int = 0
    sequence: int = 0

    def is_behind(self, told: Watermark) -> bool:
        """Whether somebody was told more than what is here."""
        return told.boot > self.boot or told.sequence > self.sequence

    def encode(self) -> bytes:
        return json.dumps({"format": _FORMAT, "boot": self.boot, "sequence": self.sequence}).encode()

    @staticmethod
    def decode(value: bytes) -> Watermark:
        """Inverse of ``encode``. ConfigError: not such a record."""
        try:
            found = json.loads(value)
            number, boot, sequence = found["format"], found["boot"], found["sequence"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"the mark of an environment: not such a record: {error}") from error
        if number != _FORMAT or type(boot) is not int or type(sequence) is not int:
            raise ConfigError(f"the mark of an environment: format {number!r}, or no integers")
        return Watermark(boot, sequence)


def mark_name(env_id: int) -> str:
    """Key of an environment's mark in the control store."""
    return f"{_PREFIX}{env_id:08x}"


def recall(txn: ReadTxn, env_id: int) -> Watermark:
    """The highest that another environment ever told here; a damaged mark is none, and others have it too."""
    try:
        stored = txn.get(mark_key(env_id))
    except CorruptObject:
        return Watermark()
    if stored is None or len(stored) != _STORED.size:
        return Watermark()
    return Watermark(*_STORED.unpack(stored))


def read_marks(txn: ReadTxn) -> dict[int, Watermark]:
    """What all other environments ever told here; damaged marks are left out."""
    keys = [key for key, _ in walk(txn, MARKS_FIRST, MARKS_END)]
    env_ids = [int.from_bytes(key[len(MARKS_FIRST) :], "big") for key in keys]
    return {env_id: recall(txn, env_id) for env_id in env_ids}


def remember(txn: WriteTxn, env_id: int, told: Watermark) -> Watermark:
    """Keep what an environment tells of itself; the highest that is known now."""
    known = recall(txn, env_id)
    highest = Watermark(max(known.boot, told.boot), max(known.sequence, told.sequence))
    if highest != known:
        txn.put(mark_key(env_id), _STORED.pack(*highest), use_reserve=True)
    return highest
