"""The source's end of a handover: what the target asks, and what the source does by itself. Coroutines.

    Copy       the slices page by page, while they are served; what changes from then on is noted
    Changes    what was changed since
    Seal       vote no more, durably; what comes after it is the last that is asked for
    CountSlices  count what each slice holds; from then on the total follows every change
    Total      what each slice holds in all, for the target to compare
    Fetch      one blob

Each is answered only while the control store says, as far as is known here, that this very
handover is undecided.  Nothing is remembered but the logs of changes, in memory: after a
restart the target begins its copy again.

While a slice is sealed the record is read again and again: only the control store ends a
seal.  A target that does not come to an end is called off by compare-and-set, which it loses or wins.

What is left of a slice that went to another node, or that never became this one's, is dropped
when it is drained, and the control store still says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from functools import partial
from itertools import islice
from typing import Any

from ssastore.core.changelog import ChangeLog, NotedStore
from ssastore.core.custody import Custody
from ssastore.core.floors import read_floor
from ssastore.core.groups import ACTIVE, GroupRecord, group_key
from ssastore.core.moving import cancel_move
from ssastore.core.numbers import (
    group_of_slice,
    overlaps,
    part_of_slice,
    plane_of_slice,
    slice_name,
    slice_number,
)
from ssastore.core.pages import changes_page, pull_page
from ssastore.core.records import slice_range
from ssastore.core.replies import Refusal, Reply
from ssastore.core.standing import Standing, State, pack_parts, unpack_stands
from ssastore.core.survey import walk
from ssastore.core.totals import RunningTotal, SliceTotal, pack_totals
from ssastore.env import Compare, ControlStore, Write, WriteTxn
from ssastore.errors import SsaStoreError
from ssastore.keyspace import plane_of
from ssastore.limits import (
    DRAIN_MS,
    FENCE_BUDGET_MS,
    MOVE_CHANGES_MAX,
    MOVE_SILENT_MS,
    SEALED_MS_MAX,
)
from ssastore.messages import Changes, Copy, CountSlices, Fetch, Seal, Status, Total

log = logging.getLogger(__name__)

GIVEN = frozenset((Copy.TYPE, Changes.TYPE, Seal.TYPE, Total.TYPE, CountSlices.TYPE, Fetch.TYPE))
"Requests of nodes that are for the giver."

_LOOK_EVERY_S = 0.5
_COUNTED_AT_ONCE_S = 1.0
_CHANGES_A_PAGE = 1000
_RECORDS_DROPPED_AT_ONCE = 100
DROPPED_AT_ONCE = 16
"Slices that are dropped in one look after them."


class Giver:
    """Hands slices of one environment over to others.

    Args:
        drain_ms: how long data is kept that is not this environment's any more.
    """

    def __init__(
        self, *, custody: Custody, store: NotedStore, control: ControlStore, drain_ms: int = DRAIN_MS
    ) -> None:
        self._custody = custody
        self._store = store
        self._control = control
        self._drain_s = drain_ms / 1000
        self._logs: dict[int, ChangeLog] = {}
        "By session."
        self._totals: dict[int, RunningTotal] = {}
        "By slice."
        self._sessions = custody.environment.boot << 32
        self._since: dict[tuple[int, int, State], float] = {}
        "When a slice was first seen in this state of a handover."
        self._heard: dict[int, float] = {}
        "When the target last asked for a slice."
        self._stray_since: dict[int, float] = {}
        self.dropped = 0
        "Slices that were dropped since the start."

    # -- what the target asks -----------------------------------------------------------------------

    async def handle(self, request: Any) -> Reply:
        """Answer a request about slices that are handed over. Raises Refusal, BadFrame, CorruptObject."""
        moves = await self._undecided(request)
        if isinstance(request, Seal):
            return await self._seal(moves)
        if isinstance(request, Copy):
            return await self._copy(request, moves)
        if isinstance(request, Changes):
            return await self._changes(request)
        if isinstance(request, CountSlices):
            return [await self._count(moves, _COUNTED_AT_ONCE_S, is_sealed=False)], b""
        if isinstance(request, Total):
            return await self._total(moves)
        return self._fetch(request, moves)

    async def _undecided(self, request: Any) -> dict[int, int]:
        """The slices of a request, each with its handover; waits for their records to arrive."""
        plane = plane_of(request.iid)
        moves = {slice_number(plane, part): h for part, h in unpack_stands(request.moves)}
        try:
            async with asyncio.timeout(FENCE_BUDGET_MS / 2000):
                while not all(self._custody.giving(number, h) for number, h in moves.items()):
                    await self._custody.changed()
        except TimeoutError:
            raise Refusal(Status.SILENT, "the handover is not known here, or is decided") from None
        now = asyncio.get_running_loop().time()
        self._heard.update(dict.fromkeys(moves, now))
        return moves

    async def _copy(self, request: Copy, moves: dict[int, int]) -> Reply:
        session = request.session
        if not session:
            session = await self._begin_session(moves)
        self._log_of(session)
        parts = [part_of_slice(number) for number in moves]
        with self._store.read() as txn:
            page = pull_page(txn, plane_of(request.iid), parts, request.after)
        return [session, page.truncated, page.last, page.checksum], page.body

    async def _begin_session(self, moves: Iterable[int]) -> int:
        for session, known in list(self._logs.items()):
            if not known.slices.isdisjoint(moves):
                self._end_session(session)
        self._end_totals(moves)  # Whatever was wrong with the attempt before.
        self._sessions += 1
        session = self._sessions
        self._logs[session] = await self._store.begin(moves, MOVE_CHANGES_MAX)
        return session

    def _end_session(self, session: int) -> None:
        self._store.end(self._logs.pop(session))

    def _log_of(self, session: int) -> ChangeLog:
        found = self._logs.get(session)
        if found is None or found.is_overrun:
            raise Refusal(Status.NOT_FOUND, "the copy has to begin again: its changes are not known any more")
        return found

    async def _changes(self, request: Changes) -> Reply:
        noted = self._log_of(request.session)
        listed = await self._store.submit(lambda txn: noted.take(request.seen, _CHANGES_A_PAGE))
        self._log_of(request.session)
        with self._store.read() as txn:
            count, page = changes_page(txn, [key for _, key in listed])
        latest = listed[count - 1][0] if count else request.seen
        is_more = count < len(listed) or len(listed) == _CHANGES_A_PAGE
        return [latest, is_more, page.checksum], page.body

    async def _seal(self, moves: dict[int, int]) -> Reply:
        # Together, so that one commit makes all of them durable: nobody votes for them meanwhile.
        outcomes = await asyncio.gather(*[self._custody.seal(number, h) for number, h in moves.items()])
        sealed = [number for number, is_sealed in zip(moves, outcomes, strict=True) if is_sealed]
        return [pack_parts(map(part_of_slice, sealed))], b""

    async def _total(self, moves: dict[int, int]) -> Reply:
        totals: list[tuple[int, SliceTotal]] = []
        for number, h in moves.items():
            held = self._custody.held(number)
            if held is None or self._custody.standing(number).seal != h:
                raise Refusal(Status.SILENT, f"slice {slice_name(number)} is not sealed")
            if self._counted(number) is None:
                await self._count([number], SEALED_MS_MAX / 1000, is_sealed=True)
            counted = self._counted(number)
            with self._store.read() as txn:
                floor = read_floor(txn, slice_range(number)[0])
            if counted is None:
                raise Refusal(Status.SILENT, f"slice {slice_name(number)} is not counted")
            totals.append((part_of_slice(number), SliceTotal(*counted, floor, held.record.cfg)))
        return [], pack_totals(totals)

    def _counted(self, number: int) -> tuple[int, int] | None:
        """What a slice holds, if it is counted."""
        kept = self._totals.get(number)
        if kept is None:
            return None
        with self._store.read() as txn:
            return kept.of(txn)

    async def _count(self, slices: Collection[int], within_s: float, *, is_sealed: bool) -> bool:
        """Count on, for so long; whether the slices are counted to their ends.

        Half of the time, while clients write to them.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        self._totals |= self._store.begin_totals([n for n in slices if n not in self._totals])
        for total in [self._totals[number] for number in slices]:
            begun = loop.time()
            while await self._store.submit(total.step):
                now = loop.time()
                if now > until:
                    return False
                await asyncio.sleep(0 if is_sealed else now - begun)
                begun = loop.time()
        return True

    def _end_totals(self, slices: Iterable[int]) -> None:
        self._store.end_totals([self._totals.pop(number) for number in slices if number in self._totals])

    def _fetch(self, request: Fetch, moves: dict[int, int]) -> Reply:
        if not any(first <= request.key < end for first, end in map(slice_range, moves)):
            raise Refusal(Status.MISDIRECTED, "the key is of no slice that is handed over")
        with self._store.read() as txn:
            value = txn.get(request.key)
            return [value is not None], b"" if value is None else bytes(value)

    # -- what the source does by itself -------------------------------------------------------------

    async def run(self) -> None:
        """Look after slices that are handed over, for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self._look()
            except (SsaStoreError, OSError) as error:
                log.warning("handover.not_watched", extra={"reason": str(error)})

    async def clear(self) -> None:
        """Drop what is left of slices, for ever. A job of its own: no seal waits for so many deletes."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                self._custody.find_strays()
                await self._drop_strays()
            except (SsaStoreError, OSError) as error:
                log.warning("slices.not_dropped", extra={"reason": str(error)})

    async def _look(self) -> None:
        """Do what is due now."""
        for session, known in list(self._logs.items()):
            if known.is_overrun or not any(number in self._custody.outgoing for number in known.slices):
                self._end_session(session)
        self._end_totals(self._totals.keys() - self._custody.outgoing.keys())
        await self._look_after_outgoing()

    async def _look_after_outgoing(self) -> None:
        now = asyncio.get_running_loop().time()
        known, self._since = self._since, {}
        for number, held in list(self._custody.outgoing.items()):
            state = self._custody.states.get(number, State.ACTIVE)
            h = held.record.planes[plane_of_slice(number)].epoch
            since = self._since[number, h, state] = known.get((number, h, state), now)
            if state is State.SEALED and not await self._is_undecided(number, h):
                continue
            is_sealed_long = state is State.SEALED and now - since > SEALED_MS_MAX / 1000
            heard = max(since, self._heard.get(number, since))
            if is_sealed_long or now - heard > MOVE_SILENT_MS / 1000:
                await self._call_off(number)

    async def _is_undecided(self, number: int, h: int) -> bool:
        """Read the record once more, and let it have its effect."""
        await self._read(number)
        held = self._custody.outgoing.get(number)
        return held is not None and held.record.planes[plane_of_slice(number)].epoch == h

    async def _read(self, number: int) -> None:
        item = await self._control.get(group_key(group_of_slice(number)))
        if item is not None:
            self._custody.apply(GroupRecord.decode(item.value), item.revision)

    async def _call_off(self, number: int) -> None:
        held = self._custody.outgoing.get(number)
        if held is None:
            return
        key = group_key(group_of_slice(number))
        cancelled = cancel_move(held.record, plane_of_slice(number))
        log.warning("handover.called_off", extra={"slice": slice_name(number), "by": "source"})
        compares = [Compare(key, held.revision)]
        revision = await self._control.transact(compares, [Write(key, cancelled.encode())])
        if revision is None:
            await self._read(number)
        else:
            self._custody.apply(cancelled, revision)

    # -- what is left of slices ---------------------------------------------------------------------

    async def _drop_strays(self) -> None:
        """A few each time: it is in no hurry, and clients wait for the same disk."""
        now = asyncio.get_running_loop().time()
        strays = self._custody.strays()
        known, self._stray_since = self._stray_since, {}
        for number in strays:
            self._stray_since[number] = known.get(number, now)
        due = [number for number in strays if now - self._stray_since[number] >= self._drain_s]
        going: list[int] = []
        for number in due:
            if len(going) == DROPPED_AT_ONCE:
                break
            if await self._is_elsewhere(number):
                going.append(number)
        if going:
            await self._drop(going)

    async def _is_elsewhere(self, number: int) -> bool:
        """Whether the control store still says that others answer for all of a slice, or nobody ever did."""
        item = await self._control.get(group_key(group_of_slice(number)))
        if item is None:
            return False
        record = GroupRecord.decode(item.value)
        self._custody.apply(record, item.revision)
        plane = plane_of_slice(number)
        return all(
            plane >= len(found.planes)
            or (found.planes[plane].state == ACTIVE and not self._custody.is_of(found.planes[plane]))
            for found in record.parts
            if overlaps(slice_number(plane, found.part), number)
        )

    async def _drop(self, slices: Iterable[int]) -> None:
        """Delete what is stored of slices, the floors excepted: those never go back."""
        custody = self._custody
        strays = set(custody.strays())  # The records were read one after the other.
        known = {number: custody.standing(number) for number in slices if number in strays}
        begun = {n: Standing(0, s.cfg, s.seal or 1) for n, s in known.items()}
        await custody.note_standings(begun)
        empty = [number for number in begun if await self._is_emptied(number, begun[number])]
        dropped = {n: Standing(0, begun[n].cfg) for n in empty if self._is_as_begun(n, begun[n])}
        await custody.note_standings(dropped)
        self.dropped += len(dropped)
        for number in dropped:
            log.info("slice.dropped", extra={"slice": slice_name(number)})

    async def _is_emptied(self, number: int, begun: Standing) -> bool:
        """Delete all records of a slice; False when it has become somebody's here meanwhile.

        Each step goes on where the last one ended: a store whose tree has not seen the deletes yet would
        have to pass all of them to find the first record that is left.
        """
        first, end = slice_range(number)
        while self._is_as_begun(number, begun):
            last = await self._store.submit(partial(_drop_some, first=first, end=end))
            if not last:
                return True
            first = last + b"\0"
        return False

    def _is_as_begun(self, number: int, begun: Standing) -> bool:
        """Whether a slice is still to be dropped. Who begins to fill it notes another standing first."""
        return self._custody.standing(number) is begun and number in self._custody.strays()


def _drop_some(txn: WriteTxn, first: bytes, end: bytes) -> bytes:
    """The last record that went; nothing when there was none."""
    keys = [key for key, _ in islice(walk(txn, first, end), _RECORDS_DROPPED_AT_ONCE)]
    for key in keys:
        txn.delete(key)
    return keys[-1] if keys else b""
