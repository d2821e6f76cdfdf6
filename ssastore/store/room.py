"""How much may still be put: pure arithmetic on the fill of map and disk.

Copy-on-write needs free pages to delete, so a part of both is kept back.  Data leave both reserves alone;
small records that lead to space being freed may use one half of them; the other half is for deletes only.
"""

from __future__ import annotations

from typing import NamedTuple

from ssastore.limits import MAP_RESERVE_PERCENT, MIB


class Room(NamedTuple):
    """What one write transaction may put, in bytes."""

    data: int
    reserve: int
    "For puts with ``use_reserve``; never less than ``data``."
    why_full: str
    "What to tell those that do not fit."


def put_limit_bytes(map_bytes: int, reserve_percent: float = MAP_RESERVE_PERCENT) -> int:
    """How much of a map records may fill; the rest is for the copies that deletes make."""
    return int(map_bytes * (100 - reserve_percent) / 100)


def room_for_puts(map_bytes: int, *, used: int, recyclable: int, free: int, disk_reserve: int) -> Room:
    """What one transaction may put.

    Args:
        map_bytes: size of the map.
        used: bytes of its pages that hold records.
        recyclable: bytes of free pages inside the file.
        free: bytes that the file system has left.
        disk_reserve: how many of them are to stay free.
    """
    map_data = put_limit_bytes(map_bytes) - used
    disk_data = _disk_room(free, disk_reserve, recyclable)
    map_reserve = put_limit_bytes(map_bytes, MAP_RESERVE_PERCENT / 2) - used
    disk_half_reserve = _disk_room(free, disk_reserve // 2, recyclable)
    if map_data <= disk_data:
        why_full = f"the map is full: records use {used} of {map_bytes} bytes, a part of which is for deletes"
    else:
        why_full = f"the disk is full: {free // MIB} MiB are free, {disk_reserve // MIB} MiB are kept free"
    return Room(max(0, min(map_data, disk_data)), max(0, min(map_reserve, disk_half_reserve)), why_full)


def _disk_room(free: int, reserve: int, recyclable: int) -> int:
    """How much may be put on a disk with ``free`` bytes, of which ``reserve`` are to stay free.

    Free pages inside the file count, since LMDB never shrinks it: else a store that once filled its disk
    would refuse puts for ever, however much is deleted.  It may be unable to use them (a large value needs
    adjacent pages) and grow all the same, so below half the reserve there is no room at all.
    """
    if free < reserve // 2:
        return 0
    return free - reserve + recyclable
