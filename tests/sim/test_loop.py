"""The event loop on virtual time: what asyncio promises holds, what it leaves open is drawn from the seed."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import random
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from ssastore import env
from ssastore.errors import Unavailable
from ssastore.sim.clock import EPOCH_MS, NS_PER_S
from ssastore.sim.host import Host
from ssastore.sim.loop import Quiescent, Runaway
from ssastore.sim.swarm import Swarm
from ssastore.sim.traps import TRAPPED, Forbidden
from ssastore.sim.world import World
from ssastore.system import SystemClock, SystemRandomness


def on_one_host(program: Callable[[Host], Coroutine[Any, Any, Any]], world: World | None = None) -> Any:
    """Run a program on a host; what it returns."""
    world = world or World(1)
    host = world.host("one")
    host.start()

    async def main() -> Any:
        return await host.spawn("program", program(host))

    return world.run(main())


# -- time ----------------------------------------------------------------------------------------------


def test_an_hour_of_sleep_takes_an_hour_of_virtual_time_only() -> None:
    world = World(1)
    started = time.perf_counter()

    async def program(host: Host) -> float:
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - before

    assert on_one_host(program, world) == pytest.approx(3600)
    assert world.loop.now_ns >= 3600 * NS_PER_S
    assert time.perf_counter() - started < 10


def test_a_sleep_without_end_is_one() -> None:
    async def program(host: Host) -> bool:
        sleeping = host.spawn("sleep", asyncio.sleep(math.inf))
        await asyncio.sleep(1e6)
        return bool(sleeping.done())

    assert not on_one_host(program, World(1, virtual_ms_max=10**10))


def test_a_job_that_dies_of_a_bug_ends_the_run_with_it() -> None:
    """Nobody waits for a job: what it raised would be told to the collector only."""

    async def die(of: Exception) -> None:
        raise of

    async def program(host: Host, of: Exception) -> None:
        host.spawn("job", die(of))
        await asyncio.sleep(1)

    with pytest.raises(TypeError, match="unhashable"):
        on_one_host(partial(program, of=TypeError("unhashable")))
    on_one_host(partial(program, of=Unavailable("nobody answers")))


def test_asyncio_works_as_ever() -> None:
    """Timeouts, task groups, events, semaphores, queues, shields: all on virtual time."""

    async def program(host: Host) -> list[str]:
        story: list[str] = []
        event, gate, queue = asyncio.Event(), asyncio.Semaphore(2), asyncio.Queue[int](1)

        async def gated(number: int) -> int:
            async with gate:
                await asyncio.sleep(1)
            return number

        async def producer() -> None:
            for number in range(3):
                await queue.put(number)
            event.set()

        assert await asyncio.gather(*[gated(number) for number in range(5)]) == [0, 1, 2, 3, 4]
        async with asyncio.TaskGroup() as group:
            group.create_task(producer())
            taken = [await queue.get() for _ in range(3)]
        assert taken == [0, 1, 2]
        assert event.is_set()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.sleep(1)
        inner = asyncio.ensure_future(gated(7))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.25)
        story.append(f"shielded {await inner}")
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(_raise_after(0.1))
                group.create_task(asyncio.sleep(1000))
        return story

    world = World(1)
    assert on_one_host(program, world) == ["shielded 7"]
    assert world.loop.now_ns == pytest.approx(4.6 * NS_PER_S, rel=0.01)


async def _raise_after(delay: float) -> None:
    await asyncio.sleep(delay)
    raise ZeroDivisionError


def test_a_cancelled_timer_costs_no_time() -> None:
    async def program(host: Host) -> None:
        asyncio.get_running_loop().call_later(1000, print).cancel()
        await asyncio.sleep(1)
        await asyncio.Event().wait()

    with pytest.raises(Quiescent, match=r"at 1\.000000 s"):
        on_one_host(program)


def test_waiting_for_a_moment_comes_to_an_end() -> None:
    """Floats round: a wait for the rest of nothing must still take some time."""

    async def program(host: Host) -> None:
        loop = asyncio.get_running_loop()
        for span in (0.1, 1 / 3, 1e-9, 1e-12, 7.000000000000001):
            deadline = loop.time() + span
            while loop.time() < deadline:
                await asyncio.sleep(deadline - loop.time())

    on_one_host(program, World(1, Swarm(drift_ppm=100_000), steps_max=1000))


def test_clocks_of_hosts_differ() -> None:
    """A host with a fast clock sleeps shorter; its wall clock jumps without disturbing its timers."""
    world = World(1)
    fast = world.network.host("fast", "fd5a:ffff::a", rate_ppm=1_100_000, offset_ms=5000)
    slow = world.network.host("slow", "fd5a:ffff::b", rate_ppm=900_000, origin_ns=99 * NS_PER_S)

    async def nap(host: Host) -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        before = loop.time()
        host.clock.jump(-7_200_000)
        await asyncio.sleep(11)
        assert loop.time() - before == pytest.approx(11)
        return world.loop.now_ns / NS_PER_S, host.clock.now_ms()

    async def main() -> list[tuple[float, int]]:
        for host in (fast, slow):
            host.start()
        return list(await asyncio.gather(*[host.spawn("nap", nap(host)) for host in (fast, slow)]))

    (fast_s, fast_ms), (slow_s, slow_ms) = world.run(main())
    assert fast_s == pytest.approx(10)
    assert slow_s == pytest.approx(11 / 0.9)
    assert fast_ms == EPOCH_MS + 5000 - 7_200_000 + 11_000
    assert slow_ms == EPOCH_MS - 7_200_000 + 11_000


# -- order ---------------------------------------------------------------------------------------------


async def _marks(host: Host, start: Callable[[list[int]], None], count: int) -> tuple[int, ...]:
    order: list[int] = []
    start(order)
    while len(order) < count:
        await asyncio.sleep(0.001)
    return tuple(order)


def _orders(start: Callable[[list[int]], None], count: int = 4) -> list[tuple[int, ...]]:
    return [on_one_host(lambda host: _marks(host, start, count), World(seed)) for seed in range(40)]


def test_callbacks_run_in_the_order_of_call_soon() -> None:
    def start(order: list[int]) -> None:
        for number in range(4):
            asyncio.get_running_loop().call_soon(order.append, number)

    assert set(_orders(start)) == {(0, 1, 2, 3)}


def test_a_callback_between_tasks_keeps_its_place() -> None:
    def start(order: list[int]) -> None:
        async def mark(number: int) -> None:
            order.append(number)

        for number in (0, 2):
            asyncio.get_running_loop().call_soon(order.append, number)
            env.spawn("mark", mark(number + 1))

    assert set(_orders(start)) == {(0, 1, 2, 3)}


def test_tasks_that_are_ready_together_run_in_any_order() -> None:
    def start(order: list[int]) -> None:
        async def mark(number: int) -> None:
            order.append(number)

        for number in range(4):
            env.spawn("mark", mark(number))

    orders = _orders(start)
    assert len(set(orders)) > 10
    assert orders == _orders(start)


def test_timers_of_one_instant_run_in_any_order() -> None:
    def start(order: list[int]) -> None:
        for number in range(4):
            asyncio.get_running_loop().call_later(1, order.append, number)

    orders = _orders(start)
    assert len(set(orders)) > 10
    assert orders == _orders(start)


def test_hosts_take_turns_in_any_order() -> None:
    def order_of(seed: int) -> str:
        world = World(seed)
        order: list[str] = []

        async def program(host: Host) -> None:
            for _ in range(3):
                order.append(host.name)
                await asyncio.sleep(0)

        async def main() -> None:
            for name in "ab":
                world.host(name, program).start()
            await asyncio.sleep(1)

        world.run(main())
        return "".join(order)

    assert len({order_of(seed) for seed in range(40)}) > 5


def test_tasks_are_cancelled_in_the_same_order_each_time() -> None:
    """A task group keeps a set; walked by memory addresses, the order would be another in each process."""

    async def program(host: Host) -> list[int]:
        order: list[int] = []

        async def wait(number: int) -> None:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                order.append(number)
                raise

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(wait(number))
                await asyncio.sleep(1)
                group.create_task(_raise_after(0))
        assert [hash(task) for task in asyncio.all_tasks()] == sorted(hash(t) for t in asyncio.all_tasks())
        return order

    first = on_one_host(program, World(5))
    ballast = [object() for _ in range(10_000)]
    assert on_one_host(program, World(5)) == first
    del ballast


def test_the_processor_can_be_taken_away_after_any_callback() -> None:
    async def program(host: Host) -> int:
        for _ in range(100):
            await asyncio.sleep(0)
        return host.network.loop.now_ns

    assert on_one_host(program) == 0
    noisy = Swarm(deschedule_every=5, deschedule_ns=1_000_000)
    assert 5_000_000 < on_one_host(program, World(1, noisy)) < 100_000_000


# -- end and errors ------------------------------------------------------------------------------------


def test_who_waits_for_ever_is_named() -> None:
    async def program(host: Host) -> None:
        await asyncio.sleep(1)
        await asyncio.Event().wait()

    with pytest.raises(Quiescent, match=r"one\.0.*one program at .*locks\.py:\d+") as caught:
        on_one_host(program)
    assert "seed 1:" in caught.value.__notes__[0]


def test_who_turns_for_ever_is_stopped() -> None:
    async def program(host: Host) -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Runaway):
        on_one_host(program, World(1, steps_max=20_000))

    async def slowly(host: Host) -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(Runaway):
        on_one_host(slowly, World(1, virtual_ms_max=100_000))


def test_an_error_in_a_callback_makes_the_run_red() -> None:
    async def program(host: Host) -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    with pytest.raises(ZeroDivisionError):
        on_one_host(program)


def test_a_killed_process_cleans_nothing_up() -> None:
    """No ``finally`` runs when it dies, and nothing of the run is kept after it."""
    world = World(1)
    cleaned: list[int] = []
    kept = len(env._running)

    async def program(host: Host) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            cleaned.append(world.loop.now_ns)

    async def main() -> None:
        host = world.host("one", program)
        host.start()
        await asyncio.sleep(1)
        host.kill()
        await asyncio.sleep(5000)
        assert not cleaned

    world.run(main())
    assert len(cleaned) == 1  # the coroutine was closed after the end
    assert len(env._running) == kept
    assert gc.isenabled()


def test_a_dead_process_never_runs_again() -> None:
    """Also when it had lost the processor at its death and would get it back later."""
    for seed in range(20):
        world = World(seed, Swarm(deschedule_every=3, deschedule_ns=NS_PER_S))
        ran_at: list[int] = []

        async def program(host: Host, ran_at: list[int] = ran_at) -> None:
            while True:
                ran_at.append(host.network.loop.now_ns)
                await asyncio.sleep(0)

        async def main(world: World = world, ran_at: list[int] = ran_at) -> None:
            host = world.host("one", program)
            host.start()
            await asyncio.sleep(3)
            host.kill()
            died_at = world.loop.now_ns
            await asyncio.sleep(1000)
            assert max(ran_at) <= died_at

        world.run(main())


def test_a_paused_process_finds_its_timers_due() -> None:
    world = World(1)
    woken: list[int] = []

    async def program(host: Host) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            woken.append(world.loop.now_ns // NS_PER_S)

    async def main() -> None:
        host = world.host("one", program)
        host.start()
        await asyncio.sleep(1.5)
        host.pause()
        await asyncio.sleep(10)
        assert woken == [1]
        host.resume()
        await asyncio.sleep(10)

    world.run(main())
    assert woken == [1, 11, 12]


# -- traps ---------------------------------------------------------------------------------------------

# Looked up when called: the traps are set on the modules.
REACHES_OUT: dict[str, tuple[Any, str, tuple[Any, ...]]] = {
    "wall clock": (time, "time", ()),
    "monotonic clock": (time, "monotonic", ()),
    "SystemClock": (SystemClock(), "now_ms", ()),
    "SystemRandomness.bytes": (SystemRandomness(), "bytes", (1,)),
    "SystemRandomness.below": (SystemRandomness(), "below", (9,)),
    "random": (random, "random", ()),
    "shuffle": (random, "shuffle", ([],)),
    "secrets": (secrets, "token_bytes", ()),
    "uuid4": (uuid, "uuid4", ()),
    "socket": (socket, "socket", ()),
    "thread": (threading.Thread(), "start", ()),
}


@pytest.mark.parametrize("what", REACHES_OUT)
def test_reaching_out_of_the_simulation_raises(what: str) -> None:
    owner, name, args = REACHES_OUT[what]

    async def program(host: Host) -> None:
        with pytest.raises(Forbidden):
            getattr(owner, name)(*args)

    on_one_host(program)


def test_threads_and_resolvers_are_refused() -> None:
    async def program(host: Host) -> None:
        with pytest.raises(Forbidden):
            await asyncio.to_thread(print)
        with pytest.raises(Forbidden):
            await asyncio.get_running_loop().getaddrinfo("example.org", 80)

    on_one_host(program)


def test_traps_are_gone_after_the_run_and_logging_is_free() -> None:
    originals = [getattr(owner, name) for owner, name in TRAPPED]

    async def program(host: Host) -> None:
        logging.getLogger("not of the package").warning("stamped with the wall clock")

    on_one_host(program)
    assert [getattr(owner, name) for owner, name in TRAPPED] == originals
    assert time.time() > 0
