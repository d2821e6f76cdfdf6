"""Asking nodes themselves: each worker at an address of a slice that it should serve.

So an answer proves the route and the steering too.  Who owns nothing has no address to be asked at.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack

from ssastore.core.cluster import Cluster, NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.planner import owned_slices
from ssastore.env import Links, Randomness
from ssastore.errors import SsaStoreError
from ssastore.messages import Report
from ssastore.transport.connection import Identity
from ssastore.transport.pool import Pool

ASK_MS = 1500
_ALL_TAILS = 0x7FFFFFFF


def worker_iids(cluster: Cluster, node: NodeRecord) -> dict[int, int]:
    """By worker of a node, an IID that it should answer at; nothing for those that own nothing."""
    found: dict[int, int] = {}
    for piece in owned_slices(cluster.groups, node.name):
        found.setdefault(piece.lane % node.workers, piece.first | _ALL_TAILS)
    return found


class Prober:
    """Dials every question anew: it is about the node, not about a connection to it."""

    def __init__(self, view: ClusterView, identity: Identity, links: Links, randomness: Randomness) -> None:
        self._view = view
        cluster = view.cluster()
        self._pool = Pool(
            cluster.record.network,
            cluster.nodes[0].port,
            identity,
            links=links,
            randomness=randomness,
            deadline_ms=ASK_MS,
            use_hints=False,
        )

    async def ask(self, message: Any) -> tuple[list[Any], Any]:
        """Header and body of the answer to a message at its IID. Raises SsaStoreError."""
        return await self._pool.call(message, message.iid)

    async def reaches(self, name: str) -> bool:
        """Whether all workers of a node answer: what one of them has is silent while it is away."""
        cluster = self._view.cluster()
        iids = [
            iid for node in cluster.nodes if node.name == name for iid in worker_iids(cluster, node).values()
        ]
        answers = await asyncio.gather(*[self._answers(iid) for iid in iids])
        return bool(answers) and all(answers)

    async def used_bytes(self) -> int | None:
        """What all workers store that own something, together; None when one of them does not answer."""
        cluster = self._view.cluster()
        iids = [iid for node in cluster.nodes for iid in worker_iids(cluster, node).values()]
        found = await asyncio.gather(*[self._used(iid) for iid in iids])
        return None if None in found else sum(filter(None, found))

    async def _used(self, iid: int) -> int | None:
        try:
            _, body = await self.ask(Report(iid))
            used = msgpack.unpackb(body, strict_map_key=False)["used_bytes"]
        except (SsaStoreError, OSError, ValueError, KeyError, TypeError):
            return None
        return used if type(used) is int else None

    async def _answers(self, iid: int) -> bool:
        try:
            await self.ask(Report(iid))
        except (SsaStoreError, OSError):
            return False
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()
