"""Is there an order of instants that explains what the clients of one register were told?

Wing and Gong's search with Lowe's memory: operations are lifted out of the history
one after the other, each before the first answer that is still in it; a set of lifted
operations together with the state that they left is never tried twice.

Two shortcuts, without which a hundred operations can take minutes.  An operation that
changes nothing and whose answer fits the state is lifted at once and never put back:
any order that has it later is as good with it now.  An operation of unknown outcome
that would change nothing is not lifted at all.

Time and memory grow quickly with the number of clients and of unknown outcomes: keep
histories to ``OPS_MAX`` operations and ``CLIENTS_MAX`` clients, and have many keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ssastore.judge.history import FOREVER_NS, Kind, Op, Outcome, explains

OPS_MAX = 100
CLIENTS_MAX = 5
STEPS_MAX = 1_000_000
"Entries of the history that are looked at, about a second's worth; then the verdict is UNDECIDED."

_RELAX_STEPS_MAX = 5_000
"For each step of making a contradiction smaller."


class Verdict(Enum):
    """UNDECIDED counts as a failure: nothing was shown."""

    OK = "linearizable"
    VIOLATION = "not linearizable"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found, how long it took, and for a violation the operations that contradict one another."""

    verdict: Verdict
    steps: int
    core: tuple[Op, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.verdict.value} after {self.steps} steps", *(f"  {op}" for op in self.core)])


def check(history: list[Op], *, initial: str | None = None, steps_max: int = STEPS_MAX) -> Judgement:
    """Judge the history of one register, which held ``initial`` (None: nothing) before."""
    search = _Search(history, initial, steps_max)
    verdict = search.run()
    if verdict is not Verdict.VIOLATION:
        return Judgement(verdict, search.steps)
    return Judgement(verdict, search.steps, _core(search.contradiction(), initial))


def _core(history: list[Op], initial: str | None) -> tuple[Op, ...]:
    """The operations that contradict one another, whatever else was answered, and whatever was before.

    First what is older than need be is left out, then answers are forgotten one by one.  Both only ever
    allow more, so what is left is a violation by itself.
    """
    kept, states = _recent(history, initial)
    for at in reversed(range(len(kept))):
        if kept[at].outcome is not Outcome.UNKNOWN:
            without = [*kept[:at], replace(kept[at], outcome=Outcome.UNKNOWN), *kept[at + 1 :]]
            if _is_violation(without, states):
                kept = without
    named = {id(op) for op in kept if op.outcome is not Outcome.UNKNOWN}
    values = {value for op in history if id(op) in named for value in (op.value, op.expected)}
    # Who wrote a value that an answer speaks of is named as well, for the reader.
    return tuple(op for op in history if id(op) in named or (op.kind is Kind.PUT and op.value in values))


def _recent(history: list[Op], initial: str | None) -> tuple[list[Op], list[str | None]]:
    """The shortest end of the history that is a violation from whatever state, and those states.

    All of it, and the state that it began with, if there is no such end.
    """
    for since_ns in sorted({op.called_ns for op in history}, reverse=True):
        # Who was under way at that moment may have had its effect before it.
        end = [
            op if op.called_ns >= since_ns else replace(op, outcome=Outcome.UNKNOWN)
            for op in history
            if op.outcome is Outcome.UNKNOWN or op.answered_ns >= since_ns
        ]
        written = [op.value for op in history if op.kind is Kind.PUT and op.called_ns < since_ns]
        states = [None, initial, *written]
        if _is_violation(end, states):
            return end, states
    return history, [initial]


def _is_violation(history: list[Op], states: list[str | None]) -> bool:
    return all(
        _Search(history, state, _RELAX_STEPS_MAX).run() is Verdict.VIOLATION
        for state in dict.fromkeys(states)
    )


_END = -1


class _Search:
    """One search. Entries are a doubly linked list of calls and answers in order of time.

    Entry ``2 * i`` is the call of operation ``i``, ``2 * i + 1`` its answer; the last entry is the head.
    """

    def __init__(self, history: list[Op], initial: str | None, steps_max: int) -> None:
        # A get without an answer says nothing.
        self._ops = [op for op in history if op.is_answered or op.kind is not Kind.GET]
        self._state = initial
        self._steps_left = steps_max
        self.steps = 0
        self._order = self._entries()
        self._head = 2 * len(self._ops)
        self._next = [_END] * (self._head + 1)
        self._previous = [_END] * (self._head + 1)
        before = self._head
        for entry in self._order:
            self._next[before], self._previous[entry] = entry, before
            before = entry
        self._place = {entry: place for place, entry in enumerate(self._order)}
        self._furthest = -1
        "Place of the latest answer that no order could get past."

    def _entries(self) -> list[int]:
        # At one instant calls come before answers: operations that touch count as concurrent.
        timed: list[tuple[int, int, int]] = []
        for i, op in enumerate(self._ops):
            timed.append((op.called_ns, 0, 2 * i))
            if op.is_answered:
                timed.append((op.answered_ns, 1, 2 * i + 1))
        return [entry for _, _, entry in sorted(timed)]

    def _lift(self, entry: int) -> None:
        after, before = self._next, self._previous
        after[before[entry]] = after[entry]
        if after[entry] != _END:
            before[after[entry]] = before[entry]

    def _put_back(self, entry: int) -> None:
        after, before = self._next, self._previous
        if after[entry] != _END:
            before[after[entry]] = entry
        after[before[entry]] = entry

    def run(self) -> Verdict:
        """Search all orders."""
        ops, after = self._ops, self._next
        answers_left = sum(op.is_answered for op in ops)
        lifted: list[tuple[int, str | None, bool]] = []
        "(operation, state before it, whether it was a choice)."
        taken = 0
        seen: set[tuple[int, str | None]] = set()
        state = self._state
        entry = after[self._head]
        while answers_left:
            self.steps += 1
            if self.steps > self._steps_left:
                return Verdict.UNDECIDED
            if not entry & 1:
                op = ops[entry >> 1]
                is_answered = op.is_answered
                is_possible, state_after = explains(op, state)
                is_choice = state_after != state
                if is_possible and (is_choice or is_answered):
                    mark = taken | 1 << (entry >> 1), state_after
                    if not is_choice or mark not in seen:
                        if is_choice:
                            seen.add(mark)
                        lifted.append((entry >> 1, state, is_choice))
                        taken, state = mark
                        self._lift(entry)
                        if is_answered:
                            self._lift(entry + 1)
                            answers_left -= 1
                        entry = after[self._head]
                        continue
                entry = after[entry]
                continue
            # An answer whose operation cannot be lifted: an earlier choice was wrong.
            self._furthest = max(self._furthest, self._place[entry])
            is_choice = False
            while not is_choice:
                if not lifted:
                    return Verdict.VIOLATION
                i, state, is_choice = lifted.pop()
                taken ^= 1 << i
                if ops[i].is_answered:
                    self._put_back(2 * i + 1)
                    answers_left += 1
                self._put_back(2 * i)
            entry = after[2 * i]
        return Verdict.OK

    def contradiction(self) -> list[Op]:
        """After a violation: what was called before the answer that no order gets past."""
        place, end = self._place, self._furthest
        return [
            op if place.get(2 * i + 1, end) <= end else replace(op, answered_ns=FOREVER_NS)
            for i, op in enumerate(self._ops)
            if place[2 * i] <= end
        ]
