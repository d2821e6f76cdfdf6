"""A write or read of one register over its planes. A coroutine on an injected world.

    round:  PREP(b) to all planes ---- F+1 promises ----> the newest value among them
            decide from it                                  (a pure function)
            ACC(b, value) to all planes ---- F+1 accepted -> done

A proposer that won keeps the next ballot reserved and the value in a cache: the next
write of the name is one ACC.  A plane counts once per phase, however often it answers.

What makes a repeated call safe: every value carries the operations that led to it.
An operation that is found there gets its recorded result and is not evaluated
again.  A refusal is answered only when a majority agrees on the value that it was
read from; the refusal of a *repeated* call is itself written, since its first attempt
may still be waiting at another proposer.  A call whose own accept was outrun is one
that is repeated: a plane that took the value may be the newest that a later round sees,
and then it is taken up from there.

Invariants: one value per ballot (a ballot is drawn once a round and no value is
built after its ACC was sent); an answer leaves only after F+1 planes hold what it
says; ``OutcomeUnknown`` is raised only when a value that was sent may or may not
have been chosen.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from ssastore.core.birth import Birth, may_be_forgotten
from ssastore.core.operations import Result
from ssastore.core.planes import Bill, Outrun, Planes, Promise, Stale, Uncounted, majority
from ssastore.core.register import (
    NO_BALLOT,
    Ballot,
    Ballots,
    Decision,
    Value,
    decode_value,
    is_far_ahead,
    none_above,
    recent_of,
)
from ssastore.core.turns import Turn, Waiting
from ssastore.env import Clock, Randomness
from ssastore.errors import (
    BucketNotFound,
    CorruptObject,
    OutcomeUnknown,
    StoreFull,
    TryLater,
    Unavailable,
)
from ssastore.limits import (
    PROPOSER_CACHE_BYTES,
    PROPOSER_CACHE_NAMES,
    RETRY_BASE_MS,
    RETRY_CAP_MS,
)

T = TypeVar("T")

CALL_BUDGET_S = 5.0
"How long a call duels with other proposers. Its caller has asked another one long before."

_RECENT_BYTES = 320
"Memory of one remembered operation: a tuple, two byte strings, three integers."
_ENTRY_BYTES = 600


@dataclass(frozen=True, slots=True)
class Operation:
    """One call.

    ``decide`` is pure: from the current value, the result and the new value (without the operation's
    own entry).  ``attempt`` counts from 1.
    """

    op_id: bytes
    decide: Callable[[Value], Decision]
    birth: Birth
    attempt: int = 1


_IDENTITY = Operation(b"", lambda value: Decision(0, None), Birth(0, 0))
"Of a read: never remembered."


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an operation, and the time that its value got."""

    result: int
    modified_ms: int


@dataclass(slots=True)
class _Cached:
    ballot: Ballot
    cfg: int
    value: Value


