"""The register: one value, agreed by a majority of planes. Pure.

CASPaxos (Rystsov, arXiv 1802.07000): no log, no leader, no clock.  Every plane has
one acceptor for a name: the slot at the name's address.  This module is what an
acceptor does to a slot and what a proposer decides from a value; ``core.proposer``
is the conversation between the two.

A *ballot* is 16 bytes: counter u64, environment id u32, boot u32, all big endian,
so that byte order is ballot order.  The pair of environment and boot makes it
unique for ever: two proposers never use the same one.

Stored slot:
    version u8 = 2 | 0 u24 | promise 16 | accepted 16 | value

Value, which is also what travels between planes:
    state u8 | recent count u8 | lag u16 | metadata length u32 | modified_ms u64
    cut ballot 16 | cut_ms u64
    recent: (ballot 16 | op id 16 | at_ms u64 | modified_ms u64 | result u7, repeated u1) each
    metadata | inline data

Recent operations make a repeated call get its first result.  *Cut* remembers the
newest operation that was ever trimmed from the list, and the newest that was applied by a
repeated attempt (``core.birth`` says what for).  The latter is kept as its *lag* behind the
former in ticks of 16 ms, rounded up to a tick, plus one; 0 is none.  From 17 minutes on it lags no further.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from xxhash import xxh3_64_hexdigest

from ssastore.errors import CorruptObject
from ssastore.limits import BALLOT_AHEAD_US_MAX, RECENT_OPS_MAX, RECENT_OPS_MS

NONE = 0
LIVE = 1
TOMBSTONE = 2

Ballot = bytes
NO_BALLOT: Ballot = bytes(16)

APART = 1 << 31
"Bit of a ballot's boot number that is set only in ballots of ``Ballots.just_above``."

_VERSION = 2
_BALLOT = struct.Struct(">QII")
_SLOT = struct.Struct(">Bxxx16s16s")
_VALUE = struct.Struct(">BBHIQ16sQ")
_RECENT = struct.Struct(">16s16sQQB")
_REPEATED = 0x80
_TICK_BITS = 4
_LAG_MAX = 0xFFFF


def make_ballot(counter: int, env_id: int, boot: int) -> Ballot:
    """A ballot from its parts."""
    return _BALLOT.pack(counter, env_id, boot)


def counter_of(ballot: Ballot) -> int:
    """The counter of a ballot."""
    counter: int = _BALLOT.unpack(ballot)[0]
    return counter


def is_far_ahead(ballot: Ballot, now_ms: int) -> bool:
    """Whether a counter is further ahead of this clock than any honest proposer's can be."""
    return counter_of(ballot) > now_ms * 1000 + BALLOT_AHEAD_US_MAX


class Ballots:
    """Ballots of one environment in one boot: each is used once.

    A counter is above every one seen, sent or reserved, and not below the clock, so that a
    newcomer need not lose a round to everybody before it wins one.
    """

    def __init__(self, env_id: int, boot: int) -> None:
        self._env_id = env_id
        self._boot = boot
        self._last = 0

    def next(self, seen: Ballot, now_ms: int) -> Ballot:
        """A fresh ballot above ``seen``."""
        self._last = max(self._last + 1, counter_of(seen) + 1, now_ms * 1000)
        return make_ballot(self._last, self._env_id, self._boot)

    def just_above(self, seen: Ballot) -> Ballot:
        """A ballot as little above ``seen`` as can be, for rounds that do not follow the clock.

        It may be drawn twice, unlike all others, which it never equals.  That is harmless when nothing is
        sent under it before a majority has promised it: an acceptor promises a ballot once, so of two
        rounds under one ballot at most one gets that far.
        """
        return make_ballot(counter_of(seen) + 1, self._env_id, self._boot | APART)

    def after(self, ballot: Ballot) -> Ballot:
        """The ballot that is reserved together with ``ballot``; counts as used from now on."""
        self._last = max(self._last, counter_of(ballot) + 1)
        return make_ballot(counter_of(ballot) + 1, self._env_id, self._boot)


class Recent(NamedTuple):
    """An operation that was decided."""

    ballot: Ballot
    op_id: bytes
    at_ms: int
    modified_ms: int
    mark: int
    "Its result, and whether it was a repeated attempt that was decided."

    @property
    def result(self) -> int:
        return self.mark & ~_REPEATED

    @property
    def is_repeated(self) -> bool:
        return self.mark >= _REPEATED


