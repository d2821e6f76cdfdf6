"""No operation is applied twice, however its attempts are ordered and whatever clocks say."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core import register
from ssastore.core.birth import UNKNOWN_BIRTH, Birth, birth_of, may_be_forgotten
from ssastore.core.floors import floor_over
from ssastore.core.register import NO_BALLOT, Slot, Value, decode_value, make_ballot, none_above, recent_of
from ssastore.limits import REACH_SKEW_MS, RECENT_OPS_MS

_NOON_MS = 1_900_000_000_000
_TIMES = st.one_of(st.integers(0, 40), st.integers(0, 2 * RECENT_OPS_MS), st.integers(0, 10**10)).map(
    lambda ms: _NOON_MS + ms
)


class Attempt(NamedTuple):
    """One arrival. ``now_ms``: what the clock of whoever decides says then."""

    operation: int
    attempt: int
    now_ms: int


def arrivals(births: list[int], order: list[tuple[int, int]]) -> list[Attempt]:
    """Each attempt of an operation arrives once, in any order and at any time."""
    pending = {operation: [1, 2, 3] for operation in range(len(births))}
    found = []
    for pick, now_ms in order:
        left = [operation for operation, attempts in pending.items() if attempts]
        if not left:
            break
        operation = left[pick % len(left)]
        attempts = pending[operation]
        found.append(Attempt(operation, attempts.pop(pick % len(attempts)), now_ms))
    return found


class Register:
    """One register, whose value is stored and read back at every step, and now and then dropped."""

    def __init__(self) -> None:
        self.stored = b""
        self.floor = NO_BALLOT
        self.applied: list[int] = []
        self._counter = 0

    def value(self) -> Value:
        return decode_value(self.stored) if self.stored else none_above(self.floor)

    def take(self, arrived: Attempt, birth: Birth) -> None:
        value, op_id = self.value(), arrived.operation.to_bytes(16, "big")
        if value.find(op_id) or may_be_forgotten(value, arrived.attempt, birth):
            return
        self._counter += 1
        entry = recent_of(
            make_ballot(self._counter, 1, 1),
            op_id,
            at_ms=max(arrived.now_ms, birth.latest_ms),
            modified_ms=0,
            result=0,
            attempt=arrived.attempt,
        )
        value.remember(entry, arrived.now_ms)
        self.stored = b"".join(value.encode())
        self.applied.append(arrived.operation)

    def drop(self) -> None:
        if self.stored:
            self.floor = max(self.floor, floor_over(Slot(make_ballot(self._counter, 1, 1)), self.value()))
            self.stored = b""


@given(
    st.lists(_TIMES, min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 100), _TIMES), max_size=18),
    st.sets(st.integers(0, 17)),
)
def test_no_operation_is_applied_twice(
    births: list[int], order: list[tuple[int, int]], drops: set[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(register, "RECENT_OPS_MAX", 2)
        one = Register()
        for turn, arrived in enumerate(arrivals(births, order)):
            one.take(arrived, birth_of(births[arrived.operation], arrived.now_ms))
            if turn in drops:
                one.drop()
    assert len(one.applied) == len(set(one.applied))


def test_first_attempts_need_no_memory_while_nothing_is_repeated() -> None:
    """A hundred writes of one moment, each of them new: none is unknown."""
    one = Register()
    for operation in range(100):
        one.take(Attempt(operation, 1, _NOON_MS), Birth(_NOON_MS, _NOON_MS))
    assert len(one.applied) == 100 and one.value().cut_ms == _NOON_MS


def test_who_does_not_know_a_birth_gets_bounds() -> None:
    assert birth_of(UNKNOWN_BIRTH, _NOON_MS) == Birth(_NOON_MS - RECENT_OPS_MS, _NOON_MS + REACH_SKEW_MS)
    assert birth_of(5, _NOON_MS) == Birth(5, 5)
