"""How many planes a group has: learnt from whoever refuses, by the client that asks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ssastore.core.counts import Counts
from ssastore.errors import Recounted
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
