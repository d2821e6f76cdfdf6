"""Parts of the address space whose node did not answer lately. Pure but for the clock it is given.

Nobody knows nodes: what is remembered is the arc, a 256th of the address space.  An
arc may hold several nodes, so a suspicion is only ever a reason to ask somebody else
first, or not to wait; never one to believe that a plane is lost.
"""

from __future__ import annotations

from collections.abc import Callable

_ARC_SHIFT = 56

FAILURES_MIN = 3
"Failures in a row, without an answer between them, that make an arc suspect."

PROBE_EVERY_S = 0.5
"How often a suspect arc is tried all the same."


class Suspects:
    """Counts failures by arc. ``clock`` gives seconds that only go forward."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[int, int] = {}
        self._next_probe: dict[int, float] = {}

    @property
    def is_empty(self) -> bool:
        """Whether everybody answered when last asked."""
        return not self._failures

    def answered(self, iid: int) -> None:
        """Somebody at the address answered, whatever it was."""
        if self._failures:
            self._failures.pop(iid >> _ARC_SHIFT, None)

    def failed(self, iid: int) -> None:
        """Nobody at the address answered."""
        arc = iid >> _ARC_SHIFT
        self._failures[arc] = self._failures.get(arc, 0) + 1
        if self._failures[arc] == FAILURES_MIN:
            self._next_probe[arc] = self._clock() + PROBE_EVERY_S

    def has_failed(self, iid: int) -> bool:
        """Whether the last that was asked there did not answer."""
        return iid >> _ARC_SHIFT in self._failures

    def is_suspect(self, iid: int) -> bool:
        """Whether it is better to ask somebody else. False once in a while, so that a return is noticed."""
        if not self._failures:
            return False
        arc = iid >> _ARC_SHIFT
        if self._failures.get(arc, 0) < FAILURES_MIN:
            return False
        now = self._clock()
        if now < self._next_probe[arc]:
            return True
        self._next_probe[arc] = now + PROBE_EVERY_S
        return False
