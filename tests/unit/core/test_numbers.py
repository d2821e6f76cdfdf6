from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.numbers import (
    group_of_part,
    group_of_slice,
    is_part_number,
    lane_of_slice,
    number_of_part,
    number_of_slice,
    numbered_slice,
    part_of_slice,
    part_piece,
    plane_of_slice,
    slice_from_text,
    slice_name,
    slice_number,
)
from ssastore.keyspace import IID_BITS, SLICE_DEPTH_MAX, SLICE_DEPTH_MIN, Slice, slice16_of, slice_of


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    depth = draw(st.integers(SLICE_DEPTH_MIN, SLICE_DEPTH_MAX))
    return Slice(draw(st.integers(0, (1 << depth) - 1)) << (IID_BITS - depth), depth)


@given(slices())
def test_a_number_says_all_of_a_slice(piece: Slice) -> None:
    number = number_of_slice(piece)
    assert numbered_slice(number) == piece
    assert (plane_of_slice(number), group_of_slice(number)) == (piece.plane, piece.group)
    assert lane_of_slice(number) == piece.lane
    part = part_of_slice(number)
    assert slice_number(piece.plane, part) == number and is_part_number(part)
    assert part == number_of_part(piece) and group_of_part(part) == piece.group
    assert part_piece(part).depth == piece.depth
    assert slice_from_text(slice_name(number)) == piece


def test_the_number_of_a_whole_slice_is_its_hextet() -> None:
    for plane, group in ((0, 0), (1, 0xA3F), (15, 4095)):
        piece = slice_of(plane, group)
        assert number_of_slice(piece) == slice16_of(piece.first) and number_of_part(piece) == group
    assert (
        slice_name(0x1A3F) == "1a3f"
        and slice_name(number_of_slice(slice_of(1, 0xA3F).split()[1])) == "1a3f8/81"
    )


@pytest.mark.parametrize("number", [-1, 1 << 16, (2 << 16) - 1, 2 << 32])
def test_no_such_slice(number: int) -> None:
    with pytest.raises(ValueError, match="number"):
        numbered_slice(number)


@pytest.mark.parametrize("number", [-1, 4096, 8191, 2 << 28])
def test_no_such_part(number: int) -> None:
    assert not is_part_number(number)
    with pytest.raises(ValueError, match="number"):
        part_piece(number)
