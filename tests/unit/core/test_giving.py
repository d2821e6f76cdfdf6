"""What a source does by itself while slices are handed over. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ssastore.core import giving
from ssastore.core.changelog import NotedStore
from ssastore.core.giving import Giver
from ssastore.core.groups import group_key
from ssastore.core.moving import begin_move
from ssastore.core.records import record_key
from ssastore.core.standing import Standing, State
from ssastore.core.survey import walk
from ssastore.env import ReadTxn, Write
from ssastore.limits import SEALED_MS_MAX
from ssastore.messages import Kind
from ssastore.store.memory import MemoryStore
from tests.environments import GROUPS_USED, Node, World
from tests.registermodel import run_virtually

SEALED, GONE, *_ = GROUPS_USED


def test_a_seal_does_not_wait_for_what_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many records take many commits to be deleted; a target that is dead is called off all the same."""
    begun: list[bytes] = []

    def noted(txn: ReadTxn, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview | bytes | None]]:
        begun.append(first)
        return walk(txn, first, end)

    monkeypatch.setattr(giving, "walk", noted)

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
        assert len(begun) > 30 and begun == sorted(set(begun)), "nothing that went is passed again"
        for job in jobs:
            job.cancel()
        world.close()

    run_virtually(scenario)


def test_a_slice_that_comes_again_while_it_is_dropped_is_left_alone() -> None:
    """What a new handover has noted of it stays, and so does what was not deleted yet."""

    async def scenario() -> None:
        world = await World().form()
        world.nodes["a"].stop()
        node = await world.run(Node(world, "a", 1, MemoryStore(commit_ms=500)))
        for number in range(3000):
            key = record_key(GONE << 16, Kind.REF, 1, b"%d" % number)
            node.store.submit(lambda txn, key=key: txn.put(key, b""))
        gone = await world.record(GONE)
        elsewhere = replace(gone, planes=(replace(gone.planes[0], owner="d", epoch=3), *gone.planes[1:]))
        giver = Giver(custody=node.custody, store=NotedStore(node.store), control=node.control, drain_ms=1000)
        clearing = asyncio.ensure_future(giver.clear())
        await world.control.transact([], [Write(group_key(GONE), elsewhere.encode())])
        await asyncio.sleep(8)
        clearing.cancel()
        left = len(node.records())
        assert 0 < left < 3000
        # All of it in the time of one commit: to be filled began, and was called off.
        dropping = asyncio.ensure_future(giver._drop([GONE]))
        await asyncio.sleep(2)
        again = Standing(*node.custody.standing(GONE))
        await node.custody.note_standings({GONE: again})
        await dropping
        assert giver.dropped == 0 and node.custody.standing(GONE) is again
        assert 0 < len(node.records()) < left
        await giver._drop([GONE])
        assert giver.dropped == 1 and not node.records()
        world.close()

    run_virtually(scenario)
