"""A node's lease: kept, taken again after an outage, and gone with the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.boot import Environment
from ssastore.core.membership import (
    AbsentRecord,
    AliveRecord,
    Heartbeat,
    absent_key,
    alive_key,
    read_presence,
)
from ssastore.env import Write
from ssastore.errors import ConfigError
from ssastore.limits import LEASE_MS
from ssastore.sim.control import ControlNetwork, VirtualControlStore
from tests.registermodel import LoopClock, run_virtually

LEASE_S = LEASE_MS / 1000


def virtually(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        run_virtually(test)

    run.__name__ = test.__name__
    return run


def heart(control: Any, env: int = 7) -> Heartbeat:
    return Heartbeat(control, "n1", Environment(env, 3, env), LoopClock())


async def is_alive(control: MemoryControlStore) -> bool:
    return "n1" in (await read_presence(control)).alive


@virtually
async def test_a_record_stands_while_the_node_gives_signs_and_goes_soon_after() -> None:
    control = MemoryControlStore()
    beating = asyncio.ensure_future(heart(control).run())
    for _ in range(20):
        await asyncio.sleep(LEASE_S / 4)
        assert (await read_presence(control)).alive["n1"].env == 7
    beating.cancel()
    await asyncio.sleep(LEASE_S + 1)
    assert not await is_alive(control)


@virtually
async def test_a_node_gives_its_sign_again_when_the_control_store_was_away() -> None:
    """Away for longer than a lease, from the node's side: the lease has ended meanwhile."""
    store, network = MemoryControlStore(), ControlNetwork()
    beating = asyncio.ensure_future(heart(VirtualControlStore(store, network)).run())
    await asyncio.sleep(1)
    network.is_down = True
    await asyncio.sleep(60)
    assert not await is_alive(store) and not beating.done()
    network.is_down = False
    await asyncio.sleep(LEASE_S)
    assert await is_alive(store)
    beating.cancel()


@virtually
async def test_the_record_of_one_process_survives_another_one_of_its_name() -> None:
    """The second writes its own, under its own lease, and takes it along."""
    control = MemoryControlStore()
    first, second = heart(control, 7), heart(control, 8)
    await first.beat()
    await second.beat()
    assert (await read_presence(control)).alive["n1"].env == 8
    for _ in range(3):
        await asyncio.sleep(LEASE_S * 0.4)
        await first.beat()
    assert (await read_presence(control)).alive["n1"].env == 7


def test_records_round_trip_and_nothing_else_passes_for_them() -> None:
    for record in (AliveRecord(7, 1, 5), AbsentRecord(5, "why")):
        assert type(record).decode(record.encode()) == record
    for wrong in (b"", b"{}", b'{"format": 1, "env": -1, "boot": 1, "since_ms": 1}'):
        with pytest.raises(ConfigError):
            AliveRecord.decode(wrong)
    for wrong in (b"", b"{}", b'{"format": 1, "since_ms": 1, "says": 2}'):
        with pytest.raises(ConfigError):
            AbsentRecord.decode(wrong)


async def test_a_record_that_is_not_understood_says_that_it_is_there() -> None:
    control = MemoryControlStore()
    await control.transact([], [Write(alive_key("n1"), b"?"), Write(absent_key("n2"), b"?")])
    found = await read_presence(control)
    assert (list(found.alive), list(found.absent)) == (["n1"], ["n2"])
