"""Reads of one name at the same time: what is shared began after all who share it had asked. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ssastore.core.sharedreads import SharedReads
from ssastore.limits import SHARED_READ_WAIT_MS
from tests.registermodel import run_virtually

WAIT_S = SHARED_READ_WAIT_MS / 1000


async def shared_read(shared: SharedReads[int], name: object, ask: Callable[[], Awaitable[int]]) -> int:
    """As ``Registers.state`` does it."""
    own = (name, len([name]))
    if shared.begin(own):
        try:
            return await ask()
        finally:
            shared.end(own)
    found = await shared.next(own, ask)
    return await ask() if found is None else found


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


def test_many_callers_make_two_reads() -> None:
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


def test_nobody_is_told_what_was_overwritten_before_they_asked() -> None:
    """The read under way has looked already when a write is acknowledged: a later caller sees the write."""

    async def scenario() -> None:
        shared, register = SharedReads[int](), Register()
        early = asyncio.ensure_future(shared_read(shared, "name", register.read))
        await asyncio.sleep(register.read_s * 0.75)
        register.value = 1
        late = [asyncio.ensure_future(shared_read(shared, "name", register.read)) for _ in range(3)]
        assert await early == 0
        assert await asyncio.gather(*late) == [1, 1, 1]
        assert register.reads == 2

    run_virtually(scenario)


def test_a_read_that_hangs_holds_nobody_up_for_long() -> None:
    async def scenario() -> None:
        shared, slow, quick = SharedReads[int](), Register(read_s=60), Register()
        loop = asyncio.get_running_loop()
        hanging = asyncio.ensure_future(shared_read(shared, "name", slow.read))
        await asyncio.sleep(0.001)
        begun = loop.time()
        slow.read_s = quick.read_s
        found = await asyncio.gather(*[shared_read(shared, "name", slow.read) for _ in range(10)])
        assert found == [0] * 10
        assert loop.time() - begun == pytest.approx(WAIT_S + quick.read_s)
        assert slow.reads == 2
        assert await shared_read(shared, "name", slow.read) == 0
        assert not shared._under_way and not shared._waiting, "what is left of the first one hinders nobody"
        hanging.cancel()

    run_virtually(scenario)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_failure_is_the_own_one_of_whom_it_meets(failures: int) -> None:
    """The first caller's is its own; of the read for all who wait, everybody asks again."""

    async def scenario() -> None:
        shared, register = SharedReads[int](), Register()
        register.failures = failures
        outcomes = await asyncio.gather(
            *[shared_read(shared, "name", register.read) for _ in range(4)], return_exceptions=True
        )
        assert isinstance(outcomes[0], OSError)
        assert outcomes[1:] == [0, 0, 0]
        assert register.reads == 2 if failures == 1 else 5
        assert not shared._under_way and not shared._waiting

    run_virtually(scenario)


def test_who_gives_up_hinders_nobody() -> None:
    async def scenario() -> None:
        shared, register = SharedReads[int](), Register()
        first, *others = [asyncio.ensure_future(shared_read(shared, "name", register.read)) for _ in range(5)]
        await asyncio.sleep(0.001)
        first.cancel()
        others[0].cancel()
        assert await asyncio.gather(*others[1:]) == [0, 0, 0]
        assert register.reads == 2
        all_cancelled = [asyncio.ensure_future(shared_read(shared, "name", register.read)) for _ in range(5)]
        await asyncio.sleep(0.001)
        for task in all_cancelled:
            task.cancel()
        await asyncio.sleep(1)
        assert register.reads == 3, "nobody is left who wants another"
        assert not shared._under_way and not shared._waiting

    run_virtually(scenario)


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
        assert longest <= 2 * register.read_s + 0.0001
        assert register.reads < 20 * 200 / 4

    run_virtually(scenario)
