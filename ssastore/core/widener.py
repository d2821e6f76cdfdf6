"""Groups get one more plane at this worker, as it is ordered to (ADR 0018). A conversation.

    of one plane      ACTIVE(X) -> MOVING(X, here, h)                                        (compare-and-set)
                      plane 1 is filled with what plane 0 has, as in a handover, X sealed at its end
                      -> ACTIVE(X), ACTIVE(here): two planes, next cfg                       (compare-and-set)
    of more planes    -> one more, RECOVERING(here), next cfg                                (compare-and-set)
                      the rest is a recovery like any other (``core.recovery``)

A group gets its planes in order and one at a time; what comes too early waits.  May die anywhere and begin
again: all that it has to know is in the control store and in the standings on its disk.  What is being filled
and is not ordered any more is called off; so is what its source does not hear of (``core.giving``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ssastore.core.cluster import NODE_PREFIX, NodeRecord
from ssastore.core.custody import Custody
from ssastore.core.groups import GroupRecord
from ssastore.core.held import Held
from ssastore.core.moving import cancel_move
from ssastore.core.numbers import in_order, lane_of_slice, part_of_slice, plane_of_slice, slice_number
from ssastore.core.orders import MoveOrder, widen_name
from ssastore.core.pace import Stint
from ssastore.core.recorded import read_records, replace_records
from ssastore.core.settings import MOVE_SETTINGS_KEY, MoveSettings
from ssastore.core.taking import Taker
from ssastore.core.widening import FILLED_PLANE, begin_fill, begin_plane, finish_fill
from ssastore.env import Compare, ControlStore, Item, Write, spawn
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.keyspace import LANES
from ssastore.limits import (
    MOVE_BATCH,
    MOVE_REST_TO_WORK,
    ORDER_EVERY_MS,
    RECOVERIES_AT_ONCE,
    RECOVERY_RETRY_MS,
)
from ssastore.messages import STANDS_MAX

log = logging.getLogger(__name__)


class _Wanted(NamedTuple):
    """What is left of an order: parts that have one plane, and slices that come after all that there are."""

    to_fill: dict[int, Held]
    to_begin: dict[int, Held]
    left: list[int]
    "All that there is not yet, those that come later included."


class Widener:
    """Makes slices of new planes in one environment.

    Args:
        workers: worker processes by node name.
        taker: fills slices here, at the pace of all moves.
    """

    def __init__(
        self,
        *,
        custody: Custody,
        control: ControlStore,
        workers: Mapping[str, int],
        worker: int,
        taker: Taker,
    ) -> None:
        self._custody = custody
        self._control = control
        self._workers = workers
        self._order_name = widen_name(custody.node, worker)
        self._taker = taker
        self._made = 0
        self._waiting = ""

    def describe(self) -> dict[str, Any]:
        """Figures for status."""
        return {"filling": len(self._custody.filling), "made": self._made, "waiting": self._waiting}

    async def run(self) -> None:
        """Carry orders out, for ever."""
        while True:
            is_left = True
            try:
                is_left = await self.round()
            except (SsaStoreError, OSError) as error:
                self._waiting = str(error)
                log.warning("widening.held_up", extra={"reason": str(error)})
            await asyncio.sleep((RECOVERY_RETRY_MS if is_left else ORDER_EVERY_MS) / 1000)

    async def round(self) -> bool:
        """Look at the order and try every slice once; whether something of it is left to do."""
        self._waiting = ""
        item, settings = await self._obey()
        if item is None:
            return False
        ordered = MoveOrder.decode(item.value).slices
        zones = await self._zones()
        wanted = await self._wanted(ordered)
        for batch in self._batches(wanted.to_fill):
            # A round of thousands of them lasts: neither a pause nor who takes the order back waits for it.
            found, settings = await self._obey()
            if found is None or found.revision != item.revision:
                return True
            if settings.is_paused:
                break
            await self._fill(batch, zones, settings)
        if settings.is_paused:
            self._waiting = "moves are paused"
        else:
            await self._begin(wanted.to_begin, zones, self._costly_under_way(ordered))
        if wanted.left or any(number in self._custody.states for number in ordered):
            return True
        # All that others did not make meanwhile votes here.
        await self._control.transact([Compare(item.key, item.revision)], [Write(item.key, None)])
        return False

    async def _obey(self) -> tuple[Item | None, MoveSettings]:
        """Do as settings and order say now; both."""
        settings = MoveSettings.of(await self._control.get(MOVE_SETTINGS_KEY))
        item = await self._control.get(self._order_name)
        ordered = MoveOrder.decode(item.value).slices if item is not None else {}
        await self._cancel_unwanted(ordered, is_paused=settings.is_paused)
        return item, settings

    async def _zones(self) -> dict[str, str]:
        items, _ = await self._control.list(NODE_PREFIX)
        return {node.name: node.zone for node in (NodeRecord.decode(item.value) for item in items)}

    async def _wanted(self, ordered: Iterable[int]) -> _Wanted:
        custody = self._custody
        left = [number for number in ordered if number not in custody.owned]
        records = await read_records(self._control, left)
        wanted = _Wanted({}, {}, [])
        for number in in_order(left):
            part, plane = part_of_slice(number), plane_of_slice(number)
            held = custody.filling.get(number) or records.get(part)
            if held is None or held.record.split is not None:
                self._waiting = "a group that is split gets another plane when its parts are merged"
                wanted.left.append(number)
                continue
            if plane >= len(held.record.planes):
                wanted.left.append(number)
            if plane == len(held.record.planes) == FILLED_PLANE:
                wanted.to_fill[part] = held
            elif plane == len(held.record.planes):
                wanted.to_begin[part] = held
        return wanted

    # -- a second plane -----------------------------------------------------------------------------

    def _batches(self, to_fill: Mapping[int, Held]) -> list[list[int]]:
        """Parts by the worker that has them, some at a time: what is sealed together is held up together."""
        found: dict[tuple[str, int], list[list[int]]] = {}
        for part, held in to_fill.items():
            source = held.record.planes[0].owner
            lane = lane_of_slice(slice_number(0, part)) % self._workers.get(source, LANES)
            lists = found.setdefault((source, lane), [[]])
            if len(lists[-1]) == MOVE_BATCH:
                lists.append([])
            lists[-1].append(part)
        return [some for lists in found.values() for some in lists]

    async def _fill(self, parts: Sequence[int], zones: Mapping[str, str], settings: MoveSettings) -> None:
        """All steps for some parts; what cannot get on now is tried in the next round."""
        stint = Stint(MOVE_REST_TO_WORK if settings.is_gentle else 0)
        try:
            held = await self._begin_fill(parts, zones)
            left = {part: found for part, found in held.items() if not self._is_filled(part, found)}
            if left:
                await self._take(left, stint)
            finished = {part: finish_fill(found.record) for part, found in held.items()}
            if await replace_records(self._control, self._custody, finished, held):
                self._made += len(finished)
            await stint.rest()
        except (SsaStoreError, OSError) as error:
            self._waiting = str(error)

    async def _take(self, held: dict[int, Held], stint: Stint) -> None:
        """Fill parts; meanwhile they may be paused, or the order taken back."""
        taking = spawn("fill a second plane", self._taker.fill(0, held, stint, FILLED_PLANE))
        try:
            while not taking.done():
                await asyncio.wait([taking], timeout=ORDER_EVERY_MS / 1000)
                if not taking.done():
                    with suppress(SsaStoreError, OSError):  # What is under way needs no control store yet.
                        await self._obey()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
        taking.result()

    def _is_filled(self, part: int, held: Held) -> bool:
        standing = self._custody.standing(slice_number(FILLED_PLANE, part))
        return standing.epoch == held.record.planes[0].epoch + 1

    async def _begin_fill(self, parts: Sequence[int], zones: Mapping[str, str]) -> dict[int, Held]:
        """The parts that are being filled here now."""
        custody, env_id = self._custody, self._custody.environment.env_id
        fresh = [part for part in parts if slice_number(FILLED_PLANE, part) not in custody.filling]
        known = await read_records(self._control, [slice_number(0, part) for part in fresh])
        begun: dict[int, GroupRecord] = {}
        for part in fresh:
            try:
                begun[part] = begin_fill(known[part].record, custody.node, env_id, zones)
            except ConfigError as error:
                self._waiting = str(error)
        await replace_records(self._control, custody, begun, known)
        filling = {part: custody.filling.get(slice_number(FILLED_PLANE, part)) for part in parts}
        return {
            part: found
            for part, found in filling.items()
            if found is not None and found.record.planes[0].target_env == env_id
        }

    async def _cancel_unwanted(self, ordered: Mapping[int, str], *, is_paused: bool) -> None:
        """Call off what is not ordered any more, is filled by an environment that is no more, or is not
        sealed when moves are paused: a group that is MOVING could not be recovered meanwhile."""
        for number, held in list(self._custody.filling.items()):
            part = part_of_slice(number)
            is_ours = held.record.planes[0].target_env == self._custody.environment.env_id
            is_ending = self._is_filled(part, held) or number in self._taker.sealed
            if number not in ordered or not is_ours or (is_paused and not is_ending):
                cancelled = {part: cancel_move(held.record, 0)}
                await replace_records(self._control, self._custody, cancelled, {part: held})

    # -- a later plane ------------------------------------------------------------------------------

    def _costly_under_way(self, ordered: Iterable[int]) -> int:
        """Slices that are begun and do not vote yet, of groups that can do with none less for that time."""
        return sum(number in self._custody.states and plane_of_slice(number) % 2 == 1 for number in ordered)

    async def _begin(
        self, to_begin: Mapping[int, Held], zones: Mapping[str, str], costly_under_way: int
    ) -> None:
        """Let this environment recover planes that were not there, many together.

        An even number of planes has a majority that is larger by one: the group needs all of the others that
        before could do without one, until the new plane votes.  That is begun for few groups at a time, and
        for no other ones while those wait.
        """
        custody = self._custody
        begun: list[tuple[int, GroupRecord]] = []
        free = RECOVERIES_AT_ONCE - costly_under_way
        for part, held in to_begin.items():
            is_costly = len(held.record.planes) % 2 == 1
            if is_costly and free <= 0:
                continue
            try:
                begun.append(
                    (part, begin_plane(held.record, custody.node, custody.environment.env_id, zones))
                )
            except ConfigError as error:
                self._waiting = str(error)
            else:
                free -= is_costly
        for first in range(0, len(begun), STANDS_MAX):
            some = dict(begun[first : first + STANDS_MAX])
            if await replace_records(self._control, custody, some, to_begin):
                self._made += len(some)
