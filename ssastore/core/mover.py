"""The target's end of a handover: takes slices over from other nodes, as it is ordered to. A conversation.

    1  begin    ACTIVE(X) -> MOVING(X, here, h)                                  (compare-and-set)
    2  copy     page by page, while X serves; X notes what changes
    3  changes  until few are left; then, when the control store has just answered, X seals
    4  last     the last changes, the floor; what each slice holds in all is compared; durable here
    5  finish   MOVING -> ACTIVE(here): it votes, and is announced               (compare-and-set)

X votes until it is sealed and this environment from step 5 on, so at every time at most one
does.  A seal, a copy and a FILLED standing are good for one h only, and every compare-and-set makes
another: what is left of an earlier attempt can do nothing.

May die anywhere and begin again: what is MOVING to this environment is copied anew, what is
FILLED is finished.  Who cannot get on cancels, and so does X (``core.giving``); exactly one of
finish and cancel wins.  Slices of one plane and one source worker go together: a batch shares its
copy, its transactions and its session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ssastore.core.caller import Caller
from ssastore.core.changelog import NotedStore
from ssastore.core.cluster import NODE_PREFIX, NodeRecord
from ssastore.core.custody import Custody
from ssastore.core.filling import Cover
from ssastore.core.groups import GroupRecord
from ssastore.core.held import Held
from ssastore.core.moving import begin_move, cancel_move, finish_move
from ssastore.core.numbers import (
    group_of_slice,
    in_order,
    lane_of_slice,
    part_of_slice,
    plane_of_slice,
    slice_name,
    slice_number,
)
from ssastore.core.orders import MoveOrder, move_name
from ssastore.core.pace import Gate, SharedPace, Stint
from ssastore.core.recorded import read_records, replace_records
from ssastore.core.settings import MOVE_SETTINGS_KEY, MoveSettings
from ssastore.core.taking import Taker
from ssastore.env import Compare, ControlStore, Item, Write, spawn
from ssastore.errors import ConfigError, CorruptObject, SsaStoreError
from ssastore.keyspace import LANES
from ssastore.limits import (
    MOVE_BATCH,
    MOVE_BYTES_PER_S,
    MOVE_REST_MS,
    MOVE_REST_TO_WORK,
    MOVE_SILENT_MS,
    MOVES_AT_ONCE,
    ORDER_EVERY_MS,
    RECOVERY_RETRY_MS,
)

log = logging.getLogger(__name__)


class _Batch(NamedTuple):
    """Slices of one plane that one worker of another node has, and that are taken over together."""

    plane: int
    source: str
    parts: tuple[int, ...]

    @property
    def slices(self) -> list[int]:
        return [slice_number(self.plane, part) for part in self.parts]


@dataclass(slots=True)
class MoveProgress:
    """What status shows."""

    slices: int = 0
    "Taken over since this start."
    waiting: str = ""
    "Why the last attempt did not come to an end."
    failing: dict[int, float] = field(default_factory=dict)
    "Since when there is no getting on with a slice."
    resting: dict[int, float] = field(default_factory=dict)
    "Until when a slice is not begun again."


class Mover:
    """Takes slices over into one environment.

    Args:
        workers: worker processes by node name.
        mates, cover: see ``core.taking.Taker``.
    """

    def __init__(
        self,
        *,
        custody: Custody,
        store: NotedStore,
        control: ControlStore,
        mates: Caller,
        workers: Mapping[str, int],
        worker: int,
        cover: Cover,
    ) -> None:
        self._custody = custody
        self._control = control
        self._workers = workers
        self._order_name = move_name(custody.node, worker)
        self._settings = MoveSettings()
        self._pace = SharedPace(MOVE_BYTES_PER_S)
        self._taker = Taker(
            custody=custody, store=store, control=control, mates=mates, cover=cover, pace=self._pace
        )
        self._gate = Gate(1)
        self._stints: dict[_Batch, Stint] = {}
        "Of the batches that are under way."
        self.progress = MoveProgress()

    @property
    def taker(self) -> Taker:
        """What fills slices here, at the pace of all moves."""
        return self._taker

    def describe(self) -> dict[str, Any]:
        """Figures for status."""
        return {
            "coming": len(self._custody.incoming),
            "going": len(self._custody.outgoing),
            "done": self.progress.slices,
            "bytes": self._taker.byte_count,
            "waiting": self.progress.waiting,
            "paused": self._settings.is_paused,
        }

    async def run(self) -> None:
        """Carry orders out, for ever."""
        while True:
            try:
                is_left = await self.round()
            except (SsaStoreError, OSError) as error:
                log.warning("moves.not_followed", extra={"reason": str(error)})
                is_left = True
            await asyncio.sleep((RECOVERY_RETRY_MS if is_left else ORDER_EVERY_MS) / 1000)

    async def round(self) -> bool:
        """Look at the orders and try every slice once; whether something is left to do."""
        item = await self._obey()
        if item is None:
            return False
        left = await self._left(_slices_of(item))
        self.progress.waiting = ""
        await self._try_all(self._batches(left))
        if all(number in self._custody.owned for number in left):
            await self._control.transact([Compare(item.key, item.revision)], [Write(item.key, None)])
            return False
        return True

    async def _try_all(self, batches: Sequence[_Batch]) -> None:
        """Some at a time; meanwhile an order may be taken back."""
        tasks = [spawn("take slices over", self._try(batch)) for batch in batches]
        try:
            while any(not task.done() for task in tasks):
                await asyncio.wait(tasks, timeout=ORDER_EVERY_MS / 1000)
                await self._obey()
        finally:
            for task in tasks:
                task.cancel()

    # -- orders -------------------------------------------------------------------------------------

    async def _obey(self) -> Item | None:
        """Do as settings and order say now; the order."""
        settings = MoveSettings.of(await self._control.get(MOVE_SETTINGS_KEY))
        self._settings = settings
        self._pace.bytes_per_s = settings.bytes_per_s or MOVE_BYTES_PER_S
        self._gate.let(1 if settings.is_gentle else MOVES_AT_ONCE)
        for stint in self._stints.values():
            stint.rest_to_work = self._rest_to_work
        item = await self._control.get(self._order_name)
        await self._cancel_unwanted(_slices_of(item))
        return item

    async def _left(self, ordered: Mapping[int, str]) -> dict[int, Held]:
        """What is still to be taken over, with the group's record: the source of the order owns it."""
        custody = self._custody
        records = await read_records(self._control, [s for s in ordered if s not in custody.owned])
        left: dict[int, Held] = {}
        for number in in_order(ordered):
            held = custody.incoming.get(number) or records.get(part_of_slice(number))
            if held is not None and ordered[number] == held.record.planes[plane_of_slice(number)].owner:
                left[number] = held
        return left

    def _batches(self, left: Mapping[int, Held]) -> list[_Batch]:
        """By plane and source worker; what was called off a moment ago has to wait."""
        now = asyncio.get_running_loop().time()
        found: dict[tuple[int, str, int], list[list[int]]] = {}
        # Of a group one slice moves at a time, so its parts go one after the other.
        groups = {group_of_slice(number) for number in self._custody.incoming}
        for number, held in left.items():
            if self.progress.resting.get(number, now) > now:
                continue
            if number not in self._custody.incoming:
                if group_of_slice(number) in groups:
                    continue
                groups.add(group_of_slice(number))
            plane = plane_of_slice(number)
            source = held.record.planes[plane].owner
            lane = lane_of_slice(number) % self._workers.get(source, LANES)
            lists = found.setdefault((plane, source, lane), [[]])
            if len(lists[-1]) == MOVE_BATCH:
                lists.append([])
            lists[-1].append(part_of_slice(number))
        return [_Batch(key[0], key[1], tuple(some)) for key, lists in found.items() for some in lists]

    # -- a batch ------------------------------------------------------------------------------------

    @property
    def _rest_to_work(self) -> int:
        return MOVE_REST_TO_WORK if self._settings.is_gentle else 0

    async def _try(self, batch: _Batch) -> None:
        """One attempt; what cannot get on for long is called off."""
        loop, progress = asyncio.get_running_loop(), self.progress
        async with self._gate:
            if self._settings.is_paused:
                batch = batch._replace(parts=tuple(map(part_of_slice, self._begun(batch))))
            stint = self._stints[batch] = Stint(self._rest_to_work)
            try:
                await self._move(batch, stint)
            except CorruptObject as error:
                progress.waiting = f"a record at the source is damaged: {error}"
                if len(batch.parts) > 1:
                    # One damaged record must hold up no slice but its own.
                    for part in batch.parts:
                        await self._try_alone(batch._replace(parts=(part,)), stint)
            except (SsaStoreError, OSError) as error:
                progress.waiting = str(error)
            finally:
                del self._stints[batch]
        now = loop.time()
        for number in batch.slices:
            if number not in self._custody.incoming:
                progress.failing.pop(number, None)
            elif now - progress.failing.setdefault(number, now) > MOVE_SILENT_MS / 1000:
                await self._cancel([number])

    def _begun(self, batch: _Batch) -> list[int]:
        return [number for number in batch.slices if number in self._custody.incoming]

    async def _try_alone(self, batch: _Batch, stint: Stint) -> None:
        try:
            await self._move(batch, stint)
        except (SsaStoreError, OSError) as error:
            self.progress.waiting = str(error)

    async def _move(self, batch: _Batch, stint: Stint) -> None:
        """All five steps for the slices of a batch, and the rest that is due for them."""
        plane = batch.plane
        held = await self._begin(batch)
        filled = {part: found for part, found in held.items() if self._is_filled(plane, part, found)}
        left = {part: found for part, found in held.items() if part not in filled}
        if left:
            await self._taker.fill(plane, left, stint)
        await self._change({part: finish_move(found.record, plane) for part, found in held.items()}, held)
        self.progress.slices += sum(s in self._custody.owned for s in batch.slices)
        await stint.rest()

    def _is_filled(self, plane: int, part: int, held: Held) -> bool:
        epoch = held.record.planes[plane].epoch
        return self._custody.standing(slice_number(plane, part)).epoch == epoch + 1

    async def _begin(self, batch: _Batch) -> dict[int, Held]:
        """The parts of which the batch's plane is MOVING here now."""
        custody, plane = self._custody, batch.plane
        fresh = [number for number in batch.slices if number not in custody.incoming]
        if fresh:
            records = await read_records(self._control, fresh)
            items, _ = await self._control.list(NODE_PREFIX)
            zones = {node.name: node.zone for node in (NodeRecord.decode(item.value) for item in items)}
            wanted: dict[int, GroupRecord] = {}
            for part in map(part_of_slice, fresh):
                try:
                    if (found := records.get(part)) is not None:
                        env_id = custody.environment.env_id
                        wanted[part] = begin_move(found.record, plane, custody.node, env_id, zones)
                except ConfigError as error:
                    self.progress.waiting = str(error)
            await self._change(wanted, records)
        incoming = {part: custody.incoming.get(slice_number(plane, part)) for part in batch.parts}
        return {
            part: found
            for part, found in incoming.items()
            if found is not None and found.record.planes[plane].target_env == custody.environment.env_id
        }

    async def _cancel_unwanted(self, ordered: Mapping[int, str]) -> None:
        """Call off what is on its way to another environment of this worker, is not ordered any more, or
        is not sealed when moves are paused: a group that is MOVING could not be recovered meanwhile."""
        env_id = self._custody.environment.env_id
        unwanted = [
            number
            for number, held in self._custody.incoming.items()
            if number not in ordered
            or held.record.planes[plane_of_slice(number)].target_env != env_id
            or (self._settings.is_paused and not self._is_ending(number, held))
        ]
        await self._cancel(unwanted)

    def _is_ending(self, number: int, held: Held) -> bool:
        """Whether a slice may be sealed at its source, or is all here."""
        is_filled = self._is_filled(plane_of_slice(number), part_of_slice(number), held)
        return is_filled or number in self._taker.sealed

    async def _cancel(self, slices: Sequence[int]) -> None:
        until = asyncio.get_running_loop().time() + MOVE_REST_MS / 1000
        for number in slices:
            held = self._custody.incoming.get(number)
            if held is None:
                continue
            self.progress.failing.pop(number, None)
            self.progress.resting[number] = until
            log.warning("handover.called_off", extra={"slice": slice_name(number), "by": "target"})
            part = part_of_slice(number)
            await self._change({part: cancel_move(held.record, plane_of_slice(number))}, {part: held})

    async def _change(self, wanted: Mapping[int, GroupRecord], known: Mapping[int, Held]) -> None:
        await replace_records(self._control, self._custody, wanted, known)


def _slices_of(item: Item | None) -> Mapping[int, str]:
    """What an order names, if there is one."""
    return MoveOrder.decode(item.value).slices if item is not None else {}
