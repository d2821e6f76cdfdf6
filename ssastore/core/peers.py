"""Two other workers that remember how far an environment has come. Coroutines on a Caller.

They are the mates of the worker's first slice: found by address, like everybody.  What
they say is a second opinion beside the control store's, for the day that the control
store itself was restored from a copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache

from ssastore.core.caller import Caller
from ssastore.core.marks import Watermark
from ssastore.core.numbers import numbered_slice, part_of_slice, plane_of_slice, slice_number
from ssastore.core.place import share_of
from ssastore.errors import BadFrame, SsaStoreError
from ssastore.keyspace import ANY_TAIL
from ssastore.limits import MARK_BUDGET_MS
from ssastore.messages import Mark

_PEERS = 2


@lru_cache(maxsize=64)
def peer_iids(slices: frozenset[int], replicas: int, worker: int, workers: int) -> tuple[int, ...]:
    """An address of each peer of a worker, from its node's slices; none with one replica.

    Kept: there are thousands, and nodes of a simulation start again all the time.
    """
    mine = min(share_of(slices, worker, workers), default=None)
    if mine is None:
        return ()
    plane, part = plane_of_slice(mine), part_of_slice(mine)
    others = [other for other in range(replicas) if other != plane][:_PEERS]
    return tuple([numbered_slice(slice_number(other, part)).first | ANY_TAIL for other in others])


class Peers:
    """The peers of one environment, at ``iids``."""

    def __init__(self, caller: Caller, iids: Sequence[int]) -> None:
        self._caller = caller
        self._iids = iids

    async def ask(self, env_id: int) -> Watermark:
        """The highest that any peer was told; those that do not answer know nothing."""
        return await self.tell(env_id, Watermark())

    async def tell(self, env_id: int, mark: Watermark) -> Watermark:
        """Let the peers remember a mark; the highest that any of them knows."""
        answers = await asyncio.gather(*[self._tell_one(iid, env_id, mark) for iid in self._iids])
        boots, sequences = (
            [0, *[known.boot for known in answers]],
            [0, *[known.sequence for known in answers]],
        )
        return Watermark(max(boots), max(sequences))

    async def _tell_one(self, iid: int, env_id: int, mark: Watermark) -> Watermark:
        message = Mark(iid, env_id, mark.boot, mark.sequence)
        try:
            header, _ = await self._caller.call(message, iid, within_ms=MARK_BUDGET_MS)
        except (SsaStoreError, OSError):
            return Watermark()
        if tuple(map(type, header[2:])) != (int, int):
            raise BadFrame("a reply to Mark has other fields")
        return Watermark(header[2], header[3])
