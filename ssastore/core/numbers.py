"""Numbers of slices and of parts: what tables, messages and orders know them by. Pure integer arithmetic.

    slice    a whole /80 by its fifth hextet, 16 bits; a part of one by 1 << depth | the bits that it
             fixes, which is always more
    part     the same without the plane, for what is alike in all planes: a group by its 12 bits, a part
             of one by 1 << (depth - 4) | the bits below the plane digit

So as long as no group is split every number is the 16 or 12 bits that stand in an address.  Numbers
are in the order of addresses only among slices of one depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ssastore.errors import ConfigError
from ssastore.keyspace import (
    GROUP_BITS,
    GROUPS,
    IID_BITS,
    LANES,
    LOCATOR_BITS,
    PLANE_BITS,
    PLANES,
    SLICE_BITS,
    SLICE_DEPTH_MAX,
    SLICE_DEPTH_MIN,
    Slice,
)

_SLICE = re.compile(r"([0-9a-f]{0,8})/([0-9]{2,3})|([0-9a-f]{4})")
WHOLE_SLICES = 1 << SLICE_BITS
"Numbers below this are of whole /80s, those above of parts of one."
_BITS_BELOW = LOCATOR_BITS - SLICE_BITS
_NUMBER_END = 2 << SLICE_DEPTH_MAX


def is_part_number(number: int) -> bool:
    """Whether there is a part, whole group or less, of this number."""
    return 0 <= number < GROUPS or 2 << GROUP_BITS <= number < 2 << (SLICE_DEPTH_MAX - PLANE_BITS)


def slice_number(plane: int, part: int) -> int:
    """The number of a part in one plane."""
    if part < GROUPS:
        return plane << GROUP_BITS | part
    bits = part.bit_length() - 1
    return 1 << (bits + PLANE_BITS) | plane << bits | part ^ 1 << bits


def plane_of_slice(number: int) -> int:
    """The plane of a numbered slice."""
    if number < WHOLE_SLICES:
        return number >> GROUP_BITS
    return number >> (number.bit_length() - 1 - PLANE_BITS) & (PLANES - 1)


def part_of_slice(number: int) -> int:
    """The number of the same part without its plane."""
    if number < WHOLE_SLICES:
        return number & (GROUPS - 1)
    bits = number.bit_length() - 1 - PLANE_BITS
    return 1 << bits | number & ((1 << bits) - 1)


def group_of_slice(number: int) -> int:
    """The group of a numbered slice."""
    return group_of_part(part_of_slice(number))


def lane_of_slice(number: int) -> int:
    """The lane of a numbered slice."""
    return number % LANES if number < WHOLE_SLICES else group_of_slice(number) % LANES


def group_of_part(part: int) -> int:
    """The group that a numbered part is, or is in."""
    return part if part < GROUPS else (part >> (part.bit_length() - 1 - GROUP_BITS)) & (GROUPS - 1)


@lru_cache(maxsize=GROUPS)
def numbered_slice(number: int) -> Slice:
    """The slice of a number. ValueError: there is none."""
    if not 0 <= number < _NUMBER_END or WHOLE_SLICES <= number < 2 << SLICE_BITS:
        raise ValueError(f"no slice has the number {number:#x}")
    depth = max(SLICE_BITS, number.bit_length() - 1)
    bits = number if number < WHOLE_SLICES else number ^ 1 << depth
    return Slice(bits << (IID_BITS - depth), depth)


def number_of_slice(piece: Slice) -> int:
    """Inverse of ``numbered_slice``. ValueError: it has no number."""
    if not SLICE_DEPTH_MIN <= piece.depth <= SLICE_DEPTH_MAX:
        raise ValueError(f"{piece} is no /80 and no part of one down to /96")
    bits = piece.first >> (IID_BITS - piece.depth)
    return bits if piece.depth == SLICE_BITS else 1 << piece.depth | bits


def part_piece(part: int) -> Slice:
    """A numbered part as its slice in plane 0. ValueError: there is none."""
    if not is_part_number(part):
        raise ValueError(f"no part has the number {part:#x}")
    return numbered_slice(slice_number(0, part))


def locators_of_slice(number: int) -> tuple[int, int]:
    """First locator of a numbered slice, and the first after it."""
    if number < WHOLE_SLICES:
        return number << _BITS_BELOW, (number + 1) << _BITS_BELOW
    shift = LOCATOR_BITS - number.bit_length() + 1
    first = number << shift & ((1 << LOCATOR_BITS) - 1)
    return first, first + (1 << shift)


def whole_of(number: int) -> int:
    """The /80 that a numbered slice is, or is in."""
    return number if number < WHOLE_SLICES else number >> (number.bit_length() - 1 - SLICE_BITS) & 0xFFFF


def in_order(numbers: Iterable[int]) -> list[int]:
    """Numbered slices in the order of addresses."""
    return sorted(numbers, key=locators_of_slice)


def parts_in_order(parts: Iterable[int]) -> list[int]:
    """Numbered parts in the order of addresses."""
    return sorted(parts, key=lambda part: locators_of_slice(slice_number(0, part)))


def covers(number: int, other: int) -> bool:
    """Whether a slice is another one or around it."""
    first, end = locators_of_slice(number)
    inside, after = locators_of_slice(other)
    return first <= inside and after <= end


def overlaps(number: int, other: int) -> bool:
    """Whether two slices have addresses in common: one of them is around the other."""
    return covers(number, other) or covers(other, number)


def number_of_part(piece: Slice) -> int:
    """Inverse of ``part_piece``, of a slice in whatever plane."""
    return part_of_slice(number_of_slice(piece))


def slice_name(number: int) -> str:
    """A numbered slice as people write it: ``1a3f``, or ``1a3f8/81`` for a part of it."""
    return f"{number:04x}" if number < WHOLE_SLICES else str(numbered_slice(number))


def slice_from_text(text: object) -> Slice:
    """Inverse of ``str(Slice)``. ConfigError: it is no slice."""
    match = _SLICE.fullmatch(text) if type(text) is str else None
    if match is None:
        raise ConfigError(f"a slice is written like 1a3f or 1a3f8/82, got {text!r}")
    digits = match[3] or match[1]
    depth = SLICE_BITS if match[3] else int(match[2]) - 64
    try:
        piece = Slice(int(digits or "0", 16) << (IID_BITS - 4 * len(digits)), depth)
    except ValueError as error:
        raise ConfigError(f"no such slice: {text}: {error}") from error
    if str(piece) != text:
        raise ConfigError(f"slice {text!r} is written {piece}")
    return piece
