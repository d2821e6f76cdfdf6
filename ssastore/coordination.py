"""What the coordinator decides, joined to what carries it out.

Every node's supervisor is a candidate (``core.guardian``): it is not on the way of any request, so that
planning holds up none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from ssastore.core.clusterview import ClusterView
from ssastore.core.guardian import Deeds, Guardian
from ssastore.core.ordering import MoveState, abort_moves, ordered_moves
from ssastore.core.renumbering import Heard, Renumberer
from ssastore.core.usage import Historian, even_planes
from ssastore.env import Clock, ControlStore
from ssastore.rebalance import order_lost


def guardian_of(
    control: ControlStore,
    view: ClusterView,
    name: str,
    reaches: Callable[[str], Awaitable[bool]],
    heard: Heard,
    clock: Clock,
) -> Guardian:
    """The candidate of node ``name``. ``view`` is followed by the caller."""
    deeds = Deeds(lambda: _owners(view), _order, recall, reaches)
    return Guardian(control, name, deeds, Renumberer(lambda: view.record, heard), clock)


def historian_of(
    control: ControlStore,
    view: ClusterView,
    name: str,
    measure: Callable[[], Awaitable[int | None]],
    clock: Clock,
) -> Historian:
    """What notes how much is stored while node ``name`` coordinates. ``view`` is followed by the caller."""
    # Asked for anew each time: a view that has lost its watch has other groups afterwards.
    return Historian(control, name, measure, lambda: even_planes(view.groups), clock)


def _owners(view: ClusterView) -> Collection[str]:
    return {owner for record in view.groups.values() for found in record.views() for owner in found.owners}


async def _order(control: ControlStore, lost: Collection[str], absent: Collection[str]) -> tuple[int, str]:
    ordered = await order_lost(control, lost, absent)
    return len(ordered.moves), ordered.left


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
