"""Readers that believe one plane."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

from ssastore.core import registers
from ssastore.core.place import Place
from ssastore.core.quorum import gather_majority
from ssastore.core.registers import Registers
from ssastore.env import spawn
from ssastore.messages import Kind
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


def _read_under_way(put: Put) -> None:
    reads: dict[Hashable, asyncio.Future[Any]] = {}

    async def read(self: Registers, place: Place, kind: Kind, key: bytes, *, head_only: bool = False) -> Any:
        name = asyncio.get_running_loop(), self, place, kind, key, head_only
        if name not in reads:
            reads[name] = spawn("read for all", self._state(place, kind, key, head_only))
            reads[name].add_done_callback(lambda _: reads.pop(name))
        return await asyncio.shield(reads[name])

    put(Registers, "state", read)


MUTANTS = [
    Mutant(
        "highest-of-a-quorum",
        "a read takes the newest of a majority without writing it back",
        _highest_of_a_quorum,
    ),
    Mutant("one-plane-is-enough", "a read asks one plane", _any_plane),
    Mutant("read-under-way", "a read is shared with who asks while it is under way", _read_under_way, "hot"),
]
