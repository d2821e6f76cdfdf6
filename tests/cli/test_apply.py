"""What ``apply`` and ``pause`` wait for, and what ``abort`` says that it has called off."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from ssastore.cli import apply as module
from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import NodeRecord
from ssastore.core.groups import ACTIVE, group_key
from ssastore.core.numbers import group_of_slice, slice_number
from ssastore.core.widening import begin_fill
from ssastore.env import Write
from ssastore.operating import abort, aborted, pause
from ssastore.rebalance import (
    Cluster,
    Move,
    abort_moves,
    form_cluster,
    order_moves,
    ordered_moves,
    read_cluster,
)

NODES = [NodeRecord(f"n{number}", f"fd00::{number}") for number in range(1, 5)]


async def formed() -> tuple[MemoryControlStore, Cluster]:
    control = MemoryControlStore()
    service = IPv6Network("2001:db8:5a:1::/64")
    await form_cluster(control, service, 3, NODES, now_ms=1, random_bytes=bytes)
    return control, await read_cluster(control)


def away(cluster: Cluster, group: int, lost: str = "") -> Move:
    """Plane 0 of a group, to the node that has none of it."""
    target = next(node.name for node in NODES if node.name not in cluster.groups[group].owners)
    return Move(slice_number(0, group), target, lost)


async def finish(control: MemoryControlStore, cluster: Cluster, move: Move, state: str = ACTIVE) -> None:
    """What the target does to the record."""
    record = cluster.groups[group_of_slice(move.number)]
    taken = record.replaced(0, replace(record.planes[0], owner=move.target, state=state, env=9, epoch=3), 2)
    await control.transact([], [Write(group_key(record.group), taken.encode())])


async def test_who_applies_a_plan_waits_for_nobody_elses_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those may go to a node that is down, and take as long as that is."""
    monkeypatch.setattr(module, "_FOLLOW_S", 0.001)
    control, cluster = await formed()
    own, others = away(cluster, 1), away(cluster, 2)
    await order_moves(control, [own, others])
    waiting = asyncio.ensure_future(module._follow(control, [own], is_shown=False))
    await asyncio.sleep(0)
    await finish(control, cluster, own)
    assert await asyncio.wait_for(waiting, 30) == 1
    assert [move for move, _, _ in await ordered_moves(control)] == [others]


async def test_what_was_called_off_is_not_counted_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FOLLOW_S", 0.001)
    control, cluster = await formed()
    done, off = away(cluster, 1), away(cluster, 2)
    await order_moves(control, [done, off])
    waiting = asyncio.ensure_future(module._follow(control, [done, off], is_shown=False))
    await finish(control, cluster, done)
    await abort_moves(control, [off])
    assert await asyncio.wait_for(waiting, 30) == 1


async def test_abort_does_not_claim_what_is_being_rebuilt() -> None:
    """It has nobody to go back to, and is shown by ``moves`` until it votes."""
    control, cluster = await formed()
    begun, planned = (
        away(cluster, 1, cluster.groups[1].owners[0]),
        away(cluster, 2, cluster.groups[2].owners[0]),
    )
    move = away(cluster, 3)
    await order_moves(control, [begun, planned, move])
    await finish(control, cluster, begun, "RECOVERING")
    assert await abort(control) == (2, 1)
    assert [left for left, _, _ in await ordered_moves(control)] == [begun]
    assert aborted(2, 1) == (
        "2 moves called off; 1 slices are being rebuilt at their new owners already, and go on"
    )
    assert aborted(2, 0) == "2 moves called off"


async def test_a_pause_waits_for_what_is_copied_to_be_a_second_replica() -> None:
    """No move is ordered for it, and its group cannot be recovered as long as it is on its way."""
    control, cluster = await formed()
    assert await pause(control, 0) == (0, 0)
    alone = replace(cluster.groups[1], planes=cluster.groups[1].planes[:1])
    zones = {node.name: "" for node in NODES}
    filling = begin_fill(alone, away(cluster, 1).target, 9, zones)
    await control.transact([], [Write(group_key(1), filling.encode())])
    assert await pause(control, 0) == (0, 1)
