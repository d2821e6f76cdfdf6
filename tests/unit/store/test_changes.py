"""Batches of changes, and the answers to their futures."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from ssastore.limits import COMMIT_BYTES_MAX, COMMIT_OPS_MAX
from ssastore.store.changes import Submitted, settle, take_batch, without_caller


async def sizes_of_batches(sizes: list[int]) -> list[list[int]]:
    loop = asyncio.get_running_loop()
    waiting = deque(Submitted(lambda txn: None, size, loop.create_future()) for size in sizes)
    batches = []
    while waiting:
        batches.append([submitted.size for submitted in take_batch(waiting)])
    return batches


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([1], [[1]]),
        ([0, 5, 0], [[0, 5, 0]]),
        ([COMMIT_BYTES_MAX - 1, 1, 1], [[COMMIT_BYTES_MAX - 1, 1], [1]]),
        ([COMMIT_BYTES_MAX, 1], [[COMMIT_BYTES_MAX], [1]]),
        ([COMMIT_BYTES_MAX * 2, 1, 1], [[COMMIT_BYTES_MAX * 2], [1, 1]]),
        ([1, COMMIT_BYTES_MAX, 1], [[1], [COMMIT_BYTES_MAX], [1]]),
        ([0] * (COMMIT_OPS_MAX + 1), [[0] * COMMIT_OPS_MAX, [0]]),
    ],
)
async def test_batch_is_bounded_and_in_order(sizes: list[int], batches: list[list[int]]) -> None:
    assert await sizes_of_batches(sizes) == batches


async def test_outcome_reaches_the_caller() -> None:
    loop = asyncio.get_running_loop()
    done, failed, stopped, cancelled = (loop.create_future() for _ in range(4))
    cancelled.cancel()
    settle(done, (7, None))
    settle(failed, (None, LookupError("x")))
    settle(stopped, (None, StopIteration()))
    settle(cancelled, (7, None))
    assert await done == 7
    with pytest.raises(LookupError, match="x"):
        await failed
    with pytest.raises(RuntimeError, match="StopIteration"):
        await stopped
    assert cancelled.cancelled()


def test_error_forgets_who_caught_it() -> None:
    def raises() -> None:
        raise LookupError

    def catches() -> BaseException:
        try:
            raises()
        except LookupError as error:
            return without_caller(error)
        raise AssertionError

    trace = catches().__traceback__
    assert trace is not None
    assert [trace.tb_frame.f_code.co_name, trace.tb_next] == ["raises", None]
    assert without_caller(LookupError()).__traceback__ is None
