"""Who counts the shards of buckets with quotas: one worker of the nodes for each, in memory. Coroutines.

    hold     the marks at a majority of the shard's planes name a new hold; the shard's share of the quota
             (``core.quota``) is this hold's to change; all of the share counts as used
    count    all that those planes have is read; from then on that counts, and what came since
    grant    what is to be written does not fit the share: more of the quota is taken, if there is more
    return   what is not needed any more is given back

Whoever is asked to write in a shard that somebody else counts takes the hold over; the former
holder notices by its next write, which no majority accepts.  So a crash, a move, a recovery, another cfg
all lead to the same: hold and count again.  Writes go on meanwhile, as far as the quota has room for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakValueDictionary

from ssastore.core.amounts import ZERO, Amount
from ssastore.core.audits import Audits
from ssastore.core.coordinator import Coordinator
from ssastore.core.holds import State, ballot_of, make_hold, serial_of
from ssastore.core.ledger import Ledger
from ssastore.core.names import RecordName
from ssastore.core.place import Place, expected_position
from ssastore.core.planes import Uncounted
from ssastore.core.quota import Quota
from ssastore.core.quotapool import QuotaPool
from ssastore.core.register import LIVE, NO_BALLOT, TOMBSTONE, Ballots, Value
from ssastore.core.replies import Refusal, Reply
from ssastore.core.shardname import ShardName
from ssastore.core.shardplanes import LaterHold, Reckoned, ShardPlanes
from ssastore.core.twins import Change, other_of
from ssastore.env import Clock, spawn
from ssastore.errors import BucketNotFound, HeldElsewhere, OutcomeUnknown, SsaStoreError, TryLater
from ssastore.messages import Count, Status

log = logging.getLogger(__name__)

WAIT_S = 0.7
"How long a call waits for a count: less than its caller waits for the call."
_HOLDS_MAX = 8
_COUNTS_MAX = 3
"How often a shard is counted anew for one question, while writes and lagging planes blur it."
_AGAIN_S = 1.0
"Wait after a count that failed."
_WIDEN_S = 2.0
"How often a shard is counted anew because another plane is there again."
_WIDEN_S_MAX = 64.0
"The same, while that plane cannot be read."
_SETTLED_MAX = 256
"Records that are settled at once before a shard is counted anew."
_KNOWN_LEAST = 64
"So many shards are known before those are looked for that are this worker's no more."


@dataclass(frozen=True, slots=True)
class Means:
    """What counting uses of its worker."""

    coordinator: Coordinator
    pool: QuotaPool
    audits: Audits
    ballots: Ballots
    clock: Clock
    settle: Callable[[RecordName], Awaitable[object]]
    "Makes firm what is agreed of a record, so that its planes are alike."


class _Exhausted(Exception):
    """The quota has no more."""


class Counting:
    """The shards that one worker holds."""

    def __init__(self, means: Means) -> None:
        self.ledgers: dict[ShardName, Ledger] = {}
        self._means = means
        self._planes = ShardPlanes(means.coordinator)
        self._locks = WeakValueDictionary[ShardName, asyncio.Lock]()
        "Those that somebody has, or waits for."
        self._counts: dict[ShardName, asyncio.Task[None]] = {}
        self._returns: dict[ShardName, asyncio.Task[None]] = {}
        self._waiting: dict[ShardName, list[Amount]] = {}
        self._answers: dict[ShardName, asyncio.Task[Reply]] = {}
        self._widened: dict[ShardName, tuple[float, float]] = {}
        "When a shard was counted anew for another plane, and how long it is not again."
        self._forget_at = _KNOWN_LEAST

    def ledger_of(self, shard: ShardName, cfg: int) -> Ledger | None:
        """The ledger of a shard that is held here under this cfg, which is the one of now."""
        ledger = self.ledgers.get(shard)
        if ledger is not None and ledger.cfg != cfg:
            self.drop(shard, ledger)  # Else who holds anew would take it for somebody's who was faster.
            return None
        return ledger

    def drop(self, shard: ShardName, ledger: Ledger) -> None:
        """Somebody else holds the shard."""
        if self.ledgers.get(shard) is ledger:
            del self.ledgers[shard]

    def check(self, shard: ShardName, ledger: Ledger) -> None:
        """Raise Uncounted unless the shard is held by this."""
        if self.ledgers.get(shard) is not ledger:
            raise Uncounted("the shard is not held by this any more")

    def turn(self, shard: ShardName) -> asyncio.Lock:
        """Whoever changes a shard's hold or share does so alone."""
        lock = self._locks.get(shard)
        if lock is None:
            lock = self._locks[shard] = asyncio.Lock()
        return lock

    # -- hold ---------------------------------------------------------------------------------------

    async def hold(self, shard: ShardName, *, instead_of: Ledger | None) -> Ledger | None:
        """Hold a shard anew, and begin to count it; None: its bucket has no quota.

        Only if ``instead_of`` is still its ledger. Raises SsaStoreError.
        """
        async with self.turn(shard):
            known = self.ledgers.get(shard)
            if known is not None and known is not instead_of:
                return known
            ledger = await self._hold(shard)
            if ledger is None:
                self.ledgers.pop(shard, None)
                return None
            if shard not in self.ledgers and len(self.ledgers) >= self._forget_at:
                self._forget()
            self.ledgers[shard] = ledger
            if (running := self._counts.get(shard)) is not None:
                running.cancel()
            task = self._counts[shard] = spawn("count a shard", self._count(shard, ledger))
            task.add_done_callback(lambda done: self._counted_or_not(shard, done))
            return ledger

    def _counted_or_not(self, shard: ShardName, done: asyncio.Task[None]) -> None:
        if self._counts.get(shard) is done:
            del self._counts[shard]

    def _forget(self) -> None:
        """Give back what is known of shards that have moved away, or whose bucket is gone.

        Whatever is not known any more is found out again: who writes next holds the shard anew.
        """
        for shard in self._planes.others_of(self.ledgers):
            del self.ledgers[shard]
        for shard in [shard for shard in self._widened if shard not in self.ledgers]:
            del self._widened[shard]
        self._forget_at = max(_KNOWN_LEAST, 2 * len(self.ledgers))

    async def _hold(self, shard: ShardName) -> Ledger | None:
        means, later = self._means, b""
        for _ in range(_HOLDS_MAX):
            quota = await means.pool.read(shard.bucket)
            # Without a record the bucket is gone: what is left of its quota is lifted.
            is_on = quota is not None and quota.is_on
            if quota is not None and is_on:
                _check_shards(quota, shard)
            serial = quota.serial if quota is not None else serial_of(later) if later else 0
            seen = max(
                quota.shares[shard.shard].ballot if quota is not None and is_on else NO_BALLOT,
                ballot_of(later) if later and serial_of(later) == serial else NO_BALLOT,
            )
            hold = make_hold(serial, means.ballots.next(seen, means.clock.now_ms()))
            step, everywhere = State.SET if is_on else State.OFF, range(self._planes.count(shard))
            try:
                cfg, planes = await self._planes.hold(shard, hold, step, everywhere)
                if not is_on:
                    return None
                claimed = await self._claim(shard, hold)
            except LaterHold as error:
                later = max(later, error.hold)
            except Uncounted:
                continue  # The quota was set again, or somebody else was faster.
            else:
                share = claimed.shares[shard.shard].amount
                return Ledger(hold, cfg, planes, share, share or ZERO, claimed.spare)
        raise TryLater("a shard of a bucket with a quota is held by others all the time")

    async def _claim(self, shard: ShardName, hold: bytes) -> Quota:
        def claim(quota: Quota) -> Quota:
            if quota.shares[shard.shard].ballot > ballot_of(hold):
                raise Uncounted("a later hold has the share")
            return quota.claim(shard.shard, ballot_of(hold))

        return await self._change(shard, hold, claim)

    async def _change(self, shard: ShardName, hold: bytes, change: Callable[[Quota], Quota | None]) -> Quota:
        """Change the record, as long as it is of the hold's serial. Raises Uncounted, _Exhausted."""

        def checked(quota: Quota | None) -> Quota | None:
            if quota is None or quota.serial != serial_of(hold):
                raise Uncounted("the quota was set again")
            return change(quota)

        changed = await self._means.pool.change(shard.bucket, checked)
        if changed is None:
            raise _Exhausted
        return changed

    async def _change_own(
        self, shard: ShardName, ledger: Ledger, change: Callable[[Quota], Quota | None]
    ) -> Quota:
        """The same, as long as the share is this hold's."""

        def checked(quota: Quota) -> Quota | None:
            if quota.shares[shard.shard].ballot != ballot_of(ledger.hold):
                raise Uncounted("a later hold has the share")
            return change(quota)

        try:
            return await self._change(shard, ledger.hold, checked)
        except Uncounted:
            self.drop(shard, ledger)
            raise

    # -- count --------------------------------------------------------------------------------------

    async def _count(self, shard: ShardName, ledger: Ledger) -> None:
        """Read all that the planes hold. If that fails whoever writes next holds the shard anew."""
        try:
            found = await self._planes.read(shard, ledger.planes, ledger.cfg)
            _, planes = await self._planes.hold(shard, ledger.hold, State.COUNTED, found.planes)
            await self._counted(shard, ledger, found, planes)
            if found.left:
                spawn("drop parts", self._means.audits.drop_parts(_place_of(shard), found.left))
        except (LaterHold, Uncounted):
            self.drop(shard, ledger)
        except SsaStoreError as error:
            log.info("shard.not_counted", extra={"bucket": f"{shard.bucket:016x}", "reason": str(error)})
            await asyncio.sleep(_AGAIN_S)
            self.drop(shard, ledger)

    async def _counted(
        self, shard: ShardName, ledger: Ledger, found: Reckoned, planes: frozenset[int]
    ) -> None:
        async with self.turn(shard):
            self.check(shard, ledger)
            ledger.is_paused = True
            try:
                used = found.amount + ledger.used - ledger.begun
                await self._reserve(shard, ledger, used)
                ledger.count(found.amount, found.owed, planes)
                ledger.share = used
                ledger.missed += found.missed
                ledger.missed += ledger.twins.count(found.pairs, found.differing)
                ledger.differing = found.differing
                if len(planes) == self._planes.count(shard) and shard in self._widened:
                    self._widened[shard] = self._widened[shard][0], _WIDEN_S
            finally:
                ledger.is_paused = False

    async def counted(self, shard: ShardName, ledger: Ledger, within_s: float = WAIT_S) -> None:
        """Wait until a shard was counted. Raises Uncounted: held anew; HeldElsewhere: it takes too long."""
        running = self._counts.get(shard)
        if not ledger.is_counted and running is not None:
            await asyncio.wait([running], timeout=max(0.0, within_s))
        self.check(shard, ledger)
        if not ledger.is_counted:
            raise HeldElsewhere("what the bucket holds is being counted for its quota")

    async def count_again(self, shard: ShardName, ledger: Ledger) -> Ledger | None:
        """Count anew, as something may be won by it; the ledger that is begun."""
        # Records that differ count as the largest: what is agreed may be smaller.
        several = ledger.differing[:_SETTLED_MAX]
        del ledger.differing[:_SETTLED_MAX]  # Whoever is cut off here leaves the next one less to do.
        await asyncio.gather(*[self._settle(shard, kind, key) for kind, key in several])
        return await self.hold(shard, instead_of=ledger)

    async def _settle(self, shard: ShardName, kind: int, key: bytes) -> None:
        position = expected_position(shard.bucket, shard.shards, key)
        with suppress(SsaStoreError):
            await self._means.settle(RecordName(position, kind, shard.bucket, shard.shards, key))

    def widen(self, shard: ShardName, ledger: Ledger) -> None:
        """A plane answers that was not counted: count anew, with it, soon.

        Less and less often while that does not help: something of the plane cannot be read.
        """
        now_s = asyncio.get_running_loop().time()
        last_s, wait_s = self._widened.get(shard, (-_WIDEN_S_MAX, _WIDEN_S))
        if ledger.is_counted and now_s - last_s >= wait_s:
            self._widened[shard] = now_s, min(2 * wait_s, _WIDEN_S_MAX)
            spawn("count another plane", self._widen(shard, ledger))

    async def _widen(self, shard: ShardName, ledger: Ledger) -> None:
        with suppress(SsaStoreError):
            await self.hold(shard, instead_of=ledger)

    # -- shares -------------------------------------------------------------------------------------

    async def grant(
        self, shard: ShardName, ledger: Ledger, lacks: Callable[[], Amount], grown: Amount
    ) -> bool:
        """Take more of the quota, as ``lacks`` says; False when there is no more.

        ``grown`` is what the caller is about to charge: who gets his turn takes it for all that wait, too.
        Raises Uncounted, SsaStoreError.
        """
        waiting = self._waiting.setdefault(shard, [])
        waiting.append(grown)
        try:
            async with self.turn(shard):
                self.check(shard, ledger)
                lacking = lacks()
                if lacking == ZERO or ledger.share is None:
                    return True
                wanted, others = ledger.share + lacking, sum(waiting, ZERO) - grown
                spare = others + ledger.spare if ledger.is_counted else others
                try:
                    quota = await self._change_own(
                        shard, ledger, lambda quota: quota.grant(shard.shard, wanted, spare)
                    )
                except _Exhausted:
                    return False
                ledger.share = quota.shares[shard.shard].amount
                return True
        finally:
            waiting.remove(grown)
            if not waiting:
                self._waiting.pop(shard, None)

    def credited(self, shard: ShardName, ledger: Ledger) -> None:
        """Give back what is too much now, soon."""
        if ledger.share is None or not ledger.is_counted or shard in self._returns:
            return
        if not (ledger.share - ledger.used).fits(ledger.spare + ledger.spare):
            task = self._returns[shard] = spawn("return a share", self._return(shard, ledger))
            task.add_done_callback(lambda done: self._returns.pop(shard, None))

    async def _return(self, shard: ShardName, ledger: Ledger) -> None:
        with suppress(Uncounted, SsaStoreError):
            await self.give_back(shard, ledger, ledger.spare)

    async def give_back(self, shard: ShardName, ledger: Ledger, spare: Amount) -> None:
        """Keep no more than ``spare`` beyond what is used. Raises Uncounted, SsaStoreError."""
        async with self.turn(shard):
            self.check(shard, ledger)
            if ledger.share is None or not ledger.is_counted:
                return
            # From now on, whatever becomes of the record.
            ledger.share = kept = ledger.share.least(ledger.used + spare)
            await self._reserve(shard, ledger, kept)

    async def _reserve(self, shard: ShardName, ledger: Ledger, share: Amount) -> None:
        """Set the share. If that fails the hold is over: it could still be lowered when it has grown again.

        Whoever holds the shard next changes the record first, and what is late comes to nothing.
        """
        is_done = False
        try:
            await self._change_own(shard, ledger, lambda quota: quota.reserve(shard.shard, share))
            is_done = True
        finally:
            if not is_done:
                self.drop(shard, ledger)

    async def audit(self, shard: ShardName) -> None:
        """Let all shards of a bucket give back what they do not need, unless they did just now."""
        await self._means.audits.audit(_place_of(shard))

    async def lend(self, shard: ShardName, ledger: Ledger, upload: bytes) -> None:
        """Find out what parts an upload has, which its object stands for."""
        async with self.turn(shard):
            ledger.begin_lending(upload)
            found = 0
            try:
                found = await self._means.audits.size_of_parts(_place_of(shard), upload)
            finally:
                ledger.lend(upload, found)

    async def is_twin(self, shard: ShardName, ledger: Ledger, change: Change, pair: bytes) -> bool:
        """Whether the other record of a pair is there for certain, until something is waited for.

        Raises Uncounted, SsaStoreError.
        """
        other = other_of(change.record, pair)
        if not ledger.twins.is_certain(other):
            return False
        ledger.twins.watch(other)
        is_still = False
        try:
            found = await self._means.audits.record(_place_of(shard), *other)
        finally:
            is_still = ledger.twins.was_still(other)
        self.check(shard, ledger)
        value = Value(LIVE if found.is_live else TOMBSTONE, found.modified_ms, found.packed)
        known = Change(other, value, value)
        return is_still and not ledger.is_paused and (known.was, known.before) == (pair, change.after)

    # -- whoever asks -------------------------------------------------------------------------------

    async def handle(self, request: Count) -> Reply:
        """Answer a Count, soon: whoever waits long asks another plane, which counts anew. Raises Refusal."""
        shard = ShardName(request.bucket, request.shards, request.shard)
        served = self._means.coordinator.acceptor.served
        served.check_shard(request)
        running = self._answers.get(shard)
        if running is None:
            running = spawn("answer a count", self._answer(shard, served.call_cfg_of(request.iid)))
            self._answers[shard] = running
            running.add_done_callback(lambda done: self._answers.pop(shard, None))
        done, _ = await asyncio.wait([running], timeout=WAIT_S)
        return running.result() if done else ([0, 0, False], b"")

    async def _answer(self, shard: ShardName, cfg: int) -> Reply:
        try:
            quota = await self._means.pool.read(shard.bucket)
            if quota is None:
                return [0, 0, True], b""
            if not quota.is_on:
                await self.hold(shard, instead_of=self.ledgers.get(shard))
                return [0, 0, True], b""
            _check_shards(quota, shard)
            ledger = await self._fresh(shard, cfg, quota.serial)
            if ledger is None:
                return [0, 0, False], b""
            if ledger.is_counted:
                await self.give_back(shard, ledger, ZERO)
        except Uncounted:
            return [0, 0, False], b""
        except BucketNotFound as error:
            raise Refusal(Status.NO_BUCKET, str(error)) from None
        except (TryLater, OutcomeUnknown) as error:
            raise Refusal(Status.UNREACHED, str(error)) from None
        return [ledger.used.size, ledger.used.objects, ledger.is_counted], b""

    async def _fresh(self, shard: ShardName, cfg: int, serial: int) -> Ledger | None:
        """The ledger of a shard under the quota as it is now, counted anew if that tells more."""
        ledger = self.ledger_of(shard, cfg)
        if ledger is None or serial_of(ledger.hold) != serial:
            ledger = await self.hold(shard, instead_of=self.ledgers.get(shard))
        for _ in range(_COUNTS_MAX):
            if ledger is None:
                return None
            with suppress(HeldElsewhere):
                await self.counted(shard, ledger)
            if not ledger.is_counted or ledger.is_exact:
                return ledger
            ledger = await self.count_again(shard, ledger)
        if ledger is not None:
            with suppress(HeldElsewhere):
                await self.counted(shard, ledger)
        return ledger

    def close(self) -> None:
        """Stop what goes on."""
        for task in [*self._counts.values(), *self._returns.values(), *self._answers.values()]:
            task.cancel()


def _place_of(shard: ShardName) -> Place:
    return Place(shard.bucket, shard.shards)


def _check_shards(quota: Quota, shard: ShardName) -> None:
    """A shard's place does not depend on how many there are: who says a wrong number is not answered."""
    if len(quota.shares) != shard.shards:
        raise BucketNotFound(f"the bucket has {len(quota.shares)} shards, not {shard.shards}")
