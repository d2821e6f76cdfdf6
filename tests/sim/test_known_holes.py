"""What the simulation and reviews have found, each as the shortest way to it. All of it is mended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from ssastore.core.content import Content
from ssastore.core.objects import Objects
from ssastore.core.place import expected_position
from ssastore.core.versions import Deleted
from ssastore.errors import ObjectNotFound, OutcomeUnknown
from ssastore.keyspace import slice16_of
from ssastore.limits import RECENT_OPS_MAX
from ssastore.sim.clock import NS_PER_S
from ssastore.sim.cluster import ClientHost, SimCluster
from ssastore.sim.host import Host
from ssastore.sim.links import Weather
from ssastore.sim.swarm import Swarm
from ssastore.sim.world import World

BUCKET, KEY = "photos", "cat.jpg"
HOUR_MS = 3_600_000


class Stage:
    """Nodes, two clients ``a`` and ``b``, and the hands that a network fault would need."""

    def __init__(self, nodes: int = 1, replicas: int = 1) -> None:
        self.world = World(1, Swarm(Weather(split_share=0)))
        self.cluster = SimCluster(self.world, nodes, replicas)
        self.hosts = self.cluster.hosts
        self.node = self.hosts[0]
        self.a = ClientHost(self.world, "a", 30_000)
        self.b = ClientHost(self.world, "b", 30_000)

    async def open(self) -> None:
        for host in self.hosts:
            host.start()
        self.of = {user: await user.host.spawn("connect", user.objects()) for user in (self.a, self.b)}
        await self.do(self.a, lambda objects: objects.buckets.create(BUCKET))
        await self.do(self.b, lambda objects: objects.buckets.read(BUCKET))

    def start(self, user: ClientHost, call: Callable[[Objects], Awaitable[object]]) -> asyncio.Task[object]:
        async def work() -> object:
            return await call(self.of[user])

        task: asyncio.Task[object] = user.host.spawn("call", work())
        return task

    async def do(self, user: ClientHost, call: Callable[[Objects], Awaitable[object]]) -> object:
        return await self.start(user, call)

    async def put(self, user: ClientHost, value: str) -> None:
        data = value.encode()
        await self.do(user, lambda objects: objects.commit(BUCKET, KEY, Content(len(data), data), value))

    async def get(self, user: ClientHost) -> str:
        try:
            reader = await user.host.spawn("get", self.of[user].open(BUCKET, KEY))
            data: bytes = await reader.read()
        except ObjectNotFound:
            return ""
        return data.decode()

    def proposer_of(self, key: str) -> Host:
        """The host of plane 0 of a key."""
        bucket = self.of[self.a].buckets.cached(BUCKET)
        assert bucket is not None
        slice16 = slice16_of(expected_position(bucket.place.bucket, bucket.place.shards, key.encode()))
        (owner,) = [
            n.host for n in self.cluster.nodes if slice16 in self.cluster.layout.holdings[n.name].slices
        ]
        return owner

    def slow(self, source: Host, target: Host, seconds: float) -> None:
        """From now on packets take this long."""
        self.world.network.link(source, target).weather = Weather(latency_ns=int(seconds * NS_PER_S))

    def break_connections(self, user: ClientHost) -> None:
        """The client's end is reset; the node's hears of it much later."""
        for socket in list(user.host.sockets):
            socket.reset()


def test_a_late_twin_of_an_answered_delete_does_nothing() -> None:
    """A delete is sent, held up and sent again; the second finds nothing and says so. Then the first arrives.

    The refusal of a repeated call is itself written (docs/adr/0005).
    """
    stage = Stage()

    async def main() -> str:
        await stage.open()
        stage.slow(stage.a.host, stage.node, 5)
        deleting = stage.start(stage.a, lambda objects: objects.delete(BUCKET, KEY))
        await asyncio.sleep(0.01)
        stage.slow(stage.a.host, stage.node, 0.001)
        stage.break_connections(stage.a)
        assert await deleting == Deleted(False)
        await stage.put(stage.b, "kept")
        await asyncio.sleep(10)
        return await stage.get(stage.b)

    assert stage.world.run(main()) == "kept"


def test_a_clock_that_jumps_does_not_make_a_record_forget() -> None:
    """A put is applied and its answer lost; the clock jumps, another writes, and the put comes again."""
    stage = Stage()

    async def main() -> str:
        await stage.open()
        heal = stage.world.network.cut([stage.node], [stage.a.host])
        putting = asyncio.ensure_future(stage.put(stage.a, "old"))
        await asyncio.sleep(0.5)
        stage.node.clock.jump(HOUR_MS)
        await stage.put(stage.b, "new")
        heal()
        stage.break_connections(stage.a)
        await putting
        return await stage.get(stage.b)

    assert stage.world.run(main()) == "new"


def test_a_clock_that_is_wrong_at_a_start_does_not_make_a_record_forget() -> None:
    """The same, and the node starts again with the clock that jumped: to it the first put is an hour old.

    So it forgets that. The repetition is told that nobody knows; it is not applied over what came later.
    """
    stage = Stage()

    async def main() -> str:
        await stage.open()
        heal = stage.world.network.cut([stage.node], [stage.a.host])
        putting = asyncio.ensure_future(stage.put(stage.a, "old"))
        await asyncio.sleep(0.5)
        stage.node.kill()
        stage.node.clock.jump(HOUR_MS)
        stage.node.start()
        await stage.put(stage.b, "new")
        heal()
        stage.break_connections(stage.a)
        with pytest.raises(OutcomeUnknown):
            await putting
        return await stage.get(stage.b)

    assert stage.world.run(main()) == "new"


def test_a_late_first_attempt_is_not_applied_over_what_came_after_its_repetition() -> None:
    """A put is held up, its repetition applied, and so many others follow that a record forgets them both."""
    stage = Stage()

    async def main() -> str:
        await stage.open()
        stage.slow(stage.a.host, stage.node, 5)
        putting = asyncio.ensure_future(stage.put(stage.a, "old"))
        await asyncio.sleep(0.01)
        stage.slow(stage.a.host, stage.node, 0.001)
        stage.break_connections(stage.a)
        await putting
        for number in range(RECENT_OPS_MAX + 1):
            await stage.put(stage.b, f"new {number}")
        await asyncio.sleep(10)
        return await stage.get(stage.b)

    assert stage.world.run(main()) == f"new {RECENT_OPS_MAX}"


@pytest.mark.parametrize("jump_ms", [0, -HOUR_MS, HOUR_MS])
def test_what_lies_unread_at_a_stopped_node_is_not_applied_over_what_came_after(jump_ms: int) -> None:
    """The same with three replicas: plane 0's process stands still with the put in its socket.

    The repetition goes through another plane, whose clock may be an hour off; then some of the others may be
    told that nobody knows what became of them.
    """
    stage = Stage(nodes=3, replicas=3)

    async def main() -> tuple[str, str]:
        await stage.open()
        await stage.put(stage.b, "first")
        stopped = stage.proposer_of(KEY)
        for host in stage.hosts:
            if host is not stopped and jump_ms:
                host.kill()
                host.clock.jump(jump_ms)
                host.start()
        await asyncio.sleep(2)
        await stage.get(stage.a)
        stopped.pause()
        await stage.put(stage.a, "old")
        last = "old"
        for number in range(RECENT_OPS_MAX + 5):
            with suppress(OutcomeUnknown):
                await stage.put(stage.b, f"new {number}")
                last = f"new {number}"
        stopped.resume()
        await asyncio.sleep(10)
        return await stage.get(stage.b), last

    found, last = stage.world.run(main())
    assert found == last and (jump_ms or last == f"new {RECENT_OPS_MAX + 4}")


def test_without_the_jump_the_same_way_leads_to_the_right_end() -> None:
    """The stage itself is sound."""
    stage = Stage()

    async def main() -> str:
        await stage.open()
        heal = stage.world.network.cut([stage.node], [stage.a.host])
        putting = asyncio.ensure_future(stage.put(stage.a, "old"))
        await asyncio.sleep(0.5)
        await stage.put(stage.b, "new")
        heal()
        stage.break_connections(stage.a)
        await putting
        return await stage.get(stage.b)

    assert stage.world.run(main()) == "new"
