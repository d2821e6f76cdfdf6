from __future__ import annotations

import asyncio

import pytest

from ssastore.control.engine import ControlEngine
from ssastore.control.state import Change, ControlState
from ssastore.env import Compare, Item, Write
from ssastore.errors import EnvironmentProblem, OutcomeUnknown, RequestError, Unavailable


class Disk:
    """A ``persist`` that waits until it is let go, and fails when it is told."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failure: BaseException | None = None

    async def persist(self, change: Change) -> None:
        self.changes.append(change)
        await self.open.wait()
        if self.failure:
            raise self.failure


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def now_ms(self) -> int:
        return self.now


def put(engine: ControlEngine, key: str, value: bytes) -> asyncio.Task[int | None]:
    return asyncio.create_task(engine.transact([], [Write(key, value)]))


async def test_change_is_seen_only_when_it_is_durable() -> None:
    disk = Disk()
    engine = ControlEngine(ControlState(), persist=disk.persist)
    disk.open.clear()
    writing = put(engine, "a", b"1")
    await asyncio.sleep(0)
    assert disk.changes
    assert await engine.get("a") is None
    disk.open.set()
    assert await writing == 1
    assert await engine.get("a") == Item("a", b"1", 1)


async def test_change_is_decided_after_the_one_before_it() -> None:
    """Two creations overlap in time; the second is not planned on the state before the first."""
    disk = Disk()
    engine = ControlEngine(ControlState(), persist=disk.persist)
    disk.open.clear()
    creating = [
        asyncio.create_task(engine.transact([Compare("a", 0)], [Write("a", value)])) for value in (b"1", b"2")
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    disk.open.set()
    assert await asyncio.gather(*creating) == [1, None]
    assert len(disk.changes) == 1


async def test_refused_change_is_no_change_and_the_next_one_works() -> None:
    disk = Disk()
    engine = ControlEngine(ControlState(), persist=disk.persist)
    disk.failure = EnvironmentProblem("disk full")
    with pytest.raises(EnvironmentProblem):
        await put(engine, "a", b"1")
    assert await engine.list("") == ([], 0)
    disk.failure = None
    assert await put(engine, "a", b"2") == 1


async def test_unknown_outcome_ends_the_service() -> None:
    """Memory may be behind the file: neither reads nor writes are answered from it."""
    disk = Disk()
    engine = ControlEngine(ControlState(), persist=disk.persist)
    disk.failure = OutcomeUnknown("half way")
    with pytest.raises(OutcomeUnknown):
        await put(engine, "a", b"1")
    disk.failure = None
    with pytest.raises(Unavailable):
        await engine.get("a")
    with pytest.raises(Unavailable):
        await put(engine, "a", b"2")
    with pytest.raises(Unavailable):
        await engine.next_events("", 0)


async def test_cancelled_commit_ends_the_service() -> None:
    disk = Disk()
    engine = ControlEngine(ControlState(), persist=disk.persist)
    disk.open.clear()
    writing = put(engine, "a", b"1")
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    with pytest.raises(Unavailable):
        await engine.get("a")


async def test_key_of_an_ended_lease_is_not_read_even_if_nobody_can_delete_it() -> None:
    disk, clock = Disk(), Clock()
    engine = ControlEngine(ControlState(), now_ms=clock.now_ms, persist=disk.persist)
    lease = await engine.grant(10)
    await engine.transact([], [Write("a", b"1", lease)])
    clock.now = 10
    disk.failure = EnvironmentProblem("disk full")
    with pytest.raises(EnvironmentProblem):
        await engine.get("a")
    disk.failure = None
    assert await engine.get("a") is None
    engine.stop()


async def test_compare_of_an_ended_leases_key_sees_it_absent() -> None:
    clock = Clock()
    engine = ControlEngine(ControlState(), now_ms=clock.now_ms)
    lease = await engine.grant(10)
    await engine.transact([], [Write("a", b"1", lease)])
    clock.now = 10
    assert await engine.transact([Compare("a", 0)], [Write("a", b"2")]) == 3
    engine.stop()


async def test_nothing_is_written_for_nothing() -> None:
    disk = Disk()
    engine = ControlEngine(ControlState(), persist=disk.persist)
    assert await engine.transact([Compare("a", 0)], []) == 0
    assert await engine.transact([Compare("a", 1)], [Write("a", b"")]) is None
    assert await engine.transact([], [Write("a", None)]) == 0
    await engine.revoke(5)
    assert disk.changes == []


async def test_stop_wakes_those_who_wait() -> None:
    engine = ControlEngine(ControlState())
    waiting = asyncio.create_task(engine.next_events("", 0))
    await asyncio.sleep(0)
    engine.stop()
    with pytest.raises(Unavailable):
        await waiting


async def test_wait_for_changes_tells_how_far_it_looked() -> None:
    engine = ControlEngine(ControlState())
    waiting = asyncio.create_task(engine.next_events("quiet", 0))
    await asyncio.sleep(0)
    await put(engine, "loud", b"")
    assert await waiting == ([], 1)


@pytest.mark.parametrize("prefix", ["\ud800", "p" * 257])
async def test_impossible_prefixes_are_refused(prefix: str) -> None:
    engine = ControlEngine(ControlState())
    with pytest.raises(RequestError):
        await engine.list(prefix)
    with pytest.raises(RequestError):
        await engine.next_events(prefix, 0)
