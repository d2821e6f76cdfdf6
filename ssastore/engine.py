"""One worker without an operating system: all that serves a node's slices, put together once.

``worker.py`` gives it a process: signals, a listening socket, LMDB, files.  The
simulator gives it a simulated host, with everything in memory and time on its own.
What runs in between is the same code, and it is named here and nowhere else:

    start    the environment's id and boot number, then acceptor, service, proposer
    begin    the background jobs, listed in ``jobs``
    end      no more jobs and no open connection

No clock, randomness, socket or file comes from anywhere but ``Outside``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgpack

from ssastore.core.acceptor import Acceptor, encode_coverage
from ssastore.core.boot import start_environment
from ssastore.core.cluster import NATIVE_PORT, Cluster, ClusterRecord
from ssastore.core.coordinator import MATE_BUDGET_MS, Coordinator
from ssastore.core.planner import owned_slices
from ssastore.core.proposer import Proposer
from ssastore.core.register import Ballots
from ssastore.core.registers import Registers
from ssastore.core.settle import Settler
from ssastore.core.steady import SteadyClock
from ssastore.core.tools import Tools, UpkeepRules
from ssastore.core.upkeep import Upkeep
from ssastore.env import Clock, ControlStore, Links, Randomness, Store, spawn
from ssastore.errors import ConfigError
from ssastore.keyspace import slice16_of
from ssastore.transport.connection import Identity
from ssastore.transport.pool import Pool
from ssastore.transport.session import Credentials, Service

log = logging.getLogger(__name__)

_REAP_EVERY_S = 1
_DRAIN_S = 10


@dataclass(frozen=True, slots=True)
class Outside:
    """The world of one worker. The engine closes store and control store at its end."""

    store: Store
    control: ControlStore
    links: Links
    clock: Clock
    randomness: Randomness


@dataclass(frozen=True, slots=True)
class Place:
    """Which worker of which node it is, and the secrets of the cluster."""

    node: str
    worker: int
    workers: int
    credentials: Credentials
    port: int = NATIVE_PORT

    @property
    def owner(self) -> str:
        """Node and worker, for whoever reads the control store or a log."""
        return f"{self.node}/{self.worker}"


@dataclass(frozen=True, slots=True)
class Holding:
    """What the control store says that a node owns."""

    record: ClusterRecord
    slices: frozenset[int]
    "The /80 slices, as 16-bit numbers, of all workers of the node."


def holding_of(cluster: Cluster, node: str) -> Holding:
    """What ``node`` owns. ConfigError: the cluster has no such node."""
    if node not in {known.name for known in cluster.nodes}:
        raise ConfigError(f"node {node!r} is not in the cluster")
    owned = owned_slices(cluster.groups, node)
    return Holding(cluster.record, frozenset(slice16_of(piece.first) for piece in owned))


class Engine:
    """The parts of one worker. Made by ``start``; a subclass may exchange a part, to plant a fault."""

    acceptor_type: type[Acceptor] = Acceptor
    proposer_type: type[Proposer] = Proposer
    coordinator_type: type[Coordinator] = Coordinator
    pool_type: type[Pool] = Pool
    settler_type: type[Settler] = Settler
    upkeep_type: type[Upkeep] = Upkeep
    rules = UpkeepRules()
    "When background work is due."

    def __init__(
        self,
        outside: Outside,
        place: Place,
        holding: Holding,
        ballots: Ballots,
        describe_process: Callable[[], dict[str, Any]],
        rules: UpkeepRules,
    ) -> None:
        record = holding.record
        self.outside = outside
        self.place = place
        self.holding = holding
        self.ballots = ballots
        self.clock = SteadyClock(outside.clock, asyncio.get_running_loop().time)
        "What ages are told by; the world's own may be set while a call is under way."
        self.acceptor = self.acceptor_type(
            replicas=record.replicas, worker=place.worker, workers=place.workers, ballots=ballots
        )
        self.acceptor.activate(set(holding.slices))
        self.service = Service(
            store=outside.store,
            acceptor=self.acceptor,
            credentials=place.credentials,
            cluster_id=record.cluster_id,
            clock=self.clock,
            randomness=outside.randomness,
            describe=self._describe,
        )
        self.service.coverage = encode_coverage(self.acceptor.active, 1)
        self.acceptor.ceiling.open(outside.store)
        secret = place.credentials.cluster_secret
        self.mates = self.pool_type(
            record.network,
            place.port,
            Identity("node", place.owner, secret, record.replicas, record.cluster_id),
            links=outside.links,
            randomness=outside.randomness,
            deadline_ms=MATE_BUDGET_MS,
        )
        "How other nodes are reached."
        self.proposer: Proposer | None = None
        "None with one replica."
        self._describe_process = describe_process
        self._background: list[asyncio.Task[None]] = []
        settler = None
        if record.replicas > 1:
            settler = self._propose()
        self.upkeep = self._make_upkeep(settler, rules)
        self.service.start_scrub = self.upkeep.scrub.request

    @classmethod
    async def start(
        cls,
        outside: Outside,
        place: Place,
        holding: Holding,
        *,
        describe_process: Callable[[], dict[str, Any]] = dict,
        rules: UpkeepRules | None = None,
    ) -> Engine:
        """Start the environment and put everything together; nothing is served yet.

        Args:
            describe_process: what only the process knows, for status.
            rules: when background work is due, if not as usual.

        Raises:
            Unavailable: the control store does not answer.
            CorruptObject: the environment's own record is damaged.
            DataDirError: what the environment has promised is not known any more.
        """
        ballots = await start_environment(outside.store, outside.control, outside.randomness, place.owner)
        return cls(outside, place, holding, ballots, describe_process, rules or cls.rules)

    def _propose(self) -> Settler:
        """Let the worker carry calls through the acceptors of all planes."""
        outside = self.outside
        self.proposer = self.proposer_type(self.ballots, self.clock, outside.randomness)
        self.service.coordinator = self.coordinator_type(
            self.acceptor, self.proposer, outside.store, self.mates, self.clock
        )
        return self.settler_type(self.proposer, self.ballots, self.clock)

    def _make_upkeep(self, settler: Settler | None, rules: UpkeepRules) -> Upkeep:
        tools = Tools(
            store=self.outside.store,
            acceptor=self.acceptor,
            clock=self.clock,
            caller=self.mates,
            registers=Registers(self.mates, self.outside.randomness),
            coordinator=self.service.coordinator,
            settler=settler,
            rules=rules,
        )
        return self.upkeep_type(tools)

    # -- background jobs ----------------------------------------------------------------------------

    def jobs(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Every background job of a worker by its name. Each runs until it is cancelled."""
        jobs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {"reap connections": self._reap}
        jobs.update(self.upkeep.jobs())
        return jobs

    def begin(self) -> None:
        """Start the background jobs; call it when the service can be reached."""
        self._background = [spawn(name, job()) for name, job in self.jobs().items()]

    async def end(self) -> None:
        """Stop the jobs, answer what is in flight, close everything."""
        for task in self._background:
            task.cancel()
        await self._drain()
        await self.mates.close()
        await self.outside.control.close()
        await self.outside.store.close()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(_REAP_EVERY_S)
            self.service.reap()

    # -- the end and the state ----------------------------------------------------------------------

    async def _drain(self) -> None:
        """Answer what is in flight, then close every connection."""
        service = self.service
        for session in list(service.sessions):
            session.stop()
        try:
            async with asyncio.timeout(_DRAIN_S):
                await service.emptied.wait()
        except TimeoutError:
            for session in list(service.sessions):
                session.abort()

    def _describe(self) -> bytes:
        """The body of a Report's reply."""
        usage, service = self.outside.store.usage(), self.service
        counters = service.counters
        described: bytes = msgpack.packb(
            {
                "node": self.place.node,
                "worker": self.place.worker,
                "workers": self.place.workers,
                **self._describe_process(),
                "slices": len(self.acceptor.active),
                "connections": len(service.sessions),
                "accepted": counters.accepted,
                "accept_log": list(counters.accept_log),
                "denied": counters.denied,
                "peer_errors": counters.peer_errors,
                "requests": counters.requests,
                "refusals": counters.refusals,
                "records": usage.records,
                "used_bytes": usage.used_bytes,
                "limit_bytes": usage.limit_bytes,
                "scrub": self.upkeep.scrub.report(),
            }
        )
        return described
