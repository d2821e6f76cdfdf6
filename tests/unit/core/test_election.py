"""One coordinator at a time, and nothing that a former one sends late has an effect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.election import COORDINATOR_KEY, Deposed, Election, GuardedControl, coordinator_of
from ssastore.env import Compare, Write
from ssastore.errors import Unavailable
from ssastore.limits import LEASE_MS
from tests.registermodel import run_virtually

LEASE_S = LEASE_MS / 1000


async def test_one_of_many_is_elected_and_stays() -> None:
    control = MemoryControlStore()
    candidates = [Election(control, f"n{number}") for number in range(5)]
    first = await asyncio.gather(*[candidate.stand() for candidate in candidates])
    assert sum(map(bool, first)) == 1
    assert [await candidate.stand() for candidate in candidates] == first
    assert await coordinator_of(control) == f"n{[bool(token) for token in first].index(True)}"


def test_another_one_follows_when_the_first_is_gone_and_a_late_change_has_no_effect() -> None:
    async def scenario() -> None:
        control = MemoryControlStore()
        first, second = Election(control, "n1"), Election(control, "n2")
        late = GuardedControl(control, await first.stand())
        await late.transact([], [Write("a", b"1")])
        await asyncio.sleep(LEASE_S / 2)
        assert await second.stand() == 0
        await asyncio.sleep(LEASE_S)
        token = await second.stand()
        assert token
        with pytest.raises(Deposed):
            await late.transact([], [Write("a", b"2")])
        item = await control.get("a")
        assert item is not None and item.value == b"1"
        await GuardedControl(control, token).transact([], [Write("a", b"3")])
        assert await first.stand() == 0

    run_virtually(scenario)


def test_nobody_coordinates_when_the_last_one_is_gone_and_a_late_change_has_no_effect() -> None:
    async def scenario() -> None:
        control = MemoryControlStore()
        late = GuardedControl(control, await Election(control, "n1").stand())
        await asyncio.sleep(2 * LEASE_S)
        with pytest.raises(Deposed):
            await late.transact([], [Write("a", b"2")])
        assert await control.get("a") is None and await coordinator_of(control) == ""

    run_virtually(scenario)


async def test_a_compare_that_does_not_hold_is_told_apart_from_an_office_that_is_lost() -> None:
    control = MemoryControlStore()
    guarded = GuardedControl(control, await Election(control, "n1").stand())
    assert await guarded.transact([Compare("a", 5)], [Write("a", b"1")]) is None


async def test_a_claim_of_which_the_answer_was_lost_is_known_again() -> None:
    """Else its holder would keep the lease, and nobody would coordinate."""

    class Forgetful(MemoryControlStore):
        async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
            await super().transact(compares, writes)
            raise Unavailable("the answer is lost")

    control = Forgetful()
    candidate = Election(control, "n1")
    with pytest.raises(Unavailable):
        await candidate.stand()
    item = await control.get(COORDINATOR_KEY)
    control.transact = super(Forgetful, control).transact  # type: ignore[method-assign]
    assert item is not None and await candidate.stand() == item.revision
