"""A thread beside the event loop."""

from __future__ import annotations

import asyncio
import threading
import time

from ssastore.store.workthread import WorkThread


async def test_work_is_done_in_order_and_reported_to_the_loop() -> None:
    thread = WorkThread("test", lambda error: None)
    done: list[tuple[int, bool]] = []
    loop_thread = threading.get_ident()
    last: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for number in range(5):
        thread.do(
            lambda number=number: (number, threading.get_ident() != loop_thread),
            done.append,
        )
    thread.do(lambda: None, last.set_result)
    await last
    assert done == [(number, True) for number in range(5)]
    thread.end()


async def test_error_goes_to_who_was_named_and_the_thread_goes_on() -> None:
    errors: list[BaseException] = []
    thread = WorkThread("test", errors.append)
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    thread.do(lambda: 1 // 0, lambda _: None)
    thread.do(lambda: 7, done.set_result)
    assert await done == 7 and isinstance(errors[0], ZeroDivisionError)
    thread.end()
    thread.end()


def test_thread_ends_when_the_loop_is_gone() -> None:
    name = "test of a lost loop"
    go = threading.Event()

    async def abandon() -> None:
        WorkThread(name, lambda error: None).do(go.wait, lambda _: None)

    asyncio.run(abandon())
    go.set()
    deadline = time.monotonic() + 5
    while any(thread.name == name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
