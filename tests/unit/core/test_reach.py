"""Calls that hear nothing from a majority of planes end soon; those that are only refused go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ssastore.core.metadata import Metadata
from ssastore.core.place import Place
from ssastore.core.quorum import HEDGE_S
from ssastore.core.reach import SILENCE_MS, Reach
from ssastore.core.registers import Registers
from ssastore.errors import NoMajority, OutcomeUnknown, Unavailable
from ssastore.keyspace import plane_of
from ssastore.messages import Delete, Kind, Message, Put
from tests.registermodel import Seeded, run_virtually

PLACE = Place(7, 0)
CUT_AFTER_S = HEDGE_S + SILENCE_MS / 1000
ANSWER_S_MAX = 1.9
"Of the 2 s that are promised: the rest is for a machine that has more to do."


class Planes:
    """Implements ``core.caller.Caller``: planes that say nothing, refuse, or cannot reach their mates."""

    deadline_ms = 30_000
    replicas = 3

    def __init__(
        self,
        *,
        silent: set[int],
        refusing: frozenset[int] = frozenset(),
        takes: bool = False,
        thinks_s: float = 0.0,
        is_dialling: bool = False,
    ) -> None:
        self.is_dialling = is_dialling
        self.silent, self.refusing, self.takes, self.thinks_s = silent, refusing, takes, thinks_s
        self.sent: list[int] = []

    async def replica_count(self, position: int | None = None) -> int:
        return self.replicas

    async def is_silent(self, iid: int, within_ms: int) -> bool:
        if plane_of(iid) in self.silent:
            await asyncio.sleep(within_ms / 1000)
        return plane_of(iid) in self.silent

    def begin(self, message: Message, iid: int, body: Any = b"") -> None:
        """Nothing is connected: every call takes the long way."""

    async def call(self, message: Message, iid: int, body: Any = b"", *, within_ms: int | None = None) -> Any:
        plane = plane_of(iid)
        self.sent.append(plane)
        if isinstance(message, Put | Delete) and not self.is_dialling:
            message.born_ms = 1  # As when it is sent.
        if plane in self.silent:
            await asyncio.sleep((within_ms or self.deadline_ms) / 1000)
            raise OutcomeUnknown("sent") if self.takes and isinstance(message, Put) else Unavailable("silent")
        if plane in self.refusing:
            raise Unavailable("refused")
        await asyncio.sleep(self.thinks_s)
        raise NoMajority("mates are silent")


async def took(planes: Planes, work: Callable[[Registers], Any], error: type[Exception]) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(error) as caught:
        await work(Registers(planes, Seeded(1)))
    assert type(caught.value) is error
    return loop.time() - started


WORKS = {
    "put": lambda registers: registers.put(PLACE, Kind.OBJECT, b"k", Metadata("e", 1), b"x"),
    "delete": lambda registers: registers.delete(PLACE, Kind.OBJECT, b"k"),
    "get": lambda registers: registers.get(PLACE, Kind.OBJECT, b"k"),
    "page": lambda registers: registers.shards.page(Place(7, 4), Kind.OBJECT, 1, limit=10),
}


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
@pytest.mark.parametrize("silent", [{0, 1}, {1, 2}, {0, 1, 2}], ids=str)
def test_silence_of_a_majority_ends_a_call(work: Any, silent: set[int]) -> None:
    """A write that was sent to one of them leaves a doubt; one that had begun on our side is not sent."""
    is_sent = work in (WORKS["put"], WORKS["delete"]) and 0 in silent
    error = OutcomeUnknown if is_sent else NoMajority

    async def scenario() -> None:
        assert await took(Planes(silent=silent), work, error) < ANSWER_S_MAX

    run_virtually(scenario)


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_what_was_never_sent_leaves_no_doubt(work: Any) -> None:
    """The call is ended while it still dials."""

    async def scenario() -> None:
        planes = Planes(silent={0, 1, 2}, is_dialling=True)
        assert await took(planes, work, NoMajority) < ANSWER_S_MAX

    run_virtually(scenario)


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_refusals_are_waited_out(work: Any) -> None:
    """Two nodes start again: their hosts say that nobody listens yet."""

    async def scenario() -> None:
        planes = Planes(silent={2}, refusing=frozenset({0, 1}))
        assert await took(planes, work, Unavailable) > 20

    run_virtually(scenario)


@pytest.mark.parametrize(("replicas", "own"), [(3, 0), (3, 1), (3, 2), (5, 3)])
@pytest.mark.parametrize("work", [WORKS["put"], WORKS["delete"]], ids=["put", "delete"])
def test_write_on_the_minority_side_is_not_unknown_once_that_is_known(
    work: Any, replicas: int, own: int
) -> None:
    """The proposer on our side takes 0.8 s to find out that it has no mates; nobody has taken anything."""

    async def scenario() -> None:
        planes = Planes(silent=set(range(replicas)) - {own}, thinks_s=0.8, takes=True)
        planes.replicas = replicas
        registers = Registers(planes, Seeded(1))
        for _ in range(replicas // 2):  # Who is out of reach is found out.
            with pytest.raises((NoMajority, OutcomeUnknown)):
                await work(registers)
        loop = asyncio.get_running_loop()
        for _ in range(5):
            started = loop.time()
            with pytest.raises(NoMajority):
                await work(registers)
            assert loop.time() - started < ANSWER_S_MAX

    run_virtually(scenario)


def test_write_that_a_silent_plane_may_have_taken_leaves_a_doubt() -> None:
    async def scenario() -> None:
        planes = Planes(silent={0, 1}, takes=True)
        assert await took(planes, WORKS["put"], OutcomeUnknown) < ANSWER_S_MAX

    run_virtually(scenario)


def test_silent_plane_is_asked_whether_it_is_there_before_another_write_is_sent_to_it() -> None:
    async def scenario() -> None:
        planes = Planes(silent={0, 1})
        registers = Registers(planes, Seeded(1))
        for turn in range(3):
            planes.sent.clear()
            with pytest.raises(NoMajority if turn > 1 else (NoMajority, OutcomeUnknown)):
                await registers.put(PLACE, Kind.OBJECT, b"k", Metadata("e", 1), b"x")
            assert turn <= 1 or not planes.silent & set(planes.sent)

    run_virtually(scenario)


def test_call_that_is_only_slow_is_left_alone() -> None:
    async def scenario() -> None:
        reach = Reach(Planes(silent={0}))
        async with reach.limit(5, 3):
            await asyncio.sleep(20)
        with pytest.raises(TimeoutError):
            async with reach.limit(5, 3):
                raise TimeoutError  # not ours

    run_virtually(scenario)
