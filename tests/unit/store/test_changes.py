"""Batches of changes, and how their callers hear of them."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from ssastore.errors import StoreFull
from ssastore.limits import COMMIT_BYTES_MAX, COMMIT_OPS_MAX
from ssastore.store.changes import Submitted, settle, take_batch, without_trace


def sizes_of_batches(sizes: list[int]) -> list[list[int]]:
    waiting = deque(Submitted(lambda txn: None, size, lambda result, error: None) for size in sizes)
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
def test_batch_is_bounded_and_in_order(sizes: list[int], batches: list[list[int]]) -> None:
    assert sizes_of_batches(sizes) == batches


async def test_outcome_reaches_the_caller() -> None:
    loop = asyncio.get_running_loop()
    done, failed, stopped, cancelled, crashed = (loop.create_future() for _ in range(5))
    cancelled.cancel()
    settle(done, 7, None)
    settle(failed, None, LookupError("x"))
    settle(stopped, None, StopIteration())
    settle(cancelled, 7, None)
    settle(crashed, None, asyncio.CancelledError())
    assert await done == 7
    with pytest.raises(LookupError, match="x"):
        await failed
    with pytest.raises(RuntimeError, match="StopIteration"):
        await stopped
    assert cancelled.cancelled() and crashed.cancelled()


def caught(error: BaseException) -> BaseException:
    try:
        try:
            raise KeyError("cause")
        except KeyError as cause:
            raise error from cause
    except BaseException as raised:
        return without_trace(raised)


def test_expected_error_has_no_traceback_that_keeps_its_batch() -> None:
    error = caught(StoreFull("x"))
    assert error.__traceback__ is None
    assert isinstance(error.__cause__, KeyError) and error.__cause__.__traceback__ is None


def test_bug_in_a_change_keeps_its_traceback() -> None:
    assert caught(ZeroDivisionError()).__traceback__ is not None
