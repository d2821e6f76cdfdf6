"""Slices whose owners are lost for good become this worker's, as it is ordered to. A conversation.

    ACTIVE(X)               -> RECOVERING(here), epoch one up, the group's next cfg     (compare-and-set)
    MOVING(X, Y)            -> the same: the handover ends with it
    RECOVERING(X)           -> the same: X died of the recovery of what somebody else had lost

From then on X is not the owner.  Should it come back, it finds a record that names another node,
and votes for nothing; should it live on without the control store, its mates refuse the cfg that it
knows, once they are fenced.  The rest is a recovery like any other: the slice is this worker's and does
not vote, so ``core.recovery`` fences, copies and finishes.

While moves are paused nothing is begun.  What is begun is not called off, as there is nobody to give it
back to.  An order that is taken back leaves the rest with its owner.  May die anywhere: everything that it
knows is in the control store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ssastore.core.custody import Custody
from ssastore.core.groups import GroupRecord
from ssastore.core.held import Held
from ssastore.core.numbers import group_of_slice, in_order, part_of_slice, plane_of_slice
from ssastore.core.orders import MoveOrder, replace_name
from ssastore.core.recorded import read_records, replace_records
from ssastore.core.settings import read_move_settings
from ssastore.env import Compare, ControlStore, Write
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.limits import ORDER_EVERY_MS, RECOVERY_RETRY_MS
from ssastore.messages import STANDS_MAX

log = logging.getLogger(__name__)

PAUSED = "an operator has paused what is ordered (ssastore resume)"


class Replacer:
    """Begins recoveries in one environment."""

    def __init__(self, *, custody: Custody, control: ControlStore, worker: int) -> None:
        self._custody = custody
        self._control = control
        self._order_name = replace_name(custody.node, worker)
        self._begun = 0
        self._waiting = ""

    def describe(self) -> dict[str, Any]:
        """Figures for status."""
        return {"begun": self._begun, "waiting": self._waiting}

    async def run(self) -> None:
        """Carry orders out, for ever."""
        while True:
            try:
                is_left = await self.round()
            except (SsaStoreError, OSError) as error:
                log.warning("replacements.not_followed", extra={"reason": str(error)})
                is_left = True
            await asyncio.sleep((RECOVERY_RETRY_MS if is_left else ORDER_EVERY_MS) / 1000)

    async def round(self) -> bool:
        """Look at the order and begin what can be begun; whether something of it is left to do."""
        self._waiting = ""
        item = await self._control.get(self._order_name)
        if item is None:
            return False
        ordered, custody = MoveOrder.decode(item.value).slices, self._custody
        known = await read_records(self._control, [s for s in ordered if s not in custody.owned])
        lost = [s for s in in_order(ordered) if _owner(known, s) == ordered[s] and s not in custody.owned]
        if lost and (await read_move_settings(self._control)).is_paused:
            self._waiting = PAUSED
        else:
            await self._begin(lost, known)
        if lost or any(number in custody.states for number in ordered):
            return True
        # All that others did not take meanwhile votes here.
        await self._control.transact([Compare(item.key, item.revision)], [Write(item.key, None)])
        return False

    async def _begin(self, lost: Iterable[int], known: Mapping[int, Held]) -> None:
        """Begin slices, many together; of a group one at a time."""
        custody, busy = self._custody, 0
        by_group: dict[int, tuple[int, GroupRecord]] = {}
        for number in lost:
            part = part_of_slice(number)
            record = known[part].record
            env_id = custody.environment.env_id
            try:
                begun = record.begin_recovery(plane_of_slice(number), env_id, custody.node)
            except ConfigError as error:
                busy, self._waiting = busy + 1, str(error)
                continue
            by_group.setdefault(group_of_slice(number), (part, begun))
        if busy > 1:
            self._waiting = f"{busy} slices wait, the last one as {self._waiting}"
        wanted = list(by_group.values())
        for first in range(0, len(wanted), STANDS_MAX):
            some = dict(wanted[first : first + STANDS_MAX])
            if await replace_records(self._control, custody, some, known):
                self._begun += len(some)
                log.warning("recovery.begun_elsewhere", extra={"slices": len(some)})


def _owner(known: Mapping[int, Held], number: int) -> str:
    """By the records that are known; empty where there is no such slice now."""
    held = known.get(part_of_slice(number))
    return "" if held is None else held.record.planes[plane_of_slice(number)].owner
