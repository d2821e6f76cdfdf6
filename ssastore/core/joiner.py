"""Getting parts ready to be merged, as their group's record says. A conversation with the control store.

A worker that has all the parts in a plane, and votes for all of them under the cfg that the merge was begun
with, notes durably that its data is complete for the merged slice, and says so by compare-and-set.
Who says so last makes the merged record.  Nothing else is moved or told; meanwhile all parts go on voting.

All planes are needed.  A merge that does not come to an end (a node is down) is called off by any worker that
has waited for it long enough: as long as it lasts, no slice of the group can be moved or recovered.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ssastore.core.custody import Custody
from ssastore.core.groups import GroupRecord, group_key
from ssastore.core.held import Held
from ssastore.core.numbers import slice_number
from ssastore.core.recut import cancel_merge, merged_epoch, merging_parts, ready_for_merge
from ssastore.core.standing import Standing
from ssastore.env import Compare, ControlStore, Write
from ssastore.errors import SsaStoreError
from ssastore.limits import MERGE_MS_MAX, RECOVERY_RETRY_MS

log = logging.getLogger(__name__)


class Joiner:
    """Merges parts of groups as far as one environment has to do with it."""

    def __init__(self, custody: Custody, control: ControlStore) -> None:
        self._custody = custody
        self._control = control
        self._since: dict[tuple[int, int], float] = {}
        "When a merge of a group, by its cfg, was first seen."
        self.joined = 0
        "Merges that this worker was ready for since the start."

    def describe(self) -> dict[str, Any]:
        """Figures for status."""
        return {"merging": len(self._custody.merging()), "ready": self.joined}

    async def run(self) -> None:
        """Do what groups' records ask for, for ever."""
        while True:
            if not self._custody.merging():
                self._since.clear()
                await self._custody.changed()
                continue
            try:
                await self.round()
            except (SsaStoreError, OSError) as error:
                log.warning("merge.not_followed", extra={"reason": str(error)})
            await asyncio.sleep(RECOVERY_RETRY_MS / 1000)

    async def round(self) -> None:
        """Look at every merge once."""
        now = asyncio.get_running_loop().time()
        known, self._since = self._since, {}
        for group in list(self._custody.merging()):
            # The workers of the other planes say it of the same record at the same time.
            while (held := self._custody.merging().get(group)) is not None:
                attempt = group, held.record.next_cfg
                since = self._since[attempt] = known.get(attempt, now)
                plane = self._ready_plane(held.record)
                if plane is not None:
                    await self._say_ready(held, plane)
                    continue
                if now - since > MERGE_MS_MAX / 1000:
                    log.warning("merge.called_off", extra={"group": f"{group:03x}"})
                    await self._change(held, cancel_merge(held.record))
                break

    def _ready_plane(self, record: GroupRecord) -> int | None:
        """A plane of which this worker votes for all parts, and that is not said to be ready yet."""
        assert record.merging is not None
        env_id = self._custody.environment.env_id
        for plane, ready in enumerate(record.merging.ready):
            slices = [slice_number(plane, part) for part in merging_parts(record)]
            if ready != env_id and all(self._custody.is_voting(number) for number in slices):
                return plane
        return None

    async def _say_ready(self, held: Held, plane: int) -> None:
        record = held.record
        assert record.merging is not None
        parts = merging_parts(record)
        view = record.at(parts[0])
        assert view is not None
        standing = Standing(merged_epoch(record, plane), view.cfg)
        # What was adopted before is in the store before this is.
        await self._custody.note_standings({slice_number(plane, record.merging.part): standing})
        if await self._change(held, ready_for_merge(record, plane, self._custody.environment.env_id)):
            self.joined += 1

    async def _change(self, held: Held, record: GroupRecord) -> bool:
        """Replace a record; when it was changed meanwhile it is read again."""
        key = group_key(record.group)
        revision = await self._control.transact([Compare(key, held.revision)], [Write(key, record.encode())])
        if revision is not None:
            self._custody.apply(record, revision)
        elif (item := await self._control.get(key)) is not None:
            self._custody.apply(GroupRecord.decode(item.value), item.revision)
        return revision is not None
