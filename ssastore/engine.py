"""One worker without an operating system: all that serves a node's slices, put together once.

``worker.py`` gives it a process: signals, a listening socket, LMDB, files.  The
simulator gives it a simulated host, with everything in memory and time on its own.
What runs in between is the same code, and it is named here and nowhere else:

    start    the environment's id and boot number, then acceptor, service, proposer; which slices vote
    begin    the background jobs, listed in ``jobs``
    end      no more jobs and no open connection

No clock, randomness, socket or file comes from anywhere but ``Outside``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import msgpack

from ssastore.core.acceptor import Acceptor, encode_coverage
from ssastore.core.bill import begin_counting
from ssastore.core.boot import Environment, make_durable, publish, start_environment
from ssastore.core.buckets import Buckets
from ssastore.core.changelog import NotedStore
from ssastore.core.cluster import NATIVE_PORT, Cluster, ClusterRecord
from ssastore.core.clusterreading import follow_nodes, follow_record
from ssastore.core.coordinator import MATE_BUDGET_MS, Coordinator
from ssastore.core.custody import Custody
from ssastore.core.expiry import Expiry
from ssastore.core.giving import Giver
from ssastore.core.joiner import Joiner
from ssastore.core.marks import Watermark
from ssastore.core.mover import Mover
from ssastore.core.objects import Objects
from ssastore.core.orders import order_name
from ssastore.core.peers import Peers, peer_iids
from ssastore.core.planner import owned_numbers
from ssastore.core.proposer import Proposer
from ssastore.core.recovery import Recovery
from ssastore.core.register import Ballot
from ssastore.core.registers import Registers
from ssastore.core.replacer import Replacer
from ssastore.core.settle import Settler
from ssastore.core.steady import SteadyClock
from ssastore.core.tools import Tools, UpkeepRules
from ssastore.core.upkeep import Upkeep
from ssastore.core.widener import Widener
from ssastore.env import Clock, ControlStore, Links, Randomness, Store, WatchCompacted, WriteTxn, spawn
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.limits import FENCE_BUDGET_MS, MARK_EVERY_MS, RECOVERY_RETRY_MS
from ssastore.transport.connection import Identity
from ssastore.transport.coverage import encode_prefix
from ssastore.transport.credentials import Credentials
from ssastore.transport.pool import Pool
from ssastore.transport.session import Service

log = logging.getLogger(__name__)

_JOB_AGAIN_S = 5.0
"Before a job that has died begins anew."
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
    "The slices, by number, of all workers of the node."
    workers: Mapping[str, int]
    "Worker processes by node name."


def holding_of(cluster: Cluster, node: str) -> Holding:
    """What ``node`` owns. ConfigError: the cluster has no such node."""
    if node not in {known.name for known in cluster.nodes}:
        raise ConfigError(f"node {node!r} is not in the cluster")
    owned = owned_numbers(cluster.groups, node)
    workers = {known.name: known.workers for known in cluster.nodes}
    return Holding(cluster.record, frozenset(owned), workers)


def _told(record: ClusterRecord) -> tuple[int, bytes] | None:
    """What clients are told of where the service is: nothing, as long as it is where it has always been."""
    return (record.serial, encode_prefix(record.network)) if record.serial else None


class Engine:
    """The parts of one worker. Made by ``start``; a subclass may exchange a part, to plant a fault."""

    acceptor_type: type[Acceptor] = Acceptor
    proposer_type: type[Proposer] = Proposer
    coordinator_type: type[Coordinator] = Coordinator
    pool_type: type[Pool] = Pool
    settler_type: type[Settler] = Settler
    upkeep_type: type[Upkeep] = Upkeep
    custody_type: type[Custody] = Custody
    recovery_type: type[Recovery] = Recovery
    giver_type: type[Giver] = Giver
    mover_type: type[Mover] = Mover
    joiner_type: type[Joiner] = Joiner
    replacer_type: type[Replacer] = Replacer
    widener_type: type[Widener] = Widener
    rules = UpkeepRules()
    "When background work is due."

    def __init__(
        self,
        outside: Outside,
        place: Place,
        holding: Holding,
        environment: Environment,
        peers: Peers,
        peer_pool: Pool,
        describe_process: Callable[[], dict[str, Any]],
        rules: UpkeepRules,
    ) -> None:
        record = holding.record
        store = NotedStore(outside.store)
        self.outside = outside = replace(outside, store=store)
        self.place = place
        self.holding = holding
        self.workers = dict(holding.workers)
        "Worker processes by node name, as far as is known now."
        self.clock = SteadyClock(outside.clock, asyncio.get_running_loop().time)
        "What ages are told by; the world's own may be set while a call is under way."
        self.environment = environment
        self.ballots = environment.ballots()
        self.acceptor = self.acceptor_type(
            replicas=record.replicas, worker=place.worker, workers=place.workers, ballots=self.ballots
        )
        self.acceptor.served.own(holding.slices)
        self.service = Service(
            store=outside.store,
            acceptor=self.acceptor,
            credentials=place.credentials,
            cluster_id=record.cluster_id,
            clock=self.clock,
            randomness=outside.randomness,
            describe=self._describe,
        )
        self.service.coverage = encode_coverage(self.acceptor.owned, 1)
        self.record = record
        "The cluster's own, as far as is known now."
        self.service.prefix = _told(record)
        self.acceptor.ceiling.open(outside.store)
        self.mates = self._pool(outside, place, record, MATE_BUDGET_MS)
        "How other nodes are reached."
        self._describe_process = describe_process
        self._background: list[asyncio.Task[None]] = []
        self.proposer = self.proposer_type(self.ballots, self.clock, outside.randomness)
        self.coordinator = self.coordinator_type(
            self.acceptor, self.proposer, outside.store, self.mates, self.clock
        )
        self.service.coordinator = self.coordinator
        self.settler = self.settler_type(self.proposer, self.ballots, self.clock)
        self.upkeep = self._make_upkeep(rules)
        self.service.start_scrub = self.upkeep.scrub.request
        objects = Objects(self.mates, self.clock, outside.randomness)
        self.counting = self.service.counting = begin_counting(
            self.coordinator, objects.registers, self.settler, self.ballots, self.clock, outside.randomness
        )
        self.expiry = Expiry(objects, self.clock, rules.lifecycle_day_ms, self._votes_at)
        self._peers, self._peer_pool = peers, peer_pool
        self._take_custody(store)

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
        # Beside the pool of the proposer: a page of a recovery must not stand before a vote.
        pool = cls._pool(outside, place, holding.record, FENCE_BUDGET_MS)
        peers = Peers(pool, peer_iids(holding.slices, holding.record.replicas, place.worker, place.workers))
        try:
            environment = await start_environment(
                outside.store, outside.control, outside.randomness, place.owner, peers.ask
            )
            engine = cls(
                outside, place, holding, environment, peers, pool, describe_process, rules or cls.rules
            )
            await engine.custody.load(outside.control)
        except BaseException:
            await pool.close()
            raise
        return engine

    @classmethod
    def _pool(cls, outside: Outside, place: Place, record: ClusterRecord, deadline_ms: int) -> Pool:
        """How other nodes are reached; nothing connects before the first call."""
        pool = cls.pool_type(
            record.network,
            place.port,
            Identity("node", place.owner, cluster_id=record.cluster_id, credentials=place.credentials),
            links=outside.links,
            randomness=outside.randomness,
            deadline_ms=deadline_ms,
        )
        pool.replicas, pool.prefixes.serial = record.replicas, record.serial
        return pool

    def _make_upkeep(self, rules: UpkeepRules) -> Upkeep:
        registers = Registers(self.mates, self.outside.randomness)
        tools = Tools(
            store=self.outside.store,
            acceptor=self.acceptor,
            clock=self.clock,
            caller=self.mates,
            registers=registers,
            coordinator=self.coordinator,
            settler=self.settler,
            rules=rules,
            buckets=Buckets(registers, self.clock, self.outside.randomness),
        )
        return self.upkeep_type(tools)

    def _take_custody(self, store: NotedStore) -> None:
        """Let the worker follow its groups' records, rebuild what it lost, hand over and take over."""
        outside, place = self.outside, self.place
        self.custody = self.service.custody = self.custody_type(
            node=place.node,
            environment=self.environment,
            acceptor=self.acceptor,
            store=outside.store,
            forget=self.proposer.forget,
            tell=self.service.serve,
        )
        self.giver = self.service.giver = self.giver_type(
            custody=self.custody, store=store, control=outside.control
        )
        self.mover = self.mover_type(
            custody=self.custody,
            store=store,
            control=outside.control,
            mates=self._peer_pool,
            workers=self.workers,
            worker=place.worker,
            cover=self._cover,
        )
        self.joiner = self.joiner_type(self.custody, outside.control)
        self.replacer = self.replacer_type(custody=self.custody, control=outside.control, worker=place.worker)
        self.widener = self.widener_type(
            custody=self.custody,
            control=outside.control,
            workers=self.workers,
            worker=place.worker,
            taker=self.mover.taker,
        )
        self.recovery = self.recovery_type(
            custody=self.custody,
            store=outside.store,
            control=outside.control,
            mates=self._peer_pool,
            workers=self.workers,
            cover=self._cover,
        )

    def _votes_at(self, iid: int) -> bool:
        served = self.acceptor.served
        return served.slice_at(iid) in served.active

    def _cover(self, txn: WriteTxn, ballot: Ballot) -> None:
        self.acceptor.ceiling.cover(txn, ballot, self.clock.now_ms())

    # -- background jobs ----------------------------------------------------------------------------

    def jobs(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Every background job of a worker by its name. Each runs until it is cancelled."""
        control, order = self.outside.control, order_name(self.place.node, self.place.worker)
        jobs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "reap connections": self._reap,
            "follow groups": partial(self.custody.follow, control),
            "recover slices": self.recovery.run,
            "obey orders": partial(self.recovery.obey, order),
            "replace lost owners": self.replacer.run,
            "move slices": self.mover.run,
            "make planes": self.widener.run,
            "give slices": self.giver.run,
            "drop slices": self.giver.clear,
            "merge parts": self.joiner.run,
            "tell marks": self._tell_marks,
            "follow nodes": self._follow_nodes,
            "follow the prefix": self._follow_record,
        }
        jobs["expire objects"] = self.expiry.run
        jobs.update(self.upkeep.jobs())
        return jobs

    def begin(self) -> None:
        """Start the background jobs; call it when the service can be reached."""
        self._background = [spawn(name, self._keep(name, job)) for name, job in self.jobs().items()]

    async def _keep(self, name: str, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a job until it is cancelled. What kills it is said, and it begins anew.

        Nobody waits for a job, and who serves requests must not end because of one.
        """
        while True:
            try:
                await job()
            except (SsaStoreError, OSError) as error:
                log.warning("job.failed", extra={"job": name, "reason": str(error)})
            except Exception as error:
                context = {"message": f"the job {name!r} died of a bug", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
            await asyncio.sleep(_JOB_AGAIN_S)

    async def end(self) -> None:
        """Stop the jobs, answer what is in flight, close everything."""
        for task in self._background:
            task.cancel()
        await self._drain()
        self.counting.close()
        await self.mates.close()
        await self._peer_pool.close()
        await self.outside.control.close()
        await self.outside.store.close()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(_REAP_EVERY_S)
            self.service.reap()

    async def _follow_nodes(self) -> None:
        """Know how many workers other nodes have: what one of them has is asked of it together."""
        while True:
            try:
                async for found in follow_nodes(self.outside.control):
                    self.workers.update(found)
            except (SsaStoreError, OSError, WatchCompacted) as error:
                log.warning("nodes.not_followed", extra={"reason": str(error)})
            await asyncio.sleep(RECOVERY_RETRY_MS / 1000)

    async def _follow_record(self) -> None:
        """Know where the service is, go there, and tell everybody who is connected."""
        while True:
            try:
                async for record in follow_record(self.outside.control):
                    self.renumber(record)
            except (SsaStoreError, OSError, WatchCompacted) as error:
                log.warning("prefix.not_followed", extra={"reason": str(error)})
            await asyncio.sleep(RECOVERY_RETRY_MS / 1000)

    def renumber(self, record: ClusterRecord) -> None:
        """The cluster's own record is this now."""
        is_moved = record.serial > self.record.serial
        self.record = record
        if is_moved:
            self.service.prefix = _told(record)
            self.service.serve()
            for pool in (self.mates, self._peer_pool):
                pool.renumber(record.serial, record.network)

    async def _tell_marks(self) -> None:
        """Tell control store and peers how far the environment is, while it is being written to."""
        environment, store, written = self.environment, self.outside.store, 0
        sequence = environment.sequence
        while True:
            await asyncio.sleep(MARK_EVERY_MS / 1000)
            # Only what slices were written counts: else peers would keep one another busy with their marks.
            written_now = self.acceptor.write_count + self.recovery.progress.slices
            written_now += self.mover.progress.slices
            if written_now == written:
                continue
            mark = Watermark(environment.boot, sequence + 1)
            try:
                await make_durable(store, environment.env_id, mark)
                sequence = mark.sequence
                if not await publish(self.outside.control, environment.env_id, mark):
                    log.critical("environment.runs_twice", extra={"env": f"{environment.env_id:08x}"})
                    self.custody.withdraw()
                    return
                await self._peers.tell(environment.env_id, mark)
                written = written_now
            except (SsaStoreError, OSError) as error:
                log.warning("mark.not_told", extra={"reason": str(error)})

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
                "serial": self.record.serial,
                **self._describe_process(),
                "slices": len(self.acceptor.owned),
                **self.custody.describe(),
                "recovery": self.recovery.describe(),
                "replacements": self.replacer.describe(),
                "moves": self.mover.describe(),
                "planes": self.widener.describe(),
                "merges": self.joiner.describe(),
                "connections": len(service.sessions),
                "accepted": counters.accepted,
                "accept_log": list(counters.accept_log),
                "denied": counters.denied,
                "verdicts": dict(service.guard.verdicts) if service.guard else {},
                "peer_errors": counters.peer_errors,
                "requests": counters.requests,
                "refusals": counters.refusals,
                "told": list(service.told.parts),
                "records": usage.records,
                "used_bytes": usage.used_bytes,
                "limit_bytes": usage.limit_bytes,
                **({"log": asdict(usage.log)} if usage.log else {}),
                "heat": service.heat.describe(self.acceptor.served.slice_at),
                "largest": self.upkeep.scrub.largest,
                "scrub": self.upkeep.scrub.report(),
            }
        )
        return described
