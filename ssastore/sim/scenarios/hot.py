"""Hot names: callers of the same clients read and write one or two of them all the time, under every fault.

Callers of one client share reads (``core.sharedreads``).
"""

from __future__ import annotations

from ssastore.sim.scenarios.safety import is_large, play, swarm
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario
from ssastore.sim.workload import Shape


def shape(seed: int) -> Shape:
    """Four or five callers, of one client or of two, who mostly read."""
    draw = Stream(seed, "hot shape")
    clients, callers = draw.choice(((1, 4), (1, 5), (2, 2)))
    return Shape(
        keys=draw.randint(1, 2),
        clients=clients,
        callers=callers,
        operations=draw.randint(60, 80) if is_large(seed) else draw.randint(30, 50),
        weights=draw.choice(((8, 3, 1), (5, 4, 1))),
        conditional_percent=draw.choice((0, 30, 60)),
        pause_percent=draw.choice((0, 0, 30)),
    )


SCENARIO = Scenario("hot", "callers of one client share reads of few names; all faults", play, swarm, shape)
