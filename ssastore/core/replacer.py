"""Slices whose owners are lost for good become this worker's, as it is ordered to. A conversation.

    ACTIVE(X)               -> RECOVERING(here), epoch one up, the group's next cfg     (compare-and-set)
    MOVING(X, Y)            -> the same: the handover ends with it
    RECOVERING(X)           -> the same: X died of the recovery of what somebody else had lost

From then on X is not the owner.  Should it come back, it finds a record that names another node,
and votes for nothing; should it live on without the control store, its mates refuse the cfg that it
knows, once they are fenced.  The rest is a recovery like any other: the slice is this worker's and does
not vote, so ``core.recovery`` fences, copies and finishes.

Some are begun at a time: each changes its group's cfg, which calls that are under way have to learn, and
the other planes are read while they serve clients.

While moves are paused nothing is begun.  What is begun is not called off, as there is nobody to give it
back to.  An order that is taken back leaves the rest with its owner.  May die anywhere: everything that it
knows is in the control store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ssastore.core.custody import Custody
from ssastore.core.groups import GroupRecord
from ssastore.core.held import Held
from ssastore.core.numbers import group_of_slice, in_order, part_of_slice, plane_of_slice
from ssastore.core.orders import MoveOrder, replace_name
from ssastore.core.recorded import read_records, replace_records
from ssastore.core.recut import to_be_recovered
from ssastore.core.settings import read_move_settings
from ssastore.env import Compare, ControlStore, Write
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.limits import ORDER_EVERY_MS, RECOVERIES_AT_ONCE, RECOVERY_PATIENCE_MS, RECOVERY_RETRY_MS

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
        self._revision = 0
        "Of the order that the next one is about."
        self._elsewhere: set[int] = set()
        "Slices of it that others had taken when they were looked at."
        self._begun_at: dict[int, float] = {}
        "When slices were begun that do not vote yet."
        self._looked_at = -1
        "The last slice that was, in address order: who has to wait for its group keeps no other waiting."

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
        if item.revision != self._revision:
            self._revision = item.revision
            self._elsewhere.clear()
        ordered, custody = MoveOrder.decode(item.value).slices, self._custody
        left = [number for number in in_order(ordered) if number not in custody.owned]
        under_way = self._under_way()
        some = self._next_of([number for number in left if number not in self._elsewhere])
        if some and under_way < RECOVERIES_AT_ONCE:
            lost, known = await self._lost(some, ordered)
            self._elsewhere.update(set(some).difference(lost))
            if lost and (await read_move_settings(self._control)).is_paused:
                self._waiting = PAUSED
            else:
                await self._begin(lost[: RECOVERIES_AT_ONCE - under_way], known)
        is_any_silent = any(number in custody.states for number in ordered)
        if is_any_silent or not self._elsewhere.issuperset(left):
            return True
        # All that others did not take meanwhile votes here. They are looked at once more, all together.
        lost, _ = await self._lost(left, ordered)
        self._elsewhere.difference_update(lost)
        if lost:
            return True
        await self._control.transact([Compare(item.key, item.revision)], [Write(item.key, None)])
        return False

    def _under_way(self) -> int:
        """How many slices are begun, but for those that wait for so long that no other waits for them."""
        now, states = asyncio.get_running_loop().time(), self._custody.states
        self._begun_at = {number: at for number, at in self._begun_at.items() if number in states}
        return sum(now - at < RECOVERY_PATIENCE_MS / 1000 for at in self._begun_at.values())

    def _next_of(self, left: Sequence[int]) -> list[int]:
        """The next slices to look at, of those that are left, in turn."""
        behind = [number for number in left if number > self._looked_at]
        before = [number for number in left if number <= self._looked_at]
        some = [*behind, *before][:RECOVERIES_AT_ONCE]
        if some:
            self._looked_at = some[-1]
        return some

    async def _lost(
        self, slices: Sequence[int], ordered: Mapping[int, str]
    ) -> tuple[list[int], dict[int, Held]]:
        """Those slices that are still their lost owner's, and the records that say so."""
        known = await read_records(self._control, slices)
        owned = self._custody.owned
        return [s for s in slices if _owner(known, s) == ordered[s] and s not in owned], known

    async def _begin(self, lost: Sequence[int], known: Mapping[int, Held]) -> None:
        """Begin slices together; of a group one at a time."""
        custody, busy = self._custody, 0
        by_group: dict[int, tuple[int, GroupRecord]] = {}
        for number in lost:
            part = part_of_slice(number)
            record = to_be_recovered(known[part].record)
            env_id = custody.environment.env_id
            try:
                begun = record.begin_recovery(plane_of_slice(number), env_id, custody.node)
            except ConfigError as error:
                busy, self._waiting = busy + 1, str(error)
                continue
            by_group.setdefault(group_of_slice(number), (part, begun))
        if busy > 1:
            self._waiting = f"{busy} slices wait, the last one as {self._waiting}"
        wanted = dict(by_group.values())
        if wanted and await replace_records(self._control, custody, wanted, known):
            self._begun += len(wanted)
            now = asyncio.get_running_loop().time()
            self._begun_at.update((n, now) for n in lost if part_of_slice(n) in wanted)
            log.warning("recovery.begun_elsewhere", extra={"slices": len(wanted)})


def _owner(known: Mapping[int, Held], number: int) -> str:
    """By the records that are known; empty where there is no such slice now."""
    held = known.get(part_of_slice(number))
    return "" if held is None else held.record.planes[plane_of_slice(number)].owner
