"""Changes that were submitted: how many go into one commit, and how their callers hear of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ssastore.env import WriteTxn
from ssastore.errors import SsaStoreError
from ssastore.limits import COMMIT_BYTES_MAX, COMMIT_OPS_MAX

T = TypeVar("T")

Change: TypeAlias = Callable[[WriteTxn], Any]

Outcome: TypeAlias = tuple[Any, BaseException | None]
"Result and error of one change; the result counts when the error is None."


Then: TypeAlias = Callable[[Any, BaseException | None], None]
"Who hears of the outcome."


class Submitted(NamedTuple):
    """A change that waits for its commit."""

    change: Change
    size: int
    then: Then


def take_batch(waiting: deque[Submitted]) -> list[Submitted]:
    """Take the first changes of ``waiting``, at least one, within the limits of one commit."""
    batch = [waiting.popleft()]
    room = COMMIT_BYTES_MAX - batch[0].size
    while waiting and len(batch) < COMMIT_OPS_MAX:
        room -= waiting[0].size
        if room < 0:
            break
        batch.append(waiting.popleft())
    return batch


def answer(submitted: Submitted, outcome: Outcome) -> None:
    """Tell a change's outcome. Whoever fails over it must not keep the others from hearing of theirs."""
    try:
        submitted.then(*outcome)
    except Exception as error:
        context = {"message": "who submitted a change failed over its outcome", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


def submit(do: Callable[..., None], change: Callable[[WriteTxn], T], size: int) -> asyncio.Future[T]:
    """``env.Store.submit`` by ``env.Store.do``."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    do(change, partial(settle, future), size=size)
    return future


def settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Give a change's outcome to its caller.

    A caller that has cancelled the future gets nothing; what it asked for has happened all the same.
    """
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, asyncio.CancelledError):
        future.cancel()
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
