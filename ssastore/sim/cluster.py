"""Simulated nodes that run what production runs: ``engine.Engine`` below, Pool and Objects above.

Only the store is the one in memory, the control store is the one of this process, and
clock, randomness and links come from the world.  A node that starts again goes through
the same boot as a worker process does: it finds its environment's id in its own store
and raises the boot number before it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ssastore.control.memory import MemoryControlStore
from ssastore.control.state import ControlState, Entry
from ssastore.core.cluster import CLUSTER_KEY, Cluster, ClusterRecord, NodeRecord, group_key, node_key
from ssastore.core.objects import Objects
from ssastore.core.planner import initial_layout, owned_slices
from ssastore.engine import Engine, Holding, Outside, Place, holding_of
from ssastore.keyspace import Slice, range_cover
from ssastore.sim.clock import EPOCH_MS
from ssastore.sim.dial import VirtualLinks
from ssastore.sim.host import Host
from ssastore.sim.world import NODE_ADDRESSES, SERVICE, World
from ssastore.store.memory import MemoryStore
from ssastore.transport.connection import Identity
from ssastore.transport.pool import Pool
from ssastore.transport.session import Credentials

PORT = 7480
KEY, SECRET = "TESTKEY", b"test-secret"
CREDENTIALS = Credentials(b"c" * 32, {KEY: SECRET})
CLUSTER_ID = "ab" * 16


@dataclass(frozen=True)
class Parts:
    """What a node is made of; a planted fault is a part exchanged for another."""

    store: Callable[..., MemoryStore] = MemoryStore
    engine: type[Engine] = Engine


PARTS = Parts()


@dataclass(frozen=True)
class Layout:
    """A cluster as its control store describes it, the same for all seeds of one size."""

    cluster: Cluster
    holdings: dict[str, Holding]
    covers: dict[str, list[Slice]]
    control: ControlState
    "To be copied."


@lru_cache(maxsize=8)
def layout_of(nodes: int, replicas: int) -> Layout:
    """Nodes ``node0``, ``node1`` ... that share every plane evenly."""
    record = ClusterRecord(CLUSTER_ID, str(SERVICE), replicas, EPOCH_MS)
    members = tuple(
        NodeRecord(f"node{index}", NODE_ADDRESSES.format(index + 1), PORT) for index in range(nodes)
    )
    groups = tuple(initial_layout(members, replicas))
    cluster = Cluster(record, members, groups)
    cluster.check()
    entries = {CLUSTER_KEY: record.encode()}
    entries |= {node_key(member.name): member.encode() for member in members}
    entries |= {group_key(group.group): group.encode() for group in groups}
    return Layout(
        cluster,
        {member.name: holding_of(cluster, member.name) for member in members},
        {member.name: _cover(owned_slices(groups, member.name)) for member in members},
        ControlState(revision=1, entries={key: Entry(value, 1) for key, value in entries.items()}),
    )


def _cover(slices: list[Slice]) -> list[Slice]:
    """The fewest prefixes that are exactly these slices, which are in address order."""
    pieces: list[Slice] = []
    first = end = -1
    for piece in slices:
        if piece.first == end:
            end = piece.end
            continue
        if end >= 0:
            pieces += range_cover(first, end)
        first, end = piece.first, piece.end
    return pieces + range_cover(first, end)


class StoreHost:
    """A node with one worker. What it committed outlives its process."""

    def __init__(
        self, world: World, name: str, layout: Layout, control: MemoryControlStore, parts: Parts
    ) -> None:
        self._holding = layout.holdings[name]
        self._control = control
        self._engine_type = parts.engine
        self.store = parts.store(commit_ms=world.swarm.commit_ms)
        self.engine: Engine | None = None
        "Of the process that runs, once it has booted."
        self.host = world.host(name, self._program)
        self.host.on_down.append(self._crash)
        for piece in layout.covers[name]:
            self.host.accept(piece)
            world.network.routing.announce(piece, name)

    def _crash(self) -> None:
        self.engine = None
        self.store.crash()

    async def _program(self, host: Host) -> None:
        """What a worker process does, without the process."""
        outside = Outside(
            self.store, self._control.another_client(), VirtualLinks(), host.clock, host.randomness()
        )
        engine = await self._engine_type.start(outside, Place(host.name, 0, 1, CREDENTIALS), self._holding)
        await asyncio.get_running_loop().create_server(engine.service.session, "::", PORT)
        engine.begin()
        self.engine = engine


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
        return Objects(pool, self.host.clock, randomness)


def store_hosts(world: World, count: int, replicas: int, parts: Parts = PARTS) -> list[StoreHost]:
    """The nodes of a cluster; they are off."""
    layout = layout_of(count, replicas)
    control = MemoryControlStore(state=layout.control.copy())
    return [StoreHost(world, node.name, layout, control, parts) for node in layout.cluster.nodes]
