"""How much may still be put, as a table of situations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.limits import GIB, MAP_RESERVE_PERCENT, MIB
from ssastore.store.room import put_limit_bytes, room_for_puts

MAP = 1000 * MIB
RESERVE = 64 * MIB


@pytest.mark.parametrize(
    ("used", "recyclable", "free", "data", "reserve", "reason"),
    [
        pytest.param(0, 0, GIB, 900, 950, "map", id="empty"),
        pytest.param(899, 0, GIB, 1, 51, "map", id="nearly full map"),
        pytest.param(920, 0, GIB, 0, 30, "map", id="full map"),
        pytest.param(999, 0, GIB, 0, 0, "map", id="reserve is used up"),
        pytest.param(100, 0, 164, 100, 132, "disk", id="nearly full disk"),
        pytest.param(100, 0, 64, 0, 32, "disk", id="full disk"),
        pytest.param(100, 700, 60, 696, 728, "disk", id="full disk, but the file has free pages"),
        pytest.param(100, 700, 31, 0, 699, "disk", id="half the disk reserve is gone"),
        pytest.param(100, 700, 15, 0, 0, "disk", id="nearly all of the disk reserve is gone"),
    ],
)
def test_room(used: int, recyclable: int, free: int, data: int, reserve: int, reason: str) -> None:
    room = room_for_puts(
        MAP, used=used * MIB, recyclable=recyclable * MIB, free=free * MIB, disk_reserve=RESERVE
    )
    assert (room.data // MIB, room.reserve // MIB) == (data, reserve)
    assert f"the {reason} is full" in room.why_full


sizes = st.integers(0, 4 * MAP)


@given(sizes, sizes, sizes, sizes)
def test_data_leave_the_reserves_alone(used: int, recyclable: int, free: int, disk_reserve: int) -> None:
    room = room_for_puts(MAP, used=used, recyclable=recyclable, free=free, disk_reserve=disk_reserve)
    assert 0 <= room.data <= room.reserve
    if room.data:
        assert used + room.data <= MAP * (100 - MAP_RESERVE_PERCENT) / 100
        assert free - (room.data - recyclable) >= disk_reserve
    if room.reserve:
        assert used + room.reserve < MAP
        assert free - (room.reserve - recyclable) >= disk_reserve // 2


def test_limit_shown_to_people_is_the_limit_for_data() -> None:
    assert put_limit_bytes(MAP) == 900 * MIB
