"""Handovers on a network without faults: nobody notices, and many slices cost few transactions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ssastore.core.groups import GROUP_PREFIX, GroupRecord, PlaneOwner, group_key
from ssastore.core.numbers import group_of_slice, plane_of_slice
from ssastore.core.planner import owned_slices
from ssastore.core.records import slice_range
from ssastore.core.settings import MoveSettings, change_move_settings
from ssastore.core.standing import State
from ssastore.keyspace import GROUPS, slice16_of
from ssastore.limits import DRAIN_MS, MOVE_BATCH, ORDER_EVERY_MS
from ssastore.rebalance import Move, MoveState, move_states, order_moves, ordered_moves
from ssastore.sim.fabric import Fabric, draw_moves
from ssastore.sim.runner import tell
from ssastore.sim.scenarios import scenarios
from ssastore.sim.stage import Played, Stage, play_seed
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import Shape

SHAPE = Shape(keys=6, clients=4, operations=160, conditional_percent=30, pause_percent=80)


def play(play_it: Any, replicas: int, seed: int = 1, shape: Shape = SHAPE) -> Played:
    scenario = replace(scenarios()["move"], replicas=replicas, play=play_it)
    played = play_seed(scenario, seed, swarm=Swarm(commit_ms=1), shape=shape)
    assert played.is_good, tell(played)
    return played


async def until_done(stage: Stage, moves: list[Move]) -> None:
    async with asyncio.timeout(120):
        while set((await move_states(stage.cluster.control, moves)).values()) != {MoveState.DONE}:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_no_call_fails_while_slices_move(replicas: int, seed: int) -> None:
    async def move_often(stage: Stage) -> None:
        await stage.open()
        fabric = Fabric(stage.cluster)
        work = stage.start_work()
        draw = stage.world.stream("moves")
        await stage.pause(0.2)
        for _ in range(4):
            moves = await draw_moves(stage.cluster, draw, 4)
            await order_moves(stage.cluster.control, moves)
            await until_done(stage, moves)
        await asyncio.gather(*work)
        stage.figures["moves"] = fabric.moves

    played = play(move_often, replicas, seed)
    assert played.figures["moves"] >= 4
    assert not played.outcomes.keys() & {"unavailable", "unknown"}, played.outcomes


def test_many_slices_share_their_transactions_and_are_dropped_where_they_were() -> None:
    """40 slices from one node to another, those with something in them among them."""
    count = 40

    async def move_many(stage: Stage) -> None:
        await stage.open()
        Fabric(stage.cluster)
        await stage.work()
        layout = stage.cluster.layout.cluster
        source, target = "node0", "node3"
        owned = [slice16_of(piece.first) for piece in owned_slices(layout.groups, source)]
        free = [s for s in owned if target not in layout.groups[s % GROUPS].owners]
        held = {key[:2] for key in stage.cluster.named(source)[0].disk.contents.keys}
        free.sort(key=lambda slice16: slice16.to_bytes(2, "big") not in held)
        stage.figures["held"] = sum(slice16.to_bytes(2, "big") in held for slice16 in free)
        moves = [Move(slice16, target) for slice16 in free[:count]]
        (_, before) = await stage.cluster.control.list(GROUP_PREFIX)
        await order_moves(stage.cluster.control, moves)
        await until_done(stage, moves)
        items, _ = await stage.cluster.control.list(GROUP_PREFIX)
        revisions = {item.revision for item in items if item.revision > before}
        stage.figures["finished in"] = len(revisions)
        await stage.pause(DRAIN_MS / 1000 + 2)
        held = {key[:2] for node in stage.cluster.named(source) for key in node.disk.contents.keys}
        stage.figures["left"] = sum(slice_range(move.number)[0] in held for move in moves)

    played = play(move_many, 3, shape=replace(SHAPE, operations=20))
    planes = 3  # A batch is of one.
    assert played.figures["finished in"] <= count / MOVE_BATCH + planes
    assert played.figures["held"] > 0 == played.figures["left"]


async def _pause(stage: Stage, is_paused: bool) -> None:
    def change(known: MoveSettings) -> MoveSettings:
        return replace(known, is_paused=is_paused)

    await change_move_settings(stage.cluster.control, change)


async def _owner(stage: Stage, number: int) -> PlaneOwner:
    item = await stage.cluster.control.get(group_key(group_of_slice(number)))
    assert item is not None
    return GroupRecord.decode(item.value).planes[plane_of_slice(number)]


async def _states(stage: Stage, moves: list[Move]) -> set[MoveState]:
    return set((await move_states(stage.cluster.control, moves)).values())


def test_what_is_paused_is_not_begun_or_is_called_off_and_goes_on_when_resumed() -> None:
    """Ordered while paused; then resumed and paused again while the source stands still in the copy."""

    async def pause_and_resume(stage: Stage) -> None:
        await stage.open()
        Fabric(stage.cluster)
        await stage.work()
        moves = (await draw_moves(stage.cluster, stage.world.stream("moves"), 4))[:1]
        await _pause(stage, True)
        await order_moves(stage.cluster.control, moves)
        source = (await ordered_moves(stage.cluster.control))[0][1]
        await stage.pause(6)
        assert await _states(stage, moves) == {MoveState.PLANNED}
        await _pause(stage, False)
        while await _states(stage, moves) != {MoveState.COPYING}:
            await stage.pause(0.001)
        stage.cluster.named(source)[0].host.pause()
        await _pause(stage, True)
        await stage.pause(6)
        assert await _states(stage, moves) == {MoveState.PLANNED}
        stage.cluster.named(source)[0].host.resume()
        await stage.pause(6)
        assert await _states(stage, moves) == {MoveState.PLANNED}
        await _pause(stage, False)
        await until_done(stage, moves)

    play(pause_and_resume, 3, shape=replace(SHAPE, operations=20))


def test_what_is_sealed_comes_to_its_end_although_moves_are_paused() -> None:
    """Paused at the seal, while the source stands still until the target has looked at its settings: it is
    not called off, and one handover is enough."""

    async def pause_at_the_seal(stage: Stage) -> None:
        await stage.open()
        Fabric(stage.cluster)
        await stage.work()
        moves = (await draw_moves(stage.cluster, stage.world.stream("moves"), 4))[:1]
        await order_moves(stage.cluster.control, moves)
        source = stage.cluster.named((await ordered_moves(stage.cluster.control))[0][1])[0]
        assert source.engine is not None
        number = moves[0].number
        epoch = (await _owner(stage, number)).epoch
        while source.engine.custody.states.get(number) is not State.SEALED:
            await stage.pause(0.0002)
        source.host.pause()
        await _pause(stage, True)
        await stage.pause(1.2 * ORDER_EVERY_MS / 1000)
        assert await _states(stage, moves) == {MoveState.COPYING}
        source.host.resume()
        await until_done(stage, moves)
        assert (await _owner(stage, number)).epoch == epoch + 2

    play(pause_at_the_seal, 3, shape=replace(SHAPE, operations=20))
