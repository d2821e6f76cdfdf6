"""A process is killed at each step of a move, at either end or where it is coordinated.

Every slice ends with one ACTIVE owner, the one that it was ordered to; no call is answered wrongly and
nothing that was acknowledged is lost; and another node coordinates.  The short form plays each case once;
the long one, ``SSASTORE_SOAK_MATRIX=3``, three times with other seeds.  With ``-s`` it prints the table.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from ssastore.coordination import guardian_of
from ssastore.core.clusterview import ClusterView
from ssastore.core.election import coordinator_of
from ssastore.core.groups import ACTIVE, MOVING, GroupRecord, PlaneOwner, group_key
from ssastore.core.numbers import group_of_slice, plane_of_slice
from ssastore.core.standing import State
from ssastore.engine import Engine
from ssastore.env import spawn
from ssastore.limits import LEASE_MS
from ssastore.rebalance import Move, order_moves, ordered_moves
from ssastore.sim.cluster import Parts
from ssastore.sim.control import VirtualControlStore
from ssastore.sim.fabric import Fabric, draw_moves
from ssastore.sim.host import Host
from ssastore.sim.runner import tell
from ssastore.sim.scenarios import scenarios
from ssastore.sim.scenarios.recovery import until_whole
from ssastore.sim.stage import Stage, play_seed
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import Shape

SEEDS = int(os.environ.get("SSASTORE_SOAK_MATRIX", "1"))
SHAPE = Shape(keys=5, clients=3, operations=60, conditional_percent=30, pause_percent=90)
BOUND_S = 120
LOOK_EVERY_S = 0.0002
HIT: Counter[tuple[str, str]] = Counter()
"Runs in which the step was seen, and the process killed in it."

Ends = tuple[Engine, Engine, PlaneOwner]
"Source and target, and what the group's record says."


def is_copying(number: int, ends: Ends) -> bool:
    """The source notes what changes, for a copy that has begun."""
    return any(number in known.slices for known in ends[0].giver._logs.values())


def is_near_the_seal(number: int, ends: Ends) -> bool:
    return number in ends[1].mover._taker.sealed


def is_sealed(number: int, ends: Ends) -> bool:
    return ends[0].custody.states.get(number) is State.SEALED


def is_filled(number: int, ends: Ends) -> bool:
    return ends[1].custody.standing(number).epoch == ends[2].epoch + 1


STEPS: dict[str, Callable[[int, Ends], bool]] = {
    "begun": lambda number, ends: True,
    "copying": is_copying,
    "near sealing": is_near_the_seal,
    "sealed": is_sealed,
    "filled": is_filled,
    "finished": lambda number, ends: False,
}


class Coordinators:
    """Two supervisors, each with a candidate for the coordinator, as nodes have them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.hosts = [stage.world.host(f"super{number}", self._program) for number in range(2)]

    async def _program(self, host: Host) -> None:
        cluster = self._stage.cluster
        control = VirtualControlStore(cluster.control.another_client(), cluster.control_network)
        view = ClusterView(control)
        await view.load()
        following = spawn("follow the cluster", view.run())

        async def reaches(name: str) -> bool:
            return False

        async def heard(service: IPv6Network) -> dict[str, int | None]:
            return {}

        try:
            await guardian_of(control, view, host.name, reaches, heard, host.clock).run()
        finally:
            following.cancel()

    async def elected(self) -> Host:
        while not (name := await coordinator_of(self._stage.cluster.control)):
            await self._stage.pause(0.1)
        return next(host for host in self.hosts if host.name == name)


async def plane_of(stage: Stage, move: Move) -> PlaneOwner:
    item = await stage.cluster.control.get(group_key(group_of_slice(move.number)))
    assert item is not None
    return GroupRecord.decode(item.value).planes[plane_of_slice(move.number)]


async def until_step(stage: Stage, move: Move, step: str) -> bool:
    """Whether the move was seen at a step, before it was over."""
    nodes = {node.name: node for node in stage.cluster.nodes}
    while True:
        found = await plane_of(stage, move)
        if found.owner == move.target:
            return step == "finished"
        source, target = nodes[found.owner].engine, nodes[move.target].engine
        if found.state == MOVING and source and target and STEPS[step](move.number, (source, target, found)):
            return True
        await stage.pause(LOOK_EVERY_S)


async def until_over(stage: Stage, moves: list[Move]) -> None:
    deadline_s = stage.now_s + BOUND_S
    while stage.now_s < deadline_s:
        planes = [await plane_of(stage, move) for move in moves]
        if not await ordered_moves(stage.cluster.control) and all(found.state == ACTIVE for found in planes):
            return
        await stage.pause(0.05)
    stage.stuck.append(f"not over within {BOUND_S} virtual s: {[await plane_of(stage, m) for m in moves]}")


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("who", ["source", "target", "coordinator"])
def test_a_move_ends_with_one_owner_whoever_is_killed(who: str, step: str, seed: int) -> None:
    async def move_and_kill(stage: Stage) -> None:
        await stage.open()
        Fabric(stage.cluster)
        coordinators = Coordinators(stage)
        for host in coordinators.hosts:
            host.start()
        elected = await coordinators.elected()
        await stage.work()
        moves = (await draw_moves(stage.cluster, stage.world.stream("moves"), 4))[:2]
        work = stage.start_work()
        source = (await plane_of(stage, moves[0])).owner
        await order_moves(stage.cluster.control, moves)
        stage.figures["hit"] = float(await until_step(stage, moves[0], step))
        named = {"source": source, "target": moves[0].target}
        victim = elected if who == "coordinator" else stage.cluster.named(named[who])[0].host
        victim.kill()
        await stage.pause(stage.world.stream("down").uniform(0.1, 3.0))
        if who != "coordinator":
            victim.start()
        began_s = stage.now_s
        await until_over(stage, moves)
        stage.figures["over_s"] = stage.now_s - began_s
        await until_whole(stage, f"{who} killed when {step}")
        await asyncio.gather(*work)
        await stage.work()
        for move in moves:
            found = await plane_of(stage, move)
            if (found.owner, found.state) != (move.target, ACTIVE):
                stage.broken.append(f"{move} ends as {found}")
        if who == "coordinator":
            await stage.pause(2 * LEASE_MS / 1000)
            assert await coordinators.elected() is not elected

    scenario = replace(scenarios()["move"], replicas=3, play=move_and_kill)
    played = play_seed(scenario, seed, parts=Parts(gives_signs=True), swarm=Swarm(commit_ms=1), shape=SHAPE)
    assert played.is_good, tell(played)
    HIT[who, step] += int(played.figures["hit"])


def test_each_step_was_seen_when_somebody_was_killed_in_it() -> None:
    """Else the table shows less than it says. Runs behind the others."""
    if HIT:
        print(f"\n{'killed at':14}" + "".join(f"{who:>13}" for who in ("source", "target", "coordinator")))
        for step in STEPS:
            print(
                f"{step:14}"
                + "".join(f"{HIT[who, step]:>10}/{SEEDS}" for who in ("source", "target", "coordinator"))
            )
        assert all(count == SEEDS for count in HIT.values()), HIT
