"""What a scenario plays on: one world with a cluster, clients and faults, and what came of it.

    async def play(stage: Stage) -> None:
        await stage.open()
        stage.faults.start()
        await stage.work()
        stage.calm()

``play_seed`` runs that from beginning to end and judges it: the histories of all keys by
the checker, the invariants that were watched meanwhile, and the scenario's own claims:
``stage.stuck`` for what did not get done, ``stage.broken`` for what may never be.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from ssastore.core.objects import Objects
from ssastore.core.tools import UpkeepRules
from ssastore.judge.checker import CLIENTS_MAX, OPS_MAX, Verdict, check
from ssastore.sim.clock import NS_PER_MS, NS_PER_S
from ssastore.sim.cluster import PARTS, QUIET, ClientHost, Parts, SimCluster
from ssastore.sim.datagrams import UnreliablePool
from ssastore.sim.faults import Faults
from ssastore.sim.host import Host
from ssastore.sim.loop import Quiescent, Runaway
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import Register, Shape, Told, make_bucket
from ssastore.sim.world import World

VIRTUAL_S_MAX = 3600
"A scenario that has not ended by then does not end."


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to use and to hurt a cluster.

    ``swarm`` and ``shape`` draw the settings of a seed; ``play`` is the run.
    """

    name: str
    about: str
    play: Callable[[Stage], Coroutine[Any, Any, None]]
    swarm: Callable[[int], Swarm]
    shape: Callable[[int], Shape] = lambda seed: Shape()
    nodes: int = 5
    replicas: int = 3
    deadline_ms: int = 5000
    "Of a client's call."
    rules: UpkeepRules = QUIET
    "When background work is due."
    register: type[Register] = Register


@dataclass(slots=True)
class Played:
    """What a seed came to. Small: it travels between processes."""

    scenario: str
    seed: int
    digest: str = ""
    steps: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    operations: int = 0
    messages: int = 0
    commits: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    crash: str = ""
    story: str = ""
    "Settings and last events, when something is wrong or was asked for."
    figures: dict[str, float] = field(default_factory=dict)
    "What the scenario measured."

    @property
    def is_good(self) -> bool:
        return not (self.violations or self.undecided or self.stuck or self.crash)


