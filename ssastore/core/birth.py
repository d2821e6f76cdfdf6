"""When an operation was begun: a number that comes with every attempt, and what a register makes of it. Pure.

A register remembers the operations that led to its value, 64 of them at most, so that each
is applied once.  An attempt that comes when they are forgotten (it lay unread in a
stopped process, it was sent again after hours) must not be taken for a new one.  So every
operation has a *birth*, in ms, the same number in all of its attempts, and:

    an operation is remembered with a time that is not before its birth
    what is forgotten leaves its time in the value's cut, which only grows
    an operation that is not remembered, with a birth that is not after the cut, gets "outcome unknown"

So none is applied twice, whatever any clock says: were it in the value's history, the cut
would be at its birth or later.  Clocks, which ought to be near one another, only decide
how often the answer is "unknown" without need.

Two cuts.  A first attempt that was itself forgotten cannot come again, frames are not
repeated.  What it must fear is a later attempt of its own, so its birth is compared with
what was forgotten of *repeated* operations, of which there are few: else every write of a
name that 64 others wait for would be unknown.

Who repeats an operation without knowing its birth, as a gateway does for an SDK that came to
another one before, knows a time that the birth is not after, and gives that with a minus
sign.  It is remembered with this time, so the sentence above holds.  What remains is how
old it may be: not older than what a register remembers, by the clock of who decides.
"""

from __future__ import annotations

from typing import NamedTuple

from ssastore.core.register import Value
from ssastore.limits import REACH_SKEW_MS, RECENT_OPS_MS

UNKNOWN_BIRTH = 0
"""In place of a birth: a first attempt takes the time of the node it is sent to; of a repeated one no more is
known than that clocks are near one another."""


class Birth(NamedTuple):
    """Not before ``earliest_ms``, not after ``latest_ms``, by the clock of whoever gave the number."""

    earliest_ms: int
    latest_ms: int


def birth_of(born_ms: int, now_ms: int) -> Birth:
    """The birth of the number that an attempt carries: a time, ``not_after`` one, or UNKNOWN_BIRTH."""
    if born_ms > 0:
        return Birth(born_ms, born_ms)
    latest_ms = -born_ms if born_ms else now_ms + REACH_SKEW_MS
    return Birth(min(now_ms - RECENT_OPS_MS, latest_ms), latest_ms)


def not_after(latest_ms: int) -> int:
    """The number of a birth that is only known not to be after ``latest_ms``."""
    return -max(1, latest_ms)


def may_be_forgotten(value: Value, attempt: int, birth: Birth) -> bool:
    """Whether an operation that ``value`` does not remember may be in its history all the same."""
    cut_ms = value.cut_ms if attempt > 1 else value.cut_repeated_ms
    return cut_ms > 0 and cut_ms >= birth.earliest_ms
