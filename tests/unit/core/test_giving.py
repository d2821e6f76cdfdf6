"""What a source does by itself while slices are handed over. Virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ssastore.core.changelog import NotedStore
from ssastore.core.giving import Giver
from ssastore.core.groups import group_key
from ssastore.core.moving import begin_move
from ssastore.core.records import record_key
from ssastore.core.standing import State
from ssastore.env import Write
from ssastore.limits import SEALED_MS_MAX
from ssastore.messages import Kind
from ssastore.store.memory import MemoryStore
from tests.environments import GROUPS_USED, Node, World
from tests.registermodel import run_virtually

SEALED, GONE, *_ = GROUPS_USED


def test_a_seal_does_not_wait_for_what_is_dropped() -> None:
    """Many records take many commits to be deleted; a target that is dead is called off all the same."""

    async def scenario() -> None:
        world = await World().form()
        world.nodes["a"].stop()
        node = await world.run(Node(world, "a", 1, MemoryStore(commit_ms=500)))
        for number in range(3000):
            key = record_key(GONE << 16, Kind.REF, 1, b"%d" % number)
            node.store.submit(lambda txn, key=key: txn.put(key, b""))
        gone, moved = await world.record(GONE), await world.record(SEALED)
        elsewhere = replace(gone, planes=(replace(gone.planes[0], owner="d", epoch=3), *gone.planes[1:]))
        moving = begin_move(moved, 0, "d", 9, dict.fromkeys("abcd", ""))
        giver = Giver(custody=node.custody, store=NotedStore(node.store), control=node.control, drain_ms=1000)
        jobs = [asyncio.ensure_future(job()) for job in (giver.run, giver.clear)]
        await world.control.transact([], [Write(group_key(GONE), elsewhere.encode())])
        await asyncio.sleep(4)
        assert not giver.dropped
        await world.control.transact([], [Write(group_key(SEALED), moving.encode())])
        await asyncio.sleep(1)
        assert await node.custody.seal(SEALED, moving.planes[0].epoch)
        assert node.state(SEALED) is State.SEALED
        await asyncio.sleep(SEALED_MS_MAX / 1000 + 2)
        assert node.state(SEALED) is State.ACTIVE
        assert not giver.dropped, "all of this was while records were deleted"
        await asyncio.sleep(20)
        assert giver.dropped == 1 and not node.records()
        for job in jobs:
            job.cancel()
        world.close()

    run_virtually(scenario)
