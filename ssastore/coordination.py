"""What the coordinator decides, joined to what carries it out: ordering, and a way to ask nodes.

Every node's supervisor is a candidate (``core.guardian``): it is not on the way of any request, so that
planning holds up none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from ssastore.core.cluster import Cluster
from ssastore.core.clusterview import ClusterView
from ssastore.core.guardian import Deeds, Guardian
from ssastore.core.ordering import MoveState, abort_moves, ordered_moves
from ssastore.core.planner import owned_slices
from ssastore.env import Clock, ControlStore, Links, Randomness
from ssastore.errors import SsaStoreError
from ssastore.messages import Report
from ssastore.rebalance import order_lost
from ssastore.transport.connection import Identity
from ssastore.transport.pool import Pool

_ASK_MS = 1500
_ALL_TAILS = 0x7FFFFFFF


def guardian_of(
    control: ControlStore,
    view: ClusterView,
    name: str,
    reaches: Callable[[str], Awaitable[bool]],
    clock: Clock,
) -> Guardian:
    """The candidate of node ``name``. ``view`` is followed by the caller."""
    deeds = Deeds(lambda: _owners(view), _order, recall, reaches)
    return Guardian(control, name, deeds, clock)


def _owners(view: ClusterView) -> Collection[str]:
    return {owner for record in view.groups.values() for found in record.views() for owner in found.owners}


async def _order(control: ControlStore, lost: Collection[str]) -> int:
    return len(await order_lost(control, lost))


async def recall(control: ControlStore, name: str) -> int:
    """Let a node that is back keep what was ordered to be recovered at others and is not begun; how much.

    Raises:
        ConfigError: a record is not understood. Unavailable: the control store does not answer.
    """
    moves = [
        move
        for move, source, state in await ordered_moves(control)
        if move.lost and source == name and state is MoveState.PLANNED
    ]
    await abort_moves(control, moves)
    return len(moves)


class Prober:
    """Asks nodes at addresses of their slices, one for each worker."""

    def __init__(self, view: ClusterView, identity: Identity, links: Links, randomness: Randomness) -> None:
        self._view = view
        cluster = view.cluster()
        # Without hints every question is dialled: it is about the node, not about a connection to it.
        self._pool = Pool(
            cluster.record.network,
            cluster.nodes[0].port,
            identity,
            links=links,
            randomness=randomness,
            deadline_ms=_ASK_MS,
            use_hints=False,
        )

    async def reaches(self, name: str) -> bool:
        """Whether any worker of a node answers."""
        answers = await asyncio.gather(*[self._asks(iid) for iid in _iids_of(self._view.cluster(), name)])
        return any(answers)

    async def _asks(self, iid: int) -> bool:
        try:
            await self._pool.call(Report(iid), iid)
        except (SsaStoreError, OSError):
            return False
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()


def _iids_of(cluster: Cluster, name: str) -> list[int]:
    """An address for each worker of a node that owns something."""
    workers = next((node.workers for node in cluster.nodes if node.name == name), 1)
    by_worker = {piece.lane % workers: piece for piece in owned_slices(cluster.groups, name)}
    return [piece.first | _ALL_TAILS for piece in by_worker.values()]