class _Cache:
    """What the last round of each name left, bounded in names and in bytes; the oldest goes first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, _Cached] = OrderedDict()
        self._size = 0

    @staticmethod
    def _size_of(name: bytes, cached: _Cached) -> int:
        recent = len(cached.value.recent) * _RECENT_BYTES
        return len(name) + len(cached.value.metadata) + recent + _ENTRY_BYTES

    def add(self, name: bytes, cached: _Cached) -> None:
        """Remember; a name is taken out before it is used, so it is never here twice."""
        self._entries[name] = cached
        self._size += self._size_of(name, cached)
        while len(self._entries) > PROPOSER_CACHE_NAMES or self._size > PROPOSER_CACHE_BYTES:
            oldest, dropped = self._entries.popitem(last=False)
            self._size -= self._size_of(oldest, dropped)

    def take(self, name: bytes) -> _Cached | None:
        """Take out: a reserved ballot is used once."""
        cached = self._entries.pop(name, None)
        if cached is not None:
            self._size -= self._size_of(name, cached)
        return cached

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._size = 0


@dataclass(slots=True)
class _Call:
    """What one call has learnt and done so far."""

    operation: Operation
    deadline_s: float
    seen: Ballot = NO_BALLOT
    sent: Ballot = NO_BALLOT
    "Lowest ballot under which a value with this operation was sent: it may be taken up by others."
    round: int = 0

    @property
    def is_sent(self) -> bool:
        return self.sent != NO_BALLOT

    @property
    def is_repeated(self) -> bool:
        """Whether an earlier evaluation of this operation may still become what is agreed."""
        return self.operation.attempt > 1 or self.is_sent

    @contextmanager
    def in_doubt(self) -> Iterator[None]:
        """What fails inside fails before anything is sent: unless something was sent before."""
        try:
            yield
        except (TryLater, BucketNotFound, StoreFull, CorruptObject) as error:
            if self.is_sent:
                raise OutcomeUnknown(f"a value of this write was sent: {error}") from None
            raise

    def send(self, ballot: Ballot) -> None:
        """A value that carries the operation is out under ``ballot``, or was."""
        self.sent = min(self.sent, ballot) if self.is_sent else ballot


class Proposer:
    """Writes and reads of registers, for the names whose proposer this worker is."""

    def __init__(self, ballots: Ballots, clock: Clock, randomness: Randomness) -> None:
        self._ballots = ballots
        self._clock = clock
        self._randomness = randomness
        self._cache = _Cache()
        self._locks: Waiting = {}

    async def write(self, name: bytes, planes: Planes, operation: Operation) -> Outcome:
        """Decide and apply one operation, exactly once however often it is repeated.

        Raises:
            Unavailable: no majority of planes can be asked; no value of this call was sent.
            OutcomeUnknown: a value was sent and may or may not be chosen, or the operation is older
                than what the register remembers.
        """
        call = _Call(operation, self._now_s() + CALL_BUDGET_S)
        async with self.alone(name):
            cached, now = self._cache.take(name), planes.now()
            if cached is not None and operation.attempt == 1 and cached.cfg == now.cfg:
                outcome = await self._write_cached(name, now, call, cached)
                if outcome is not None:
                    return outcome
            while True:
                try:
                    outcome = await self._round(name, _look(planes, call), call)
                except (Outrun, Stale) as error:
                    await self._back_off(call, error)
                    if isinstance(error, Uncounted):
                        await _open_bill(planes, call)
                    continue
                except CorruptObject as error:
                    if call.is_sent:
                        raise OutcomeUnknown(f"a value of this write was sent: {error}") from None
                    raise
                if outcome is not None:
                    return outcome

    async def read(self, name: bytes, planes: Planes) -> tuple[Ballot, Value]:
        """The agreed value and its ballot; finishes a write that stopped half way. Raises Unavailable."""
        call = _Call(_IDENTITY, self._now_s() + CALL_BUDGET_S)
        async with self.alone(name):
            self._cache.take(name)
            while True:
                try:
                    now = planes.now()
                    ballot, promises = await self._prepare(now, call)
                    newest = max(promises, key=lambda promise: promise.accepted)
                    if not _is_agreed(promises):
                        await self._write_back(now, promises[0].cfg, ballot, newest)
                        return ballot, decode_value(newest.value)
                    return newest.accepted, decode_value(newest.value)
                except (Outrun, Stale) as error:
                    await self._back_off(call, error)
                    if isinstance(error, Uncounted):
                        await _open_bill(planes, call)

    def forget_name(self, name: bytes) -> None:
        """Drop what is cached of a name: its reserved ballot is about to be outrun from here."""
        self._cache.take(name)

    def forget(self) -> None:
        """Drop what is cached: cfg has changed, or a fence was set."""
        self._cache.clear()

    # -- one round ----------------------------------------------------------------------------------

    async def _write_cached(
        self, name: bytes, planes: Planes, call: _Call, cached: _Cached
    ) -> Outcome | None:
        """One ACC under the reserved ballot; None when a full round is needed.

        The cached value may only lead to a write: a refusal must come from F+1 answers of now.
        """
        call.seen = cached.ballot
        operation = call.operation
        if cached.value.find(operation.op_id) is not None:
            return None
        if may_be_forgotten(cached.value, operation.attempt, operation.birth):
            return None
        decision = operation.decide(cached.value)
        if decision.value is None:
            return None
        try:
            if _is_billed(planes.bill) and not await _charge(planes, call, cached.value, decision.value):
                return None
            return await self._choose(name, planes, call, cached.cfg, cached.ballot, cached.value, decision)
        except (Outrun, Stale) as error:
            self._learn(call, error)
            return None

    async def _round(self, name: bytes, planes: Planes, call: _Call) -> Outcome | None:
        """One full round. Raises Outrun or Stale when it must be tried again with a higher ballot."""
        operation = call.operation
        ballot, promises = await self._prepare(planes, call)
        if any(promise.is_held for promise in promises) and not _is_billed(planes.bill):
            raise Uncounted("writes of this shard are counted")
        cfg = promises[0].cfg
        newest = max(promises, key=lambda promise: promise.accepted)
        if newest.accepted != NO_BALLOT:
            value = decode_value(newest.value)
        else:
            value = none_above(max(promise.floor for promise in promises))
        entry = value.find(operation.op_id)
        if entry is not None:
            if not _is_agreed(promises):
                # The value is out, by this call or by another attempt: from here on it may be chosen.
                call.send(entry.ballot)
                try:
                    await self._write_back(planes, cfg, ballot, newest)
                except (Unavailable, BucketNotFound, StoreFull) as error:
                    raise OutcomeUnknown(f"the write is at a minority of planes: {error}") from None
            return Outcome(entry.result, entry.modified_ms)
        self._check_reach(call, value, promises)
        decision = operation.decide(value)
        new = decision.value
        if new is not None and _is_billed(planes.bill) and not await _charge(planes, call, value, new):
            decision = Decision(Result.OVER_QUOTA, None)
        if decision.value is None and not call.is_repeated:
            if not _is_agreed(promises):
                await self._write_back(planes, cfg, ballot, newest)
            return Outcome(decision.result, value.modified_ms)
        return await self._choose(name, planes, call, cfg, ballot, value, decision)

    def _check_reach(self, call: _Call, value: Value, promises: list[Promise]) -> None:
        """Raise OutcomeUnknown when this operation may have been applied without a trace of it here."""
        # Our own earlier ACC.  Were it in the history of the newest value, that would carry the operation
        # unless it was trimmed.  It stays in doubt all the same: a plane may hold it, and until a newer
        # value is chosen another round may find it there and take it up.
        if call.is_sent and max(value.cut_ballot, *[promise.floor for promise in promises]) >= call.sent:
            raise OutcomeUnknown("a value of this write was sent, and what became of it was trimmed")
        if may_be_forgotten(value, call.operation.attempt, call.operation.birth):
            raise OutcomeUnknown("the register no longer remembers operations as old as this one")

    async def _choose(
        self,
        name: bytes,
        planes: Planes,
        call: _Call,
        cfg: int,
        ballot: Ballot,
        old: Value,
        decision: Decision,
    ) -> Outcome:
        """Send the decided value under ``ballot``. Raises Outrun."""
        if decision.value is None and planes.bill is not None:
            with call.in_doubt():
                await _wait_counted(planes.bill)
        now_ms = self._clock.now_ms()
        # A refusal that must be remembered changes nothing but the list of operations.
        value = replace(decision.value or old)
        value.follow(old)
        operation, modified_ms = call.operation, value.modified_ms
        entry = recent_of(
            ballot,
            operation.op_id,
            at_ms=max(now_ms, operation.birth.latest_ms),
            modified_ms=modified_ms,
            result=decision.result,
            attempt=operation.attempt,
        )
        value.remember(entry, now_ms)
        reserved = self._ballots.after(ballot)
        was_sent = call.is_sent
        call.send(ballot)
        encoded = b"".join(value.encode())
        try:
            await majority(planes.count, lambda plane: planes.accept(plane, cfg, ballot, encoded, reserved))
        except Unavailable as error:
            raise OutcomeUnknown(f"a value was sent and no majority answered: {error}") from None
        except (BucketNotFound, StoreFull) as error:
            if was_sent:
                raise OutcomeUnknown(f"a value was sent, a later one was refused: {error}") from None
            if planes.bill is not None:
                planes.bill.release()
            raise
        if planes.bill is not None and decision.value is not None:
            planes.bill.settle()  # Else what was chosen is not what an earlier round was charged for.
        self._cache.add(
            name, _Cached(reserved, cfg, replace(value, metadata=bytes(value.metadata), data=b""))
        )
        return Outcome(decision.result, modified_ms)

    async def _prepare(self, planes: Planes, call: _Call) -> tuple[Ballot, list[Promise]]:
        ballot = self._ballots.next(call.seen, self._clock.now_ms())
        call.seen = ballot
        try:
            promises = await majority(planes.count, lambda plane: planes.prepare(plane, ballot))
        except (Unavailable, BucketNotFound, StoreFull) as error:
            if call.is_sent:
                raise OutcomeUnknown(f"a value of this write was sent: {error}") from None
            raise
        # So many are a majority under the configuration that they were asked under, and under no other.
        if any(promise.cfg != planes.cfg for promise in promises):
            raise Stale("promises of another configuration than the round's")
        return ballot, promises

    async def _write_back(self, planes: Planes, cfg: int, ballot: Ballot, newest: Promise) -> None:
        """Make a majority hold the newest value, so that what is read from it stays true."""
        await _wait_counted(planes.bill)
        value = bytes(newest.value)
        await majority(
            planes.count, lambda plane: planes.accept(plane, cfg, ballot, value, NO_BALLOT, newest.hold)
        )

    # -- bookkeeping --------------------------------------------------------------------------------

    def alone(self, name: bytes) -> Turn:
        """One call at a time for a name: duelling with oneself only costs rounds."""
        return Turn(self._locks, name)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _learn(self, call: _Call, error: Outrun | Stale) -> None:
        """Go above the ballot that won, unless it comes from a clock that nobody else would follow."""
        if isinstance(error, Outrun) and not is_far_ahead(error.seen, self._clock.now_ms()):
            call.seen = max(call.seen, error.seen)

    async def _back_off(self, call: _Call, error: Outrun | Stale) -> None:
        """Wait before the next round. Raises when the caller has long asked somebody else."""
        self._learn(call, error)
        if self._now_s() > call.deadline_s:
            if call.is_sent:
                raise OutcomeUnknown("a value of this write was sent and outrun until its time was over")
            raise Unavailable("outrun by other proposers until the time was over")
        delay = min(RETRY_BASE_MS << call.round, RETRY_CAP_MS)
        call.round += 1
        await asyncio.sleep(delay * (500 + self._randomness.below(1000)) / 1e6)


def _look(planes: Planes, call: _Call) -> Planes:
    """The planes as they are known now. Raises Unavailable, or OutcomeUnknown when a value was sent."""
    try:
        return planes.now()
    except Unavailable as error:
        if call.is_sent:
            raise OutcomeUnknown(f"a value of this write was sent: {error}") from None
        raise


def _is_billed(bill: Bill | None) -> bool:
    return bill is not None and bill.is_open


async def _wait_counted(bill: Bill | None) -> None:
    """Before an old value is sent again: it may be one that nobody has reckoned with. Raises Stale then."""
    if bill is not None and bill.is_open and not bill.is_counted:
        await bill.counted()
        raise Stale("what the planes hold was counted meanwhile")


async def _open_bill(planes: Planes, call: _Call) -> None:
    """Begin to count. Raises Unavailable, or OutcomeUnknown when a value was sent."""
    if planes.bill is not None:
        with call.in_doubt():
            await planes.bill.open()


async def _charge(planes: Planes, call: _Call, old: Value, new: Value) -> bool:
    """Let a new value count, where a quota is kept; False when that does not allow it. Raises as ``open``."""
    assert planes.bill is not None
    with call.in_doubt():
        return await planes.bill.charge(old, new)


def _is_agreed(promises: list[Promise]) -> bool:
    """Whether a majority has accepted the same ballot: then its value is chosen."""
    return all(promise.accepted == promises[0].accepted for promise in promises)
