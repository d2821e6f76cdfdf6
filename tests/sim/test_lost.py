"""All that a node had is rebuilt at others on a network without faults, at the cost of few transactions."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ssastore.core.groups import ACTIVE, GROUP_PREFIX, GroupRecord
from ssastore.core.ordering import forget_lost
from ssastore.keyspace import GROUP_BITS
from ssastore.limits import DRAIN_MS
from ssastore.rebalance import order_lost, ordered_moves, remove_node
from ssastore.sim.cluster import StoreHost
from ssastore.sim.fabric import Fabric
from ssastore.sim.runner import tell
from ssastore.sim.scenarios import scenarios
from ssastore.sim.stage import Stage, play_seed
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import Shape

SHAPE = Shape(keys=6, clients=4, operations=60, conditional_percent=30, pause_percent=80)


def slices_on_disk(node: StoreHost) -> set[int]:
    found = {int.from_bytes(key[:2], "big") for key in node.disk.contents.keys}
    return {slice16 for slice16 in found if slice16 >> GROUP_BITS < 3}


async def until_done(stage: Stage) -> None:
    async with asyncio.timeout(120):
        while await ordered_moves(stage.cluster.control):
            await asyncio.sleep(0.1)


async def owners(stage: Stage) -> set[tuple[str, str]]:
    items, _ = await stage.cluster.control.list(GROUP_PREFIX)
    records = [GroupRecord.decode(item.value) for item in items]
    return {(plane.owner, plane.state) for record in records for plane in record.planes}


def test_no_call_fails_when_a_node_is_lost_with_all_that_it_has() -> None:
    """And the node comes back: it drops what it had, and answers nothing in the name of it."""

    async def lose_one(stage: Stage) -> None:
        await stage.open()
        fabric = Fabric(stage.cluster)
        await stage.work()
        lost, control = stage.cluster.nodes[1], stage.cluster.control
        had = slices_on_disk(lost)
        assert had
        lost.host.power_off()
        work = stage.start_work()
        before = (await control.list(""))[1]
        moves, _ = await order_lost(control, [lost.name])
        await until_done(stage)
        changed = (await control.list(""))[1] - before
        assert len(moves) > 2000 and fabric.moves == len(moves)
        # Up to 32 slices are begun together: some 80 transactions to begin, as many to finish, a few more
        # for four targets, and their orders.
        assert changed < 240
        assert {state for _, state in await owners(stage)} == {ACTIVE}
        assert lost.name not in {owner for owner, _ in await owners(stage)}
        await asyncio.gather(*work)
        lost.host.start()
        await stage.work()
        assert slices_on_disk(lost) >= had
        await stage.pause(DRAIN_MS / 1000 + 5)
        assert lost.engine is not None and not lost.engine.acceptor.active
        assert slices_on_disk(lost) == set() and lost.engine.giver.dropped == len(had)
        await forget_lost(control, [lost.name])
        await remove_node(control, lost.name)

    scenario = replace(scenarios()["lost"], play=lose_one)
    played = play_seed(scenario, 1, swarm=Swarm(commit_ms=1), shape=SHAPE)
    assert played.is_good, tell(played)
    assert not {"unknown", "unavailable"} & played.outcomes.keys(), played.outcomes
