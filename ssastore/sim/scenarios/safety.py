"""Safety: whatever fails, nobody is told anything that one register could not have said.

Every kind of fault, in a drawn mixture, from before the first call to after the last.
What could not be done is no failure here; what was told must be true.

Most seeds are small: what counts is what is found in a second of processor time, and a small seed finds
as much for its time as a large one (measured with planted faults: ADR 0007).  A few are large, as all of
the scenario ``large`` are: some faults may need a long history, or a long outage.
"""

from __future__ import annotations

from ssastore.env import spawn
from ssastore.rebalance import order_moves
from ssastore.sim.clock import NS_PER_MS
from ssastore.sim.fabric import Fabric, draw_moves
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm, draw_swarm
from ssastore.sim.workload import Shape

_LARGE_SHARE = 0.025
"Of the seeds; they take a tenth of the time."
_LATE_MS_MAX = 300
_MOVES_SHARE = 0.5
"Of the seeds with a node to spare: about a fifth of all."
_SLICES_MAX = 4


async def play(stage: Stage) -> None:
    await stage.open()
    stage.faults.start()
    has_spare = len(stage.cluster.nodes) > stage.scenario.replicas
    if has_spare and stage.world.stream("moves").chance(_MOVES_SHARE):
        spawn("moves", _move(stage))
    await stage.work()
    stage.calm()


async def _move(stage: Stage) -> None:
    """Some slices change their owner meanwhile, if they get there."""
    draw, fabric = stage.world.stream("which moves"), Fabric(stage.cluster)
    await stage.pause(draw.uniform(0.0, _LATE_MS_MAX / 1000))
    await order_moves(stage.cluster.control, await draw_moves(stage.cluster, draw, _SLICES_MAX))
    while True:
        stage.figures["moves"] = fabric.moves
        await stage.pause(0.1)


def is_large(seed: int) -> bool:
    """Whether a seed is one of the few large ones."""
    return Stream(seed, "size").chance(_LARGE_SHARE)


def swarm(seed: int) -> Swarm:
    """All faults; in a small seed so close together that it has some, and so short that calls get on."""
    if is_large(seed):
        return large_swarm(seed)
    drawn, draw = draw_swarm(seed), Stream(seed, "small")
    drawn.lag_ns_max = 0  # Routes do not change here.
    drawn.every_ns = draw.choice((10, 30, 100)) * NS_PER_MS
    drawn.lasting_ns = draw.choice((20, 100, 300)) * NS_PER_MS
    drawn.faults_max = 25
    drawn.lost_percent = draw.choice((0, 0, 10))
    drawn.astray = draw.choice((0, 1, 2))
    drawn.commit_ms = draw.choice((0, 1, 5))
    drawn.weather.late_ns = min(drawn.weather.late_ns, _LATE_MS_MAX * NS_PER_MS)
    return drawn


def shape(seed: int) -> Shape:
    """12 to 26 calls of 3 to 5 clients on up to four keys, mostly of three nodes: all of them matter."""
    drawn = large_shape(seed)
    if not is_large(seed):
        draw = Stream(seed, "small shape")
        drawn.operations = draw.randint(12, 26)
        drawn.keys = draw.randint(1, 4)
        drawn.nodes = draw.choice((3, 3, 3, 4, 5))
    return drawn


def large_swarm(seed: int) -> Swarm:
    """All faults, some of them for seconds."""
    drawn = draw_swarm(seed)
    drawn.lag_ns_max = 0
    draw = Stream(seed, "closeness")
    drawn.every_ns = draw.choice((10, 30, 100, 300)) * NS_PER_MS
    drawn.lasting_ns = draw.choice((20, 200, 1000, 4000)) * NS_PER_MS
    return drawn


def large_shape(seed: int) -> Shape:
    """60 to 80 calls of 3 to 5 clients on 10 to 20 keys, or on two to four that all fight for."""
    draw = Stream(seed, "shape")
    drawn = Shape(
        keys=draw.randint(10, 20),
        clients=draw.randint(3, 5),
        operations=draw.randint(60, 80),
        hot_percent=draw.choice((20, 60, 80)),
        weights=draw.choice(((5, 4, 1), (3, 6, 1), (6, 3, 2))),
        conditional_percent=draw.choice((30, 60, 90)),
        pause_percent=draw.choice((0, 30, 60)),
    )
    if draw.chance(0.25):
        drawn.keys = draw.randint(2, 4)
    return drawn


SCENARIO = Scenario("safety", "all faults at once; what was told must be linearizable", play, swarm, shape)
