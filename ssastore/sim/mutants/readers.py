"""Readers that believe one plane."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ssastore.core import registers
from ssastore.core.quorum import gather_majority
from ssastore.sim.mutants import Mutant, Put
from ssastore.wire import Body, Header

Reply = tuple[Header, Body]


async def _not_at_once(asked: Sequence[asyncio.Future[Reply]]) -> None:
    for future in asked:
        future.cancel()


def _highest_of_a_quorum(put: Put) -> None:
    async def read(ask: Callable[[int, bool], Awaitable[Reply]], replicas: int) -> Reply | None:
        answers = await gather_majority(lambda plane: ask(plane, True), replicas)
        return max((reply for _, reply in answers), key=lambda reply: reply[0][3])

    put(registers, "agreed_read", read)
    put(registers, "agreed_at_once", _not_at_once)


def _any_plane(put: Put) -> None:
    async def read(ask: Callable[[int, bool], Awaitable[Reply]], replicas: int) -> Reply | None:
        answers = await gather_majority(lambda plane: ask(plane, True), 1)
        return answers[0][1]

    put(registers, "agreed_read", read)
    put(registers, "agreed_at_once", _not_at_once)


MUTANTS = [
    Mutant(
        "highest-of-a-quorum",
        "a read takes the newest of a majority without writing it back",
        _highest_of_a_quorum,
    ),
    Mutant("one-plane-is-enough", "a read asks one plane", _any_plane),
]
