"""Simulated nodes that run what production runs: ``engine.Engine`` below, Pool and Objects above.

Only the store is the one in memory behind a faulty disk, the control store is one of this
process, and clock, randomness and links come from the world.  A node that starts again goes through
the same boot as a worker process does: it finds its environment's id in its own store
and raises the boot number before it serves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from ssastore.control.memory import MemoryControlStore
from ssastore.control.state import ControlState, Entry
from ssastore.core.cluster import CLUSTER_KEY, Cluster, ClusterRecord, NodeRecord, node_key
from ssastore.core.custody import Custody
from ssastore.core.groups import GROUP_PREFIX, group_key, group_of_key
from ssastore.core.held import Held, Listing, by_count
from ssastore.core.membership import Heartbeat
from ssastore.core.objects import Objects
from ssastore.core.ownership import OwnedPrefixes
from ssastore.core.planner import initial_layout
from ssastore.core.tools import UpkeepRules
from ssastore.engine import Engine, Holding, Outside, Place, holding_of
from ssastore.env import Item, spawn
from ssastore.errors import CorruptObject, DataDirError, EnvironmentProblem, StoreFull, Unavailable
from ssastore.keyspace import PrefixTable
from ssastore.sim.clock import EPOCH_MS, NS_PER_MS
from ssastore.sim.control import ControlNetwork, VirtualControlStore
from ssastore.sim.datagrams import UnreliablePool
from ssastore.sim.dial import VirtualLinks
from ssastore.sim.disk import Disk
from ssastore.sim.host import Host
from ssastore.sim.invariants import Invariants
from ssastore.sim.world import NODE_ADDRESSES, SERVICE, World
from ssastore.transport.connection import Identity
from ssastore.transport.credentials import Credentials
from ssastore.transport.pool import Pool

PORT = 7480
KEY, SECRET = "TESTKEY", b"test-secret"
CREDENTIALS = Credentials(b"c" * 32, {KEY: SECRET})
CLUSTER_ID = "ab" * 16

QUIET = UpkeepRules(scrub_first_s=float("inf"))
"Runs that are not about scrubbing are without: a pass asks about every slice that there is."

_RESTART_S = 0.5
"Until the supervisor starts a worker again that could not start."


class _Same:
    """A thing as a key: equal to itself only, so that nobody compares thousands of items."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.thing is self.thing


_untouched: dict[_Same, tuple[Sequence[Item], Listing]] = {}
"By a worker's groups: the listing of a cluster of which nothing was ever changed, and what it says."


@lru_cache(maxsize=64)
def _read_listing(items: _Same, mine: _Same) -> Listing:
    before, known = _untouched.get(mine, ((), None))
    if known is not None and len(before) == len(items.thing):
        changed = [
            now for now, then in zip(items.thing, before, strict=True) if now is not then and now != then
        ]
        listing = Custody.read_listing(changed, mine.thing)
        if not listing.untouched:
            groups = [group_of_key(item.key) for item in changed]
            return _without(known, groups, mine.thing, listing.others)
    listing = Custody.read_listing(items.thing, mine.thing)
    if not listing.others:
        _untouched[mine] = items.thing, listing
    return listing


def _without(
    known: Listing, groups: Sequence[int | None], mine: Mapping[int, tuple[int, ...]], others: list[Held]
) -> Listing:
    """A listing in which these groups are not untouched any more; ``others`` are they."""
    untouched, cfgs = dict(known.untouched), dict(known.cfgs)
    for group in groups:
        if group is not None and group in mine:
            del untouched[group]
            for number in mine[group]:
                del cfgs[number]
    return Listing(untouched, cfgs, others, by_count(untouched))


class SimCustody(Custody):
    """Custody that reads a listing once for all processes that get the very same one.

    A worker reads the records of 4096 groups when it starts, here a dozen times a seed.  Of the listings
    that come after a move or a recovery only what differs is read.
    """

    @staticmethod
    def read_listing(items: Sequence[Item], mine: Mapping[int, tuple[int, ...]]) -> Listing:
        return _read_listing(_Same(items), _Same(mine))


class SimEngine(Engine):
    """The engine over a network that may deliver a node's request twice."""

    pool_type = UnreliablePool
    custody_type = SimCustody


@dataclass(frozen=True)
class Parts:
    """What a node is made of; a planted fault is a part exchanged for another."""

    disk: type[Disk] = Disk
    engine: type[Engine] = SimEngine
    rules: UpkeepRules = QUIET
    gives_signs: bool = False
    "Keeps a lease; runs in which nobody looks are without."


PARTS = Parts()


