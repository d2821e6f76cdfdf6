"""A holder of a shard, against a record of the quota whose changes may come late."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ssastore.core.amounts import ZERO, Amount
from ssastore.core.birth import birth_of
from ssastore.core.counting import Counting, Means
from ssastore.core.holds import make_hold
from ssastore.core.ledger import Ledger
from ssastore.core.metadata import Metadata
from ssastore.core.planes import Outrun, Promise, Uncounted
from ssastore.core.proposer import Operation, Proposer
from ssastore.core.quota import Quota, Share, decode_quota
from ssastore.core.quotapool import QuotaPool
from ssastore.core.register import LIVE, NO_BALLOT, Ballots, Decision, Value
from ssastore.core.registers import When
from ssastore.core.shardname import ShardName
from ssastore.errors import OutcomeUnknown, PreconditionFailed, Unavailable
from ssastore.messages import BALLOT_BYTES
from ssastore.sim.loop import VirtualLoop
from ssastore.system import SystemClock, SystemRandomness

BALLOT = b"A" * BALLOT_BYTES
SHARD = ShardName(7, 2, 0)


class LateRecord:
    """A quota of 100 bytes of which 80 are one shard's. One write is held up, and its writer is cut off."""

    def __init__(self) -> None:
        shares = (Share(BALLOT, Amount(80, 0)), Share(b"B" * BALLOT_BYTES, Amount(20, 0)))
        self.quota = Quota(1, "photos", 100, None, shares)
        self.serial = 0
        self.late: tuple[bytes, bytes] | None = None
        self.is_cut = False

    @property
    def stamp(self) -> bytes:
        return b"%d" % self.serial

    async def state(self, *_: Any) -> Any:
        if self.is_cut:
            raise Unavailable("cut off")
        return SimpleNamespace(is_live=True, data=self.quota.encode(), stamp=self.stamp)

    async def put(self, place: Any, kind: Any, key: Any, metadata: Any, data: bytes, condition: When) -> None:
        if self.late is None:
            self.late, self.is_cut = (self.stamp, data), True
            raise OutcomeUnknown("no answer")
        if condition.etag != self.stamp:
            raise PreconditionFailed("changed")
        self.quota, self.serial = decode_quota(data), self.serial + 1


async def test_a_share_that_was_given_back_in_doubt_is_not_used_again() -> None:
    """It could be lowered after it has grown: nothing would be written when it grows to what it was."""
    record = LateRecord()
    pool = QuotaPool(cast(Any, record), SystemRandomness())
    nobody = cast(Any, None)
    counting = Counting(Means(nobody, pool, nobody, nobody, nobody, nobody))
    ledger = Ledger(make_hold(1, BALLOT), 1, frozenset({0, 1}), Amount(80, 0), Amount(60, 0))
    ledger.is_counted = True
    counting.ledgers[SHARD] = ledger
    with pytest.raises(Unavailable):
        await counting.give_back(SHARD, ledger, ZERO)
    record.is_cut = False
    need = Amount(5, 0)
    with pytest.raises(Uncounted):
        await counting.grant(SHARD, ledger, partial(ledger.lacks, ZERO, need), need)
    assert SHARD not in counting.ledgers


class Noted:
    """A bill that allows everything and notes what it is told."""

    is_open = is_counted = True

    def __init__(self) -> None:
        self.told: list[str] = []

    async def open(self) -> None:
        self.told.append("open")

    async def counted(self) -> None:
        self.told.append("counted")

    async def charge(self, old: Value, new: Value) -> bool:
        self.told.append("charge")
        return True

    def settle(self) -> None:
        self.told.append("settle")

    def release(self) -> None:
        self.told.append("release")


class TwoRounds:
    """Planes 0 and 1 hold a large value, plane 2 a smaller one that is newer; which answer changes."""

    count, cfg = 3, 1

    def __init__(self, ballots: Ballots, now_ms: int) -> None:
        self.bill = Noted()
        self._ballots = ballots
        self._large = ballots.next(NO_BALLOT, now_ms)
        self._small = ballots.next(self._large, now_ms)
        self._turn = 0

    def now(self) -> TwoRounds:
        self._turn += 1
        return self

    @property
    def _is_first(self) -> bool:
        return self._turn <= 2

    async def prepare(self, plane: int, ballot: bytes) -> Promise:
        if plane == (1 if self._is_first else 2):
            raise Unavailable("late")
        accepted, size = (self._small, 100) if plane == 2 else (self._large, 200)
        return Promise(1, accepted, NO_BALLOT, b"".join(value_of(size).encode()), b"h", True)

    async def accept(self, plane: int, cfg: int, ballot: bytes, *_: Any) -> None:
        if self._is_first and plane != 2:
            raise Outrun(self._ballots.after(ballot))


def value_of(size: int) -> Value:
    return Value(LIVE, 1, Metadata(f"{size:032x}", size).encode())


async def test_a_refusal_that_is_written_settles_no_charge_of_an_earlier_round() -> None:
    """A value was charged over the small one and sent to one plane; then the condition fails on the other."""

    def decide(value: Value) -> Decision:
        is_small = bytes(value.metadata) == value_of(100).metadata
        return Decision(0, value_of(50)) if is_small else Decision(1, None)

    clock = SystemClock()
    ballots = Ballots(1, 1)
    planes = TwoRounds(ballots, clock.now_ms())
    operation = Operation(b"o" * 16, decide, birth_of(0, clock.now_ms()))
    outcome = await Proposer(ballots, clock, SystemRandomness()).write(b"n", planes, operation)
    assert outcome.result == 1
    assert "charge" in planes.bill.told and "settle" not in planes.bill.told


class Unreadable:
    """A pool that can never be read, and notes how often that was tried."""

    def __init__(self) -> None:
        self.reads = 0

    async def read(self, bucket: int) -> None:
        self.reads += 1
        raise Unavailable("away")


def test_a_plane_that_cannot_be_read_is_counted_less_and_less_often() -> None:
    loop, nobody, pool = VirtualLoop(1), cast(Any, None), Unreadable()
    counting = Counting(Means(nobody, cast(Any, pool), nobody, nobody, nobody, nobody))
    ledger = Ledger(make_hold(1, BALLOT), 1, frozenset({0, 1}), Amount(80, 0), ZERO, is_counted=True)

    async def write(seconds: int) -> None:
        for _ in range(10 * seconds):
            counting.widen(SHARD, ledger)
            await asyncio.sleep(0.1)

    loop.run_until_complete(write(300))
    assert 6 <= pool.reads <= 10
    counting._widened[SHARD] = counting._widened[SHARD][0], 2.0
    before = pool.reads
    loop.run_until_complete(write(4))
    assert pool.reads == before + 1, "as soon as before, once all planes were counted"
    loop.close()
