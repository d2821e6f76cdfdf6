"""Reading from a majority of planes without writing. Coroutines on what asks one plane.

A register's value is chosen when a majority of planes has accepted the same ballot.  So
a reader that gets the same ballot from F+1 planes under one cfg has the agreed value in one
round trip; one that does not, or not in time, lets the proposer find out.

Answers count together only under one cfg of the group: ``cfg_of`` says which an answer was
given under.  Else one from before a recovery and one from after it could make a majority
that no configuration has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from ssastore.env import spawn
from ssastore.errors import (
    AccessDenied,
    BucketNotFound,
    ConfigError,
    Conflict,
    OutOfStep,
    Recounted,
    RequestError,
    SsaStoreError,
    StoreFull,
    TryLater,
    Unavailable,
)
from ssastore.messages import Status
from ssastore.wire import Body, Header

T = TypeVar("T")

HEDGE_S = 0.25
"How long a plane may take before the next one is asked too."

REFUSALS = (RequestError, AccessDenied, ConfigError, Conflict, BucketNotFound, Recounted)
"What any plane would answer, or what makes the question another one: to ask the next is no use."

Asked = tuple[T | None, Exception | None]


def no_cfg(answer: object) -> int:
    """``cfg_of`` of answers that say nothing of the group's state."""
    return 0


def _largest(answers: list[tuple[int, T]], cfg_of: Callable[[T], int]) -> list[tuple[int, T]]:
    """The answers of the cfg that most planes answered under."""
    by_cfg: dict[int, list[tuple[int, T]]] = {}
    for plane, answer in answers:
        by_cfg.setdefault(cfg_of(answer), []).append((plane, answer))
    return max(by_cfg.values(), key=len, default=[])


async def _outcome(ask: Callable[[int], Awaitable[T]], plane: int) -> Asked[T]:
    """What came of asking; nothing is asked by a task that ends before it begins."""
    try:
        return await ask(plane), None
    except SsaStoreError as error:
        return None, error


async def gather_majority(
    ask: Callable[[int], Awaitable[T]], replicas: int, *, cfg_of: Callable[[T], int] = no_cfg
) -> list[tuple[int, T]]:
    """(plane, answer) of F+1 planes: the first F+1 are asked, the others when one fails or is slow.

    Raises:
        Unavailable: no majority answers; the first failure says why. OutOfStep: not under one cfg.
    """
    needed = replicas // 2 + 1
    tasks = {spawn(f"plane {plane}", _outcome(ask, plane)): plane for plane in range(needed)}
    waiting = set(tasks)
    answers: list[tuple[int, T]] = []
    failure: Exception | None = None
    try:
        while len(_largest(answers, cfg_of)) < needed:
            timeout = HEDGE_S if len(tasks) < replicas else None
            done, waiting = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            failed = 0
            for task in done:
                answer, error = task.result()
                if error is None:
                    answers.append((tasks[task], answer))  # type: ignore[arg-type]  # no error: an answer
                elif isinstance(error, REFUSALS):
                    raise error
                else:
                    failed, failure = failed + 1, failure or error
            is_short = len(_largest(answers, cfg_of)) < needed
            more = failed if done else 1
            if is_short and not waiting:
                more = max(more, 1)  # All that were asked have answered, and not under one cfg.
            for plane in range(len(tasks), min(len(tasks) + more, replicas)):
                task = spawn(f"plane {plane}", _outcome(ask, plane))
                tasks[task] = plane
                waiting.add(task)
            if not waiting and is_short:
                if replicas == 1 and failure is not None:
                    raise failure
                raise _too_few(answers, replicas, failure)
    finally:
        _cancel(waiting)
    return _largest(answers, cfg_of)


def _too_few(answers: list[tuple[int, T]], replicas: int, failure: Exception | None) -> TryLater:
    """Why there is no majority."""
    if len(answers) > replicas // 2:
        return OutOfStep(f"{len(answers)} of {replicas} planes answer, and not under one configuration")
    return Unavailable(f"{len(answers)} of {replicas} planes answer: {failure}")


