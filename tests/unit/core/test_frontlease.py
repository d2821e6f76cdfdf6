"""The name of a gateway is one gateway's, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.front import GateRecord, gate_key
from ssastore.core.frontlease import GateLease
from ssastore.env import Item, Write, spawn
from ssastore.errors import ConfigError
from ssastore.limits import LEASE_MS
from tests.registermodel import run_virtually

FIRST, SECOND = "fd00::51", "fd00::52"


class Slow(MemoryControlStore):
    """Whose answers take some time."""

    async def get(self, key: str) -> Item | None:
        item = await super().get(key)
        await asyncio.sleep(0.01)
        return item


def lease(control: MemoryControlStore, address: str, weight: int = 1, *, is_here: bool = True) -> GateLease:
    return GateLease(control, GateRecord("gw1", address, weight), lambda: is_here)


async def named(control: MemoryControlStore) -> GateRecord:
    """Who has the name."""
    item = await control.get(gate_key("gw1"))
    assert item is not None
    return GateRecord.decode(item.value)


def virtually(
    work: Callable[[MemoryControlStore], Awaitable[None]],
    kind: type[MemoryControlStore] = MemoryControlStore,
) -> None:
    async def run() -> None:
        await work(kind())

    run_virtually(run)


def test_a_second_gateway_of_the_name_is_refused_and_the_first_one_stays() -> None:
    async def work(control: MemoryControlStore) -> None:
        first = lease(control, FIRST)
        await first.claim()
        signs = spawn("signs", first.run())
        with pytest.raises(ConfigError, match="name: another gateway is called gw1, at fd00::51"):
            await lease(control, SECOND).claim()
        assert (await named(control)).address == FIRST
        signs.cancel()

    virtually(work)


def test_one_whose_settings_were_copied_with_its_address_is_refused() -> None:
    async def work(control: MemoryControlStore) -> None:
        first = lease(control, FIRST)
        await first.claim()
        signs = spawn("signs", first.run())
        with pytest.raises(ConfigError, match="at fd00::51"):
            await lease(control, FIRST, is_here=False).claim()
        signs.cancel()

    virtually(work)


def test_of_two_that_start_together_one_is_refused() -> None:
    """Though both found nobody of the name."""

    async def work(control: MemoryControlStore) -> None:
        both = [lease(control, FIRST), lease(control, SECOND)]

        async def live(one: GateLease) -> None:
            await one.claim()
            await one.run()

        tasks = [spawn("gateway", live(one)) for one in both]
        done, left = await asyncio.wait(tasks, timeout=60)
        assert len(done) == len(left) == 1 and isinstance(done.pop().exception(), ConfigError)
        left.pop().cancel()

    virtually(work, Slow)


def test_one_that_starts_again_on_its_host_is_there_at_once() -> None:
    """Its former life died and its lease runs on; that one's end takes nothing along."""

    async def work(control: MemoryControlStore) -> None:
        await lease(control, FIRST).claim()
        again = lease(control, FIRST, weight=3)
        async with asyncio.timeout(0.1):
            await again.claim()
        signs = spawn("signs", again.run())
        await asyncio.sleep(2 * LEASE_MS / 1000)
        assert (await named(control)).weight == 3
        signs.cancel()

    virtually(work)


def test_the_name_of_one_that_died_elsewhere_is_free_when_its_lease_is_over() -> None:
    async def work(control: MemoryControlStore) -> None:
        await lease(control, FIRST).claim()
        began = asyncio.get_running_loop().time()
        await lease(control, SECOND).claim()
        assert asyncio.get_running_loop().time() - began <= LEASE_MS / 1000 + 1
        assert (await named(control)).address == SECOND

    virtually(work)


def test_who_comes_back_after_another_took_the_name_leaves_it_to_that_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(control: MemoryControlStore) -> None:
        first = lease(control, FIRST)
        await first.claim()
        await control.transact([], [Write(gate_key("gw1"), GateRecord("gw1", SECOND).encode())])
        signs = spawn("signs", first.run())
        await asyncio.sleep(30)
        assert (await named(control)).address == SECOND
        signs.cancel()

    virtually(work)
    assert "another gateway is called gw1, at fd00::52" in str([vars(record) for record in caplog.records])


def test_a_record_that_somebody_removed_is_written_again() -> None:
    async def work(control: MemoryControlStore) -> None:
        first = lease(control, FIRST)
        await first.claim()
        await control.transact([], [Write(gate_key("gw1"), None)])
        await first.beat()
        assert (await named(control)).address == FIRST

    virtually(work)
