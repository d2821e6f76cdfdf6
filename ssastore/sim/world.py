"""One run: loop, network and faults of a seed, from the first callback to the digest.

    world = World(seed, draw_swarm(seed))
    world.run(main(world))

``main`` runs in the world itself, outside all hosts: it makes hosts, starts them,
lets faults happen and judges.  Whatever it raises ends the run; the report then
holds the settings and the last events, and the seed repeats it.
"""

from __future__ import annotations

import gc
from collections.abc import Coroutine
from ipaddress import IPv6Network
from typing import Any, TypeVar

from ssastore import env
from ssastore.keyspace import service_network
from ssastore.sim.clock import EXACT_PPM, NS_PER_S
from ssastore.sim.host import Host, Program
from ssastore.sim.loop import STEPS_MAX, VirtualLoop
from ssastore.sim.network import Network
from ssastore.sim.seeds import Stream
from ssastore.sim.swarm import Swarm
from ssastore.sim.traps import traps

T = TypeVar("T")

SERVICE = service_network("fd5a:1:2:3::/64")
NODE_ADDRESSES = "fd5a:ffff::{:x}"

_ORIGIN_S_MAX = 10 * 24 * 3600
"A host's monotonic clock starts anywhere up to this."


class World:
    """Everything of one seed.

    Args:
        swarm: the settings; by default nothing fails.
        service: the service prefix.
        steps_max, virtual_ms_max: bounds of the run (``loop.Runaway``).
    """

    def __init__(
        self,
        seed: int,
        swarm: Swarm | None = None,
        *,
        service: IPv6Network = SERVICE,
        steps_max: int = STEPS_MAX,
        virtual_ms_max: int = 24 * 3600 * 1000,
    ) -> None:
        self.seed = seed
        self.swarm = swarm or Swarm()
        self.loop = VirtualLoop(seed, steps_max=steps_max, virtual_ms_max=virtual_ms_max)
        self.loop.schedule.deschedule_every = self.swarm.deschedule_every
        self.loop.schedule.deschedule_ns = self.swarm.deschedule_ns
        self.network = Network(self.loop, seed, service, self.swarm.weather)
        self.network.routing.lag_ns_max = self.swarm.lag_ns_max
        self._draw = Stream(seed, "world")

    def stream(self, purpose: str) -> Stream:
        """Randomness for one purpose."""
        return Stream(self.seed, purpose)

    def host(self, name: str, program: Program | None = None) -> Host:
        """Add a host with the next node address and clocks as wrong as the swarm wants them."""
        drift_ppm, offset_ms = self.swarm.drift_ppm, self.swarm.offset_ms
        return self.network.host(
            name,
            NODE_ADDRESSES.format(len(self.network.hosts) + 1),
            program,
            origin_ns=self._draw.randrange(_ORIGIN_S_MAX * NS_PER_S),
            rate_ppm=EXACT_PPM + self._draw.randint(-drift_ppm, drift_ppm),
            offset_ms=self._draw.randint(-offset_ms, offset_ms),
        )

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end of ``main``. A world runs once.

        Raises:
            what ``main`` raises, or the first error of a callback; with the report as a note.
            Quiescent, Runaway: see ``loop``.
        """
        was_collecting, running = gc.isenabled(), env._running
        gc.disable()
        env._running = set()
        try:
            with traps():
                result = self.loop.run_until_complete(main)
            self.loop.sweep()
            if self.loop.errors:
                raise self.loop.errors[0]
            return result
        except BaseException as error:
            error.add_note(self.report())
            raise
        finally:
            # What nobody will run must not be kept by the set of running tasks either.
            env._running = running
            self.loop.retire()
            if was_collecting:
                gc.enable()

    def digest(self) -> str:
        """Equal for two runs exactly when the same happened in the same order."""
        return self.loop.trace.digest()

    def report(self) -> str:
        """What a failure prints: how to repeat the run, and how it ended."""
        loop = self.loop
        figures = f"{loop.steps} callbacks, {loop.now_ns / NS_PER_S:.3f} virtual s, digest {self.digest()}"
        return "\n".join([f"seed {self.seed}: {figures}", self.swarm.describe(), *loop.trace.story])
