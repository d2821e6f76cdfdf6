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
from ssastore.core.planner import owned_slices
from ssastore.env import Links, Randomness, spawn
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
        self._identity = identity
        self._links = links
        self._randomness = randomness
        self._pools: dict[IPv6Network, Pool] = {}
        "By service prefix: one that is asked about is not left, whatever nodes say."

    def _pool(self, service: IPv6Network) -> Pool:
        for gone in self._pools.keys() - set(self._view.record.networks):
            # Calls under way dial no more; nobody asks there any more.
            spawn("close a prober", self._pools.pop(gone).close())
        if service not in self._pools:
            self._pools[service] = Pool(
                service,
                next(iter(self._view.nodes.values())).port,
                self._identity,
                links=self._links,
                randomness=self._randomness,
                deadline_ms=ASK_MS,
                use_hints=False,
                follows=False,
            )
        return self._pools[service]

    async def ask(self, message: Any, service: IPv6Network | None = None) -> tuple[list[Any], Any]:
        """Header and body of the answer to a message at its IID, in the service prefix or another one that is
        there beside it. Raises SsaStoreError."""
        return await self._pool(service or self._view.record.network).call(message, message.iid)

    async def heard(self, service: IPv6Network) -> dict[str, int | None]:
        """See ``core.renumbering.Heard``."""
        cluster = self._view.cluster()
        asked = {node: worker_iids(cluster, node) for node in cluster.nodes if worker_iids(cluster, node)}
        found = await asyncio.gather(
            *[
                self._serial(node.name, at, iid, service)
                for node, iids in asked.items()
                for at, iid in iids.items()
            ]
        )
        answers, heard = iter(found), {}
        for node, iids in asked.items():
            serials = [next(answers) for _ in iids]
            told = [serial for serial in serials if serial is not None]
            heard[node.name] = min(told) if len(told) == len(serials) else None
        return heard

    async def _serial(self, node: str, worker: int, iid: int, service: IPv6Network) -> int | None:
        try:
            _, body = await self.ask(Report(iid), service)
            found = msgpack.unpackb(body, strict_map_key=False)
            is_itself = (found["node"], found["worker"]) == (node, worker)
            return int(found["serial"]) if is_itself else None
        except (SsaStoreError, OSError, ValueError, KeyError, TypeError):
            return None

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
        for pool in self._pools.values():
            await pool.close()
