"""No operation is applied twice, however its attempts are ordered and whatever clocks say."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ssastore.core import register
from ssastore.core.birth import UNKNOWN_BIRTH, Birth, birth_of, may_be_forgotten, not_after
from ssastore.core.floors import floor_over
from ssastore.core.register import NO_BALLOT, Slot, Value, decode_value, make_ballot, none_above, recent_of
from ssastore.limits import REACH_SKEW_MS, RECENT_OPS_MAX, RECENT_OPS_MS

_NOON_MS = 1_900_000_000_000
_TIMES = st.one_of(st.integers(0, 40), st.integers(0, 2 * RECENT_OPS_MS), st.integers(0, 10**10)).map(
    lambda ms: _NOON_MS + ms
)


_NEAR = st.one_of(st.integers(0, 40), st.integers(0, RECENT_OPS_MS - 1)).map(lambda ms: _NOON_MS + ms)


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


@given(
    st.lists(_NEAR, min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 100), _NEAR, st.integers(0, 1000) | st.none()), max_size=18),
)
@example(
    births=[_NOON_MS] * 5 + [_NOON_MS + 1],
    order=[(41, _NOON_MS, 0), (0, _NOON_MS + 11, None), (1, _NOON_MS + 4, None), (5, _NOON_MS + 20, None)],
)
def test_no_operation_is_applied_twice_by_who_does_not_know_its_birth(
    births: list[int], order: list[tuple[int, int, int | None]]
) -> None:
    """Repeated attempts may come from elsewhere; clocks are nearer than a register remembers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(register, "RECENT_OPS_MAX", 2)
        one = Register()
        for arrived, (_, _, later_ms) in zip(
            arrivals(births, [(pick, now_ms) for pick, now_ms, _ in order]), order, strict=False
        ):
            born_ms = births[arrived.operation]
            is_from_elsewhere = later_ms is not None and arrived.attempt > 1
            number = not_after(born_ms + (later_ms or 0)) if is_from_elsewhere else born_ms
            one.take(arrived, birth_of(number, arrived.now_ms))
    assert len(one.applied) == len(set(one.applied))


@pytest.mark.parametrize("ahead_ms", [0, 10_000, 900_000])
def test_repetition_from_elsewhere_makes_no_later_write_unknown(ahead_ms: int) -> None:
    """Its client's clock is ahead, so it is remembered with a time to come."""
    one = Register()
    one.take(Attempt(0, 2, _NOON_MS), birth_of(not_after(_NOON_MS + ahead_ms), _NOON_MS))
    for operation in range(1, 1000):
        now_ms = _NOON_MS + 31 * operation
        one.take(Attempt(operation, 1, now_ms), Birth(now_ms, now_ms))
    assert len(one.applied) == 1000


def test_near_half_of_what_is_remembered_may_be_repeated_attempts() -> None:
    value, repeated = Value(), (RECENT_OPS_MAX - 1) // 2
    for number in range(1000):
        attempt = 2 if number < 100 else 1
        entry = recent_of(
            make_ballot(number + 1, 1, 1),
            number.to_bytes(16, "big"),
            at_ms=_NOON_MS + number,
            modified_ms=0,
            result=0,
            attempt=attempt,
        )
        value.remember(entry, _NOON_MS + number)
    assert [int.from_bytes(entry.op_id, "big") for entry in value.recent] == [
        *range(100 - repeated, 100),
        *range(1000 - (RECENT_OPS_MAX - repeated), 1000),
    ]
    last_cut = 999 - (RECENT_OPS_MAX - repeated)
    assert (value.cut_ms, value.cut_ballot) == (_NOON_MS + last_cut, make_ballot(last_cut + 1, 1, 1))
    assert value.cut_repeated_ms == _NOON_MS + 99 - repeated


def test_first_attempts_need_no_memory_while_nothing_is_repeated() -> None:
    """A hundred writes of one moment, each of them new: none is unknown."""
    one = Register()
    for operation in range(100):
        one.take(Attempt(operation, 1, _NOON_MS), Birth(_NOON_MS, _NOON_MS))
    assert len(one.applied) == 100 and one.value().cut_ms == _NOON_MS


def test_who_does_not_know_a_birth_gets_bounds() -> None:
    assert birth_of(UNKNOWN_BIRTH, _NOON_MS) == Birth(_NOON_MS - RECENT_OPS_MS, _NOON_MS + REACH_SKEW_MS)
    assert birth_of(5, _NOON_MS) == Birth(5, 5)
    assert birth_of(not_after(5), _NOON_MS) == Birth(5, 5)
    assert birth_of(not_after(_NOON_MS), _NOON_MS) == Birth(_NOON_MS - RECENT_OPS_MS, _NOON_MS)
