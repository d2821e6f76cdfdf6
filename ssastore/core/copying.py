"""Copying slices from other planes, page by page. Coroutines on a store and a Caller.

All sources are read side by side, in key order.  What they agree to be over (every page
goes at least that far) is merged, its blobs are fetched, and it replaces what the store
held there, piece by piece and with rests.  Then the next pages are asked for, from that key on: an
interrupted copy goes on in the middle while the process lives, and at the slice's
beginning after its death.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from blake3 import blake3

from ssastore.core.caller import Caller
from ssastore.core.filling import Bounds, Cover, fill_range, pieces_of
from ssastore.core.merge import merge_rows
from ssastore.core.numbers import numbered_slice, slice_number
from ssastore.core.pace import SharedPace, Stint
from ssastore.core.pages import KIND_AT, Page, Rows, pull_page, stored_key_of
from ssastore.core.standing import Standing, pack_stands, write_standing
from ssastore.env import Store, WriteTxn
from ssastore.errors import BadFrame, CorruptObject, ObjectNotFound, SsaStoreError
from ssastore.keyspace import ANY_TAIL, iid_of, position_of_blob
from ssastore.limits import CHUNK_BYTES, FENCE_BUDGET_MS, STREAM_CHUNKS_INFLIGHT
from ssastore.messages import GetBlob, Kind, Pull

LOCAL = -1
"In the place of a mate's plane: what this environment's own disk holds."


class Copier:
    """Copies slices of other planes into one store.

    Args:
        filled: called when a slice is complete and durable, with its new standing.
        cover: see ``core.filling``.
        pace: what the sources are asked for.
    """

    def __init__(
        self,
        *,
        store: Store,
        mates: Caller,
        filled: Callable[[int, Standing], None],
        cover: Cover,
        pace: SharedPace,
    ) -> None:
        self._store = store
        self._mates = mates
        self._filled = filled
        self._cover = cover
        self._pace = pace
        self.byte_count = 0
        "Copied since the start."

    async def copy(
        self, plane: int, standings: dict[int, Standing], sources: Sequence[int], stint: Stint
    ) -> None:
        """Copy parts into ``plane``; the page is durable before the next one is asked for.

        Args:
            standings: by part, what the slice is when it is complete.
            sources: planes to copy from, or LOCAL.
            stint: rests after each piece.

        Raises:
            CorruptObject: a source's record is damaged, or no source has a good copy of a blob.
            SsaStoreError, OSError: a source does not answer, or not under the cfg of the standing.
        """
        stands = {part: standing.cfg for part, standing in standings.items()}
        after: bytes | None = b""
        while after is not None:
            pages = await asyncio.gather(
                *[self._page(plane if mate == LOCAL else mate, stands, after, mate) for mate in sources]
            )
            ends = [page.last for page in pages if page.truncated]
            horizon = min(ends) if ends else None
            merged = merge_rows([page.rows() for page in pages], horizon)
            size = sum(len(page.body) for page in pages)
            size += await self._fetch_blobs(plane, merged, [mate for mate in sources if mate != LOCAL])
            for bounds, piece, length in pieces_of(merged, (after, horizon)):
                await self._replace(plane, bounds, piece, standings, length)
                await stint.rest()
            self.byte_count += size
            after = horizon
            await self._pace.spend(size)

    async def _page(self, plane: int, stands: dict[int, int], after: bytes, source: int) -> Page:
        if source == LOCAL:
            with self._store.read() as txn:
                return pull_page(txn, plane, list(stands), after)
        iid = numbered_slice(slice_number(plane, min(stands))).first | ANY_TAIL
        header, body = await self._mates.call(
            Pull(iid, pack_stands(sorted(stands.items())), after), iid, within_ms=FENCE_BUDGET_MS
        )
        if tuple(map(type, header[2:])) != (bool, bytes, int):
            raise BadFrame("a reply to Pull has other fields")
        return Page(header[2], header[3], header[4], body)

    async def _replace(
        self,
        plane: int,
        bounds: Bounds,
        merged: Rows,
        standings: dict[int, Standing],
        size: int,
    ) -> None:
        """Put the merged rows in the place of what was between two keys."""
        done: dict[int, Standing] = {}

        def change(txn: WriteTxn) -> None:
            done.clear()
            for part in fill_range(txn, plane, list(standings), bounds, merged, self._cover):
                done[slice_number(plane, part)] = standings[part]
            for number, standing in done.items():
                write_standing(txn, number, standing)

        await self._store.submit(change, size=size)
        for number, standing in done.items():
            self._filled(number, standing)

    async def _fetch_blobs(self, plane: int, merged: Rows, sources: Sequence[int]) -> int:
        """Make the blobs of merged rows durable here, a few at a time; the bytes that were fetched."""
        gate = asyncio.Semaphore(STREAM_CHUNKS_INFLIGHT)
        blobs = [key for key in merged if key[KIND_AT] == Kind.BLOB]

        async def one(key: bytes) -> int:
            async with gate:
                return await self._fetch_blob(stored_key_of(key, plane), key[KIND_AT + 1 :], sources)

        return sum(await asyncio.gather(*[one(key) for key in blobs]))

    async def _fetch_blob(self, stored_key: bytes, digest: bytes, sources: Sequence[int]) -> int:
        with self._store.read() as txn:
            try:
                stored = txn.get(stored_key)
                if stored is not None and blake3(stored).digest() == digest:
                    return 0  # Content cannot be out of date.
            except CorruptObject:
                pass  # A good copy replaces it.
        failure: Exception | None = None
        whys = []
        for mate in sources:
            iid = iid_of(position_of_blob(digest), mate)
            try:
                _, body = await self._mates.call(GetBlob(iid, digest), iid, within_ms=FENCE_BUDGET_MS)
            except (CorruptObject, ObjectNotFound) as error:
                whys.append(f"plane {mate}: {error}")
                continue
            except (SsaStoreError, OSError) as error:
                failure = error
                continue
            if len(body) <= CHUNK_BYTES and blake3(body).digest() == digest:
                await self._store.submit(partial(_put, stored_key, bytes(body)), size=len(body))
                return len(body)
            whys.append(f"plane {mate}: what it sent does not match the digest")
        if failure is not None and not whys:
            raise failure
        # A matter of this blob, whatever else is wrong: no other slice has to wait for it.
        raise CorruptObject(f"no good copy of a blob, {'; '.join(whys) or 'here'}", stored_key) from failure


def _put(stored_key: bytes, content: bytes, txn: WriteTxn) -> None:
    txn.put(stored_key, content)
