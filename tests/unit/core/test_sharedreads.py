"""Reads of one name at the same time: what is shared began after all who share it had asked. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from statistics import median

import pytest

from ssastore.core import sharedreads
from ssastore.core.sharedreads import SharedReads
from ssastore.limits import SHARED_READ_WAIT_MS, SHARED_READS_MAX
from tests.registermodel import run_virtually

WAIT_S = SHARED_READ_WAIT_MS / 1000


async def shared_read(shared: SharedReads[int], name: object, ask: Callable[[], Awaitable[int]]) -> int:
    """As ``Registers.state`` does it."""
    if shared.begin(name):
        try:
            return await ask()
        finally:
            shared.end(name)
    return await shared.next(name, ask)


@pytest.fixture(autouse=True, params=[1, SHARED_READS_MAX])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many reads may be under way: one, and as many as there are."""
    count: int = request.param
    monkeypatch.setattr(sharedreads, "SHARED_READS_MAX", count)
    return count


async def occupy(shared: SharedReads[int], register: Register, count: int) -> list[asyncio.Task[int]]:
    """Callers that come one after the other, until so many reads are under way."""
    callers = []
    for _ in range(count):
        callers.append(asyncio.ensure_future(shared_read(shared, "name", register.read)))
        await asyncio.sleep(0.0001)
    assert register.reads == count
    return callers


class Register:
    """A value that grows; a read tells it as it was in the middle of the read."""

    def __init__(self, read_s: float = 0.004) -> None:
        self.value = 0
        self.reads = 0
        self.read_s = read_s
        self.failures = 0
        "How many of the next reads fail."

    async def read(self) -> int:
        self.reads += 1
        is_failing = self.failures > 0
        self.failures -= is_failing
        await asyncio.sleep(self.read_s / 2)
        found = self.value
        await asyncio.sleep(self.read_s / 2)
        if is_failing:
            raise OSError("this one fails")
        return found


def test_one_caller_asks_itself_and_leaves_nothing() -> None:
    async def scenario() -> None:
        shared, register = SharedReads[int](), Register()
        for value in range(3):
            register.value = value
            assert await shared_read(shared, "name", register.read) == value
        assert register.reads == 3
        assert not shared._under_way and not shared._waiting

    run_virtually(scenario)


def test_many_callers_make_few_reads() -> None:
    async def scenario() -> None:
        shared, register = SharedReads[int](), Register()
        found = await asyncio.gather(*[shared_read(shared, "name", register.read) for _ in range(100)])
        assert found == [0] * 100
        assert register.reads == 2
        assert not shared._under_way and not shared._waiting

    run_virtually(scenario)


def test_other_names_do_not_wait() -> None:
    async def scenario() -> None:
        shared, register = SharedReads[int](), Register()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(*[shared_read(shared, name, register.read) for name in range(50)])
        assert register.reads == 50
        assert loop.time() - begun == pytest.approx(register.read_s)

    run_virtually(scenario)


def test_nobody_is_told_what_was_overwritten_before_they_asked(at_once: int) -> None:
    """The reads under way have looked already when a write is acknowledged: a later caller sees the write."""

    async def scenario() -> None:
        shared, register = SharedReads[int](), Register()
        early = await occupy(shared, register, at_once)
        await asyncio.sleep(register.read_s * 0.75)
        register.value = 1
        late = [asyncio.ensure_future(shared_read(shared, "name", register.read)) for _ in range(3)]
        assert await asyncio.gather(*early) == [0] * at_once
        assert await asyncio.gather(*late) == [1, 1, 1]
        assert register.reads == at_once + 1

    run_virtually(scenario)


def test_reads_that_hang_hold_nobody_up_for_long(at_once: int) -> None:
    async def scenario() -> None:
        shared, register = SharedReads[int](), Register(read_s=60)
        loop = asyncio.get_running_loop()
        hanging = await occupy(shared, register, at_once)
        begun = loop.time()
        register.read_s = 0.004
        found = await asyncio.gather(*[shared_read(shared, "name", register.read) for _ in range(10)])
        assert found == [0] * 10
        assert loop.time() - begun == pytest.approx(WAIT_S + register.read_s)
        assert register.reads == at_once + 1
        assert await asyncio.gather(*hanging) == [0] * at_once
        assert not shared._under_way and not shared._waiting

    run_virtually(scenario)


def test_a_failure_is_told_to_all_who_asked_before_it_began(at_once: int) -> None:
    """Nobody waits for another one: a call may not take twice its time."""

    async def scenario() -> None:
        shared, register = SharedReads[int](), Register()
        register.failures = at_once + 1
        early = await occupy(shared, register, at_once)
        late = [shared_read(shared, "name", register.read) for _ in range(20)]
        outcomes = await asyncio.gather(*early, *late, return_exceptions=True)
        assert all(isinstance(outcome, OSError) for outcome in outcomes)
        assert register.reads == at_once + 1
        assert await shared_read(shared, "name", register.read) == 0
        assert not shared._under_way and not shared._waiting

    run_virtually(scenario)


def test_who_gives_up_hinders_nobody(at_once: int) -> None:
    async def scenario() -> None:
        shared, register = SharedReads[int](), Register()
        for is_anybody_left in (True, False):
            register.reads = 0
            early = await occupy(shared, register, at_once)
            late = [asyncio.ensure_future(shared_read(shared, "name", register.read)) for _ in range(4)]
            await asyncio.sleep(0.0001)
            for call in (*early, *late[is_anybody_left:]):
                call.cancel()
            if is_anybody_left:
                assert await late[0] == 0
            await asyncio.sleep(1)
            assert register.reads == at_once + is_anybody_left
            assert not shared._under_way and not shared._waiting

    run_virtually(scenario)


@pytest.mark.parametrize("round_trip_s", [0.001, 0.005, 0.015])
def test_few_callers_lose_nothing(at_once: int, round_trip_s: float) -> None:
    """As many as may read at once do not wait; more than that find each other, and most do not either."""

    async def scenario(callers: int) -> float:
        shared, register = SharedReads[int](), Register(round_trip_s)
        loop = asyncio.get_running_loop()
        took_s: list[float] = []

        async def caller(number: int) -> None:
            await asyncio.sleep(round_trip_s * number / callers)
            for _ in range(50):
                begun = loop.time()
                await shared_read(shared, "name", register.read)
                took_s.append(loop.time() - begun)

        await asyncio.gather(*[caller(number) for number in range(callers)])
        return median(took_s)

    async def both() -> None:
        assert await scenario(at_once) == pytest.approx(round_trip_s)
        if at_once > 1:
            assert await scenario(8 * at_once) <= round_trip_s * 1.1

    run_virtually(both)


def test_callers_without_end_go_on_being_answered() -> None:
    async def scenario() -> None:
        shared, register = SharedReads[int](), Register()
        loop = asyncio.get_running_loop()
        longest = 0.0

        async def caller(pause: Callable[[], float]) -> None:
            nonlocal longest
            for _ in range(200):
                begun = loop.time()
                before = register.value
                assert await shared_read(shared, "name", register.read) >= before
                longest = max(longest, loop.time() - begun)
                register.value += 1
                await asyncio.sleep(pause())

        await asyncio.gather(*[caller(lambda share=share: 0.0001 * share) for share in range(20)])
        assert longest <= 2 * register.read_s + 0.001
        assert register.reads < 20 * 200 / 2

    run_virtually(scenario)