@dataclass(frozen=True)
class Layout:
    """A cluster as its control store describes it, the same for all seeds of one size."""

    cluster: Cluster
    holdings: dict[str, Holding]
    accepted: dict[str, PrefixTable[bool]]
    "By node: the fewest prefixes that are exactly its slices."
    routes: PrefixTable[str]
    "To the nodes by those prefixes."
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
    control = ControlState(revision=1, entries={key: Entry(value, 1) for key, value in entries.items()})
    control.items(GROUP_PREFIX)  # What every start asks for; copies know the answer.
    owned = OwnedPrefixes(groups)
    covers = {member.name: owned.of(member.name) for member in members}
    return Layout(
        cluster,
        {member.name: holding_of(cluster, member.name) for member in members},
        {name: PrefixTable((piece, True) for piece in cover) for name, cover in covers.items()},
        PrefixTable((piece, name) for name, cover in covers.items() for piece in cover),
        control,
    )


class StoreHost:
    """A node with one worker. What it committed outlives its process."""

    def __init__(self, cluster: SimCluster, name: str, parts: Parts, *, twin: str = "") -> None:
        """``twin``: a second host that runs as the node ``name``; no route leads to it yet."""
        world, layout = cluster.world, cluster.layout
        self._cluster = cluster
        self.name = name
        self.line = ControlNetwork()
        "This node's own way to the control store."
        self._holding = layout.holdings[name]
        self._engine_type = parts.engine
        self._rules, self._gives_signs = parts.rules, parts.gives_signs
        self.disk = parts.disk(draw=world.stream(f"disk {twin or name}"), commit_ms=world.swarm.commit_ms)
        self.disk.watch = partial(cluster.invariants.committed, twin or name)
        self.env_id = 0
        "Of the environment that was started last."
        self.engine: Engine | None = None
        "Of the process that runs, once it has booted."
        self.requests: Counter[int] = Counter()
        "By type, of the processes that are dead."
        self.host = world.host(twin or name, self._program)
        self.host.on_down.append(self._crash)
        self.host.accept_only(layout.accepted[name])

    def _crash(self) -> None:
        self.requests = self.all_requests()
        self.engine = None
        self.disk.crash()

    def all_requests(self) -> Counter[int]:
        """Requests that were taken, by type, in all of the node's processes."""
        alive = self.engine.service.counters.requests if self.engine is not None else {}
        return self.requests + Counter(alive)

    async def _program(self, host: Host) -> None:
        """What a worker process does, and its supervisor when it cannot start yet."""
        while True:
            control = VirtualControlStore(
                self._cluster.control.another_client(), self._cluster.control_network, self.line
            )
            outside = Outside(self.disk, control, VirtualLinks(), host.clock, host.randomness())
            try:
                engine = await self._engine_type.start(
                    outside, Place(self.name, 0, 1, CREDENTIALS), self._holding, rules=self._rules
                )
                break
            except (DataDirError, CorruptObject) as error:
                self._cluster.world.loop.note(f"{host.name} does not start: {error}")
                return  # An operator would have to look at it.
            except (Unavailable, StoreFull, EnvironmentProblem):
                await asyncio.sleep(_RESTART_S)
        self.env_id = engine.environment.env_id
        self._cluster.invariants.watch_votes(host.name, self.env_id, engine.acceptor, engine.custody)
        if isinstance(engine.mates, UnreliablePool):
            swarm = self._cluster.world.swarm
            engine.mates.harm(swarm.repeated_percent, swarm.lost_percent, host.randomness("harm"))
        await asyncio.get_running_loop().create_server(engine.service.session, "::", PORT)
        engine.begin()
        if self._gives_signs:
            spawn("keep lease", Heartbeat(control, self.name, engine.environment, host.clock).run())
        self.engine = engine


class SimCluster:
    """The nodes, which are off, and the control store of one cluster.

    Args:
        nodes, replicas: how many.
        parts: of every node.
    """

    def __init__(self, world: World, nodes: int, replicas: int, parts: Parts = PARTS) -> None:
        self.world = world
        self.layout = layout_of(nodes, replicas)
        # Leases by the world's time: every process's own clock runs as it likes.
        self.control = MemoryControlStore(
            now_ms=lambda: world.loop.now_ns // NS_PER_MS, state=self.layout.control.copy()
        )
        self.control_network = ControlNetwork()
        self.invariants = Invariants(replicas, world.loop.note)
        self._parts = parts
        world.network.routing.settle(self.layout.routes)
        self.nodes = [StoreHost(self, node.name, parts) for node in self.layout.cluster.nodes]
        self._ever = list(self.nodes)

    def add_twin(self, node: StoreHost) -> StoreHost:
        """A second host for a node, with an empty disk; it is off."""
        twin = StoreHost(self, node.name, self._parts, twin=f"{node.host.name}-twin")
        twin.host.accept_only(node.host.accepted)
        self._ever.append(twin)
        return twin

    def named(self, name: str) -> list[StoreHost]:
        """All hosts that run, or ran, as a node."""
        return [node for node in self._ever if node.name == name]

    @property
    def hosts(self) -> list[Host]:
        """Of the nodes."""
        return [node.host for node in self.nodes]

    @property
    def messages(self) -> int:
        """Requests that all nodes were sent, by clients and by one another."""
        return sum(sum(node.all_requests().values()) for node in self.nodes)

    @property
    def commits(self) -> int:
        """Of all disks."""
        return sum(node.disk.commits for node in self.nodes)


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
