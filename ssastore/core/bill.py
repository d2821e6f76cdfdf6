"""What one call is charged in a shard of a bucket with a quota: ``core.planes.Bill``. Coroutines.

A write is refused only when the shard was counted, nothing can be won by counting it again, and
all the other shards were asked lately to give back what they do not need.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from ssastore.core.amounts import ZERO, Amount
from ssastore.core.audits import Audits
from ssastore.core.coordinator import Coordinator
from ssastore.core.counting import WAIT_S, Counting, Means
from ssastore.core.ledger import Charge, Ledger
from ssastore.core.leftovers import upload_of
from ssastore.core.metadata import decode_metadata
from ssastore.core.names import RecordName
from ssastore.core.quotapool import QuotaPool
from ssastore.core.register import Ballots, Value
from ssastore.core.registers import Registers
from ssastore.core.settle import Settler
from ssastore.core.shardname import ShardName, shard_with
from ssastore.core.twins import Change, Record, other_of
from ssastore.env import Clock, Randomness
from ssastore.errors import CorruptObject, HeldElsewhere
from ssastore.messages import Kind

_AGAIN_MAX = 2


@dataclass(frozen=True, slots=True)
class _Charged:
    """What a call was charged."""

    ledger: Ledger
    charge: Charge
    base: Amount
    "What may be given back of the old value."
    parted: bytes = b""
    "Pair (``core.twins``) that there is no more when the value was chosen."
    lent: bytes = b""
    "Pair for whose other record the value was charged before."
    shared: Amount = ZERO
    "What of it counts too often, or nowhere, if nobody knows what became of it."


class OneBill:
    """Of one call; ``look`` begins each round. Every write has one: where nobody counts it costs little."""

    __slots__ = ("_charged", "_counting", "_counts_again", "_lent", "_name", "_shard", "_until_s", "ledger")

    def __init__(self, counting: Counting, name: RecordName) -> None:
        self.ledger: Ledger | None = None
        self._counting = counting
        self._name = name
        self._shard: ShardName | None = None
        self._charged: _Charged | None = None
        self._counts_again = 0
        self._lent = b""
        self._until_s = 0.0

    @property
    def shard(self) -> ShardName:
        """The shard that the call's record is in."""
        if self._shard is None:
            self._shard = shard_with(self._name.bucket, self._name.shards, self._name.key)
        return self._shard

    @property
    def _record(self) -> Record:
        return self._name.kind, self._name.key

    @property
    def _is_part(self) -> bool:
        return self._name.kind == Kind.PART

    def look(self, cfg: int) -> Ledger | None:
        """The ledger that the next round is under."""
        self.ledger = self._counting.ledger_of(self.shard, cfg) if self._counting.ledgers else None
        return self.ledger

    def widen(self, ledger: Ledger) -> None:
        """A plane answers that was not counted."""
        self._counting.widen(self.shard, ledger)

    def lost(self, ledger: Ledger) -> None:
        """A plane is under a later hold."""
        self._counting.drop(self.shard, ledger)

    @property
    def is_open(self) -> bool:
        """See ``core.planes.Bill``."""
        return self.ledger is not None

    @property
    def is_counted(self) -> bool:
        """See ``core.planes.Bill``."""
        return self.ledger is not None and self.ledger.is_counted

    async def open(self) -> None:
        """See ``core.planes.Bill``."""
        async with self._soon():
            await self._counting.hold(self.shard, instead_of=self.ledger)

    @asynccontextmanager
    async def _soon(self) -> AsyncIterator[None]:
        """What waits inside waits so long, all in all, that the caller is told in time to try again here.

        One who is not told asks another plane, whose worker would take the shard over.
        """
        now_s = asyncio.get_running_loop().time()
        self._until_s = self._until_s or now_s + WAIT_S
        try:
            async with asyncio.timeout_at(self._until_s):
                if now_s > self._until_s:
                    raise TimeoutError
                yield
        except TimeoutError:
            raise HeldElsewhere(
                "the bucket's quota is being seen to: what it holds, or what is left"
            ) from None

    async def counted(self) -> None:
        """See ``core.planes.Bill``."""
        if self.ledger is not None:
            async with self._soon():
                await self._counting.counted(self.shard, self.ledger)

    async def charge(self, old: Value, new: Value) -> bool:
        """See ``core.planes.Bill``."""
        ledger = self.ledger
        if ledger is None:
            return True
        change = Change(self._record, old, new)
        if self._is_charged(ledger, change):
            return True
        self.end()
        upload = self._upload_of(new)
        async with self._soon():
            return await self._take(ledger, change, upload)

    async def _take(self, ledger: Ledger, change: Change, upload: bytes) -> bool:
        counting, shard, is_audited = self._counting, self.shard, False
        while True:
            while ledger.is_paused:
                async with counting.turn(shard):
                    pass
            counting.check(shard, ledger)
            base, after = ledger.twins.base(change), change.after
            charge = ledger.charge(base, after, upload, is_part=self._is_part)
            if charge is not None:
                self._keep(ledger, change, charge, base)
                return True
            if upload and not self._is_part and not ledger.may_lend(upload):
                await counting.lend(shard, ledger, upload)
                self._lent = upload
                continue
            grown = after.beyond(base if ledger.is_counted else ZERO)
            lacks = partial(ledger.lacks, base, after, upload, is_part=self._is_part)
            if await counting.grant(shard, ledger, lacks, grown):
                continue
            if not ledger.is_counted:
                await counting.counted(shard, ledger)
            elif await self._pair(ledger, change):
                return True
            elif self._may_win(ledger, change) and self._counts_again < _AGAIN_MAX:
                self._counts_again += 1
                await counting.count_again(shard, ledger)  # The next look finds another ledger.
            elif not is_audited:
                await counting.audit(shard)
                is_audited = True
            else:
                return False

    def _keep(self, ledger: Ledger, change: Change, charge: Charge, base: Amount, lent: bytes = b"") -> None:
        parted = ledger.twins.parted(change)
        shared = (change.before if parted else ZERO).most(change.after if lent else ZERO)
        self._charged = _Charged(ledger, charge, base, parted, lent, shared)
        ledger.twins.begin(change.record)

    async def _pair(self, ledger: Ledger, change: Change) -> bool:
        """Charge nothing for what is there already, in the other record of a version."""
        pair = change.lendable
        if not pair or not await self._counting.is_twin(self.shard, ledger, change, pair):
            return False
        # Nothing is waited for from here on: what was found is so.
        base = ledger.twins.base(change)
        charge = ledger.charge(base + change.after, change.after)
        assert charge is not None, "nothing is taken for it"
        is_new = ledger.twins.lend(pair, change.after)
        self._keep(ledger, change, charge, base, pair if is_new else b"")
        return True

    def _may_win(self, ledger: Ledger, change: Change) -> bool:
        """Whether something may be won by counting anew."""
        pair = change.lendable
        return not ledger.is_exact or bool(
            pair and not ledger.twins.is_certain(other_of(change.record, pair))
        )

    def _is_charged(self, ledger: Ledger, change: Change) -> bool:
        """Whether an earlier round has charged the same for the same."""
        charged = self._charged
        if charged is None or charged.ledger is not ledger or charged.charge.new != change.after:
            return False
        return not charged.charge.is_credited or charged.base == ledger.twins.base(change)

    def _upload_of(self, new: Value) -> bytes:
        """Stored name of the upload that the record is of."""
        if self._is_part:
            return upload_of(self._name.key)
        if self._name.kind != Kind.OBJECT or not new.is_live:
            return b""
        try:
            upload = decode_metadata(new.metadata).extra.get("upload")
        except CorruptObject:
            return b""
        return self._name.key + b"\0" + upload.encode() if isinstance(upload, str) else b""

    def settle(self) -> None:
        """See ``core.planes.Bill``."""
        for charged in self._taken_back():
            ledger = charged.ledger
            ledger.settle(charged.charge, is_part=self._is_part)
            self._part(charged, charged.parted)
            self._counting.credited(self.shard, ledger)

    def release(self) -> None:
        """See ``core.planes.Bill``."""
        for charged in self._taken_back():
            ledger = charged.ledger
            ledger.release(charged.charge)
            self._part(charged, charged.lent)
            if charged.lent:
                # The other record may have been charged as if it were alone by then.
                ledger.missed += charged.shared
            self._counting.credited(self.shard, ledger)

    def _part(self, charged: _Charged, pair: bytes) -> None:
        """Let a pair be none any more, unless this record may yet be of it by another call."""
        twins = charged.ledger.twins
        if pair and twins.is_certain(self._record):
            twins.part(pair)
        elif pair:
            charged.ledger.missed += charged.shared

    def end(self) -> None:
        """The call is over, or begins anew: what became of what was charged is not known."""
        for charged in self._taken_back():
            charged.ledger.miss(charged.charge)
            charged.ledger.missed += charged.shared
            charged.ledger.twins.doubt([self._record])
        if self._lent and self.ledger is not None:
            self.ledger.lend_no_more(self._lent)
            self._lent = b""

    def _taken_back(self) -> Iterator[_Charged]:
        """What was charged, if anything was: once, whatever becomes of it."""
        charged, self._charged = self._charged, None
        if charged is not None:
            charged.ledger.twins.end(self._record)
            yield charged


def begin_counting(
    coordinator: Coordinator,
    registers: Registers,
    settler: Settler,
    ballots: Ballots,
    clock: Clock,
    randomness: Randomness,
) -> Counting:
    """Let a worker count the shards of buckets with quotas that it proposes for."""
    means = Means(
        coordinator=coordinator,
        pool=QuotaPool(registers, randomness),
        audits=Audits(registers),
        ballots=ballots,
        clock=clock,
        settle=lambda name: settler.settle(name.label, coordinator.planes_of(name)),
    )
    counting = Counting(means)
    coordinator.ledgers, coordinator.bill_of = counting.ledgers, partial(OneBill, counting)
    return counting
