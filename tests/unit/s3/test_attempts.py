"""Which requests are attempts of one operation, and when that was begun."""

from __future__ import annotations

from typing import Any

import pytest

from ssastore.core.birth import birth_of, may_be_forgotten, not_after
from ssastore.core.register import Value, make_ballot, recent_of
from ssastore.core.registers import Once
from ssastore.limits import INVOCATIONS_MAX
from ssastore.s3.attempts import Attempts
from ssastore.s3.principal import PayloadMode, Principal
from tests.direct import StillClock

UUID = "3f0b1f5e-9f0c-4d53-9f65-08f4dd2f7a10"


def principal(key: str = "AK", signed_at_ms: int = StillClock().ms) -> Principal:
    return Principal(key, PayloadMode.UNSIGNED, None, None, is_presigned=False, signed_at_ms=signed_at_ms)


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
def test_what_differs_in_anything_is_another_operation(changes: dict[str, Any]) -> None:
    attempts = Attempts(StillClock())
    one, other = told(attempts), told(attempts, **changes)
    assert one is not None and other is not None and one.op_id != other.op_id


@pytest.mark.parametrize("invocation", ["", "short", "x" * 129, "with space " * 2, "nonascii-äöü-äöü"])
def test_who_sends_no_invocation_gets_no_memory(invocation: str) -> None:
    assert told(Attempts(StillClock()), invocation=invocation) is None


def test_first_attempt_that_lay_unread_was_born_when_it_was_signed() -> None:
    clock = StillClock()
    signed_at_ms, clock.ms = clock.ms, clock.ms + 60_000
    found = told(Attempts(clock), principal=principal(signed_at_ms=signed_at_ms))
    assert found is not None and found.born_ms == signed_at_ms + 999


def test_first_attempt_of_a_client_whose_clock_is_ahead_was_born_when_it_came() -> None:
    clock = StillClock()
    found = told(Attempts(clock), principal=principal(signed_at_ms=clock.ms + 60_000))
    assert found is not None and found.born_ms == clock.ms


def test_repetition_whose_first_attempt_went_elsewhere_was_born_before_it_was_signed() -> None:
    clock = StillClock()
    signed_at_ms = clock.ms + 4321
    found = told(Attempts(clock), "attempt=3", principal=principal(signed_at_ms=signed_at_ms))
    assert found is not None and (found.attempt, found.born_ms) == (3, not_after(signed_at_ms + 999))


def test_first_attempt_in_a_stopped_gateway_is_not_applied_again() -> None:
    """The second one was, through another gateway, and 64 operations followed."""
    clock = StillClock()
    value, signed_at_ms = Value(), clock.ms

    def take(once: Once) -> bool:
        birth = birth_of(once.born_ms, clock.ms)
        if value.find(once.op_id) or may_be_forgotten(value, once.attempt, birth):
            return False
        entry = recent_of(
            make_ballot(clock.ms, 1, 1),
            once.op_id,
            at_ms=max(clock.ms, birth.latest_ms),
            modified_ms=0,
            result=0,
            attempt=once.attempt,
        )
        value.remember(entry, clock.ms)
        return True

    clock.ms += 1000
    second = told(Attempts(clock), "attempt=2", principal=principal(signed_at_ms=clock.ms))
    assert second is not None and take(second)
    for repeated in range(64):
        clock.ms += 200
        assert take(Once(repeated.to_bytes(16, "big"), 2, clock.ms))
    clock.ms += 60_000
    first = told(Attempts(clock), principal=principal(signed_at_ms=signed_at_ms))
    assert first is not None and first.op_id == second.op_id and value.find(first.op_id) is None
    assert not take(first)


@pytest.mark.parametrize("sdk_request", [None, "max=3", "attempt=x", "attempt=99999999999"])
def test_attempt_without_a_number_may_be_a_repetition(sdk_request: str | None) -> None:
    found = told(Attempts(StillClock()), sdk_request)
    assert found is not None and (found.attempt, found.born_ms) == (2, not_after(StillClock().ms + 999))


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
    assert forgotten is not None and forgotten.born_ms == not_after(StillClock().ms + 999)
