"""What clients did to one register and what they were told.

Times are the world's, in nanoseconds: an operation took effect at some instant
between its call and its answer.  One whose outcome is unknown took effect at any
instant after its call, or never.  One that certainly had no effect (nobody took the
request) does not belong into a history at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_NS_PER_S = 1_000_000_000

FOREVER_NS = 1 << 62
"Answered after everything else: the answer is known and binds nobody who was called later."


class Kind(Enum):
    """What was asked for."""

    GET = "get"
    PUT = "put"
    DELETE = "delete"


class Condition(Enum):
    """Of a write."""

    NONE = ""
    IF_ABSENT = "if absent"
    IF_PRESENT = "if present"
    IF_VALUE = "if"


class Outcome(Enum):
    """What was answered."""

    DONE = "done"
    "A get that found ``value``, a put that was applied, a delete that removed something."
    FAILED = "condition failed"
    "The register held something else."
    ABSENT = "absent"
    "The register was empty: nothing to get, to delete, or to match."
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Op:
    """One call. Every put of a history has a value of its own."""

    client: int
    kind: Kind
    called_ns: int
    answered_ns: int
    outcome: Outcome
    value: str = ""
    "Written by a put, read by a get."
    condition: Condition = Condition.NONE
    expected: str = ""
    "With IF_VALUE."
    version: int = 0
    "Order number of the state that was read or written, where the store tells; 0 where not."

    @property
    def is_answered(self) -> bool:
        """Whether it must have taken effect by some instant."""
        return self.outcome is not Outcome.UNKNOWN and self.answered_ns < FOREVER_NS

    def __str__(self) -> str:
        condition = f" {self.condition.value} {self.expected}".rstrip() if self.condition.value else ""
        subject = f" {self.value}" if self.kind is Kind.PUT else ""
        answer = self.outcome.value
        if self.kind is Kind.GET and self.outcome is Outcome.DONE:
            answer = self.value
        until = f"{self.answered_ns / _NS_PER_S:.6f}" if self.is_answered else "..."
        span = f"{self.called_ns / _NS_PER_S:.6f} to {until}"
        return f"client {self.client}  {span:24}  {self.kind.value}{subject}{condition} -> {answer}"


def apply(op: Op, state: str | None) -> tuple[Outcome, str | None]:
    """What the register answers in ``state``, and the state that it is left in."""
    if op.kind is Kind.GET:
        return (Outcome.ABSENT, None) if state is None else (Outcome.DONE, state)
    condition = op.condition
    if condition is Condition.IF_ABSENT:
        if state is not None:
            return Outcome.FAILED, state
    elif state is None and (condition is not Condition.NONE or op.kind is Kind.DELETE):
        return Outcome.ABSENT, None
    elif condition is Condition.IF_VALUE and state != op.expected:
        return Outcome.FAILED, state
    return Outcome.DONE, op.value if op.kind is Kind.PUT else None


def explains(op: Op, state: str | None) -> tuple[bool, str | None]:
    """Whether the answer of ``op`` can have been given in ``state``, and the state after it."""
    outcome, after = apply(op, state)
    if op.outcome is Outcome.UNKNOWN:
        return True, after
    return outcome is op.outcome and (op.kind is not Kind.GET or state == (op.value or None)), after
