"""What workers serve, and what of it others do not."""

from __future__ import annotations

import msgpack
import pytest

from ssastore.core.acceptor import encode_coverage
from ssastore.core.numbers import number_of_slice
from ssastore.keyspace import slice_of
from ssastore.transport.coverage import NOTHING, Coverage, bits

LOW, HIGH = slice_of(0, 7).split()


def slices(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


def coverage_of(*numbers: int) -> Coverage:
    return Coverage.decode(encode_coverage(numbers, 1))


def test_slices_and_parts_come_through() -> None:
    assert coverage_of(3, 4, 9, number_of_slice(HIGH)) == (slices(3, 4, 9), {range(0x78000, 0x80000)})
    assert coverage_of(number_of_slice(LOW), number_of_slice(HIGH)) == (slices(7), set()), (
        "both halves are the whole"
    )
    assert coverage_of() == NOTHING


def test_runs_that_overlap_are_counted_once_and_cost_no_more() -> None:
    runs = [[0, 1 << 16]] * 20_000 + [[5, 9]]
    assert Coverage.decode(msgpack.packb([1, runs])).whole == bits(range(1 << 16))


@pytest.mark.parametrize(
    ("whole", "parts", "wrong", "left"),
    [
        (slices(), set(), slices(), (slices(3, 4), {range(0x78000, 0x80000)})),
        (slices(4), set(), slices(), (slices(3), {range(0x78000, 0x80000)})),
        (slices(4, 7), set(), slices(3), (slices(), set())),
        (slices(3, 4), set(), slices(7), (slices(), set())),
        (slices(3, 4), {range(0x78000, 0x80000)}, slices(), (slices(), set())),
        (slices(3, 4), {range(0x70000, 0x78000)}, slices(), (slices(), {range(0x78000, 0x80000)})),
    ],
)
def test_what_others_do_not_serve(
    whole: int, parts: set[range], wrong: int, left: tuple[int, set[range]]
) -> None:
    assert coverage_of(3, 4, number_of_slice(HIGH)).beyond(whole, parts, wrong) == left
