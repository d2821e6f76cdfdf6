"""Clients that read and write registers of a simulated cluster, and the histories that they bring home."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from ssastore.core.content import Content
from ssastore.core.objects import Objects
from ssastore.errors import BucketAlreadyExists, ObjectNotFound, OutcomeUnknown, PreconditionFailed, TryLater
from ssastore.sim.checker import Judgement, Verdict, check
from ssastore.sim.clock import NS_PER_S
from ssastore.sim.cluster import PARTS, ClientHost, Parts, store_hosts
from ssastore.sim.faults import Faults
from ssastore.sim.history import Condition, Kind, Op, Outcome
from ssastore.sim.seeds import Stream
from ssastore.sim.swarm import FAULTS, Swarm, draw_swarm
from ssastore.sim.world import World

BUCKET = "photos"

RECOVERY_NS = 60 * NS_PER_S
RECOVERY_CALLS = 10
"Of each client, within RECOVERY_NS of the end of the faults."

SURVIVED = tuple(kind for kind in FAULTS if kind != "jump")
"""A wall clock that jumps by an hour makes a record forget the operations that it remembers, and a call
that is repeated is then applied twice."""


@dataclass
class Run:
    """One run of the workload."""

    seed: int
    digest: str = ""
    steps: int = 0
    virtual_s: float = 0.0
    histories: dict[str, list[Op]] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    report: str = ""

    def red(self) -> dict[str, Judgement]:
        """The keys whose histories were not shown to be linearizable."""
        judged = {key: check(history) for key, history in self.histories.items()}
        return {key: found for key, found in judged.items() if found.verdict is not Verdict.OK}


class Register:
    """One key as one client uses it: calls, answers, and when they were."""

    def __init__(self, world: World, objects: Objects, run: Run, client: int, draw: Stream) -> None:
        self._world = world
        self._objects = objects
        self._run = run
        self._client = client
        self._draw = draw
        self._count = 0
        self._seen = ""

    async def some_operation(self, key: str) -> None:
        """One random call."""
        kind = self._draw.choices((Kind.GET, Kind.PUT, Kind.DELETE), (4, 5, 1))[0]
        condition = Condition.NONE
        if kind is Kind.PUT:
            weights = (3, 1, 1, 2 if self._seen else 0)
            condition = self._draw.choices(tuple(Condition)[:4], weights)[0]
        elif kind is Kind.DELETE and self._seen and self._draw.chance(0.3):
            condition = Condition.IF_VALUE
        self._count += 1
        value = f"{self._client}.{self._count}" if kind is Kind.PUT else ""
        expected = self._seen if condition is Condition.IF_VALUE else ""
        called_ns = self._world.loop.now_ns
        try:
            outcome, value = await self._answer(key, kind, value, condition, expected)
        except TryLater:
            self._run.outcomes["unavailable"] += 1
            return  # nobody took it, so it had no effect; if it had one, the values that it left will tell
        self._run.outcomes[outcome.value] += 1
        op = Op(self._client, kind, called_ns, self._world.loop.now_ns, outcome, value, condition, expected)
        self._run.histories.setdefault(key, []).append(op)
        if outcome is Outcome.DONE and value:
            self._seen = value

    async def _answer(
        self, key: str, kind: Kind, value: str, condition: Condition, expected: str
    ) -> tuple[Outcome, str]:
        try:
            if kind is Kind.GET:
                return Outcome.DONE, (await (await self._objects.open(BUCKET, key)).read()).decode()
            if kind is Kind.DELETE:
                removed = await self._objects.delete(BUCKET, key, if_match=expected or None)
                return Outcome.DONE if removed else Outcome.ABSENT, value
            data = value.encode()
            if_match = {Condition.IF_PRESENT: "*", Condition.IF_VALUE: expected}.get(condition)
            if_none_match = "*" if condition is Condition.IF_ABSENT else None
            await self._objects.commit(
                BUCKET, key, Content(len(data), data), value, if_match=if_match, if_none_match=if_none_match
            )
            return Outcome.DONE, value
        except ObjectNotFound:
            return Outcome.ABSENT, "" if kind is Kind.GET else value
        except PreconditionFailed:
            return Outcome.FAILED, value
        except OutcomeUnknown:
            return Outcome.UNKNOWN, value


async def _work(world: World, run: Run, client: int, objects: Objects, keys: list[str], ops: int) -> None:
    """All clients visit the keys in the same order, so that they meet there."""
    draw = world.stream(f"client {client}")
    register = Register(world, objects, run, client, draw)
    for key in keys:
        for _ in range(ops):
            await register.some_operation(key)
            if draw.chance(0.2):
                await asyncio.sleep(draw.span_ns(20_000_000) / NS_PER_S)


@dataclass(frozen=True)
class Plan:
    """How much a run does, and with what."""

    keys: int = 60
    clients: int = 3
    ops: int = 4
    "Of each client on each key; the check wants no more than 100 on a key in all."
    nodes: int = 5
    replicas: int = 3
    deadline_ms: int = 5000
    parts: Parts = PARTS
    recovers: bool = True
    "Whether the clients must get through once the faults have ended."


async def _make_bucket(objects: Objects) -> None:
    while True:
        try:
            await objects.buckets.create(BUCKET)
            return
        except BucketAlreadyExists:
            return  # by the attempt before, whose answer did not come
        except (OutcomeUnknown, TryLater):
            continue


async def _main(world: World, run: Run, plan: Plan) -> None:
    hosts = [node.host for node in store_hosts(world, plan.nodes, plan.replicas, plan.parts)]
    users = [ClientHost(world, f"client{index}", plan.deadline_ms) for index in range(plan.clients)]
    for host in hosts:
        host.start()
    objects = [await user.host.spawn("connect", user.objects()) for user in users]
    await users[0].host.spawn("create bucket", _make_bucket(objects[0]))
    faults = Faults(world.network, world.swarm, hosts)
    faults.start()
    keys = [f"key{index}" for index in range(plan.keys)]
    works = [_work(world, run, index, objects[index], keys, plan.ops) for index in range(plan.clients)]
    await asyncio.gather(*[user.host.spawn("work", work) for user, work in zip(users, works, strict=True)])
    faults.stop()
    run.faults = faults.happened
    if plan.recovers:
        await asyncio.gather(
            *[_all_recover(world, user, client) for user, client in zip(users, objects, strict=True)]
        )


async def _all_recover(world: World, user: ClientHost, objects: Objects) -> None:
    """Liveness: without faults every call succeeds, and soon."""

    async def calls() -> None:
        deadline_ns = world.loop.now_ns + RECOVERY_NS
        for number in range(RECOVERY_CALLS):
            data = b"recovered"
            while True:
                try:
                    await objects.commit(BUCKET, f"{user.host.name}.{number}", Content(len(data), data), "e")
                    break
                except (TryLater, OutcomeUnknown):
                    assert world.loop.now_ns < deadline_ns, f"{user.host.name} has not recovered"
        assert world.loop.now_ns < deadline_ns, f"{user.host.name} recovers slowly"

    await user.host.spawn("recovery", calls())


def run_seed(seed: int, plan: Plan = Plan(), swarm: Swarm | None = None) -> Run:
    """One seed from beginning to end. Whatever is wrong raises, but for the histories: see ``Run.red``."""
    swarm = swarm or draw_swarm(seed, SURVIVED)
    swarm.lag_ns_max = 0  # routes do not change here, and all hosts know them from the start
    world = World(seed, swarm)
    run = Run(seed)
    world.run(_main(world, run, plan))
    run.digest, run.steps, run.virtual_s = world.digest(), world.loop.steps, world.loop.now_ns / NS_PER_S
    run.report = world.report()
    return run


def seeds_until_red(plan: Plan, faults: tuple[str, ...], seeds_max: int) -> int:
    """How many seeds it takes to notice that something is wrong; ``seeds_max + 1``: more than that."""
    for seed in range(seeds_max):
        if run_seed(seed, plan, draw_swarm(seed, faults)).red():
            return seed + 1
    return seeds_max + 1
