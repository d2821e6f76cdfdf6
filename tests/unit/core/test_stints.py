"""How much of its time a worker rests, and how many are at work at a time. Virtual time."""

from __future__ import annotations

import asyncio

import pytest

from ssastore.core.pace import Gate, Stint
from ssastore.limits import MOVE_SILENT_MS
from tests.registermodel import run_virtually


@pytest.mark.parametrize(("rest_to_work", "took_s"), [(4, 50.0), (1, 20.0), (0, 10.0)])
def test_rests_are_in_proportion_to_work(rest_to_work: int, took_s: float) -> None:
    """However long a step took: on a busy machine, or at a slow disk, the rest after it is longer."""

    async def scenario() -> None:
        loop, stint = asyncio.get_running_loop(), Stint(rest_to_work)
        began_s = loop.time()
        for work_s in (0.1, 0.3, 0.1, 1.5) * 5:
            await asyncio.sleep(work_s)
            await stint.rest()
        assert loop.time() - began_s == pytest.approx(took_s)

    run_virtually(scenario)


def test_waiting_for_a_partner_that_has_gone_is_no_work() -> None:
    """Else the other end would take who rests so long for gone as well."""

    async def scenario() -> None:
        loop, stint = asyncio.get_running_loop(), Stint(4)
        await asyncio.sleep(120)
        began_s = loop.time()
        await stint.rest()
        assert 0 < loop.time() - began_s < MOVE_SILENT_MS / 3000

    run_virtually(scenario)


def test_who_rests_is_at_work_again_soon_after_a_rate_was_set() -> None:
    async def scenario() -> None:
        loop, stint = asyncio.get_running_loop(), Stint(4)
        await asyncio.sleep(2)
        resting = asyncio.ensure_future(stint.rest())
        await asyncio.sleep(1)
        stint.rest_to_work = 0
        began_s = loop.time()
        await resting
        assert loop.time() - began_s < 0.5

    run_virtually(scenario)


def test_so_many_are_in_at_a_time_also_when_that_changes() -> None:
    async def scenario() -> None:
        gate, inside, seen = Gate(1), 0, []

        async def work(name: int) -> None:
            nonlocal inside
            async with gate:
                inside += 1
                seen.append((name, inside))
                await asyncio.sleep(1)
                inside -= 1

        working = [asyncio.ensure_future(work(name)) for name in range(12)]
        await asyncio.sleep(2.5)
        assert [count for _, count in seen] == [1] * 3
        gate.let(4)
        await asyncio.sleep(1)
        assert max(count for _, count in seen) == 4
        gate.let(1)
        await asyncio.gather(*working)
        assert [name for name, _ in seen] == list(range(12)) and seen[-1][1] == 1

    run_virtually(scenario)


def test_who_is_called_off_keeps_nobody_out() -> None:
    async def scenario() -> None:
        gate = Gate(1)

        async def work(seconds: float) -> None:
            async with gate:
                await asyncio.sleep(seconds)

        first, waiting = asyncio.ensure_future(work(100)), asyncio.ensure_future(work(1))
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.wait_for(waiting, 2)

    run_virtually(scenario)
