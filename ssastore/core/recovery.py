"""Rebuilding slices whose state is lost, from the other planes of their groups. A conversation.

    1  begin    group's record: this environment RECOVERING, epoch and cfg one up   (compare-and-set)
    2  fence    F+1 mates refuse the old cfg, durably
    3  copy     from each of them, after its own word: records, floors, marks, blobs
    4  finish   when all of it is durable here: ACTIVE, epoch one up                (compare-and-set)

Why in this order: after the fence nothing can be chosen under the old cfg any more,
not even with the help of the lost environment if that still answers somewhere.  What was
chosen before is at one of any F+1 mates, so the merge (``core.merge``) holds it; what is
chosen under the new cfg while the copy runs is at a majority of planes without this
one, which is no more than an acceptor that has not heard of it yet.

May die anywhere and begin again: a slice whose data is complete says so on disk, one
that was begun is copied anew.  What a page replaces was there before in no better
state, so nothing is deleted before something took its place.

Slices are taken in batches with the same mates; each group has a compare-and-set of its own.

With one replica, or too few mates that answer, it waits.  An operator's order may
accept the loss of data: then the mates that answer are enough, and what the disk holds
counts as one more source.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssastore.core.caller import Caller
from ssastore.core.copying import LOCAL, Copier
from ssastore.core.custody import Custody
from ssastore.core.filling import Cover
from ssastore.core.groups import ACTIVE, RECOVERING, GroupRecord
from ssastore.core.held import Held
from ssastore.core.numbers import (
    group_of_part,
    group_of_slice,
    in_order,
    lane_of_slice,
    numbered_slice,
    part_of_slice,
    plane_of_slice,
    slice_number,
)
from ssastore.core.orders import MoveOrder, RecoverOrder, replace_name_beside
from ssastore.core.pace import SharedPace, Stint
from ssastore.core.recorded import replace_records
from ssastore.core.recut import to_be_recovered
from ssastore.core.settings import read_move_settings
from ssastore.core.standing import Standing, State, pack_stands, unpack_parts
from ssastore.env import Compare, ControlStore, Item, Store, Write
from ssastore.errors import BadFrame, ConfigError, CorruptObject, SsaStoreError
from ssastore.keyspace import ANY_TAIL, LANES
from ssastore.limits import (
    FENCE_BUDGET_MS,
    ORDER_EVERY_MS,
    RECOVERY_BYTES_PER_S,
    RECOVERY_REST_TO_WORK,
    RECOVERY_RETRY_MS,
)
from ssastore.messages import STANDS_MAX, Fence

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """What status shows of a recovery."""

    slices: int = 0
    "Recovered since this start."
    waiting: str = ""
    "Why the last round did not do everything."


class Recovery:
    """The recovery of one environment's slices.

    Args:
        mates: how the mates' workers are reached.
        workers: worker processes by node name; slices of one mate worker are asked for together.
        cover: see ``core.filling``.
    """

    def __init__(
        self,
        *,
        custody: Custody,
        store: Store,
        control: ControlStore,
        mates: Caller,
        workers: Mapping[str, int],
        cover: Cover,
        bytes_per_s_max: int = RECOVERY_BYTES_PER_S,
    ) -> None:
        self._custody = custody
        self._control = control
        self._mates = mates
        self._workers = workers
        self._bytes_per_s_max = bytes_per_s_max
        self._pace = SharedPace(bytes_per_s_max)
        self._copier = Copier(store=store, mates=mates, filled=custody.filled, cover=cover, pace=self._pace)
        self._stint = Stint(RECOVERY_REST_TO_WORK)
        self.accepted: frozenset[int] = frozenset()
        "Slices of which an operator accepts a loss of data: what was lost when the order came, and no more."
        self._accepted_by = 0
        "Revision of that order."
        self.progress = Progress()

    def describe(self) -> dict[str, Any]:
        """Figures for status."""
        progress, waiting = self.progress, self.progress.waiting
        if self._custody.taken and not self.work():
            waiting = "with one replica there is nobody to copy from (ssastore recover --accept-data-loss)"
        return {
            "left": len(self.work()),
            "done": progress.slices,
            "bytes": self._copier.byte_count,
            "waiting": waiting,
        }

    def work(self) -> list[int]:
        """Slices to recover, in address order."""
        # A plane that has no mates has nobody to ask; it is never rebuilt by itself.
        counts = self._custody.count_of
        return in_order(s for s in self._lost() if s in self.accepted or counts(group_of_slice(s)) > 1)

    def _lost(self) -> set[int]:
        custody = self._custody
        begun = {s for s, state in custody.states.items() if state in (State.RECOVERING, State.FILLED)}
        return begun | {s for s in custody.taken if custody.states.get(s) is State.QUARANTINED}

    async def run(self) -> None:
        """Recover whatever is to be recovered, for ever."""
        while True:
            if not self.work():
                await self._custody.changed()
                continue
            await self.round()
            if self.work():
                await asyncio.sleep(RECOVERY_RETRY_MS / 1000)

    async def obey(self, name: str) -> None:
        """Look for settings, and for an operator's order under a key of the control store; carry it out, for
        ever."""
        while True:
            try:
                settings = await read_move_settings(self._control)
                self._pace.bytes_per_s = min(
                    settings.bytes_per_s or RECOVERY_BYTES_PER_S, self._bytes_per_s_max
                )
                self._stint.rest_to_work = RECOVERY_REST_TO_WORK if settings.is_gentle else 0
                item = await self._control.get(name)
                if item is not None:
                    await self._obey(item)
            except (SsaStoreError, OSError) as error:
                log.warning("order.not_followed", extra={"reason": str(error)})
            await asyncio.sleep(ORDER_EVERY_MS / 1000)

    async def _obey(self, item: Item) -> None:
        order = RecoverOrder.decode(item.value)
        custody, unchanged = self._custody, [Compare(item.key, item.revision)]
        if order.rebuild:
            log.warning("recovery.rebuild_ordered", extra={"node": custody.node})
            await custody.disown()
            # First this is noted: done a second time it would throw away what was rebuilt.
            rest = replace(order, rebuild=False)
            await self._control.transact(unchanged, [Write(item.key, rest.encode())])
            return
        custody.take_all()
        left: Collection[int] = await self._accept(item) if order.accept_data_loss else self.work()
        custody.wake()
        if not left and await self._control.transact(unchanged, [Write(item.key, None)]):
            self.accepted = frozenset()

    async def _accept(self, item: Item) -> set[int]:
        """Accept a loss of what is lost now, or is this worker's to replace; what of it is not done."""
        replacing = await self._control.get(replace_name_beside(item.key))
        to_replace = set(MoveOrder.decode(replacing.value).slices) if replacing is not None else set()
        if self._accepted_by != item.revision:
            self.accepted, self._accepted_by = frozenset(self._lost() | to_replace), item.revision
        return (self._lost() | to_replace) & self.accepted

    async def round(self) -> None:
        """Try every slice once."""
        self._stint.begin()
        was_waiting, self.progress.waiting = self.progress.waiting, ""
        for batches in self._batches(self.work()):
            try:
                for batch in batches:
                    if not await self._recover(batch):
                        break  # The others have the same mates, which do not answer.
                    await self._stint.rest()
            except (SsaStoreError, OSError) as error:
                self.progress.waiting = str(error)
            self._stint.begin()  # To wait for mates was no work.
        waiting = self.progress.waiting
        if not waiting or waiting != was_waiting:
            left = len(self.work())
            log.info(
                "recovery.round_ended",
                extra={"left": left, "done": self.progress.slices, "waiting": waiting},
            )

    def _batches(self, work: Iterable[int]) -> Iterable[list[list[int]]]:
        """Slices of one plane, at most STANDS_MAX together; in one list those whose mates are the same.

        Of a group one slice at a time: it has one slot.
        """
        batches: dict[Any, list[list[int]]] = {}
        groups: set[int] = set()
        # First what has the slot of its group already: nothing else of the group can be begun before it.
        for number in sorted(work, key=self._is_idle):
            held, group = self._custody.held(number), group_of_slice(number)
            if held is None or group in groups:
                continue
            groups.add(group)
            lane = lane_of_slice(number)
            mates = tuple((name, lane % self._workers.get(name, LANES)) for name in held.record.owners)
            lists = batches.setdefault((plane_of_slice(number), mates), [[]])
            if len(lists[-1]) == STANDS_MAX:
                lists.append([])
            lists[-1].append(number)
        return batches.values()

    def _is_idle(self, number: int) -> bool:
        held = self._custody.held(number)
        return held is None or held.record.planes[plane_of_slice(number)].state == ACTIVE

    async def _recover(self, batch: Sequence[int]) -> bool:
        """All four steps for the slices of one batch; False when its mates do not answer."""
        plane = plane_of_slice(batch[0])
        held = await self._begin(plane, [part_of_slice(number) for number in batch])
        filled = [part for part in held if self._is(plane, part, State.FILLED)]
        left = [part for part in held if part not in filled]
        fenced: list[int] = []
        if left:
            sources, fenced = await self._fence(plane, {part: held[part].record.cfg for part in left})
            filled += await self._fill(plane, {part: held[part] for part in fenced}, sources)
        await self._finish(plane, {part: held[part] for part in filled})
        done = [part for part in filled if slice_number(plane, part) not in self._custody.states]
        self.progress.slices += len(done)
        return bool(done or fenced)

    def _is(self, plane: int, part: int, state: State) -> bool:
        return self._custody.states.get(slice_number(plane, part)) is state

    # -- begin and finish ---------------------------------------------------------------------------

    async def _begin(self, plane: int, parts: Sequence[int]) -> dict[int, Held]:
        """The parts in which this environment is RECOVERING now, with the records of their groups."""
        env_id = self._custody.environment.env_id
        wanted: dict[int, GroupRecord] = {}
        known: dict[int, Held] = {}
        busy = []
        for part in parts:
            held = self._custody.held(slice_number(plane, part))
            if held is not None and self._is(plane, part, State.QUARANTINED):
                try:
                    record = to_be_recovered(held.record)
                    wanted[part], known[part] = record.begin_recovery(plane, env_id), held
                except ConfigError:
                    busy.append(part)
        if busy:
            self.progress.waiting = f"another slice of {len(busy)} groups is recovered or moved"
        await replace_records(self._control, self._custody, wanted, known)
        ours = {part: self._custody.held(slice_number(plane, part)) for part in parts}
        return {
            part: held
            for part, held in ours.items()
            if held is not None
            and held.record.planes[plane].state == RECOVERING
            and held.record.planes[plane].env == env_id
        }

    async def _finish(self, plane: int, held: dict[int, Held]) -> None:
        finished = {part: found.record.finish_recovery(plane) for part, found in held.items()}
        await replace_records(self._control, self._custody, finished, held)

    # -- fence --------------------------------------------------------------------------------------

    async def _fence(self, plane: int, cfgs: dict[int, int]) -> tuple[list[int], list[int]]:
        """(planes to copy from, parts that all of them have fenced)."""
        # Groups of one batch have the same owners, and so as many planes.
        replicas = self._custody.count_of(group_of_part(min(cfgs)))
        planes = [mate for mate in range(replicas) if mate != plane]
        answers = await asyncio.gather(*[self._fence_one(mate, cfgs) for mate in planes])
        fenced = dict(zip(planes, answers, strict=True))
        needed = replicas // 2 + 1
        # The mates that fenced most of them; of several with as many, the lowest plane.
        best = sorted(planes, key=lambda mate: (-len(fenced[mate]), mate))[:needed]
        common = [part for part in cfgs if len(best) == needed and all(part in fenced[m] for m in best)]
        accepted = {part: cfg for part, cfg in cfgs.items() if slice_number(plane, part) in self.accepted}
        if accepted and not common:
            return _all_that_is_left(fenced, accepted)
        if len(common) < len(cfgs):
            short = ", ".join(f"plane {mate}: {len(fenced[mate])}" for mate in planes)
            self.progress.waiting = (
                f"{len(cfgs) - len(common)} of {len(cfgs)} groups wait for {needed} mates to fence ({short})"
            )
        return best, common

    async def _fence_one(self, mate: int, cfgs: dict[int, int]) -> set[int]:
        """The parts that one mate has fenced; none when it does not answer."""
        iid = numbered_slice(slice_number(mate, min(cfgs))).first | ANY_TAIL
        try:
            header, _ = await self._mates.call(
                Fence(iid, pack_stands(cfgs.items())), iid, within_ms=FENCE_BUDGET_MS
            )
        except (SsaStoreError, OSError):
            return set()
        if len(header) != 3:
            raise BadFrame("a reply to Fence has other fields")
        return set(unpack_parts(header[2]))

    # -- copy ---------------------------------------------------------------------------------------

    async def _fill(self, plane: int, held: dict[int, Held], sources: Sequence[int]) -> list[int]:
        """Copy the parts; those that are complete and durable here now."""
        if not held:
            return []
        try:
            # The epoch that ``_finish`` will give: whoever finds it on disk has nothing left to copy.
            standings = {
                part: Standing(found.record.planes[plane].epoch + 1, found.record.cfg)
                for part, found in held.items()
            }
            await self._copier.copy(plane, standings, sources, self._stint)
            return list(held)
        except CorruptObject as error:
            self.progress.waiting = f"a mate's record is damaged: {error}"
            if len(held) == 1:
                return []
        # One damaged record must hold up no slice but its own.
        filled = []
        for part in held:
            filled += await self._fill(plane, {part: held[part]}, sources)
        return filled


def _all_that_is_left(fenced: Mapping[int, set[int]], cfgs: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """(Planes to copy from, parts to fill so) where too few mates fenced any part.

    Sources are what this disk holds and all mates that fenced. Parts of which most mates are left come first;
    those of other mates have a round of their own: no mate that is left is passed over for another part.
    """
    mates_of = {part: tuple(mate for mate in sorted(fenced) if part in fenced[mate]) for part in cfgs}
    mates = max(mates_of.values(), key=len)
    return [LOCAL, *mates], [part for part in cfgs if mates_of[part] == mates]
