"""Group records in the control store, read and replaced for one worker. Coroutines.

Who replaces records does so together, by one compare-and-set of all their groups' keys, and
tells the worker's custody what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from ssastore.core.custody import Custody
from ssastore.core.groups import GROUP_PREFIX, GroupRecord, group_key
from ssastore.core.held import Held
from ssastore.core.numbers import group_of_part, group_of_slice
from ssastore.env import Compare, ControlStore, Write
from ssastore.limits import RECORDS_READ_SINGLY


async def read_records(control: ControlStore, slices: Iterable[int]) -> dict[int, Held]:
    """By part, the records of slices' groups, as they are seen from each of the parts that there are now."""
    wanted = {group_key(group_of_slice(number)) for number in slices}
    if not wanted:
        return {}
    if len(wanted) <= RECORDS_READ_SINGLY:
        # All groups are 4096: to read them for every batch took longer than to move it.
        found = await asyncio.gather(*[control.get(key) for key in sorted(wanted)])
        items = [item for item in found if item is not None]
    else:
        every, _ = await control.list(GROUP_PREFIX)
        items = [item for item in every if item.key in wanted]
    return {
        view.part: Held(view, item.revision)
        for item in items
        for view in GroupRecord.decode(item.value).views()
    }


async def replace_records(
    control: ControlStore, custody: Custody, wanted: Mapping[int, GroupRecord], known: Mapping[int, Held]
) -> bool:
    """Replace records of parts, together; when one was changed meanwhile none is, and all are read again.

    Of a group one part at a time is changed: it has one slot.  Whether they were replaced.
    """
    by_group = {group_of_part(part): (record, known[part].revision) for part, record in wanted.items()}
    if not by_group:
        return True
    revision = await control.transact(
        [Compare(group_key(group), unchanged) for group, (_, unchanged) in by_group.items()],
        [Write(group_key(group), record.encode()) for group, (record, _) in by_group.items()],
    )
    for group, (record, _) in by_group.items():
        if revision is not None:
            custody.apply(record, revision)
        # Learn what somebody else did, and let the next round decide.
        elif (item := await control.get(group_key(group))) is not None:
            custody.apply(GroupRecord.decode(item.value), item.revision)
    return revision is not None
