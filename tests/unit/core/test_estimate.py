"""What moves cost before they are made."""

from __future__ import annotations

from ssastore.core.estimate import Estimate, estimate
from ssastore.core.numbers import number_of_slice, slice_from_text

MIB = 1 << 20


def test_the_worker_with_most_to_copy_decides_how_long_it_takes() -> None:
    sizes = {0xA30: 30 * MIB, 0xA31: 10 * MIB, 0xA32: 5 * MIB}
    moves = [(0x1A30, "n1"), (0x1A31, "n1"), (0x0A32, "n1"), (0x0A31, "n2"), (0x0FFF, "n2")]
    assert estimate(moves, sizes, {"n1": 2, "n2": 1}, MIB) == Estimate(55 * MIB, 35.0)
    assert estimate(moves, sizes, {"n1": 16, "n2": 1}, 2 * MIB) == Estimate(55 * MIB, 15.0)


def test_a_part_of_a_group_is_its_share_of_it() -> None:
    half = number_of_slice(slice_from_text("1a308/81"))
    assert estimate([(half, "n1")], {0xA30: 30 * MIB}, {"n1": 1}, MIB).bytes == 15 * MIB


def test_small_slices_take_their_time() -> None:
    moves = [(number << 4, "n1") for number in range(100)] + [(number << 4, "n2") for number in range(40)]
    assert estimate(moves, {0: MIB}, {"n1": 1, "n2": 1}, MIB, 0.04) == Estimate(2 * MIB, 5.0)


def test_nothing_to_do_takes_no_time() -> None:
    assert estimate([], {}, {}, 1) == Estimate(0, 0.0)
