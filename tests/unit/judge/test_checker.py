"""The checker accepts what is right and rejects what is wrong: T-LIN-01, brute force on small histories."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssastore.judge.checker import CLIENTS_MAX, OPS_MAX, Judgement, Verdict, check
from ssastore.judge.history import Condition, Kind, Op, Outcome, apply, explains
from tests.unit.judge.histories import BREAKINGS, broken, working

HISTORIES = 200


def put(called: int, answered: int, value: str, outcome: Outcome = Outcome.DONE, **more: object) -> Op:
    return Op(1, Kind.PUT, called, answered, outcome, value, **more)  # type: ignore[arg-type]


def get(called: int, answered: int, value: str) -> Op:
    return Op(2, Kind.GET, called, answered, Outcome.DONE if value else Outcome.ABSENT, value)


def delete(called: int, answered: int, outcome: Outcome = Outcome.DONE) -> Op:
    return Op(3, Kind.DELETE, called, answered, outcome)


# -- by hand -------------------------------------------------------------------------------------------

RIGHT: dict[str, list[Op]] = {
    "nothing": [],
    "read own write": [put(0, 1, "a"), get(2, 3, "a")],
    "absent at first": [get(0, 1, "")],
    "either order while it lasts": [put(0, 10, "a"), put(0, 10, "b"), get(11, 12, "a")],
    "seen before it was answered": [put(0, 10, "a"), get(1, 2, "a"), get(3, 4, "a")],
    "touching ends are concurrent": [put(0, 5, "a"), get(5, 6, "")],
    "an unknown one happens late": [put(0, 0, "a", Outcome.UNKNOWN), get(5, 6, ""), get(7, 8, "a")],
    "an unknown one never happens": [put(0, 0, "a", Outcome.UNKNOWN), get(5, 6, ""), get(7, 8, "")],
    "an unknown delete explains the absence": [
        put(0, 1, "a"),
        delete(2, 2, Outcome.UNKNOWN),
        get(7, 8, "a"),
        get(9, 10, ""),
    ],
    "refused while the other is under way": [
        put(0, 10, "a"),
        put(1, 2, "b", Outcome.FAILED, condition=Condition.IF_ABSENT),
    ],
    "a chain of conditions": [
        put(0, 1, "a", condition=Condition.IF_ABSENT),
        put(2, 3, "b", condition=Condition.IF_VALUE, expected="a"),
        put(4, 5, "c", Outcome.FAILED, condition=Condition.IF_VALUE, expected="a"),
        put(6, 7, "d", condition=Condition.IF_PRESENT),
        delete(8, 9),
        put(10, 11, "e", Outcome.ABSENT, condition=Condition.IF_VALUE, expected="d"),
        delete(12, 13, Outcome.ABSENT),
    ],
}
WRONG: dict[str, list[Op]] = {
    "a write is not there": [put(0, 1, "a"), get(2, 3, "")],
    "an old value": [put(0, 1, "a"), put(2, 3, "b"), get(4, 5, "a")],
    "back and forth": [put(0, 1, "a"), put(2, 30, "b"), get(4, 5, "b"), get(6, 7, "a")],
    "nobody wrote it": [get(0, 1, "a")],
    "read before it was called": [get(0, 1, "a"), put(2, 3, "a")],
    "an unknown one happens twice": [
        put(0, 0, "a", Outcome.UNKNOWN),
        get(1, 2, "a"),
        put(3, 4, "b"),
        get(5, 6, "b"),
        get(7, 8, "a"),
    ],
    "refused and applied all the same": [
        put(0, 1, "a"),
        put(2, 3, "b", Outcome.FAILED, condition=Condition.IF_ABSENT),
        get(4, 5, "b"),
    ],
    "two winners": [
        put(0, 10, "a", condition=Condition.IF_ABSENT),
        put(0, 10, "b", condition=Condition.IF_ABSENT),
    ],
    "refused for nothing": [put(0, 1, "a", Outcome.FAILED, condition=Condition.IF_ABSENT)],
    "removed what was not there": [delete(0, 1)],
    "a late delete": [put(0, 1, "a"), delete(2, 3), put(4, 5, "b"), get(6, 7, "")],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_histories_are_accepted(name: str) -> None:
    assert check(RIGHT[name]).verdict is Verdict.OK


@pytest.mark.parametrize("name", WRONG)
def test_wrong_histories_are_rejected(name: str) -> None:
    judgement = check(WRONG[name])
    assert judgement.verdict is Verdict.VIOLATION
    assert judgement.core


def test_the_first_value_can_be_given() -> None:
    assert check([get(0, 1, "a")], initial="a").verdict is Verdict.OK
    assert check([get(0, 1, "")], initial="a").verdict is Verdict.VIOLATION


def test_a_violation_names_those_that_contradict_one_another() -> None:
    """Of a hundred operations, the three that cannot be true together."""
    history = working(3, unknown=0)
    end = max(op.answered_ns for op in history)
    late = [put(end + 10, end + 20, "x"), put(end + 30, end + 40, "y"), get(end + 50, end + 60, "x")]
    judgement = check([*history, *late])
    assert judgement.core == tuple(late)
    assert "client 2" in str(judgement)
    assert "get -> x" in str(judgement)


def test_too_little_patience_is_undecided() -> None:
    assert check(working(1), steps_max=20).verdict is Verdict.UNDECIDED


# -- T-LIN-01 ------------------------------------------------------------------------------------------


def test_200_valid_histories_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    started = perf_counter()
    judgements = [check(working(seed, OPS_MAX, CLIENTS_MAX)) for seed in range(HISTORIES)]
    ms = (perf_counter() - started) * 1000 / HISTORIES
    assert [found.verdict for found in judgements] == [Verdict.OK] * HISTORIES
    _print(capsys, f"{HISTORIES} valid: {ms:.1f} ms and {_steps(judgements)} steps each")


def test_200_broken_histories_are_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    breakings = list(BREAKINGS.values())
    histories = [broken(seed, breakings[seed % len(breakings)]) for seed in range(HISTORIES)]
    started = perf_counter()
    judgements = [check(history) for history in histories]
    ms = (perf_counter() - started) * 1000 / HISTORIES
    assert [found.verdict for found in judgements] == [Verdict.VIOLATION] * HISTORIES
    core = sum(len(found.core) for found in judgements) / HISTORIES
    _print(
        capsys,
        f"{HISTORIES} broken: {ms:.1f} ms and {_steps(judgements)} steps each, {core:.1f} operations named",
    )


def _steps(judgements: list[Judgement]) -> int:
    return sum(found.steps for found in judgements) // len(judgements)


def _print(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n  T-LIN-01 {line}", end="")


# -- against brute force -------------------------------------------------------------------------------


def is_explained(history: list[Op], initial: str | None = None) -> bool:
    """Try every order of every subset that leaves out only what need not have happened."""
    unknown = [op for op in history if not op.is_answered]
    for chosen in range(1 << len(unknown)):
        left_out = [op for i, op in enumerate(unknown) if not chosen >> i & 1]
        ops = [op for op in history if not any(op is other for other in left_out)]
        if any(_fits(order, initial) for order in permutations(ops)):
            return True
    return False


def _fits(order: tuple[Op, ...], state: str | None) -> bool:
    latest_call = 0
    for op in order:
        latest_call = max(latest_call, op.called_ns)
        if op.is_answered and op.answered_ns < latest_call:
            return False  # it was answered before one that stands before it was called
        is_possible, state = explains(op, state)
        if not is_possible:
            return False
    return True


@st.composite
def small_histories(draw: st.DrawFn) -> list[Op]:
    """Up to five operations with outcomes and times at random; few are linearizable by chance."""
    history: list[Op] = []
    values = [f"v{i}" for i in range(5)]
    for i in range(draw(st.integers(1, 5))):
        called = draw(st.integers(0, 12))
        kind = draw(st.sampled_from(list(Kind)))
        condition = draw(st.sampled_from(list(Condition))) if kind is not Kind.GET else Condition.NONE
        op = Op(
            i,
            kind,
            called,
            called + draw(st.integers(1, 8)),
            draw(st.sampled_from(list(Outcome))),
            values[i] if kind is Kind.PUT else "",
            condition,
            draw(st.sampled_from(values)) if condition is Condition.IF_VALUE else "",
        )
        if kind is Kind.GET and op.outcome is Outcome.DONE:
            op = replace(op, value=draw(st.sampled_from(values)))
        history.append(op)
    return history


@given(small_histories())
@settings(max_examples=500)
def test_verdict_is_that_of_brute_force(history: list[Op]) -> None:
    expected = Verdict.OK if is_explained(history) else Verdict.VIOLATION
    judgement = check(history)
    assert judgement.verdict is expected
    if judgement.core:
        _check_core(history, judgement.core)


def _check_core(history: list[Op], core: tuple[Op, ...]) -> None:
    """What is named is a contradiction from whatever state, if all others say nothing."""
    since = min(op.called_ns for op in core)
    named = {op.client for op in core}
    others = [
        replace(op, outcome=Outcome.UNKNOWN)
        for op in history
        if op.client not in named and (op.outcome is Outcome.UNKNOWN or op.answered_ns >= since)
    ]
    states = [None, *(op.value for op in history if op.kind is Kind.PUT and op.called_ns < since)]
    assert any(not is_explained([*core, *others], state) for state in states)


@given(st.integers(0, 1 << 32), st.integers(1, 5))
@settings(max_examples=60)
def test_whatever_a_working_register_says_is_accepted(seed: int, clients: int) -> None:
    assert check(working(seed, 60, clients, 0.1)).verdict is Verdict.OK


def test_operations_are_shown_for_people() -> None:
    op = put(1_500_000_000, 2_000_000_000, "b", condition=Condition.IF_VALUE, expected="a")
    assert " ".join(str(op).split()) == "client 1 1.500000 to 2.000000 put b if a -> done"
    assert apply(op, "a") == (Outcome.DONE, "b")
    assert apply(op, "c") == (Outcome.FAILED, "c")
