"""One id for a request on all hosts: what of it is where in a request id of the native protocol."""

from __future__ import annotations

import pytest

from ssastore.core.requestid import NUMBER_BITS, TOLD, TRACED, name_of, new_id, told, upper_of
from ssastore.limits import INFLIGHT_REQUESTS_MAX
from tests.direct import SeededRandomness


@pytest.mark.parametrize(("is_told", "digits"), [(False, "89AB"), (True, "CDEF")])
def test_who_is_told_shows_in_the_first_digit(is_told: bool, digits: str) -> None:
    randomness = SeededRandomness()
    names = {name_of(new_id(randomness, is_told=is_told)) for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) == 12 and name[0] in digits for name in names)


def test_it_is_found_again_in_every_request() -> None:
    upper = new_id(SeededRandomness())
    for number in (0, 1, (1 << NUMBER_BITS) - 1):
        request_id = upper << NUMBER_BITS | number
        assert TRACED <= request_id < TOLD and upper_of(request_id) == upper
        assert told(upper) << NUMBER_BITS | number >= TOLD
    assert told(told(upper)) == told(upper)


def test_who_knows_nothing_of_it_belongs_to_nothing() -> None:
    assert upper_of(1) == upper_of(TRACED - 1) == upper_of(-1) == 0 and name_of(0) == ""


def test_numbers_are_enough_for_a_connection() -> None:
    assert 1 << NUMBER_BITS > INFLIGHT_REQUESTS_MAX