def recent_of(
    ballot: Ballot, op_id: bytes, *, at_ms: int, modified_ms: int, result: int, attempt: int
) -> Recent:
    """How an operation is remembered."""
    return Recent(ballot, op_id, at_ms, modified_ms, result | _REPEATED if attempt > 1 else result)


@dataclass(slots=True)
class Value:
    """What is agreed on."""

    state: int = NONE
    modified_ms: int = 0
    metadata: bytes | memoryview = b""
    data: bytes | memoryview = b""
    recent: list[Recent] = field(default_factory=list)
    cut_ballot: Ballot = NO_BALLOT
    cut_ms: int = 0
    cut_repeated_ms: int = 0
    "Latest time of a repeated attempt that was trimmed; not above ``cut_ms`` by more than a tick."

    @property
    def latest_ms(self) -> int:
        """Latest time of any operation that led here."""
        return max([self.cut_ms, *[entry.at_ms for entry in self.recent]])

    @property
    def is_live(self) -> bool:
        return self.state == LIVE

    def follow(self, old: Value) -> None:
        """Stand in the place of ``old``: what led there leads here."""
        self.recent, self.cut_ballot = old.recent, old.cut_ballot
        self.cut_ms, self.cut_repeated_ms = old.cut_ms, old.cut_repeated_ms

    def find(self, op_id: bytes) -> Recent | None:
        """The operation's entry, when it was decided and is still remembered."""
        for entry in self.recent:
            if entry.op_id == op_id:
                return entry
        return None

    def remember(self, entry: Recent, now_ms: int) -> None:
        """Add an operation; what is too old or too much goes below the cut.

        Of too many the oldest goes that was no repeated attempt, as long as repeated ones are fewer than
        half: the time of a repeated one in the cut is what first attempts are compared with, and it may
        lie ahead (``core.birth``).
        """
        if not self.recent:
            self.recent = [entry]
            return
        kept = [old for old in self.recent if now_ms - old.at_ms < RECENT_OPS_MS]
        if len(kept) < len(self.recent):
            for old in self.recent:
                if now_ms - old.at_ms >= RECENT_OPS_MS:
                    self._cut(old)
        while len(kept) >= RECENT_OPS_MAX:
            self._cut(kept.pop(_least_wanted(kept)))
        kept.append(entry)
        self.recent = kept

    def _cut(self, old: Recent) -> None:
        self.cut_ballot = max(self.cut_ballot, old.ballot)
        self.cut_ms = max(self.cut_ms, old.at_ms)
        if old.is_repeated:
            self.cut_repeated_ms = max(self.cut_repeated_ms, old.at_ms)

    def encode(self) -> list[bytes | memoryview]:
        """The parts of the value as it is stored and as it travels."""
        head = _VALUE.pack(
            self.state,
            len(self.recent),
            _lag_of(self.cut_ms, self.cut_repeated_ms) if self.cut_repeated_ms else 0,
            len(self.metadata),
            self.modified_ms,
            self.cut_ballot,
            self.cut_ms,
        )
        for entry in self.recent:
            head += _RECENT.pack(*entry)
        return [head, self.metadata, self.data]


def stamp_of(modified_ms: int, metadata: bytes | memoryview) -> str:
    """Tells one state of a record from all others of the same name: its time and what its metadata say.

    An ETag does not: it is the same when the same bytes are written again with other headers.
    """
    return f"{modified_ms:x}-{xxh3_64_hexdigest(metadata)}"


def decode_value(encoded: bytes | memoryview) -> Value:
    """The value of its bytes, with views into them; no bytes are the value NONE.

    Raises:
        CorruptObject: not a value.
    """
    if not encoded:
        return Value()
    try:
        state, count, lag, metadata_length, modified_ms, cut_ballot, cut_ms = _VALUE.unpack_from(encoded)
        view = memoryview(encoded)
        start = _VALUE.size + count * _RECENT.size
        recent = [Recent(*fields) for fields in _RECENT.iter_unpack(view[_VALUE.size : start])]
    except struct.error as error:
        raise CorruptObject("a stored value is cut short") from error
    middle = start + metadata_length
    if state > TOMBSTONE or middle > len(view):
        raise CorruptObject("a stored value has an unknown state or impossible lengths")
    repeated_ms = ((cut_ms >> _TICK_BITS) + 2 - lag) << _TICK_BITS if lag else 0
    return Value(
        state, modified_ms, view[start:middle], view[middle:], recent, cut_ballot, cut_ms, repeated_ms
    )