async def gather_reachable(
    ask: Callable[[int], Awaitable[T]], replicas: int, *, cfg_of: Callable[[T], int] = no_cfg
) -> list[tuple[int, T]]:
    """(plane, answer) of all planes that answer at all, F+1 at least. Waits for the slowest.

    Raises:
        Unavailable: no majority answers. OutOfStep: not under one cfg.
    """
    tasks = [spawn(f"plane {plane}", _outcome(ask, plane)) for plane in range(replicas)]
    try:
        outcomes = [await task for task in tasks]
    finally:
        _cancel(tasks)
    answers: list[tuple[int, T]] = [
        (plane, answer)  # type: ignore[misc]  # no error: an answer
        for plane, (answer, error) in enumerate(outcomes)
        if error is None
    ]
    agreeing = _largest(answers, cfg_of)
    if len(agreeing) < replicas // 2 + 1:
        for _, error in outcomes:
            if isinstance(error, Recounted):
                raise error
        raise _too_few(answers, replicas, next((error for _, error in outcomes if error is not None), None))
    return agreeing


async def agreed_read(
    ask: Callable[[int, bool], Awaitable[tuple[Header, Body]]], replicas: int
) -> tuple[Header, Body] | None:
    """The reply to a Get that a majority agrees on, or None when only the proposer can tell.

    ``ask`` takes which plane, in the caller's order, and whether the inline data is wanted: one plane's
    is enough.
    """
    needed = replicas // 2 + 1

    def ask_plane(plane: int) -> Awaitable[tuple[Header, Body]]:
        return ask(plane, plane == 0 or plane >= needed)

    try:
        answers = await gather_majority(ask_plane, replicas)
    except Unavailable:
        return None
    full = [reply for plane, reply in answers if plane == 0 or plane >= needed]
    # cfg and ballot are the first two fields after status and request id.
    if not full or any(reply[0][2:4] != full[0][0][2:4] for _, reply in answers):
        return None
    return full[0]


async def agreed_at_once(
    asked: Sequence[asyncio.Future[tuple[Header, Body]]],
) -> tuple[Header, Body] | None:
    """The short way of ``agreed_read``: F+1 Gets that are on their way, the first with the data.

    None when they do not all answer within HEDGE_S, or not alike; then the long way finds out. It takes no
    tasks: nearly all reads end here.
    """
    timer = asyncio.get_running_loop().call_later(HEDGE_S, _expire, asked)
    try:
        replies = [await future for future in asked]
    except OSError:
        return None
    finally:
        timer.cancel()
        for future in asked:
            if not future.cancel() and not future.cancelled():
                future.exception()  # Seen: nobody else waits for it.
    first = replies[0][0]
    if any(header[0] != Status.OK or header[2:4] != first[2:4] for header, _ in replies):
        return None
    return replies[0]


def is_late(future: asyncio.Future[Any]) -> bool:
    """Whether ``agreed_at_once`` did not wait for it any longer."""
    return future.done() and not future.cancelled() and isinstance(future.exception(), TimeoutError)


def is_answered(future: asyncio.Future[Any]) -> bool:
    """Whether an answer came, whatever it is; none when the connection broke or nobody waited for it."""
    return future.done() and not future.cancelled() and future.exception() is None


def _expire(asked: Sequence[asyncio.Future[Any]]) -> None:
    for future in asked:
        if not future.done():
            future.set_exception(TimeoutError("no answer in time"))


async def every_plane(
    ask: Callable[[int], Awaitable[T]],
    replicas: int,
    *,
    cfg_of: Callable[[T], int] = no_cfg,
    linger_s: float = 0.0,
) -> list[T]:
    """Ask all planes; the answers of those that answered, F+1 at least.

    A refusal by any plane is raised.  Planes that are slow are not waited for once F+1 have answered;
    with ``linger_s`` they are given up after that time, so that what was to be sent is not kept.

    Raises:
        Unavailable: no majority answers. OutOfStep: not under one cfg.
    """
    needed = replicas // 2 + 1
    waiting = {spawn(f"plane {plane}", _outcome(ask, plane)) for plane in range(replicas)}
    answers: list[tuple[int, T]] = []
    failures: list[Exception] = []
    try:
        while waiting and len(_largest(answers, cfg_of)) < needed:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                answer, error = task.result()
                if error is None:
                    answers.append((len(answers), answer))  # type: ignore[arg-type]  # no error: an answer
                elif isinstance(error, REFUSALS):
                    raise error
                else:
                    failures.append(error)
    except BaseException:
        _cancel(waiting)
        raise
    agreeing = _largest(answers, cfg_of)
    if len(agreeing) < needed:
        full = [error for error in failures if isinstance(error, StoreFull)]
        if replicas == 1 or len(full) >= needed:
            raise (full or failures)[0]
        raise _too_few(answers, replicas, failures[0] if failures else None)
    if waiting and linger_s:
        asyncio.get_running_loop().call_later(linger_s, _cancel, waiting)
    return [answer for _, answer in agreeing]


def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
