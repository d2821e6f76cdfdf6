"""What is asked of a lab, and what bad, refused and old wishes do to others: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.env import Write
from ssastore.errors import ConfigError, StoreFull
from ssastore.lab import members
from ssastore.lab.members import ASK_PREFIX, Ask, Clerk, ask, end_old_wishes

ODD = [
    b"",
    b"[]",
    b"{}",
    b"\xff",
    b"[" * 100_000,
    b'{"what": ["add"]}',
    b'{"what": {}}',
    b'{"what": "add", "weight": "1"}',
    b'{"what": "add", "error": 7}',
]


class Desk:
    """A clerk, and what it did."""

    def __init__(self) -> None:
        self.control = MemoryControlStore()
        self.done: list[tuple[str, Ask]] = []
        self.clerk = Clerk(self.control, {"add": self.add, "fail": self.fail})

    async def add(self, name: str, wish: Ask) -> None:
        self.done.append((name, wish))

    async def fail(self, name: str, wish: Ask) -> None:
        raise {"full": StoreFull("full"), "odd": OSError(), "bad": ValueError("bad")}[name]

    async def put(self, name: str, value: bytes) -> None:
        await self.control.transact([], [Write(ASK_PREFIX + name, value)])

    async def left(self) -> list[str]:
        items, _ = await self.control.list(ASK_PREFIX)
        return [item.key.removeprefix(ASK_PREFIX) for item in items]


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(members, "_POLL_S", 0.01)
    monkeypatch.setattr(members, "_ABANDONED_S", 0.05)
    monkeypatch.setattr(members, "_RETRY_S", 0.01)
    yield Desk()


@pytest.fixture
async def open_desk(desk: Desk) -> AsyncIterator[Desk]:
    running = asyncio.ensure_future(desk.clerk.run())
    yield desk
    running.cancel()


async def later(work: Coroutine[Any, Any, None]) -> None:
    await asyncio.sleep(0.005)
    await work


async def test_what_is_asked_is_done(open_desk: Desk) -> None:
    await ask(open_desk.control, "n4", Ask("add", "z", 3), 2)
    assert open_desk.done == [("n4", Ask("add", "z", 3))] and not await open_desk.left()


@pytest.mark.parametrize("name", ["full", "odd", "bad"])
async def test_what_cannot_be_done_is_told_and_stands_in_nobodys_way(open_desk: Desk, name: str) -> None:
    with pytest.raises(ConfigError, match=r"full|OSError|bad"):
        await ask(open_desk.control, name, Ask("fail"), 2)
    await ask(open_desk.control, name, Ask("add"), 2)


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
async def test_odd_record_stops_no_other_and_is_taken_the_place_of(open_desk: Desk, value: bytes) -> None:
    await open_desk.put("a", value)
    await ask(open_desk.control, "n4", Ask("add"), 2)
    await ask(open_desk.control, "a", Ask("add"), 2)
    assert [name for name, _ in open_desk.done] == ["n4", "a"]


async def test_odd_records_from_before_the_start_stop_no_other(desk: Desk) -> None:
    for number, value in enumerate(ODD):
        await desk.put(f"{number}", value)
    await desk.put("n4", Ask("add").encode())
    running = asyncio.ensure_future(desk.clerk.run())
    async with asyncio.timeout(2):
        while not desk.done:
            await asyncio.sleep(0.01)
    running.cancel()


async def test_refusal_whose_asker_has_gone_is_overwritten(open_desk: Desk) -> None:
    await open_desk.put("n1", Ask("fly").encode())
    await asyncio.sleep(0.02)
    assert await open_desk.left() == ["n1"]
    await ask(open_desk.control, "n1", Ask("add"), 2)


async def test_refusal_is_told_before_another_asks(open_desk: Desk) -> None:
    """Else who was refused would take the success of the other for its own."""
    refused, done = await asyncio.gather(
        ask(open_desk.control, "n2", Ask("fly"), 2),
        later(ask(open_desk.control, "n2", Ask("add"), 2)),
        return_exceptions=True,
    )
    assert "how to fly" in str(refused) and done is None


async def test_wish_that_is_still_to_be_done_is_in_the_way(desk: Desk) -> None:
    await desk.put("n1", Ask("add").encode())
    with pytest.raises(ConfigError, match="still busy with n1"):
        await ask(desk.control, "n1", Ask("add"), 2)


async def test_wishes_of_an_earlier_life_are_ended_and_told(desk: Desk) -> None:
    waiting = asyncio.ensure_future(ask(desk.control, "n1", Ask("add"), 5))
    await desk.put("n2", Ask("add", error="no").encode())
    await desk.put("n3", b"[]")
    await asyncio.sleep(0.02)
    await end_old_wishes(desk.control)
    running = asyncio.ensure_future(desk.clerk.run())
    with pytest.raises(ConfigError, match="started again"):
        await waiting
    assert not desk.done and not await desk.left()
    running.cancel()
