"""Versions of which there are two records, and that count once. Pure; in memory, as ``core.ledger``.

What is current in a bucket with versions is kept as a VERSION before it is replaced or deleted, and may
become current again while it is kept: then an object's record and a VERSION are the same version.  In a
bucket that is full there is no room to count it twice, and nobody could delete.  So the second record of such
a *pair* may be taken for nothing, if it is certain that the first one is there:

    lend      nothing of the other record is under way or in doubt, and it was read and is that version
    part      one of the two is another version now, or gone: it gives nothing back, and what was charged
              once stands for the one that is left

What is in doubt of objects and versions is remembered for that until the shard is counted anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ssastore.core.amounts import ZERO, Amount, amount_of
from ssastore.core.metadata import decode_metadata, is_version
from ssastore.core.register import Value
from ssastore.core.versionnames import NAME_LENGTH, split_version_key, version_key, whole_name
from ssastore.messages import Kind

Record = tuple[int, bytes]
"Kind and key."

_DOUBTS_MAX = 4096


@dataclass(slots=True)
class Change:
    """One record's value, and the one that is to replace it. Raises CorruptObject."""

    record: Record
    old: Value
    new: Value
    before: Amount = field(init=False)
    after: Amount = field(init=False)

    def __post_init__(self) -> None:
        self.before, self.after = amount_of(self.record[0], self.old), amount_of(self.record[0], self.new)

    @property
    def was(self) -> bytes:
        """The pair that the old value makes its record one of; empty for none."""
        return _pair_of(self.record, self.old)

    @property
    def will(self) -> bytes:
        """The same of the new value."""
        return _pair_of(self.record, self.new)

    @property
    def lendable(self) -> bytes:
        """The same, if there may be the other record already: a VERSION's object, and one that was kept."""
        pair = self.will
        is_new = self.record[0] == Kind.OBJECT and pair and len(_version_of(self.new)) < NAME_LENGTH
        return b"" if is_new else pair


def _version_of(value: Value) -> str:
    version = decode_metadata(value.metadata).version
    return version.name if version else ""


def _pair_of(record: Record, value: Value) -> bytes:
    kind, key = record
    if not value.is_live or not is_version(value.metadata):
        return b""
    if kind == Kind.VERSION:
        return key if amount_of(kind, value).objects else b""
    return version_key(key, whole_name(_version_of(value), value.modified_ms)) if kind == Kind.OBJECT else b""


def other_of(record: Record, pair: bytes) -> Record:
    """The other record of a pair."""
    return (Kind.VERSION, pair) if record[0] == Kind.OBJECT else (Kind.OBJECT, split_version_key(pair)[0])


class Twins:
    """Of one shard, as long as it is held."""

    def __init__(self) -> None:
        self._pairs: dict[bytes, Amount] = {}
        self._begun: Counter[Record] = Counter()
        self._doubted: set[Record] = set()
        self._is_blurred = False
        "More was in doubt than is remembered."
        self._watched: set[Record] = set()
        self._touched: set[Record] | None = set()
        "Records that values were sent of before the shard was counted; None: it was."

    # -- what is known of records -------------------------------------------------------------------

    def doubt(self, records: Iterable[Record]) -> None:
        """Nobody knows which of several values these have.

        Nor when another one was chosen: what is in doubt may have the higher ballot.
        """
        for record in records:
            if len(self._doubted) >= _DOUBTS_MAX:
                self._is_blurred = True
                return
            self._doubted.add(record)

    def begin(self, record: Record) -> None:
        """A value is about to be sent."""
        self._begun[record] += 1
        self._watched.discard(record)
        if self._touched is not None:
            self._touched.add(record)

    def end(self, record: Record) -> None:
        """It was chosen, or nothing was sent, or that is in doubt (``doubt``)."""
        self._begun[record] -= 1
        if not self._begun[record]:
            del self._begun[record]

    def is_certain(self, record: Record) -> bool:
        """Whether what the record has is agreed, and nothing is under way."""
        return not (self._is_blurred or record in self._begun or record in self._doubted)

    def watch(self, record: Record) -> None:
        """Begin to look whether anything is sent."""
        self._watched.add(record)

    def was_still(self, record: Record) -> bool:
        """Whether nothing was sent since ``watch``, by the end of which this must be called."""
        is_still = record in self._watched
        self._watched.discard(record)
        return is_still

    def count(self, pairs: dict[bytes, Amount], differing: list[Record]) -> Amount:
        """The shard was counted, and these were reckoned once; what of them may be no pairs any more."""
        touched = (self._touched or set()) | set(differing)
        self._pairs, self._touched = pairs, None
        self.doubt(differing)
        blurred = ZERO
        for pair, amount in pairs.items():
            record = Kind.VERSION, pair
            if record in touched or other_of(record, pair) in touched:
                blurred += amount
        return blurred

    # -- pairs --------------------------------------------------------------------------------------

    def base(self, change: Change) -> Amount:
        """What may be given back when a change was made: nothing that still counts for the other record."""
        shared = self._pairs.get(change.was) if self._pairs else None
        if shared is None:
            return change.before
        is_same = change.was == change.will
        return change.before.least(change.after) if is_same else change.before.beyond(shared)

    def parted(self, change: Change) -> bytes:
        """The pair that there is no more when a change was made; empty for none."""
        was = change.was if self._pairs else b""
        return was if was in self._pairs and was != change.will else b""

    def lend(self, pair: bytes, amount: Amount) -> bool:
        """Let one charge stand for both records; False if it did already."""
        is_new = pair not in self._pairs
        self._pairs[pair] = amount
        return is_new

    def part(self, pair: bytes) -> None:
        """One record of a pair is something else now."""
        self._pairs.pop(pair, None)
