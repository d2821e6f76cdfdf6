"""Asking nodes themselves: each worker at an address of a slice that it should serve.

So an answer proves the route and the steering too.  Who owns nothing has no address to be asked at.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Network
from typing import Any

import msgpack

from ssastore.core.cluster import Cluster, NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.groups import ACTIVE
from ssastore.core.numbers import numbered_slice, slice_number
from ssastore.env import Links, Randomness
from ssastore.errors import SsaStoreError
from ssastore.keyspace import ANY_TAIL, LANES
from ssastore.messages import Report
from ssastore.transport.connection import Identity
from ssastore.transport.pool import Pool

ASK_MS = 1500
_AT_ONCE = 64
"Workers that are asked where the service is."


def worker_iids(cluster: Cluster, node: NodeRecord) -> dict[int, int]:
    """By worker of a node, an IID that it should answer at; nothing for those that own nothing.

    Of a slice that is not on its way to another node, where there is one: at the address of one that has just
    arrived there the other node answers.
    """
    found: dict[int, int] = {}
    leaving: dict[int, int] = {}
    for group in cluster.groups:
        worker = group.group % LANES % node.workers
        if worker in found:
            continue
        for view in group.views():
            for plane, known in enumerate(view.planes):
                if known.owner == node.name:
                    piece = numbered_slice(slice_number(plane, view.part))
                    chosen = found if known.state == ACTIVE else leaving
                    chosen.setdefault(worker, piece.first | ANY_TAIL)
        if len(found) == node.workers:
            break
    return leaving | found


async def _serial(pool: Pool, node: str, worker: int, iid: int) -> int | None:
    """The serial that a worker tells; None when it does not answer as itself."""
    try:
        _, body = await pool.call(Report(iid), iid)
        found = msgpack.unpackb(body, strict_map_key=False)
        serial = found["serial"]
        is_itself = (found["node"], found["worker"]) == (node, worker)
    except (SsaStoreError, OSError, ValueError, KeyError, TypeError):
        return None
    return serial if is_itself and type(serial) is int else None


class Prober:
    """Dials every question anew: it is about the node, not about a connection to it."""

    def __init__(self, view: ClusterView, identity: Identity, links: Links, randomness: Randomness) -> None:
        self._view = view
        self._identity = identity
        self._links = links
        self._randomness = randomness
        self._pool = self._pool_at(view.record.network)

    def _pool_at(self, service: IPv6Network) -> Pool:
        return Pool(
            service,
            next(iter(self._view.nodes.values())).port,
            self._identity,
            links=self._links,
            randomness=self._randomness,
            deadline_ms=ASK_MS,
            use_hints=False,
            follows=False,  # A prefix that is asked about is not left, whatever nodes say.
        )

    async def ask(self, message: Any) -> tuple[list[Any], Any]:
        """Header and body of the answer to a message at its IID. Raises SsaStoreError."""
        service = self._view.record.network
        if service != self._pool.service:
            former, self._pool = self._pool, self._pool_at(service)
            await former.close()
        return await self._pool.call(message, message.iid)

    async def heard(self, service: IPv6Network) -> dict[str, int | None]:
        """See ``core.renumbering.Heard``."""
        cluster = self._view.cluster()
        asked = [
            (node.name, worker, iid)
            for node in cluster.nodes
            for worker, iid in worker_iids(cluster, node).items()
        ]
        heard: dict[str, int | None] = {}
        # Some at once, and not one pool for all of them: each has a socket until that is closed.
        for first in range(0, len(asked), _AT_ONCE):
            some, pool = asked[first : first + _AT_ONCE], self._pool_at(service)
            try:
                serials = await asyncio.gather(*[_serial(pool, *worker) for worker in some])
            finally:
                await pool.close()
            for (name, *_), serial in zip(some, serials, strict=True):
                known = heard.get(name, serial)
                heard[name] = None if known is None or serial is None else min(known, serial)
        return heard

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
