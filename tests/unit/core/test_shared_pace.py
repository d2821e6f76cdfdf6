"""A rate that several share, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from ssastore.core.pace import SharedPace
from tests.registermodel import run_virtually

MIB = 1 << 20


def test_all_who_share_a_pace_get_its_rate_together() -> None:
    async def scenario() -> None:
        loop, pace = asyncio.get_running_loop(), SharedPace(MIB)

        async def copy(count: int) -> None:
            for _ in range(count):
                await pace.spend(MIB)

        began_s = loop.time()
        await asyncio.gather(copy(5), copy(5), copy(10))
        assert loop.time() - began_s == pytest.approx(20, abs=0.5)

    run_virtually(scenario)


def test_time_that_others_take_is_made_up_for_but_not_a_long_rest() -> None:
    async def scenario() -> None:
        loop, pace = asyncio.get_running_loop(), SharedPace(10 * MIB)
        began_s = loop.time()
        for _ in range(20):
            await asyncio.sleep(0.05)  # Reading a page, say.
            await pace.spend(MIB)
        assert loop.time() - began_s == pytest.approx(2, abs=0.2)
        await asyncio.sleep(100)
        began_s = loop.time()
        await pace.spend(20 * MIB)
        assert loop.time() - began_s == pytest.approx(2, abs=0.2)

    run_virtually(scenario)


@pytest.mark.parametrize(("rate", "rest_s"), [(100 * MIB, 0.6), (MIB // 2, 118)])
def test_who_waits_already_follows_a_rate_that_is_changed(rate: int, rest_s: float) -> None:
    async def scenario() -> None:
        loop, pace = asyncio.get_running_loop(), SharedPace(MIB)
        waiting = asyncio.ensure_future(pace.spend(60 * MIB))
        await asyncio.sleep(1)
        pace.bytes_per_s = rate
        began_s = loop.time()
        await waiting
        assert loop.time() - began_s == pytest.approx(rest_s, rel=0.5 if rest_s < 1 else 0.02)

    run_virtually(scenario)


def test_turns_are_taken_in_the_order_in_which_they_are_asked_for() -> None:
    async def scenario() -> None:
        pace, done = SharedPace(MIB), []

        async def spend(name: str, size: int) -> None:
            await pace.spend(size)
            done.append(name)

        await asyncio.gather(spend("large", 8 * MIB), spend("small", 1), spend("last", 1))
        assert done == ["large", "small", "last"]

    run_virtually(scenario)


@pytest.mark.parametrize(("more", "rest_s"), [(4 * MIB, 10), (-4 * MIB, 2), (-40 * MIB, 0)])
def test_who_waits_feels_what_another_has_taken_more_or_less_than_it_asked_for(
    more: int, rest_s: int
) -> None:
    async def scenario() -> None:
        loop, pace = asyncio.get_running_loop(), SharedPace(MIB)
        waiting = asyncio.ensure_future(pace.spend(6 * MIB))
        await asyncio.sleep(0)
        began_s = loop.time()
        pace.correct(more)
        await waiting
        assert loop.time() - began_s == pytest.approx(rest_s, abs=0.3)

    run_virtually(scenario)
