"""Proposers that count, remember or choose wrongly."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ssastore.core import birth, operations, planes, proposer, register
from ssastore.core.boot import Environment
from ssastore.core.planes import Outrun, Planes
from ssastore.core.proposer import Operation, Outcome, Proposer
from ssastore.core.register import (
    Ballot,
    Ballots,
    Recent,
    Slot,
    Value,
    counter_of,
    decode_value,
    make_ballot,
)
from ssastore.env import spawn
from ssastore.sim.mutants import Mutant, Put


def _read_by_prepare_only(put: Put) -> None:
    async def read(self: Proposer, name: bytes, planes: Planes) -> tuple[Ballot, Value]:
        call = proposer._Call(proposer._IDENTITY, self._now_s() + 5)
        async with self.alone(name):
            self._cache.take(name)
            while True:
                try:
                    _, promises = await self._prepare(planes, call)
                except Outrun as error:
                    await self._back_off(call, error)
                    continue
                newest = max(promises, key=lambda promise: promise.accepted)
                return newest.accepted, decode_value(newest.value)

    put(Proposer, "read", read)


def _no_write_back(put: Put) -> None:
    put(proposer, "_is_agreed", lambda promises: True)


def _refusal_from_the_cache(put: Put) -> None:
    write_cached = Proposer._write_cached

    async def refuse(self: Proposer, name: bytes, planes: Any, call: Any, cached: Any) -> Any:
        decision = call.operation.decide(cached.value)
        if decision.value is None:
            return Outcome(decision.result, cached.value.modified_ms)
        return await write_cached(self, name, planes, call, cached)

    put(Proposer, "_write_cached", refuse)


def _shared_ballots(put: Put) -> None:
    def next_after(self: Ballots, seen: Ballot, now_ms: int) -> Ballot:
        # Not by the clock: two that draw in one millisecond would be too rare.
        self._last = max(self._last, counter_of(seen)) + 1
        return make_ballot(self._last, self._env_id, self._boot)

    put(Environment, "ballots", lambda self: Ballots(1, 1))
    put(Ballots, "next", next_after)


def _promised_again(put: Put) -> None:
    def prepare(self: Slot, ballot: Ballot) -> bool:
        if ballot < self.promise or ballot <= self.accepted:
            return False
        self.promise = ballot
        return True

    put(Slot, "prepare", prepare)


def _shared_and_promised_again(put: Put) -> None:
    _shared_ballots(put)
    _promised_again(put)


def _cached_path_skips_the_check(put: Put) -> None:
    write = Proposer.write

    async def write_cached(self: Proposer, name: bytes, planes: Any, call: Any, cached: Any) -> Any:
        call.seen = cached.ballot
        decision = call.operation.decide(cached.value)
        if decision.value is None:
            return None
        try:
            return await self._choose(name, planes, call, cached.cfg, cached.ballot, cached.value, decision)
        except Outrun as error:
            self._learn(call, error)
            return None

    async def write_any(self: Proposer, name: bytes, planes: Planes, operation: Operation) -> Outcome:
        return await write(self, name, planes, replace(operation, attempt=1))

    put(Proposer, "_write_cached", write_cached)
    put(Proposer, "write", write_any)


def _trimmed_without_cut(put: Put) -> None:
    def remember(self: Value, entry: Recent, now_ms: int) -> None:
        self.recent = [entry]

    put(Value, "remember", remember)


def _retried_refusal_not_recorded(put: Put) -> None:
    put(proposer._Call, "is_repeated", property(lambda self: False))


def _operation_not_looked_up(put: Put) -> None:
    put(Value, "find", lambda self, op_id: None)


def _planes_counted_twice(put: Put) -> None:
    majority, turns = planes.majority, itertools.count()

    async def count_twice(count: int, ask: Callable[[int], Any]) -> Any:
        twice = next(turns) % count
        shared: dict[int, asyncio.Task[Any]] = {}

        async def ask_one(plane: int) -> Any:
            asked = twice if plane == (twice + 1) % count else plane
            if asked not in shared:
                shared[asked] = spawn("shared", ask(asked))
            return await shared[asked]

        return await majority(count, ask_one)

    put(proposer, "majority", count_twice)


def _ballot_read_again(put: Put) -> None:
    choose = Proposer._choose

    async def choose_again(
        self: Proposer, name: bytes, planes: Any, call: Any, cfg: int, ballot: Ballot, *rest: Any
    ) -> Outcome:
        ballots = self._ballots
        now = make_ballot(ballots._last, ballots._env_id, ballots._boot)
        return await choose(self, name, planes, call, cfg, max(ballot, now), *rest)

    put(Proposer, "_choose", choose_again)


def _conditions_not_checked(put: Put) -> None:
    put(operations, "_unmet", lambda request, value: None)


def _short_memory(put: Put) -> None:
    put(register, "RECENT_OPS_MAX", 2)


def _no_cache(put: Put) -> None:
    put(proposer._Cache, "take", lambda self, name: None)


def _blind_retry(put: Put) -> None:
    _short_memory(put)
    put(proposer, "may_be_forgotten", lambda value, attempt, born: False)


def _first_attempts_not_asked(put: Put) -> None:
    _short_memory(put)
    asked = birth.may_be_forgotten
    put(
        proposer, "may_be_forgotten", lambda value, attempt, born: attempt > 1 and asked(value, attempt, born)
    )


def _births_not_kept(put: Put) -> None:
    _short_memory(put)
    made = register.recent_of

    def forget(*fields: Any, at_ms: int, **named: Any) -> Recent:
        return made(*fields, at_ms=at_ms - 10_000, **named)

    put(proposer, "recent_of", forget)


MUTANTS = [
    Mutant("blind-retry", "nobody is asked whether it may be forgotten (two are remembered)", _blind_retry),
    Mutant(
        "first-attempts-not-asked",
        "a first attempt may come as late as it likes (two are remembered)",
        _first_attempts_not_asked,
    ),
    Mutant(
        "births-not-kept",
        "operations are remembered with a time before their birth (two are remembered)",
        _births_not_kept,
    ),
    Mutant("read-by-prepare-only", "a proposer answers a read after its first phase", _read_by_prepare_only),
    Mutant(
        "no-write-back", "the newest of a majority counts as chosen although planes differ", _no_write_back
    ),
    Mutant(
        "refusal-from-the-cache", "a failed condition is answered from the cache", _refusal_from_the_cache
    ),
    Mutant(
        "shared-ballots-promised-again",
        "all workers have one environment id and boot, and a ballot is promised to each who asks",
        _shared_and_promised_again,
    ),
    Mutant(
        "cached-path-skips-the-check",
        "the cached path does not look for the operation",
        _cached_path_skips_the_check,
    ),
    Mutant("trimmed-without-cut", "operations are forgotten without a trace", _trimmed_without_cut),
    Mutant(
        "retried-refusal-not-recorded",
        "the refusal of a repeated call is not written",
        _retried_refusal_not_recorded,
    ),
    Mutant("operation-not-looked-up", "a repeated call is evaluated anew", _operation_not_looked_up),
    Mutant(
        "planes-counted-twice",
        "an answer that comes twice counts as that of two planes",
        _planes_counted_twice,
    ),
    Mutant(
        "ballot-read-again", "the second phase reads the ballot from the counter again", _ballot_read_again
    ),
    Mutant("conditions-not-checked", "preconditions are not looked at", _conditions_not_checked),
]

# The rule that an acceptor promises a ballot once guards what unique ballots guard: of two rounds under one
# ballot at most one gets a majority. So each of them alone can be left out, and not both.
HARMLESS = [
    Mutant("shared-ballots", "all workers have one environment id and boot", _shared_ballots),
    Mutant("promised-again", "an acceptor promises the ballot again that it has promised", _promised_again),
    Mutant("short-memory", "a value remembers two operations, with a cut below them", _short_memory),
    Mutant("no-cache", "every write takes both phases", _no_cache),
]
