"""Large: as ``safety``, but every seed has more calls on more keys, and faults may last for seconds."""

from __future__ import annotations

from ssastore.sim.scenarios.safety import large_shape, large_swarm, play
from ssastore.sim.stage import Scenario

SCENARIO = Scenario(
    "large", "safety with more calls and longer faults in each seed", play, large_swarm, large_shape
)
