"""Change: small seeds, each with one round of slices that move, or that are lost and recovered.

Half of the seeds play a round of ``move``, half one of ``lost``, with as few calls as a small seed of
``safety`` has and faults as close together, so that tens of thousands can be run.  In the end every
slice has an owner that votes.
"""

from __future__ import annotations

from ssastore.sim.scenarios import lost, move, safety
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm
from ssastore.sim.upkeep import UpkeepRegister
from ssastore.sim.workload import Shape


async def play(stage: Stage) -> None:
    fabric = await move.open_marked(stage)
    draw = stage.world.stream("change")
    gone = []
    if draw.chance(0.5):
        await move.play_round(stage, 0, draw)
    else:
        gone = await lost.play_round(stage, 0, draw)
    stage.calm()
    await stage.work()
    await lost.check_owners(stage, gone)
    stage.figures["moves"] = fabric.moves


def swarm(seed: int) -> Swarm:
    """Those of ``move``, so close together that a small seed has some."""
    drawn, draw = move.swarm(seed), Stream(seed, "small")
    drawn.every_ns = draw.choice((10, 30, 100)) * 1_000_000
    drawn.lasting_ns = draw.choice((20, 100, 300)) * 1_000_000
    drawn.faults_max = 25
    return drawn


def shape(seed: int) -> Shape:
    """A few calls before, during and after; on up to four keys, so that all of them are where slices move."""
    drawn = safety.large_shape(seed)
    draw = Stream(seed, "small shape")
    drawn.operations, drawn.keys = draw.randint(6, 12), draw.randint(1, 4)
    return drawn


SCENARIO = Scenario(
    "change",
    "one round of moves or of a lost node in a small seed; in the end every slice has an owner",
    play,
    swarm,
    shape,
    nodes=5,
    register=UpkeepRegister,
)
