"""Fight: few keys, several proposers for each, calls that are repeated: here is common what is rare.

Clients find their way to different planes, connections break, nodes restart, and all
that many times a second.  This is where planted faults are looked for.
"""

from __future__ import annotations

from ssastore.sim.clock import NS_PER_MS
from ssastore.sim.scenarios.safety import play
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario
from ssastore.sim.swarm import Swarm, draw_swarm
from ssastore.sim.workload import Shape

_KINDS = ("reset", "one_way", "cut", "isolate", "astray", "pause", "kill", "power_off")


def swarm(seed: int) -> Swarm:
    """Faults of network and processes, close together and short, and clients that are astray."""
    drawn = draw_swarm(seed, _KINDS)
    draw = Stream(seed, "fight")
    drawn.lag_ns_max = 0
    drawn.weights.setdefault("reset", 0.5)
    drawn.every_ns = draw.choice((10, 30, 80)) * NS_PER_MS
    drawn.lasting_ns = draw.choice((20, 100, 500)) * NS_PER_MS
    drawn.astray = draw.choice((1, 2, 2))
    drawn.lost_percent = draw.choice((0, 10, 30))
    drawn.commit_ms = draw.choice((0, 1, 5))
    drawn.weather.late_share = draw.choice((0.0, 0.02, 0.05))
    drawn.weather.bytes_per_s = 0
    return drawn


def shape(seed: int) -> Shape:
    """Everybody at one to three keys."""
    draw = Stream(seed, "fight shape")
    return Shape(
        keys=draw.randint(1, 3),
        clients=5,
        operations=draw.randint(60, 90),
        weights=draw.choice(((4, 5, 1), (3, 5, 2), (1, 1, 0))),
        conditional_percent=draw.choice((30, 70, 95)),
        pause_percent=draw.choice((0, 20, 50)),
    )


SCENARIO = Scenario("fight", "few keys, many proposers, repeated calls", play, swarm, shape)
