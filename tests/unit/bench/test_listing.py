"""What is wrong with a listing is seen."""

from __future__ import annotations

import pytest

from bench.listing import Result, _judge, gone_key, key_of

EXPECTED = sorted(key_of(number).encode() for number in range(300))


def judged(listed: list[bytes]) -> tuple[int, int, int, bool]:
    result = Result(300, 3, 0, [], 0, [], 0, 0, 0, 0, 0, 0, 0, [])
    _judge(result, listed, EXPECTED)
    assert result.listings == 1
    return result.missing, result.ghosts, result.disorder, result.is_right


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (EXPECTED, (0, 0, 0, True)),
        (EXPECTED[:-1], (1, 0, 0, False)),
        ([*EXPECTED, gone_key(299).encode()], (0, 1, 0, False)),
        ([EXPECTED[0], *EXPECTED], (0, 0, 1, False)),
        ([EXPECTED[1], EXPECTED[0], *EXPECTED[2:]], (0, 0, 1, False)),
    ],
)
def test_a_key_too_few_too_many_or_out_of_order(
    listed: list[bytes], found: tuple[int, int, int, bool]
) -> None:
    assert judged(listed) == found
