"""Changes that were submitted: how many go into one commit, and how their futures are answered."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from ssastore.env import WriteTxn
from ssastore.errors import SsaStoreError
from ssastore.limits import COMMIT_BYTES_MAX, COMMIT_OPS_MAX

Change: TypeAlias = Callable[[WriteTxn], Any]

Outcome: TypeAlias = tuple[Any, BaseException | None]
"Result and error of one change; the result counts when the error is None."


class Submitted(NamedTuple):
    """A change that waits for its commit."""

    change: Change
    size: int
    future: asyncio.Future[Any]


class Abandoned(Exception):
    """A transaction was given up for the sake of one change; none of it was kept.

    Attributes:
        outcome: the error of a change that was alone in the transaction.
    """

    def __init__(self, outcome: BaseException) -> None:
        super().__init__()
        self.outcome = outcome


def take_batch(
    waiting: deque[Submitted], *, ops_max: int = COMMIT_OPS_MAX, bytes_max: int = COMMIT_BYTES_MAX
) -> list[Submitted]:
    """Take the first changes of ``waiting``, at least one, within limits; by default those of a commit."""
    batch = [waiting.popleft()]
    room = bytes_max - batch[0].size
    while waiting and len(batch) < ops_max:
        room -= waiting[0].size
        if room < 0:
            break
        batch.append(waiting.popleft())
    return batch


def settle(future: asyncio.Future[Any], outcome: Outcome) -> None:
    """Give a change's outcome to its caller.

    A caller that has cancelled the future gets nothing; what it asked for has happened all the same.
    """
    result, error = outcome
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        # A future cannot carry it: awaiting it would end the generator below.
        future.set_exception(RuntimeError("a change raised StopIteration"))
    else:
        future.set_exception(error)


def without_trace(error: BaseException) -> BaseException:
    """``error``, without its traceback if it is one of ours, such as a false condition or a full store.

    A traceback leads over its frames to the whole batch, and the batch over its futures to the error: a
    cycle, which would keep megabytes until the garbage collector comes by.  Foreign errors are bugs in a
    change; they are rare and worth their traceback.
    """
    if isinstance(error, SsaStoreError):
        link: BaseException | None = error
        while link is not None:
            link.__traceback__ = None
            link = link.__context__
    return error
