"""One worker put together: what it starts with, and which jobs run behind it."""

from __future__ import annotations

import asyncio

import msgpack
import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.boot import ENV_PREFIX
from ssastore.core.cluster import Cluster, ClusterRecord, NodeRecord
from ssastore.core.planner import initial_layout
from ssastore.core.records import CEILING_KEY
from ssastore.engine import Engine, Outside, Place, holding_of
from ssastore.errors import ConfigError, DataDirError, Unavailable
from ssastore.store.memory import MemoryStore
from ssastore.system import SystemClock, SystemRandomness
from ssastore.transport.credentials import Credentials
from ssastore.transport.tcp import LoopbackLinks

PLACE = Place("a", 0, 1, Credentials(b"c" * 32, {}))


def cluster(replicas: int) -> Cluster:
    nodes = tuple(NodeRecord(name, f"fd5a:ffff::{at}") for at, name in enumerate("abc", 1))
    record = ClusterRecord("ab" * 16, "fd5a:1:2:3::/64", replicas, 1)
    return Cluster(record, nodes, tuple(initial_layout(nodes, replicas)))


def outside(store: MemoryStore, control: MemoryControlStore) -> Outside:
    return Outside(store, control, LoopbackLinks({}), SystemClock(), SystemRandomness())


async def start(replicas: int) -> Engine:
    holding = holding_of(cluster(replicas), "a")
    return await Engine.start(outside(MemoryStore(), MemoryControlStore()), PLACE, holding)


def test_what_a_node_owns_comes_from_the_layout() -> None:
    layout = cluster(3)
    owned = [holding_of(layout, name).slices for name in "abc"]
    assert sum(map(len, owned)) == 3 * 4096 == len(owned[0] | owned[1] | owned[2])
    with pytest.raises(ConfigError):
        holding_of(layout, "d")


@pytest.mark.parametrize("replicas", [1, 3])
async def test_every_worker_collects_repairs_and_scrubs(replicas: int) -> None:
    jobs = (await start(replicas)).jobs()
    assert {"collect tombstones", "raise the ceiling", "repair", "scrub"} < set(jobs)


async def test_environment_that_lost_its_ceiling_is_refused() -> None:
    """What it has promised is not known any more: it must not vote."""
    store, control = MemoryStore(), MemoryControlStore()
    holding = holding_of(cluster(3), "a")
    await Engine.start(outside(store, control.another_client()), PLACE, holding)
    await store.submit(lambda txn: txn.delete(CEILING_KEY))
    with pytest.raises(DataDirError, match="ceiling"):
        await Engine.start(outside(store, control.another_client()), PLACE, holding)


async def test_environment_with_a_rotten_ceiling_is_refused() -> None:
    store, control = MemoryStore(), MemoryControlStore()
    holding = holding_of(cluster(3), "a")
    await Engine.start(outside(store, control.another_client()), PLACE, holding)
    store.poke(CEILING_KEY, b"rotten")
    with pytest.raises(DataDirError, match="ceiling"):
        await Engine.start(outside(store, control.another_client()), PLACE, holding)


async def test_every_start_raises_the_boot_number_and_keeps_the_id() -> None:
    store, control = MemoryStore(), MemoryControlStore()
    holding = holding_of(cluster(3), "a")
    first = await Engine.start(outside(store, control.another_client()), PLACE, holding)
    second = await Engine.start(outside(store, control.another_client()), PLACE, holding)
    now_ms = 1_900_000_000_000
    assert first.ballots.next(bytes(16), now_ms)[8:12] == second.ballots.next(bytes(16), now_ms)[8:12]
    assert first.ballots.next(bytes(16), now_ms)[12:] < second.ballots.next(bytes(16), now_ms)[12:]
    items, _ = await control.list(ENV_PREFIX)
    assert [item.value for item in items] == [b"a/0"]


async def test_its_end_stops_the_jobs_and_closes_the_control_store() -> None:
    engine = await start(1)
    engine.begin()
    before = asyncio.all_tasks()
    await engine.end()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() < before
    with pytest.raises(Unavailable):
        await engine.outside.control.get("cluster")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TypeError("unhashable"), "the job 'drop slices' died of a bug"),
        (Unavailable("no disk"), "job.failed"),
    ],
)
async def test_a_job_that_dies_is_said_and_begins_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, text: str
) -> None:
    monkeypatch.setattr("ssastore.engine._JOB_AGAIN_S", 0)
    engine = await start(1)
    begun, is_well = 0, asyncio.Event()

    async def clear() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise error
        is_well.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(engine.giver, "clear", clear)
    engine.begin()
    await asyncio.wait_for(is_well.wait(), 10)
    await engine.end()
    assert [record.getMessage() for record in caplog.records].count(text) == 2


async def test_it_describes_itself_and_its_process() -> None:
    holding = holding_of(cluster(3), "a")
    engine = await Engine.start(
        outside(MemoryStore(), MemoryControlStore()), PLACE, holding, describe_process=lambda: {"pid": 7}
    )
    described = msgpack.unpackb(engine.service.describe())
    assert (described["node"], described["worker"], described["pid"]) == ("a", 0, 7)
    assert described["slices"] == len(holding.slices)
