"""Simulated hosts that run what production runs: Service, Session, Acceptor below, Pool and Objects above.

Only the store is the one in memory, and clock and randomness come from the seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgpack

from ssastore.core.acceptor import Acceptor, encode_coverage
from ssastore.core.objects import Objects
from ssastore.core.register import Ballots
from ssastore.keyspace import range_cover
from ssastore.sim.dial import VirtualLinks
from ssastore.sim.host import Host
from ssastore.sim.world import World
from ssastore.store.memory import MemoryStore
from ssastore.transport.connection import Identity
from ssastore.transport.pool import Pool
from ssastore.transport.session import Credentials, Service

PORT = 7480
KEY, SECRET = "TESTKEY", b"test-secret"
CREDENTIALS = Credentials(b"c" * 32, {KEY: SECRET})
CLUSTER_ID = "ab" * 16


@dataclass(frozen=True)
class Parts:
    """What a node is made of; tests exchange a part for one with a planted fault."""

    store: Callable[..., MemoryStore] = MemoryStore
    acceptor: type[Acceptor] = Acceptor


PARTS = Parts()


class InOrder(dict):  # type: ignore[type-arg]
    """What ``Service`` and ``Pool`` need of a set, walked in the order of addition.

    Theirs are sets of connections, which are walked in the order of memory addresses: two runs of one
    seed in two processes then close connections in different orders.
    """

    def add(self, member: object) -> None:
        self[member] = None

    def discard(self, member: object) -> None:
        self.pop(member, None)

    def __iter__(self) -> Iterator[object]:
        return iter(list(self.keys()))


class StoreHost:
    """A node with one worker that owns a part of plane 0. What it committed outlives its process."""

    def __init__(self, world: World, name: str, slices: range, parts: Parts) -> None:
        self._slices = slices
        self._make_acceptor = parts.acceptor
        self._store = parts.store(commit_ms=world.swarm.commit_ms)
        self.host = world.host(name, self._program)
        self.host.on_down.append(self._store.crash)
        for piece in range_cover(slices.start << 48, slices.stop << 48):
            self.host.accept(piece)
            world.network.routing.announce(piece, name)

    async def _program(self, host: Host) -> None:
        acceptor = self._make_acceptor(replicas=1, worker=0, workers=1, ballots=Ballots(1, 1))
        acceptor.activate(set(self._slices))
        service = Service(
            store=self._store,
            acceptor=acceptor,
            credentials=CREDENTIALS,
            cluster_id=CLUSTER_ID,
            clock=host.clock,
            randomness=host.randomness(),
            describe=lambda: msgpack.packb({"node": host.name}),
        )
        service.sessions = InOrder()  # type: ignore[assignment]
        service.coverage = encode_coverage(acceptor.active, 1)
        await asyncio.get_running_loop().create_server(service.session, "::", PORT)
        while True:
            await asyncio.sleep(1)
            service.reap()


class ClientHost:
    """A host with one client. To be made inside the run; the calls belong into ``host.spawn``."""

    def __init__(self, world: World, name: str, deadline_ms: int) -> None:
        self.host = world.host(name)
        self.host.start()
        self._deadline_ms = deadline_ms
        self._world = world

    async def objects(self) -> Objects:
        """The client; to be called in the host's process."""
        randomness = self.host.randomness()
        pool = Pool(
            self._world.network.service,
            PORT,
            Identity("client", KEY, SECRET),
            links=VirtualLinks(),
            randomness=randomness,
            deadline_ms=self._deadline_ms,
        )
        pool._connections = InOrder()  # type: ignore[assignment]
        return Objects(pool, self.host.clock, randomness)


def store_hosts(world: World, count: int, parts: Parts = PARTS) -> list[StoreHost]:
    """Hosts that share plane 0; they are off."""
    step = 4096 // count
    ends = [*(step * index for index in range(count)), 4096]
    return [
        StoreHost(world, f"node{index}", range(ends[index], ends[index + 1]), parts) for index in range(count)
    ]
