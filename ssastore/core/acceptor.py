"""One request against one environment, in one transaction. Pure.

``Acceptor.read`` and ``Acceptor.write`` check, in this order and inside the
transaction: the plane and locator of the request's IID against its name
(MISDIRECTED), then the IID's slice against what is ACTIVE here (NOT_MINE), then
the request itself.  The connection's own address only picked node and worker.

With several replicas a record is one slot of a register (``core.register``), and
Prepare and Accept, which only nodes may send, are what changes it.  With one replica
both phases and the decision between them are one transaction.  Either way the reply
may leave when the commit is durable, which is the store's promise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgpack
from blake3 import blake3

from ssastore.core.listing import scan_page, slice_holds
from ssastore.core.metadata import summary
from ssastore.core.operations import REFUSALS, Result, decide_delete, decide_put
from ssastore.core.records import (
    TOMBSTONES_END,
    TOMBSTONES_FIRST,
    blob_key,
    record_key,
    reference_key,
    shut_key,
    tombstone_key,
)
from ssastore.core.register import (
    NO_BALLOT,
    TOMBSTONE,
    Ballots,
    Decision,
    Recent,
    Slot,
    Value,
    decode_slot,
    decode_value,
    is_far_ahead,
    peek_slot,
)
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import CorruptObject
from ssastore.keyspace import (
    TAIL_BITS,
    locator_of,
    plane_of,
    position_in_shard,
    position_of,
    position_of_blob,
    position_of_key,
    shard_locator,
    shard_of_key,
    slice16_of,
)
from ssastore.limits import INLINE_BYTES_MAX, KEY_BYTES_MAX, METADATA_BYTES_MAX, REACH_SKEW_MS, SEGMENTS_MAX
from ssastore.messages import (
    Accept,
    Delete,
    Get,
    GetBlob,
    Kind,
    Prepare,
    Put,
    PutBlob,
    Read,
    Scan,
    Shut,
    Status,
)

Reply = tuple[list[Any], bytes | memoryview]
"""Header items after the request id (status first, put in front by the shell) and body."""

WRITES = frozenset((Put.TYPE, Delete.TYPE, Shut.TYPE, PutBlob.TYPE, Prepare.TYPE, Accept.TYPE))
NODE_ONLY = frozenset((Prepare.TYPE, Accept.TYPE))
"Requests that only the node role may send."
_METADATA_MAX = METADATA_BYTES_MAX + SEGMENTS_MAX * 48 + 256

_shard_locator = lru_cache(maxsize=65536)(shard_locator)


def place_key(key: bytes) -> bytes:
    """The part of a record's key that places it: uploads and parts stand beside their object's key."""
    end = key.find(b"\0")
    return key if end < 0 else key[:end]


def expected_position(bucket: int, shards: int, key: bytes) -> int:
    """The position that a record's key hashes to."""
    key = place_key(key)
    if not shards:
        return position_of_key(bucket, 0, key)
    return position_in_shard(_shard_locator(bucket, shard_of_key(key, shards)), key)


def _shut_locator(locator: int, shards: int) -> int:
    """Where the mark of a shut bucket stands: in the shard's locator, or once in the /80 if hashed."""
    return locator if shards else locator & ~0xFFFF


