"""Which requests are attempts of one operation, and when that was begun."""

from __future__ import annotations

import pytest

from ssastore.core.birth import UNKNOWN_BIRTH
from ssastore.core.registers import Once
from ssastore.limits import INVOCATIONS_MAX
from ssastore.s3.attempts import Attempts
from ssastore.s3.sigv4 import PayloadMode, Principal
from tests.direct import StillClock

UUID = "3f0b1f5e-9f0c-4d53-9f65-08f4dd2f7a10"


def principal(key: str = "AK") -> Principal:
    return Principal(key, PayloadMode.UNSIGNED, None, None, is_presigned=False)


def told(attempts: Attempts, sdk_request: str | None = "attempt=1; max=5", **changes: object) -> Once | None:
    fields: dict[str, object] = {
        "principal": principal(),
        "method": "PUT",
        "name": ("b", "k"),
        "payload": "p",
        "invocation": UUID,
    } | changes
    headers = {"amz-sdk-invocation-id": fields.pop("invocation")}
    if sdk_request is not None:
        headers["amz-sdk-request"] = sdk_request
    return attempts.once(headers=headers, **fields)  # type: ignore[arg-type]


def test_attempts_of_one_invocation_are_one_operation_with_one_birth() -> None:
    clock = StillClock()
    attempts = Attempts(clock)
    first = told(attempts)
    clock.ms += 1500
    second = told(attempts, "ttl=20260101T000000Z; attempt=2; max=5")
    assert first is not None and second is not None
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.born_ms == second.born_ms == clock.ms - 1500
    assert first.op_id == second.op_id


@pytest.mark.parametrize(
    "changes",
    [
        {"principal": principal("other")},
        {"method": "DELETE"},
        {"name": ("b", "other")},
        {"name": ("bk", "")},
        {"payload": "other"},
        {"invocation": UUID[::-1]},
    ],
    ids=str,
)
def test_what_differs_in_anything_is_another_operation(changes: dict[str, object]) -> None:
    attempts = Attempts(StillClock())
    one, other = told(attempts), told(attempts, **changes)
    assert one is not None and other is not None and one.op_id != other.op_id


@pytest.mark.parametrize("invocation", ["", "short", "x" * 129, "with space " * 2, "nonascii-äöü-äöü"])
def test_who_sends_no_invocation_gets_no_memory(invocation: str) -> None:
    assert told(Attempts(StillClock()), invocation=invocation) is None


def test_repetition_whose_first_attempt_went_elsewhere_has_an_unknown_birth() -> None:
    found = told(Attempts(StillClock()), "attempt=3")
    assert found is not None and (found.attempt, found.born_ms) == (3, UNKNOWN_BIRTH)


@pytest.mark.parametrize("sdk_request", [None, "max=3", "attempt=x", "attempt=99999999999"])
def test_attempt_without_a_number_may_be_a_repetition(sdk_request: str | None) -> None:
    found = told(Attempts(StillClock()), sdk_request)
    assert found is not None and (found.attempt, found.born_ms) == (2, UNKNOWN_BIRTH)


def test_first_attempt_that_comes_twice_is_a_repetition() -> None:
    attempts = Attempts(StillClock())
    told(attempts)
    again = told(attempts)
    assert again is not None and again.attempt == 2


def test_memory_is_bounded() -> None:
    attempts = Attempts(StillClock())
    told(attempts)
    for number in range(INVOCATIONS_MAX):
        told(attempts, invocation=f"{number:08}")
    assert len(attempts._born_ms) == INVOCATIONS_MAX
    forgotten = told(attempts, "attempt=2")
    assert forgotten is not None and forgotten.born_ms == UNKNOWN_BIRTH
