"""Rounds that change no value: to find out and make firm what is agreed, to collect, to repair. Coroutines.

    settle    after it no other value that was sent before can become what is agreed
    collect   a record that says "no object" and that all planes hold alike is dropped by all
    rebuild   what one plane must hold of a name whose slot it has lost (ADR 0009)

All are ordinary rounds of the register's protocol: PREP, and ACC of the newest value
found.  They run at any node, under a ballot of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ssastore.core.planes import Outrun, Planes, Promise, Stale
from ssastore.core.proposer import Proposer
from ssastore.core.register import (
    NO_BALLOT,
    Ballot,
    Ballots,
    Value,
    decode_value,
    make_ballot,
    none_above,
)
from ssastore.env import Clock, spawn
from ssastore.errors import OutOfStep, SsaStoreError, Unavailable

T = TypeVar("T")

_ROUNDS_MAX = 8
_BACK_OFF_S = 0.02


class Collecting(Planes, Protocol):
    """The acceptors of one name, for collecting as well."""

    async def collect(self, plane: int, cfg: int, ballot: Ballot) -> None:
        """Drop the record. Raises as ``Planes.accept``."""
        ...

    def now(self) -> Collecting:
        """See ``Planes``."""
        ...


@dataclass(frozen=True, slots=True)
class Settled:
    """What is agreed."""

    cfg: int
    ballot: Ballot
    "Under which a majority holds the value; NO_BALLOT when no plane has ever accepted any."
    value: Value
    held: int
    "How many planes are known to hold it under this ballot."


@dataclass(slots=True)
class _Answers(Generic[T]):
    by_plane: dict[int, T] = field(default_factory=dict)
    seen: Ballot = NO_BALLOT
    failures: list[Exception] = field(default_factory=list)

    def why(self) -> str:
        return f"{len(self.by_plane)} planes answered: {'; '.join(map(str, self.failures)) or 'outrun'}"


class Settler:
    """Settles, collects and repairs for one worker."""

    def __init__(self, proposer: Proposer, ballots: Ballots, clock: Clock) -> None:
        self._proposer = proposer
        self._ballots = ballots
        self._clock = clock

    async def settle(self, label: bytes, planes: Planes, *, is_by_all: bool = False) -> Settled:
        """The agreed value, held by a majority under one ballot, by all planes that answer if they can.

        Afterwards no value that was accepted by a minority, or is still on its way under an older ballot,
        can be chosen any more.  ``is_by_all``: only with the promises of all planes, so that no plane that
        may have lost its slot makes up a majority.  Raises SsaStoreError when it cannot be had now.
        """
        return await self._repeat(
            label, NO_BALLOT, lambda seen: self._settle(planes.now(), seen, is_by_all=is_by_all)
        )

    async def collect(self, label: bytes, planes: Collecting, seen_here: Ballot) -> bool:
        """Drop a record that says "no object" from all planes; whether all of them did.

        ``seen_here`` is the highest ballot of the own slot: the ballot of this round is just above what is
        there, since as a floor it counts as the time of what was forgotten.  Nothing is dropped before all
        planes are known to hold the record under one ballot.
        """
        return await self._repeat(label, seen_here, lambda seen: self._collect(planes.now(), seen))

    async def rebuild(self, label: bytes, planes: Planes, own: int, ceiling: int) -> tuple[Ballot, bytes]:
        """Ballot and value that the own plane may take as accepted in the place of a lost slot.

        The round goes to the other planes only, and F+1 of them must promise.  Its ballot is above
        ``ceiling``, hence above whatever the lost slot had promised or accepted: the acceptor here would
        have taken this value, so this is a run in which it lost nothing but messages.

        Raises SsaStoreError when fewer than F+1 others can tell: then it must wait, never guess.
        """
        above = make_ballot(ceiling, 0, 0)

        async def rebuild(seen: _Seen) -> tuple[Ballot, bytes] | None:
            now = planes.now()
            others = [plane for plane in range(now.count) if plane != own]
            return await self._rebuild(now, others, seen)

        return await self._repeat(label, above, rebuild)

    async def _repeat(
        self, label: bytes, above: Ballot, round_of: Callable[[_Seen], Awaitable[T | None]]
    ) -> T:
        """Rounds, one above the other, until one has a result. Raises Unavailable."""
        seen = _Seen(above)
        async with self._proposer.alone(label):
            self._proposer.forget_name(label)
            for number in range(_ROUNDS_MAX):
                result = await round_of(seen)
                if result is not None:
                    return result
                await asyncio.sleep(_BACK_OFF_S * (1 << number))
        raise Unavailable("outrun by other proposers")

    async def _settle(self, planes: Planes, seen: _Seen, *, is_by_all: bool) -> Settled | None:
        need = planes.count if is_by_all else planes.count // 2 + 1
        everywhere = range(planes.count)
        ballot = self._ballots.next(seen.ballot, self._clock.now_ms())
        promises = await _ask(everywhere, lambda plane: planes.prepare(plane, ballot))
        if not _are_enough(promises, need, seen):
            return None
        newest, value, encoded = _newest(planes, list(promises.by_plane.values()))
        if len(promises.by_plane) == planes.count and _are_equal(promises):
            # All of them, and they promised: there is nothing else that could come up.
            return Settled(newest.cfg, newest.accepted, value, planes.count)
        _check_counted(promises, newest)
        accepted = await _ask(
            everywhere,
            lambda plane: planes.accept(plane, newest.cfg, ballot, encoded, NO_BALLOT, newest.hold),
        )
        if len(accepted.by_plane) <= planes.count // 2 and accepted.failures:
            # A bucket that is shut takes no ACC. What a majority holds already is agreed all the same.
            held = [p for p in promises.by_plane.values() if p.accepted == newest.accepted != NO_BALLOT]
            if len(held) > planes.count // 2:
                return Settled(newest.cfg, newest.accepted, value, len(held))
        if not _is_majority(accepted, planes, seen):
            return None
        return Settled(newest.cfg, ballot, value, len(accepted.by_plane))

    async def _collect(self, planes: Collecting, seen: _Seen) -> bool | None:
        everywhere = range(planes.count)
        ballot = self._ballots.just_above(seen.ballot)
        promises = await _ask(everywhere, lambda plane: planes.prepare(plane, ballot))
        seen.learn(promises.seen)
        if len(promises.by_plane) < planes.count:
            return False if promises.failures else None
        newest, value, encoded = _newest(planes, list(promises.by_plane.values()))
        if value.is_live or newest.accepted == NO_BALLOT:
            return False
        held = newest.accepted
        if not _are_equal(promises):
            held = ballot
            accepted = await _ask(
                everywhere,
                lambda plane: planes.accept(plane, newest.cfg, ballot, encoded, NO_BALLOT, newest.hold),
            )
            if len(accepted.by_plane) < planes.count:
                return False
        dropped = await _ask(everywhere, lambda plane: planes.collect(plane, newest.cfg, held))
        return len(dropped.by_plane) == planes.count

    async def _rebuild(
        self, planes: Planes, others: Sequence[int], seen: _Seen
    ) -> tuple[Ballot, bytes] | None:
        # Not by the clock: the ceiling is ahead of it, and other ballots need not follow.
        ballot = self._ballots.just_above(seen.ballot)
        promises = await _ask(others, lambda plane: planes.prepare(plane, ballot))
        if not _is_majority(promises, planes, seen):
            return None
        newest, _, encoded = _newest(planes, list(promises.by_plane.values()))
        _check_counted(promises, newest)
        await _ask(
            others, lambda plane: planes.accept(plane, newest.cfg, ballot, encoded, NO_BALLOT, newest.hold)
        )
        return ballot, encoded


def _is_majority(answers: _Answers[T], planes: Planes, seen: _Seen) -> bool:
    """Whether F+1 said yes. False: try again, above what was seen. Raises Unavailable: no use."""
    return _are_enough(answers, planes.count // 2 + 1, seen)


def _are_enough(answers: _Answers[T], need: int, seen: _Seen) -> bool:
    seen.learn(answers.seen)
    if len(answers.by_plane) >= need:
        return True
    if answers.seen == NO_BALLOT:
        raise Unavailable(answers.why())
    return False


@dataclass(slots=True)
class _Seen:
    ballot: Ballot

    def learn(self, seen: Ballot) -> None:
        self.ballot = max(self.ballot, seen)


def _newest(planes: Planes, promises: Sequence[Promise]) -> tuple[Promise, Value, bytes]:
    """The promise with the newest value, that value, and its bytes."""
    if any(promise.cfg != planes.cfg for promise in promises):
        raise OutOfStep("promises of another configuration than the round's")
    newest = max(promises, key=lambda promise: promise.accepted)
    if newest.accepted != NO_BALLOT:
        return newest, decode_value(newest.value), bytes(newest.value)
    # A value made from none says what was collected before it.
    value = none_above(max(promise.floor for promise in promises))
    return newest, value, b"".join(value.encode())


def _check_counted(promises: _Answers[Promise], newest: Promise) -> None:
    """Where a quota is kept: let nothing become firm that was not counted. Raises Unavailable."""
    if not newest.hold and any(promise.is_held for promise in promises.by_plane.values()):
        raise Unavailable("what the planes of this shard hold is not counted yet")


def _are_equal(answers: _Answers[Promise]) -> bool:
    return len({promise.accepted for promise in answers.by_plane.values()}) == 1


async def _ask(planes: Sequence[int], ask: Callable[[int], Awaitable[T]]) -> _Answers[T]:
    """Ask these planes and wait for all of them."""
    answers: _Answers[T] = _Answers()
    tasks = [(plane, spawn(f"plane {plane}", _outcome(ask, plane))) for plane in planes]
    for plane, task in tasks:
        answer, error = await task
        if error is None:
            answers.by_plane[plane] = answer  # type: ignore[assignment]  # an answer is there when no error is
        elif isinstance(error, Outrun):
            answers.seen = max(answers.seen, error.seen)
        else:
            answers.failures.append(error)
    return answers


async def _outcome(ask: Callable[[int], Awaitable[T]], plane: int) -> tuple[T | None, Exception | None]:
    try:
        return await ask(plane), None
    except Stale as error:
        return None, OutOfStep(str(error))
    except (Outrun, OSError, SsaStoreError) as error:
        return None, error