class Stage:
    """One run, while it is under way."""

    def __init__(self, scenario: Scenario, world: World, shape: Shape, cluster: SimCluster) -> None:
        self.scenario = scenario
        self.world = world
        self.shape = shape
        self.cluster = cluster
        self.told = Told()
        self.stuck: list[str] = []
        self.broken: list[str] = []
        self.figures: dict[str, float] = {}
        self.clients: list[ClientHost] = []
        self.objects: list[Objects] = []
        self.registers: list[Register] = []
        self._ways_back: list[Callable[[], None]] = []
        disks = [node.disk for node in cluster.nodes]
        self.faults = Faults(world.network, world.swarm, cluster.hosts, disks, cluster.control_network)

    async def open(self) -> None:
        """Start the nodes, connect the clients, make the bucket."""
        for node in self.cluster.nodes:
            node.host.start()
        while any(node.engine is None for node in self.cluster.nodes):
            await asyncio.sleep(0.01)
        for index in range(self.shape.clients):
            await self.add_client(f"client{index}")
        await self.on(0, "create bucket", make_bucket(self.objects[0]))
        self._send_astray()

    async def add_client(self, name: str) -> int:
        """One more client; its number."""
        index = len(self.clients)
        client = ClientHost(self.world, name, self.scenario.deadline_ms)
        self.clients.append(client)
        self.objects.append(await client.host.spawn("connect", client.objects()))
        self.registers.append(self._register(index, index))
        return index

    def _register(self, client: int, caller: int) -> Register:
        """The keys as one caller uses them, by way of a client; callers are what a history tells apart."""
        draw = self.world.stream(f"client {caller}")
        now_ns = self.world.loop.schedule
        return self.scenario.register(self.objects[client], self.told, caller, draw, lambda: now_ns.now_ns)

    def _send_astray(self) -> None:
        """Clients that find no route to a node go to the next plane: then several nodes propose one name."""
        draw = self.world.stream("astray")
        for client in self.clients:
            for node in draw.sample(
                self.cluster.hosts, min(self.world.swarm.astray, len(self.cluster.hosts))
            ):
                self._ways_back.append(self.world.network.routing.lose(client.host.name, node.name))
                for socket in list(client.host.sockets):
                    peer = socket.outbound.reader
                    if peer is not None and peer.process.owner is node:
                        socket.reset()

    def calm(self) -> None:
        """No more faults; what lasts ends now, and clients find all nodes again."""
        self.faults.stop()
        self.world.swarm.repeated_percent = self.world.swarm.lost_percent = 0
        for node in self.cluster.nodes:
            if node.engine is not None and isinstance(node.engine.mates, UnreliablePool):
                node.engine.mates.heal()
        while self._ways_back:
            self._ways_back.pop()()

    def on(self, client: int, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let a client do something, in its own process."""
        task: asyncio.Task[Any] = self.clients[client].host.spawn(name, work)
        return task

    async def work(self) -> None:
        """All clients do their share of the shape's calls."""
        await asyncio.gather(*self.start_work())

    def start_work(self) -> list[asyncio.Task[Any]]:
        """The same, without waiting."""
        clients = len(self.clients)
        more_callers = range(clients, clients * self.shape.callers)
        callers = self.registers + [self._register(caller % clients, caller) for caller in more_callers]
        share, more = divmod(self.shape.operations, len(callers))
        return [
            self.on(index % clients, "work", caller.some_operations(self.shape, share + (index < more)))
            for index, caller in enumerate(callers)
        ]

    async def within(self, seconds: float, what: str, tasks: list[asyncio.Task[Any]]) -> None:
        """Liveness: these tasks are done in time, or the run is stuck."""
        done, pending = await asyncio.wait(tasks, timeout=seconds)
        for task in done:
            task.result()
        if pending:
            names = ", ".join(sorted(task.get_name() for task in pending))
            self.stuck.append(f"{what}: not done within {seconds:g} virtual s: {names}")

    async def pause(self, seconds: float) -> None:
        """Let the world go on."""
        await asyncio.sleep(seconds)

    @property
    def now_s(self) -> float:
        """The world's time."""
        return self.world.loop.now_ns / NS_PER_S

    @property
    def hosts(self) -> list[Host]:
        """Of the nodes."""
        return self.cluster.hosts


def play_seed(
    scenario: Scenario,
    seed: int,
    *,
    parts: Parts = PARTS,
    swarm: Swarm | None = None,
    shape: Shape | None = None,
    until_ms: int = 0,
    is_told: bool = False,
) -> Played:
    """One seed from beginning to end.

    Args:
        swarm, shape: instead of the ones that the scenario draws.
        until_ms: stop at this virtual time, to see what had happened by then.
        is_told: the story is wanted although nothing is wrong.
    """
    swarm, shape = swarm or scenario.swarm(seed), shape or scenario.shape(seed)
    limit_s = until_ms / 1000 if until_ms else VIRTUAL_S_MAX
    world = World(seed, swarm, virtual_ms_max=int(limit_s * 1000))
    played = Played(scenario.name, seed)
    nodes = max(shape.nodes or scenario.nodes, scenario.replicas)
    cluster = SimCluster(world, nodes, scenario.replicas, replace(parts, rules=scenario.rules))
    stage = Stage(scenario, world, shape, cluster)
    try:
        world.run(scenario.play(stage))
    except Runaway as error:
        if not until_ms:
            played.stuck.append(f"it does not end: {error}")
    except Quiescent as error:
        played.stuck.append(f"everybody waits: {error}")
    except Exception as error:  # whatever it is, the seed is red and the next one runs
        played.crash = f"{type(error).__name__}: {error}"
    played.stuck += stage.stuck
    played.violations = [*cluster.invariants.violations, *stage.broken, *stage.told.violations]
    for key, history in stage.told.histories.items():
        if len(history) > OPS_MAX or len({op.client for op in history}) > CLIENTS_MAX:
            played.undecided.append(f"{key}: more calls or clients than can be judged")
            continue
        judgement = check(history)
        if judgement.verdict is Verdict.VIOLATION:
            played.violations.append(f"{key}: {judgement}")
        elif judgement.verdict is Verdict.UNDECIDED:
            played.undecided.append(f"{key}: {judgement}")
    played.digest, played.steps = world.digest(), world.loop.steps
    played.virtual_s = world.loop.now_ns / NS_PER_MS / 1000
    played.operations, played.outcomes = stage.told.operations, stage.told.outcomes
    played.messages, played.commits = cluster.messages, cluster.commits
    played.faults, played.figures = Counter(stage.faults.happened), stage.figures
    if is_told or not played.is_good:
        played.story = f"{shape.describe()}\n{world.report()}"
    return played