class Refusal(Exception):
    """A request that gets a status other than OK. Raised before anything is written."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Acceptor:
    """The requests of one worker's environment.

    Args:
        replicas: planes 0 to ``replicas - 1`` hold data.
        worker: index of this worker; ``workers`` is how many share the node by lane.
    """

    def __init__(self, *, replicas: int, worker: int, workers: int, ballots: Ballots, cfg: int = 1) -> None:
        self.replicas = replicas
        self.cfg = cfg
        self._ballots = ballots
        self.worker = worker
        self.workers = workers
        self._active: set[int] = set()
        self._reads: dict[int, Callable[[Any, ReadTxn], Reply]] = {
            Get.TYPE: self._get,
            Read.TYPE: self._get,
            Scan.TYPE: self._scan,
            GetBlob.TYPE: self._get_blob,
        }
        self._writes: dict[int, Callable[[Any, WriteTxn, bytes | memoryview, int], Reply]] = {
            Put.TYPE: self._put,
            Delete.TYPE: self._delete,
            Shut.TYPE: self._shut,
            PutBlob.TYPE: self._put_blob,
            Prepare.TYPE: self._prepare,
            Accept.TYPE: self._accept,
        }

    def activate(self, slice16s: set[int]) -> None:
        """Set which /80 slices are ACTIVE at this node; other lanes than ours are left out."""
        self._active = {s for s in slice16s if s % 16 % self.workers == self.worker}

    @property
    def active(self) -> set[int]:
        """The /80 slices, as 16-bit numbers, that this worker serves."""
        return self._active

    def read(self, request: Any, txn: ReadTxn) -> Reply:
        """Answer a read. Raises Refusal, CorruptObject."""
        return self._reads[request.TYPE](request, txn)

    def write(self, request: Any, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        """Decide and apply a write. Raises Refusal (nothing written), StoreFull, CorruptObject."""
        return self._writes[request.TYPE](request, txn, body, now_ms)

    # -- checks -------------------------------------------------------------------------------------

    def _check_owned(self, iid: int) -> None:
        if slice16_of(iid) not in self._active:
            raise Refusal(Status.NOT_MINE, f"slice {slice16_of(iid):04x} is not served here")

    def check_place(self, request: Get | Read | Put | Delete | Prepare | Accept) -> int:
        """The locator of a record's request, after the checks that every request gets."""
        iid = request.iid
        if expected_position(request.bucket, request.shards, request.key) != position_of(iid):
            raise Refusal(Status.MISDIRECTED, "the key does not hash to the address it was sent to")
        return self._check_iid(iid)

    def _check_iid(self, iid: int) -> int:
        if not 0 <= plane_of(iid) < self.replicas:
            raise Refusal(Status.MISDIRECTED, f"plane {plane_of(iid):x} holds no data here")
        self._check_owned(iid)
        return locator_of(iid)

    def _check_shard(self, request: Scan | Shut) -> int:
        """The locator of a request that is for a whole shard; the tail of its IID is free."""
        if request.shards:
            locator = _shard_locator(request.bucket, request.shard)
            if position_of(request.iid) >> TAIL_BITS != locator:
                raise Refusal(Status.MISDIRECTED, "the shard does not hash to the address it was sent to")
        return self._check_iid(request.iid)

    def _check_blob(self, request: PutBlob | GetBlob) -> int:
        if position_of_blob(request.digest) != position_of(request.iid):
            raise Refusal(Status.MISDIRECTED, "the digest does not hash to the address it was sent to")
        return self._check_iid(request.iid)

    # -- reads --------------------------------------------------------------------------------------

    def _get(self, request: Get | Read, txn: ReadTxn) -> Reply:
        """What this plane has accepted; whether it is chosen, the asker finds out from a majority."""
        locator = self.check_place(request)
        stored = txn.get(record_key(locator, request.kind, request.bucket, request.key))
        if stored is None:
            return [self.cfg, NO_BALLOT, 0, 0, b""], b""
        accepted, state, modified_ms, metadata, data = peek_slot(stored)
        fields = [self.cfg, accepted, state, modified_ms, bytes(metadata)]
        return fields, b"" if request.head_only else bytes(data)

    def _scan(self, request: Scan, txn: ReadTxn) -> Reply:
        locator = self._check_shard(request)
        if request.shards:
            return scan_page(txn, record_key(locator, request.kind, request.bucket, b""), request)
        found = slice_holds(txn, slice16_of(request.iid), request.kind, request.bucket)
        return [found], b""

    def _get_blob(self, request: GetBlob, txn: ReadTxn) -> Reply:
        stored = txn.get(blob_key(self._check_blob(request), request.digest))
        if stored is None:
            raise Refusal(Status.NOT_FOUND, "no such blob")
        return [], bytes(stored)

    # -- writes -------------------------------------------------------------------------------------

    def _put(self, request: Put, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        locator = self.check_place(request)
        check_value(request, body)
        return self._decide(request, locator, txn, decide_put(request, body, now_ms), now_ms)

    def _delete(self, request: Delete, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        locator = self.check_place(request)
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
        if self.replicas != 1:
            raise Refusal(Status.BAD_REQUEST, "a write of a replicated record goes through its proposer")
        stored_key = record_key(locator, request.kind, request.bucket, request.key)
        slot = self._slot(txn, stored_key)
        value = decode_value(slot.value)
        # Before anything that may have changed since the first time, the bucket's state included.
        if (entry := value.find(request.op_id)) is not None:
            return reply_of(entry.result, entry.modified_ms)
        if isinstance(request, Put):
            self._check_shut(request, locator, txn)
        first_sent_ms = now_ms - request.age_ms
        if request.attempt > 1 and value.cut_ms >= first_sent_ms - REACH_SKEW_MS:
            raise Refusal(Status.UNKNOWN, "the record no longer remembers operations as old as this one")
        decision = decide(value)
        if decision.value is None and request.attempt == 1:
            return reply_of(decision.result, value.modified_ms)
        # What a repeated call is answered is written even when it changes nothing: its first attempt may
        # still be on its way.
        new, ballot = replace(decision.value or value), self._ballots.next(slot.seen, now_ms)
        new.recent, new.cut_ballot, new.cut_ms = value.recent, value.cut_ballot, value.cut_ms
        new.remember(Recent(ballot, request.op_id, now_ms, new.modified_ms, decision.result), now_ms)
        slot.accept(ballot, b"", NO_BALLOT)
        self._store(txn, stored_key, slot, new.encode(), new.state, now_ms)
        return reply_of(decision.result, new.modified_ms)

    def _prepare(self, request: Prepare, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        locator = self.check_place(request)
        self._check_ballot(request, now_ms)
        stored_key = record_key(locator, request.kind, request.bucket, request.key)
        slot = self._slot(txn, stored_key)
        if not slot.prepare(request.ballot):
            raise Refusal(Status.OUTRUN, slot.seen.hex())
        txn.put(stored_key, *slot.encode(), use_reserve=True)
        return [self.cfg, slot.accepted, NO_BALLOT], slot.value

    def _accept(self, request: Accept, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        locator = self.check_place(request)
        self._check_ballot(request, now_ms)
        value = decode_value(body)
        stored_key = record_key(locator, request.kind, request.bucket, request.key)
        slot = self._slot(txn, stored_key)
        if request.ballot == slot.accepted:
            return [], b""
        self._check_shut(request, locator, txn)
        if not slot.accept(request.ballot, b"", request.reserved):
            raise Refusal(Status.OUTRUN, slot.seen.hex())
        self._store(txn, stored_key, slot, [body], value.state, now_ms)
        return [], b""

    def _shut(self, request: Shut, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        locator = self._check_shard(request)
        mark = shut_key(_shut_locator(locator, request.shards), request.bucket)
        stored = txn.get(mark)
        if stored is not None:
            # Of one deletion, reopening comes last: a late repetition of its shutting changes nothing.
            last = int.from_bytes(stored[:-1], "big"), not stored[-1]
            if (request.attempt, not request.shut) < last:
                raise Refusal(Status.PRECONDITION_FAILED, "a later step of a deletion was here before")
        txn.put(mark, request.attempt.to_bytes(8, "big"), bytes([request.shut]), use_reserve=True)
        return [], b""

    def _put_blob(self, request: PutBlob, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        locator = self._check_blob(request)
        if blake3(body).digest() != request.digest:
            raise Refusal(Status.BAD_REQUEST, "the blob does not match its digest")
        stored_key = blob_key(locator, request.digest)
        try:
            existed = txn.get(stored_key) is not None
        except CorruptObject:
            existed = False  # Here is the right content: it replaces the rotten one.
        if not existed:
            txn.put(stored_key, body)
        if request.reference:
            reference = reference_key(locator, request.digest, request.reference)
            txn.put(reference, now_ms.to_bytes(8, "big"), request.reference)
        return [existed], b""

    # -- the register -------------------------------------------------------------------------------

    @staticmethod
    def _slot(txn: WriteTxn, stored_key: bytes) -> Slot:
        stored = txn.get(stored_key)
        # A copy: in a write transaction a page that a view shows may be changed under it.
        return decode_slot(None if stored is None else bytes(stored), NO_BALLOT)

    @staticmethod
    def _store(
        txn: WriteTxn,
        stored_key: bytes,
        slot: Slot,
        value: list[bytes | memoryview],
        state: int,
        now_ms: int,
    ) -> None:
        """Write a slot whose value has changed; a tombstone is queued to be collected."""
        is_tombstone = state == TOMBSTONE
        txn.put(stored_key, slot.head(), *value, use_reserve=is_tombstone)
        if is_tombstone:
            txn.put(tombstone_key(now_ms, stored_key), stored_key, use_reserve=True)

    @staticmethod
    def _check_shut(request: Put | Accept, locator: int, txn: WriteTxn) -> None:
        mark = txn.get(shut_key(_shut_locator(locator, request.shards), request.bucket))
        if mark is not None and mark[-1]:
            raise Refusal(Status.NO_BUCKET, "the bucket is being or was deleted")

    def _check_ballot(self, request: Prepare | Accept, now_ms: int) -> None:
        if request.cfg != self.cfg:
            raise Refusal(Status.BAD_REQUEST, f"cfg {request.cfg} is not {self.cfg}")
        if is_far_ahead(request.ballot, now_ms):
            raise Refusal(Status.BAD_REQUEST, "a ballot of more than a day ahead")


def reply_of(result: int, modified_ms: int) -> Reply:
    """The reply of a decided write. Raises Refusal when it was refused."""
    if result in REFUSALS:
        raise Refusal(*REFUSALS[Result(result)])
    return [modified_ms, result == Result.APPLIED], b""


def check_value(request: Put, body: bytes | memoryview) -> None:
    """Refuse what a listing or a later reader could not take: it would fail for everybody."""
    if len(request.metadata) > _METADATA_MAX or len(body) > INLINE_BYTES_MAX:
        raise Refusal(Status.BAD_REQUEST, "metadata or inline data is too long")
    try:
        summary(request.metadata)
    except CorruptObject:
        raise Refusal(Status.BAD_REQUEST, "the metadata is not such") from None
    name = place_key(request.key)
    if not 0 < len(name) <= KEY_BYTES_MAX or (request.kind == Kind.OBJECT and name != request.key):
        raise Refusal(Status.BAD_REQUEST, "a key has 1 to 1024 bytes and no NUL")
    try:
        name.decode()
    except UnicodeDecodeError:
        raise Refusal(Status.BAD_REQUEST, "a key is UTF-8") from None


def collect_tombstones(txn: WriteTxn, before_ms: int, limit: int) -> int:
    """Drop up to ``limit`` tombstones that were written before ``before_ms``; how many went.

    A key that was written again since has a live record, which stays.
    """
    before_ms = max(before_ms, 0)
    end = min(TOMBSTONES_FIRST + before_ms.to_bytes(8, "big"), TOMBSTONES_END)
    due: list[tuple[bytes, bytes]] = []
    for queue_key, stored_key in txn.scan(TOMBSTONES_FIRST, end):
        due.append((queue_key, bytes(stored_key)))
        if len(due) == limit:
            break
    # All reads before the first delete: a change that raises must not have written yet.
    expired = [stored_key for _, stored_key in due if _is_expired(txn, stored_key, before_ms)]
    for stored_key in expired:
        txn.delete(stored_key)
    for queue_key, _ in due:
        txn.delete(queue_key)
    return len(due)


def _is_expired(txn: WriteTxn, stored_key: bytes, before_ms: int) -> bool:
    try:
        stored = txn.get(stored_key)
        if stored is None:
            return False
        _, state, modified_ms, _, _ = peek_slot(bytes(stored))
    except CorruptObject:
        return False  # It stays, to be found and repaired, and holds up no other.
    return state == TOMBSTONE and modified_ms < before_ms


def encode_coverage(active: set[int], epoch: int) -> bytes:
    """Body of a COVERAGE frame: msgpack [epoch, runs of first and end of 16-bit slice numbers]."""
    runs: list[list[int]] = []
    for number in sorted(active):
        if runs and runs[-1][1] == number:
            runs[-1][1] = number + 1
        else:
            runs.append([number, number + 1])
    packed: bytes = msgpack.packb([epoch, runs])
    return packed