def _least_wanted(recent: list[Recent]) -> int:
    """Index of the operation that goes when there are too many."""
    if sum(entry.is_repeated for entry in recent) > (RECENT_OPS_MAX - 1) // 2:
        return 0
    return next(index for index, entry in enumerate(recent) if not entry.is_repeated)


def _lag_of(cut_ms: int, repeated_ms: int) -> int:
    """The lag of the second behind the first, as it is stored."""
    ticks = -(-repeated_ms >> _TICK_BITS)
    return min((cut_ms >> _TICK_BITS) + 2 - ticks, _LAG_MAX)


def none_above(floor: Ballot) -> Value:
    """The value of a name of which nothing is known but that all there was lies below ``floor``.

    A floor's counter is not before the time of any operation that was dropped under it (``core.floors``).
    """
    if floor == NO_BALLOT:
        return Value()
    cut_ms = counter_of(floor) // 1000
    return Value(cut_ballot=floor, cut_ms=cut_ms, cut_repeated_ms=cut_ms)


class Decision(NamedTuple):
    """What an operation makes of a value: a result, and the new value unless it is refused."""

    result: int
    value: Value | None


# -- the acceptor -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Slot:
    """What one plane holds for a name; a name without a slot has promised the floor and accepted nothing."""

    promise: Ballot
    accepted: Ballot = NO_BALLOT
    value: bytes | memoryview = b""

    @property
    def seen(self) -> Ballot:
        """The highest ballot here: a proposer that lost must go above it."""
        return max(self.promise, self.accepted)

    def prepare(self, ballot: Ballot) -> bool:
        """Promise to accept nothing below ``ballot``; False when it comes too late."""
        if ballot <= self.seen:
            return False
        self.promise = ballot
        return True

    def accept(self, ballot: Ballot, value: bytes | memoryview, reserved: Ballot) -> bool:
        """Take a value under ``ballot``; False when it comes too late.

        ``reserved`` is the ballot after it that the same proposer may use without asking, or NO_BALLOT.
        The same ballot again is a repetition: it carries the same value, so it is a success.
        """
        if ballot == self.accepted:
            return True
        if ballot < self.promise or ballot <= self.accepted:
            return False
        self.accepted, self.value = ballot, value
        self.promise = max(ballot, reserved)
        return True

    def head(self) -> bytes:
        """What stands before the value in a stored slot."""
        return _SLOT.pack(_VERSION, self.promise, self.accepted)

    def encode(self) -> list[bytes | memoryview]:
        """The parts of the stored slot."""
        return [self.head(), self.value]


def decode_slot(stored: bytes | memoryview | None, floor: Ballot) -> Slot:
    """The slot of its stored bytes, or the empty one above ``floor``. Raises CorruptObject."""
    if stored is None:
        return Slot(floor)
    if len(stored) < _SLOT.size or stored[0] != _VERSION:
        raise CorruptObject("a stored slot is cut short or of another version")
    _, promise, accepted = _SLOT.unpack_from(stored)
    return Slot(promise, accepted, stored[_SLOT.size :])


def peek_slot(
    stored: bytes | memoryview,
) -> tuple[Ballot, int, int, bytes | memoryview, bytes | memoryview]:
    """(accepted, state, modified_ms, metadata, data) of a stored slot: the short way of a plain read."""
    try:
        version, _, accepted = _SLOT.unpack_from(stored)
        if len(stored) == _SLOT.size:
            return accepted, NONE, 0, b"", b""
        state, count, _, metadata_length, modified_ms, _, _ = _VALUE.unpack_from(stored, _SLOT.size)
    except struct.error as error:
        raise CorruptObject("a stored slot is cut short") from error
    start = _SLOT.size + _VALUE.size + count * _RECENT.size
    middle = start + metadata_length
    if version != _VERSION or state > TOMBSTONE or middle > len(stored):
        raise CorruptObject("a stored slot has an unknown version or impossible lengths")
    return accepted, state, modified_ms, stored[start:middle], stored[middle:]
