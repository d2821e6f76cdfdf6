"""Outcast: a node is given up while it lives on, cut off from the control store and from a mate.

Its slices are recovered at others, while it goes on proposing and voting for whoever still sends to it:
with the mate that it reaches it makes a majority, until that one is fenced.  This is where a recovery at
another node that leaves out a step shows, as in ``zombie`` one in the node's place.
"""

from __future__ import annotations

import asyncio

from ssastore.core.ordering import forget_lost
from ssastore.rebalance import order_moves
from ssastore.sim.fabric import Fabric
from ssastore.sim.scenarios import zombie
from ssastore.sim.scenarios.lost import recoveries, until_over
from ssastore.sim.scenarios.recovery import until_whole
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm
from ssastore.sim.upkeep import UpkeepRegister


async def play(stage: Stage) -> None:
    await stage.open()
    Fabric(stage.cluster)
    draw = stage.world.stream("outcast")
    stage.faults.start()
    work = stage.start_work()
    await stage.pause(draw.uniform(0.05, 0.5))
    nodes = stage.cluster.nodes
    lost = draw.choice(nodes)
    lost.line.is_down = True
    mate = draw.choice([node for node in nodes if node is not lost])
    network = stage.world.network
    undo = [network.cut([lost.host], [mate.host]), network.cut([mate.host], [lost.host])]
    await forget_lost(stage.cluster.control, [lost.name])
    moves = await recoveries(stage, draw, lost)
    await order_moves(stage.cluster.control, moves)
    await asyncio.gather(*work)
    work = stage.start_work()
    alive = [node for node in nodes if node is not lost]
    await until_over(stage, moves, alive, f"{lost.name} is given up")
    await asyncio.gather(*work)
    for back in undo:
        back()
    lost.line.is_down = False
    await until_whole(stage, f"{lost.name} is back")
    stage.calm()
    await stage.work()


def swarm(seed: int) -> Swarm:
    """As of ``zombie``, and routes that settle late."""
    drawn = zombie.swarm(seed)
    drawn.lag_ns_max = 2_000_000_000
    return drawn


SCENARIO = Scenario(
    "outcast",
    "a node is given up while it lives on, and its slices are recovered at others",
    play,
    swarm,
    zombie.shape,
    nodes=5,
    register=UpkeepRegister,
)
