"""What the coordinator decides by, joined to what it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv6Network

from ssastore.control.memory import MemoryControlStore
from ssastore.coordination import historian_of
from ssastore.core.cluster import NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.election import COORDINATOR_KEY
from ssastore.core.fields import encode_fields
from ssastore.core.groups import GroupRecord, PlaneOwner, group_key
from ssastore.core.usage import USAGE_KEY, UsageHistory
from ssastore.env import Event, WatchCompacted, Write
from ssastore.keyspace import GROUPS
from ssastore.rebalance import form_cluster
from tests.registermodel import LoopClock


class Compacted(MemoryControlStore):
    """Its history is always gone: who follows it lists again."""

    async def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Event]:  # type: ignore[override]
        await asyncio.sleep(0)
        raise WatchCompacted
        yield


async def test_bytes_are_noted_with_the_replicas_of_now_after_a_watch_was_lost() -> None:
    """Of a cluster that got three replicas since, three times as much seemed to be stored ever after."""
    control = Compacted()
    nodes = [NodeRecord(f"n{at}", f"fd00::{at}") for at in range(1, 4)]
    service = IPv6Network("2001:db8:5a:1::/64")
    await form_cluster(control, service, 1, nodes, now_ms=1, random_bytes=bytes)
    view = ClusterView(control)
    await view.load()

    async def measure() -> int:
        return 300

    historian = historian_of(control, view, "n1", measure, LoopClock())
    await control.transact([], [Write(COORDINATOR_KEY, encode_fields({"node": "n1", "lease": 1}))])
    owners = tuple(PlaneOwner(node.name, 2, env=9) for node in nodes)
    for group in range(GROUPS):
        await control.transact([], [Write(group_key(group), GroupRecord(group, owners, 2).encode())])
    following = asyncio.ensure_future(view.run())
    async with asyncio.timeout(10):
        while len(view.groups[GROUPS - 1].planes) == 1:
            await asyncio.sleep(0.01)
    following.cancel()
    assert await historian.round()
    (note,) = UsageHistory.of(await control.get(USAGE_KEY)).notes
    assert (note.used_bytes, note.replicas) == (300, 3)
