"""Filling slices from the environment that hands them over: copy, changes, count, seal, comparison.

Coroutines on a store and a Caller.  ``core.mover`` says which slices, and is the only one
that changes records; ``core.giving`` answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from blake3 import blake3

from ssastore.core.blobstore import is_good_blob
from ssastore.core.caller import Caller
from ssastore.core.changelog import NotedStore
from ssastore.core.custody import Custody
from ssastore.core.filling import Cover, fill_keys, fill_range, pieces_of
from ssastore.core.floors import raise_floor, read_floor
from ssastore.core.groups import group_key
from ssastore.core.held import Held
from ssastore.core.numbers import group_of_part, numbered_slice, part_piece, slice_number
from ssastore.core.pace import SharedPace, Stint
from ssastore.core.pages import KIND_AT, Page, stored_key_of
from ssastore.core.records import slice_range
from ssastore.core.standing import Standing, pack_stands, unpack_parts
from ssastore.core.totals import RunningTotal, SliceTotal, unpack_totals
from ssastore.env import ControlStore, WriteTxn, spawn
from ssastore.errors import BadFrame, CorruptObject, Unavailable
from ssastore.keyspace import ANY_TAIL, GROUP_BITS
from ssastore.limits import (
    CHUNK_BYTES,
    CONTROL_FRESH_MS,
    FENCE_BUDGET_MS,
    MOVE_CHANGES_MAX,
    MOVE_PAGES_INFLIGHT,
    MOVE_ROUNDS_MAX,
    MOVE_TAIL_KEYS,
    PULL_PAGE_BYTES,
    STREAM_CHUNKS_INFLIGHT,
)
from ssastore.messages import Changes, Copy, CountSlices, Fetch, Kind, Seal, Total
from ssastore.wire import Body

_TOTAL_BUDGET_MS = 10_000
_BACKLOG_EVERY_S = 0.5


@dataclass(slots=True)
class _Copying:
    """One attempt to fill the slices of a batch: those of ``held``, each under its handover.

    They are of ``plane`` at the source, and of ``into`` here: of another one when a plane is not moved but
    copied to be one more (``core.widening``).
    """

    plane: int
    into: int
    held: dict[int, Held]
    iid: int
    moves: bytes
    stint: Stint
    session: int = 0
    seen: int = 0
    is_sealed: bool = False
    "The source may be: it waits for the rest, which is little."

    def h(self, part: int) -> int:
        return self.held[part].record.planes[self.plane].epoch


class Taker:
    """Fills slices of one environment that are handed over to it.

    Args:
        mates: how the source is reached, at the addresses of the slices: it owns them all the time.
        cover: see ``core.filling``.
        pace: how fast sources are asked, all batches together.
    """

    def __init__(
        self,
        *,
        custody: Custody,
        store: NotedStore,
        control: ControlStore,
        mates: Caller,
        cover: Cover,
        pace: SharedPace,
    ) -> None:
        self._custody = custody
        self._store = store
        self._control = control
        self._mates = mates
        self._cover = cover
        self._pace = pace
        self._blob_bytes = CHUNK_BYTES
        "Of the last blob that was fetched."
        self.sealed: set[int] = set()
        "Slices that may be sealed at their sources for this environment: they have to come to an end."
        self.byte_count = 0
        "Taken since the start."

    async def fill(self, plane: int, held: dict[int, Held], stint: Stint, into: int | None = None) -> None:
        """Let slices be FILLED, or those of the plane ``into`` with what ``plane`` has.

        Rests in between as ``stint`` says.

        Raises SsaStoreError, OSError: it has to begin again.
        """
        moves = [(part, found.record.planes[plane].epoch) for part, found in sorted(held.items())]
        iid = numbered_slice(slice_number(plane, min(held))).first | ANY_TAIL
        await self._fill(
            _Copying(plane, plane if into is None else into, held, iid, pack_stands(moves), stint)
        )

    async def _fill(self, copying: _Copying) -> None:
        into, held = copying.into, copying.held
        begun = {
            slice_number(into, part): Standing(0, found.record.cfg, copying.h(part))
            for part, found in held.items()
        }
        await self._custody.note_standings(begun)
        await self._copy(copying)
        slices = [slice_number(into, part) for part in held]
        totals = self._store.begin_totals(slices, copying.plane)
        try:
            await self._count(copying, totals)
            await self._catch_up(copying)
            await self._count(copying, totals)  # Should some of it have to be counted again.
            self.sealed.update(slices)
            copying.is_sealed = True
            await self._seal(copying)
            await self._take_all_changes(copying)
            await self._compare(copying, totals)
        finally:
            self.sealed.difference_update(slices)
            self._store.end_totals(totals.values())

    async def _copy(self, copying: _Copying) -> None:
        """Take all pages. In a hurry, the next one is asked for while one is stored, and a few are on their
        way to the disk: what is stored after them, FILLED at last, is durable only when they are.

        A gentle copy lasts: the source could not remember all that is changed meanwhile, so that is taken
        between the pages. A page that is asked for afterwards is as new as the changes before it; one that
        was asked for ahead may be older than they are.
        """
        storing: deque[asyncio.Future[Any]] = deque()
        following: asyncio.Future[Page] | None = None
        after = b""
        try:
            page = await self._page(copying, after)
            while True:
                if page.truncated and not copying.stint.rest_to_work:
                    following = spawn("ask for the next page", self._page(copying, page.last))
                if len(storing) == MOVE_PAGES_INFLIGHT:
                    await storing.popleft()
                await self._store_page(copying, page, after, storing)
                if not page.truncated:
                    break
                after = page.last
                if following is None:
                    await self._take_backlog(copying)
                    page = await self._page(copying, after)
                else:
                    page = await following
                    following = None
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            outcomes = await asyncio.gather(*storing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _page(self, copying: _Copying, after: bytes) -> Page:
        """The page behind a key, when it is its turn."""
        message = Copy(copying.iid, copying.moves, copying.session, after)
        header, body = await self._ask(message, (int, bool, bytes, int))
        copying.session = header[0]
        page = Page(header[1], header[2], header[3], body)
        if page.truncated and page.last <= after:
            raise BadFrame("a page of a copy does not get on")
        await self._pace.spend(len(page.body))
        return page

    async def _store_page(
        self, copying: _Copying, page: Page, after: bytes, storing: deque[asyncio.Future[Any]]
    ) -> None:
        """Store a page, or begin to; its blobs are durable before."""
        rows: dict[bytes, Any] = page.rows()
        size = len(page.body) + await self._fetch_blobs(copying, rows)
        bounds = after, page.last if page.truncated else None
        fill = partial(fill_range, plane=copying.into, parts=sorted(copying.held), cover=self._cover)
        if copying.stint.rest_to_work:
            for piece_bounds, piece, length in pieces_of(rows, bounds):
                await self._store.submit(partial(fill, bounds=piece_bounds, merged=piece), size=length)
                await copying.stint.rest()
        else:
            change = partial(fill, bounds=bounds, merged=rows)
            storing.append(self._store.submit(change, size=2 * PULL_PAGE_BYTES))
        self.byte_count += size

    async def _take_changes(self, copying: _Copying) -> tuple[int, bool]:
        """How many there were, and whether there are more."""
        message = Changes(copying.iid, copying.moves, copying.session, copying.seen)
        header, body = await self._ask(message, (int, bool, int))
        entries = Page(False, b"", header[2], body).entries()
        if not copying.is_sealed:
            await self._pace.spend(len(body))
        self.byte_count += len(body) + await self._fetch_blobs(copying, entries)
        if entries:
            change = partial(fill_keys, plane=copying.into, entries=entries, cover=self._cover)
            await self._store.submit(change, size=2 * len(body))
        copying.seen = header[0]
        return len(entries), header[1]

    async def _take_backlog(self, copying: _Copying) -> int:
        """Take changes until there are no more of them, or many more than there can have been; how many."""
        count, is_more = 0, True
        while is_more and count < MOVE_CHANGES_MAX:
            taken, is_more = await self._take_changes(copying)
            count += taken
        return count

    async def _count(self, copying: _Copying, totals: Mapping[int, RunningTotal]) -> None:
        """Let both count what they hold, so that nobody waits for that when the source votes no more.

        Changes are taken meanwhile: the source can remember so many.
        """
        counting = spawn("count what was taken", self._count_own(copying, totals))
        try:
            is_counted = False
            while not is_counted:
                if counting.done():
                    counting.result()  # Raises what it has failed with: then the source need not go on.
                header, _ = await self._ask(CountSlices(copying.iid, copying.moves), (bool,))
                is_counted = header[0]
                await self._take_backlog(copying)
            while not counting.done():
                await asyncio.wait([counting], timeout=_BACKLOG_EVERY_S)
                await self._take_backlog(copying)
        finally:
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)
        counting.result()

    async def _count_own(self, copying: _Copying, totals: Mapping[int, RunningTotal]) -> None:
        """Count the slices here to their ends."""
        for total in totals.values():
            while await self._store.submit(total.step):
                await copying.stint.rest()

    async def _catch_up(self, copying: _Copying) -> None:
        """Take changes until few are left, or until they come as fast as they are taken.

        Without a rest: more is written in it, and all that is left is taken while nobody votes.
        """
        fewest, rounds = MOVE_CHANGES_MAX, 0
        while rounds < MOVE_ROUNDS_MAX:
            count = await self._take_backlog(copying)
            if count <= MOVE_TAIL_KEYS:
                break
            rounds = 0 if count < fewest else rounds + 1
            fewest = min(count, fewest)

    async def _take_all_changes(self, copying: _Copying) -> None:
        is_more = True
        while is_more:
            _, is_more = await self._take_changes(copying)

    async def _seal(self, copying: _Copying) -> None:
        """Let the source vote no more. Only when the control store is there: it has to end this."""
        loop, first = asyncio.get_running_loop(), min(copying.held)
        asked = loop.time()
        item = await self._control.get(group_key(group_of_part(first)))
        if loop.time() - asked > CONTROL_FRESH_MS / 1000:
            raise Unavailable("the control store is too slow for slices to be sealed")
        if item is None or item.revision != copying.held[first].revision:
            raise Unavailable("the handover was called off")
        header, _ = await self._ask(Seal(copying.iid, copying.moves), (bytes,))
        if not copying.held.keys() <= set(unpack_parts(header[0])):
            raise Unavailable("not all slices are sealed")

    async def _compare(self, copying: _Copying, running: Mapping[int, RunningTotal]) -> None:
        """Let FILLED be durable, if what is here is what the source has."""
        message = Total(copying.iid, copying.moves)
        _, body = await self._ask(message, (), within_ms=_TOTAL_BUDGET_MS)
        totals = unpack_totals(body)
        with self._store.read() as txn:
            own = {part: running[slice_number(copying.into, part)].of(txn) for part in copying.held}
        for part, held in copying.held.items():
            total = totals.get(part)
            if total is None or (total.records, total.sum) != own[part] or total.cfg != held.record.cfg:
                raise Unavailable(
                    f"{part_piece(part)} is not the same here: {_count_of(own[part])} records, at the source "
                    f"{_count_of(total)}"
                )
        await self._custody.fill(
            {
                slice_number(copying.into, part): Standing(
                    copying.h(part) + 1, totals[part].cfg, copying.h(part)
                )
                for part in copying.held
            },
            partial(_raise_floors, plane=copying.into, totals=totals),
        )

    async def _ask(
        self, message: Any, types: tuple[type, ...], *, within_ms: int = FENCE_BUDGET_MS
    ) -> tuple[list[Any], Body]:
        header, body = await self._mates.call(message, message.iid, within_ms=within_ms)
        if tuple(map(type, header[2:])) != types:
            raise BadFrame(f"a reply to {type(message).__name__} has other fields")
        return header[2:], body

    # -- blobs --------------------------------------------------------------------------------------

    async def _fetch_blobs(self, copying: _Copying, rows: dict[bytes, Any]) -> int:
        """Make the blobs of rows durable here, a few at a time; the bytes. One that has gone leaves them."""
        gate = asyncio.Semaphore(STREAM_CHUNKS_INFLIGHT)
        blobs = [key for key, value in rows.items() if key[KIND_AT] == Kind.BLOB and value is not None]

        async def one(key: bytes) -> int | None:
            async with gate:
                return await self._fetch_blob(copying, key)

        sizes = await asyncio.gather(*[one(key) for key in blobs])
        for key, size in zip(blobs, sizes, strict=True):
            if size is None:
                del rows[key]
        return sum(size for size in sizes if size is not None)

    async def _fetch_blob(self, copying: _Copying, key: bytes) -> int | None:
        """The bytes that were fetched; None when the source has not got it any more."""
        stored_key, source_key = stored_key_of(key, copying.into), stored_key_of(key, copying.plane)
        with self._store.read() as txn:
            if is_good_blob(txn, stored_key):
                return 0
        # How long it is shows when it is here; it must not be here before its turn.
        guess = 0 if copying.is_sealed else self._blob_bytes
        if guess:
            await self._pace.spend(guess)
        header, body = await self._ask(Fetch(copying.iid, copying.moves, source_key), (bool,))
        if not copying.is_sealed:
            self._pace.correct(len(body) - guess)
        if not header[0]:
            return None
        self._blob_bytes = len(body)
        if len(body) > CHUNK_BYTES or blake3(body).digest() != stored_key[KIND_AT + 1 :]:
            raise CorruptObject("the source sent a blob that does not match its digest", stored_key)
        await self._store.submit(lambda txn: txn.put(stored_key, body), size=len(body))
        return len(body)


def _count_of(total: tuple[int, int] | SliceTotal | None) -> object:
    return "unknown" if total is None else total[0]


def _raise_floors(txn: WriteTxn, plane: int, totals: Mapping[int, SliceTotal]) -> None:
    for part in totals:
        read_floor(txn, slice_range(slice_number(plane, part))[0])  # What can raise comes first.
    for part, total in totals.items():
        raise_floor(txn, plane << GROUP_BITS | group_of_part(part), total.floor)
