"""How many planes a group has: learnt from whoever refuses, by the client that asks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ssastore.core.counts import Counts
from ssastore.core.metadata import Metadata
from ssastore.core.place import Place
from ssastore.core.registers import Registers
from ssastore.errors import Recounted
from ssastore.messages import Delete, Kind, Put
from tests.direct import DirectCaller, SeededRandomness
from tests.registermodel import run_virtually

GROUP_5, GROUP_6 = 5 << 48, 0x2006 << 48


def counts(replicas: int) -> Counts:
    caller: Any = SimpleNamespace(replicas=replicas, deadline_ms=2000)
    return Counts(caller)


def test_a_group_that_has_more_planes_is_asked_again_and_remembered() -> None:
    async def work() -> None:
        known, asked = counts(1), []

        async def ask(replicas: int) -> str:
            asked.append(replicas)
            if replicas != 3:
                raise Recounted("3")
            return "done"

        assert await known.at(GROUP_5) == 1
        assert await known.again(GROUP_5, Recounted("3"), ask) == "done"
        assert asked == [3] and await known.at(GROUP_5) == 3 and await known.at(GROUP_6) == 1
        assert known.is_mixed

    run_virtually(work)


def test_a_group_that_has_as_many_as_most_is_no_exception_any_more() -> None:
    async def work() -> None:
        known = counts(3)

        async def ask(replicas: int) -> int:
            return replicas

        assert await known.again(GROUP_6, Recounted("1"), ask) == 1
        assert await known.again(GROUP_6, Recounted("3"), ask) == 3
        assert not known.is_mixed

    run_virtually(work)


def test_planes_that_do_not_agree_are_asked_until_the_deadline_and_no_longer() -> None:
    async def work() -> None:
        known, asked = counts(3), []

        async def ask(replicas: int) -> int:
            asked.append(replicas)
            raise Recounted("2" if replicas == 3 else "3")

        with pytest.raises(Recounted):
            await known.again(GROUP_5, Recounted("2"), ask)
        assert 4 < len(asked) < 40

    run_virtually(work)


@pytest.mark.parametrize("word", ["", "0", "6", "many"])
def test_a_number_that_makes_no_sense_is_none(word: str) -> None:
    assert Recounted(word).replicas == 0


@pytest.mark.parametrize("verb", ["put", "delete"])
async def test_a_write_to_one_plane_that_finds_more_is_made_again(verb: str) -> None:
    """The pool says so when that plane cannot be dialled (``Recounted``): nothing was sent."""
    caller = DirectCaller()
    registers, place = Registers(caller, SeededRandomness()), Place(7, 4)
    await registers.put(place, Kind.OBJECT, b"k", Metadata("old", 1), b"1")
    refused: list[Any] = []

    async def refuse_once(message: Any) -> None:
        if isinstance(message, Put | Delete) and not refused:
            refused.append(message)
            raise Recounted("1")

    caller.hook = refuse_once
    if verb == "put":
        await registers.put(place, Kind.OBJECT, b"k", Metadata("new", 1), b"2")
        assert bytes((await registers.get(place, Kind.OBJECT, b"k")).data) == b"2"
    else:
        assert await registers.delete(place, Kind.OBJECT, b"k")
    assert refused
