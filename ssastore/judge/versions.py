"""The quick check of a history whose store tells versions: no search, and it names the culprit.

The version of a state is a number that the store gives to each write that it
applies, larger than the one before; 0 is the empty register of the start.  Rules:

1. No two writes have the same version.
2. If A was answered before B was called, then version(A) <= version(B), and < if B wrote.
3. A get returns what the write of its version wrote.
4. A conditional write that was applied was applied to a state that fits: the version before it.
5. One that was refused was refused in a state that fits and that can have been
   current between its call and its answer.

A history that passes can still be impossible (unknown outcomes have no version), so
this stands beside ``checker``, not in its place; but it is fast on any length.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

from ssastore.judge.history import Kind, Op, Outcome, explains

State = tuple[int, int, str | None, Op | None]
"(version, earliest instant, value, the write)."


def version_complaints(history: list[Op], *, initial: str | None = None) -> list[str]:
    """What contradicts the rules, in words; empty when nothing does."""
    versions = _versions(history)
    states: list[State] = [(0, 0, initial, None)]
    for op in sorted((op for op in history if _wrote(op, versions)), key=lambda op: versions[id(op)]):
        value = op.value if op.kind is Kind.PUT else None
        states.append((versions[id(op)], op.called_ns, value, op))
    return [
        *_doubled(states),
        *_out_of_order(history, versions),
        *_misread(history, states),
        *_unjustified(history, states, versions),
    ]


def _versions(history: list[Op]) -> dict[int, int]:
    """Versions of operations by identity; a write of unknown outcome has the one that a get saw it under."""
    seen = {op.value: op.version for op in history if op.kind is Kind.GET and op.outcome is Outcome.DONE}
    found: dict[int, int] = {}
    for op in history:
        version = op.version
        if op.outcome is Outcome.UNKNOWN:
            version = seen.get(op.value, 0) if op.kind is Kind.PUT else 0
        if version or op.outcome is not Outcome.UNKNOWN:
            found[id(op)] = version
    return found


def _wrote(op: Op, versions: dict[int, int]) -> bool:
    return op.kind is not Kind.GET and id(op) in versions and op.outcome in (Outcome.DONE, Outcome.UNKNOWN)


def _doubled(states: list[State]) -> Iterator[str]:
    for before, after in pairwise(states):
        if before[0] == after[0]:
            yield f"version {after[0]} was given twice:\n  {before[3]}\n  {after[3]}"


def _out_of_order(history: list[Op], versions: dict[int, int]) -> Iterator[str]:
    """Rule 2 in one sweep: the highest version that was answered so far bounds what is called next."""
    known = [op for op in history if id(op) in versions]
    answered = sorted(
        (op for op in known if op.outcome is not Outcome.UNKNOWN), key=lambda op: op.answered_ns
    )
    at, highest = 0, None
    for op in sorted(known, key=lambda op: op.called_ns):
        while at < len(answered) and answered[at].answered_ns < op.called_ns:
            if highest is None or versions[id(answered[at])] > versions[id(highest)]:
                highest = answered[at]
            at += 1
        if highest is None:
            continue
        floor = versions[id(highest)] + _wrote(op, versions)
        if versions[id(op)] < floor:
            yield f"version {versions[id(op)]} after {versions[id(highest)]}:\n  {highest}\n  {op}"


def _at(states: list[State], version: int) -> int:
    """Place of a version among the states, or -1."""
    place = bisect_left(states, version, key=lambda state: state[0])
    return place if place < len(states) and states[place][0] == version else -1


def _misread(history: list[Op], states: list[State]) -> Iterator[str]:
    for op in history:
        if op.kind is not Kind.GET or op.outcome is Outcome.UNKNOWN:
            continue
        place = _at(states, op.version)
        if place < 0:
            # The tombstone of a delete whose answer was lost has a version that nobody was told.
            if op.outcome is Outcome.DONE:
                yield f"version {op.version} was read and never written:\n  {op}"
        elif states[place][2] != (op.value if op.outcome is Outcome.DONE else None):
            yield f"version {op.version} is {states[place][2]}:\n  {op}\n  {states[place][3]}"


def _unjustified(history: list[Op], states: list[State], versions: dict[int, int]) -> Iterator[str]:
    # A write that nobody has seen may justify whatever was answered after its call.
    unseen_ns = min(
        (op.called_ns for op in history if id(op) not in versions and op.kind is not Kind.GET), default=None
    )
    for op in history:
        if op.kind is Kind.GET or op.outcome is Outcome.UNKNOWN:
            continue
        if unseen_ns is not None and unseen_ns <= op.answered_ns:
            continue
        if op.outcome is Outcome.DONE:
            place = _at(states, op.version)
            if place > 0 and not explains(op, states[place - 1][2])[0]:
                yield f"applied to {states[place - 1][2]}:\n  {op}\n  {states[place - 1][3]}"
        elif not any(explains(op, value)[0] for value in _current_during(op, states)):
            yield f"refused without a reason:\n  {op}"


def _current_during(op: Op, states: list[State]) -> Iterator[str | None]:
    """Values that the register can have had between call and answer of ``op``."""
    for place, (_, earliest_ns, value, _) in enumerate(states):
        following = states[place + 1][3] if place + 1 < len(states) else None
        is_over = (
            following is not None
            and following.outcome is not Outcome.UNKNOWN
            and following.answered_ns < op.called_ns
        )
        if earliest_ns <= op.answered_ns and not is_over:
            yield value
