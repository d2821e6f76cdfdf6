"""Ordering splits and merges: compare-and-set of a group's record, by whoever asks. Coroutines.

A split is done with that; a merge is begun, and the workers that own the parts carry it out
(``core.joiner``).
Both can be asked for again: what is as it should be is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssastore.core.groups import GroupRecord, group_key
from ssastore.core.numbers import group_of_part
from ssastore.core.recut import begin_merge, cancel_merge, split_part
from ssastore.env import Compare, ControlStore, Write
from ssastore.errors import ConfigError


async def order_split(control: ControlStore, part: int, pieces: Sequence[int]) -> None:
    """Cut a part into others, which are all of it, in order.

    Raises:
        ConfigError: there is no such part now, or a slice of the group is moved, recovered or merged.
        Unavailable: the control store does not answer.
    """

    def change(record: GroupRecord) -> GroupRecord | None:
        is_cut = all(record.at(piece) is not None for piece in pieces)
        return None if is_cut else split_part(record, part, pieces)

    await _change(control, part, change)


async def order_merge(control: ControlStore, part: int) -> bool:
    """Have all parts inside ``part`` merged; whether they are now. Ask again to find out, or to begin again.

    Raises:
        ConfigError: there are none, they have different owners, or the group is busy.
        Unavailable: the control store does not answer.
    """

    def change(record: GroupRecord) -> GroupRecord | None:
        is_begun = record.merging is not None and record.merging.part == part
        return None if is_begun or record.at(part) is not None else begin_merge(record, part)

    return (await _change(control, part, change)).at(part) is not None


async def abort_merge(control: ControlStore, part: int) -> bool:
    """Call a merge off that is not done; whether there was one. Raises ConfigError, Unavailable."""
    found: list[int] = []

    def change(record: GroupRecord) -> GroupRecord | None:
        found[:] = [record.merging.part] if record.merging is not None else []
        return cancel_merge(record) if found == [part] else None

    await _change(control, part, change)
    return found == [part]


async def _change(
    control: ControlStore, part: int, change: Callable[[GroupRecord], GroupRecord | None]
) -> GroupRecord:
    """The record of a part's group after a change; None: it stays."""
    key = group_key(group_of_part(part))
    while True:
        item = await control.get(key)
        if item is None:
            raise ConfigError("the control store holds no cluster: form one first, or correct its address")
        record = GroupRecord.decode(item.value)
        changed = change(record)
        if changed is None:
            return record
        if await control.transact([Compare(key, item.revision)], [Write(key, changed.encode())]):
            return changed
