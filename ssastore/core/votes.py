"""Votes on records: one slot of a register in one transaction. Pure.

With several replicas a record is one slot of a register (``core.register``), and
Prepare and Accept, which only nodes may send, are what changes it.  With one replica
both phases and the decision between them are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ssastore.core.birth import birth_of, may_be_forgotten
from ssastore.core.ceiling import Ceiling
from ssastore.core.floors import floor_over, raise_floor, read_floor, slice_of_key
from ssastore.core.metadata import summary
from ssastore.core.operations import decide_delete, decide_put
from ssastore.core.place import Served, place_key
from ssastore.core.records import record_key, tombstone_key
from ssastore.core.register import (
    LIVE,
    NO_BALLOT,
    Ballot,
    Ballots,
    Decision,
    Slot,
    Value,
    decode_slot,
    decode_value,
    is_far_ahead,
    none_above,
    peek_slot,
    recent_of,
)
from ssastore.core.replies import Refusal, Reply, reply_of
from ssastore.core.shuts import check_open, hold_witness
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import CorruptObject
from ssastore.limits import (
    BIRTH_AHEAD_MS,
    INLINE_BYTES_MAX,
    KEY_BYTES_MAX,
    METADATA_BYTES_MAX,
    SEGMENTS_MAX,
)
from ssastore.messages import Accept, Collect, Delete, Get, Kind, Prepare, Put, Read, Status

_OBJECT = int(Kind.OBJECT)
_METADATA_MAX = METADATA_BYTES_MAX + SEGMENTS_MAX * 48 + 256


class Votes:
    """The slots of one environment."""

    def __init__(self, served: Served, ballots: Ballots, ceiling: Ceiling) -> None:
        self._served = served
        self._ballots = ballots
        self._ceiling = ceiling

    def get(self, request: Get, txn: ReadTxn) -> Reply:
        """What this plane has accepted; whether it is chosen, the asker finds out from a majority."""
        locator, cfg = self._served.check_record(request), self._served.cfg_of(request.iid)
        self._served.check_count(request)
        return self._accepted(request, locator, cfg, txn)

    def read(self, request: Read, txn: ReadTxn) -> Reply:
        """What is agreed, of a register with one replica."""
        locator, cfg = self._served.check_record(request), self._served.cfg_of(request.iid)
        self._check_alone(request)
        return self._accepted(request, locator, cfg, txn)

    def _check_alone(self, request: Put | Delete | Read) -> None:
        """Refuse for now what only a majority can decide, for a plane that is none. The slice votes."""
        if self._served.count_at(request.iid) != 1:
            raise Refusal(Status.SILENT, "a replicated record is read and written through its proposer")

    @staticmethod
    def _accepted(request: Get | Read, locator: int, cfg: int, txn: ReadTxn) -> Reply:
        stored = txn.get(record_key(locator, request.kind, request.bucket, request.key))
        if stored is None:
            return [cfg, NO_BALLOT, 0, 0, b""], b""
        accepted, state, modified_ms, metadata, data = peek_slot(stored)
        fields = [cfg, accepted, state, modified_ms, bytes(metadata)]
        return fields, b"" if request.head_only else bytes(data)

    def put(self, request: Put, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        locator = self._served.check_record(request)
        check_value(request, body)
        return self._decide(request, locator, txn, decide_put(request, body, now_ms), now_ms)

    def delete(self, request: Delete, txn: WriteTxn, now_ms: int) -> Reply:
        locator = self._served.check_record(request)
        return self._decide(request, locator, txn, decide_delete(request, now_ms), now_ms)

    def _decide(
        self,
        request: Put | Delete,
        locator: int,
        txn: WriteTxn,
        decide: Callable[[Value], Decision],
        now_ms: int,
    ) -> Reply:
        """Both phases and the decision of a register with one replica."""
        self._check_alone(request)
        check_birth(request, now_ms)
        stored_key = record_key(locator, request.kind, request.bucket, request.key)
        slot, floor = self._slot_and_floor(txn, stored_key)
        value = none_above(floor) if slot.accepted == NO_BALLOT else decode_value(slot.value)
        # Before anything that may have changed since the first time, the bucket's state included.
        if (entry := value.find(request.op_id)) is not None:
            return reply_of(entry.result, entry.modified_ms)
        if isinstance(request, Put):
            mark = self._served.mark_locator(request.iid, request.shards)
            check_open(request, mark, txn, hold=b"")
        birth = birth_of(request.born_ms, now_ms)
        if may_be_forgotten(value, request.attempt, birth):
            raise Refusal(Status.UNKNOWN, "the record no longer remembers operations as old as this one")
        decision = decide(value)
        if decision.value is None and request.attempt == 1:
            return reply_of(decision.result, value.modified_ms)
        # What a repeated call is answered is written even when it changes nothing: its first attempt may
        # still be on its way.
        new = replace(value) if decision.value is None else decision.value
        ballot = self._ballots.next(slot.seen, now_ms)
        new.follow(value)
        entry = recent_of(
            ballot,
            request.op_id,
            at_ms=max(now_ms, birth.latest_ms),
            modified_ms=new.modified_ms,
            result=decision.result,
            attempt=request.attempt,
        )
        new.remember(entry, now_ms)
        slot.accept(ballot, b"", NO_BALLOT)
        self._ceiling.cover(txn, ballot, now_ms)
        self._store(txn, stored_key, slot, new.encode(), new.state, now_ms)
        return reply_of(decision.result, new.modified_ms)

    def prepare(self, request: Prepare, txn: WriteTxn, now_ms: int) -> Reply:
        locator = self._served.check_record(request)
        self._check_ballot(request, now_ms)
        stored_key = record_key(locator, request.kind, request.bucket, request.key)
        slot, floor = self._slot_and_floor(txn, stored_key)
        hold = hold_witness(txn, self._served.mark_locator(request.iid, request.shards), request.bucket)
        if not slot.prepare(request.ballot):
            raise Refusal(Status.OUTRUN, slot.seen.hex())
        self._ceiling.cover(txn, request.ballot, now_ms)
        txn.put(stored_key, *slot.encode(), use_reserve=True)
        return [request.cfg, slot.accepted, floor, hold], slot.value

    def accept(self, request: Accept, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        locator = self._served.check_record(request)
        self._check_ballot(request, now_ms)
        value = decode_value(body)
        stored_key = record_key(locator, request.kind, request.bucket, request.key)
        slot = self._slot(txn, stored_key)
        if request.ballot == slot.accepted:
            return [], b""
        mark = self._served.mark_locator(request.iid, request.shards)
        check_open(request, mark, txn, hold=request.hold)
        if not slot.accept(request.ballot, b"", request.reserved):
            raise Refusal(Status.OUTRUN, slot.seen.hex())
        self._ceiling.cover(txn, slot.promise, now_ms)
        self._store(txn, stored_key, slot, [body], value.state, now_ms)
        return [], b""

    def collect(self, request: Collect, txn: WriteTxn) -> Reply:
        """Drop a record that all planes hold under one ballot; the floor keeps what it had promised."""
        locator = self._served.check_record(request)
        self._served.check_cfg(request.iid, request.cfg)
        stored_key = record_key(locator, request.kind, request.bucket, request.key)
        slot = self._slot(txn, stored_key)
        if slot.accepted != request.ballot:
            if slot.accepted == NO_BALLOT and slot.promise >= request.ballot:
                return [], b""  # It was collected before, by this ballot or a later one.
            raise Refusal(Status.OUTRUN, slot.seen.hex())
        value = decode_value(slot.value)
        if value.is_live:
            raise Refusal(Status.BAD_REQUEST, "a live record is not collected")
        raise_floor(txn, slice_of_key(stored_key), floor_over(slot, value))
        txn.delete(stored_key)
        return [], b""

    def install(
        self, stored_key: bytes, txn: WriteTxn, ballot: Ballot, value: bytes | memoryview, now_ms: int
    ) -> bool:
        """Put a repaired slot in the place of a rotten or lost one; False when it has gone above meanwhile.

        ``ballot`` is above everything that the lost one can have promised (``core.repair``).  A rotten one is
        silent.  A lost one votes as if it were new: then this is one more ACC to what has come of it.
        """
        slot = Slot(NO_BALLOT)
        if self._is_readable(txn, stored_key):
            slot = self._slot(txn, stored_key)
        if not slot.accept(ballot, b"", NO_BALLOT):
            return False
        self._ceiling.cover(txn, ballot, now_ms)
        self._store(txn, stored_key, slot, [value], decode_value(value).state, now_ms)
        return True

    # -- the register -------------------------------------------------------------------------------

    @staticmethod
    def _is_readable(txn: WriteTxn, stored_key: bytes) -> bool:
        try:
            txn.get(stored_key)
        except CorruptObject:
            return False
        return True

    @staticmethod
    def _slot(txn: WriteTxn, stored_key: bytes) -> Slot:
        stored = txn.get(stored_key)
        if stored is None:
            return decode_slot(None, read_floor(txn, stored_key))
        # A copy: in a write transaction a page that a view shows may be changed under it.
        return decode_slot(bytes(stored), NO_BALLOT)

    @staticmethod
    def _slot_and_floor(txn: WriteTxn, stored_key: bytes) -> tuple[Slot, Ballot]:
        """The slot, and the slice's floor if nothing was accepted above it.

        What was collected says nothing to one who sees a later value: that carries it as its cut.
        """
        stored = txn.get(stored_key)
        if stored is None:
            floor = read_floor(txn, stored_key)
            return Slot(floor), floor
        slot = decode_slot(bytes(stored), NO_BALLOT)
        return slot, read_floor(txn, stored_key) if slot.accepted == NO_BALLOT else NO_BALLOT

    @staticmethod
    def _store(
        txn: WriteTxn,
        stored_key: bytes,
        slot: Slot,
        value: list[bytes | memoryview],
        state: int,
        now_ms: int,
    ) -> None:
        """Write a slot whose value has changed; one that says "no object" is queued to be collected."""
        is_dead = state != LIVE
        txn.put(stored_key, slot.head(), *value, use_reserve=is_dead)
        if is_dead:
            txn.put(tombstone_key(now_ms, stored_key), stored_key, use_reserve=True)

    def _check_ballot(self, request: Prepare | Accept, now_ms: int) -> None:
        self._served.check_cfg(request.iid, request.cfg)
        if is_far_ahead(request.ballot, now_ms):
            raise Refusal(Status.BAD_REQUEST, "a ballot of more than a day ahead")


def check_birth(request: Put | Delete, now_ms: int) -> None:
    """Refuse what would make a record remember the future: its later calls would all be unknown."""
    if abs(request.born_ms) > now_ms + BIRTH_AHEAD_MS:
        raise Refusal(Status.BAD_REQUEST, "an operation that begins long after now")


def check_value(request: Put, body: bytes | memoryview) -> None:
    """Refuse what a listing or a later reader could not take: it would fail for everybody."""
    if len(request.metadata) > _METADATA_MAX or len(body) > INLINE_BYTES_MAX:
        raise Refusal(Status.BAD_REQUEST, "metadata or inline data is too long")
    try:
        summary(request.metadata)
    except CorruptObject:
        raise Refusal(Status.BAD_REQUEST, "the metadata is not such") from None
    name = request.key
    has_nul = b"\0" in name
    if has_nul:
        name = place_key(name)
    if not 0 < len(name) <= KEY_BYTES_MAX or (has_nul and request.kind == _OBJECT):
        raise Refusal(Status.BAD_REQUEST, "a key has 1 to 1024 bytes and no NUL")
    try:
        name.decode()
    except UnicodeDecodeError:
        raise Refusal(Status.BAD_REQUEST, "a key is UTF-8") from None
