"""Reading from a majority: who is asked, who is waited for, what is raised, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from ssastore.core.quorum import HEDGE_S, agreed_read, every_plane, gather_majority, gather_reachable
from ssastore.errors import (
    BucketNotFound,
    CorruptObject,
    OutOfStep,
    Overloaded,
    PeerError,
    PreconditionFailed,
    RequestError,
    SsaStoreError,
    StoreFull,
    Unavailable,
)
from ssastore.sim.loop import VirtualLoop
from tests.registermodel import run_virtually


class Planes:
    """Answers by plane: a value, an exception, or a time to take; remembers who was asked."""

    def __init__(self, *answers: Any, delays: tuple[float, ...] = ()) -> None:
        self.answers = answers
        self.delays = delays or (0.0,) * len(answers)
        self.asked: list[int] = []
        self.given_up: list[int] = []

    async def ask(self, plane: int) -> Any:
        self.asked.append(plane)
        try:
            await asyncio.sleep(self.delays[plane])
        except asyncio.CancelledError:
            self.given_up.append(plane)
            raise
        if isinstance(self.answers[plane], Exception):
            raise self.answers[plane]
        return self.answers[plane]


def on_virtual_time(scenario: Callable[[], Any]) -> Callable[[], None]:
    async def whole() -> None:
        await scenario()
        await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, "a task is left behind"

    def test() -> None:
        run_virtually(whole)

    test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
    return test


def now() -> float:
    return asyncio.get_running_loop().time()


GONE = Unavailable("gone")


@on_virtual_time
async def test_first_majority_is_asked_and_no_more() -> None:
    planes = Planes("a", "b", "c")
    assert sorted(await gather_majority(planes.ask, 3)) == [(0, "a"), (1, "b")]
    assert planes.asked == [0, 1] and now() == 0


@on_virtual_time
async def test_five_planes() -> None:
    planes = Planes("a", GONE, "c", GONE, "e")
    assert sorted(await gather_majority(planes.ask, 5)) == [(0, "a"), (2, "c"), (4, "e")]


@on_virtual_time
async def test_failed_plane_is_replaced_at_once() -> None:
    planes = Planes(GONE, "b", "c")
    assert sorted(await gather_majority(planes.ask, 3)) == [(1, "b"), (2, "c")]
    assert now() == 0


@on_virtual_time
async def test_slow_plane_is_hedged_and_given_up() -> None:
    planes = Planes("a", "b", "c", delays=(0, 60, 0))
    assert sorted(await gather_majority(planes.ask, 3)) == [(0, "a"), (2, "c")]
    await asyncio.sleep(0)
    assert now() == HEDGE_S and planes.given_up == [1]


@on_virtual_time
async def test_slow_plane_that_answers_before_its_hedge_counts() -> None:
    planes = Planes("a", "b", "c", delays=(0, HEDGE_S + 0.1, 60))
    assert sorted(await gather_majority(planes.ask, 3)) == [(0, "a"), (1, "b")]
    await asyncio.sleep(0)
    assert planes.asked == [0, 1, 2] and planes.given_up == [2]


@pytest.mark.parametrize(
    "others", [(GONE, GONE), (GONE, CorruptObject("rotten")), (Overloaded("x"), PeerError("y"))]
)
def test_no_majority(others: tuple[SsaStoreError, SsaStoreError]) -> None:
    async def scenario() -> None:
        planes = Planes("a", *others)
        with pytest.raises(Unavailable, match="1 of 3"):
            await gather_majority(planes.ask, 3)
        assert planes.asked == [0, 1, 2]

    on_virtual_time(scenario)()


@on_virtual_time
async def test_one_replica_raises_what_its_plane_says() -> None:
    with pytest.raises(CorruptObject, match="rotten"):
        await gather_majority(Planes(CorruptObject("rotten")).ask, 1)
    with pytest.raises(CorruptObject, match="rotten"):
        await every_plane(Planes(CorruptObject("rotten")).ask, 1)


@pytest.mark.parametrize("gather", [gather_majority, every_plane])
@pytest.mark.parametrize(
    "error", [RequestError("no"), BucketNotFound("no"), PreconditionFailed("no")], ids=repr
)
def test_refusal_is_raised_as_it_is(gather: Any, error: SsaStoreError) -> None:
    async def scenario() -> None:
        planes = Planes("a", error, "c", delays=(60, 0, 60))
        with pytest.raises(type(error), match="no"):
            await gather(planes.ask, 3)
        await asyncio.sleep(0)
        assert 0 in planes.given_up

    on_virtual_time(scenario)()


@pytest.mark.parametrize("gather", [gather_majority, every_plane])
@pytest.mark.parametrize("turns", range(4))
def test_cancelled_gathering_leaves_no_task(gather: Any, turns: int) -> None:
    async def scenario() -> None:
        planes = Planes(GONE, "b", "c", delays=(0, 60, 60))
        gathering = asyncio.ensure_future(gather(planes.ask, 3))
        for _ in range(turns):
            await asyncio.sleep(0)
        gathering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gathering
        await asyncio.sleep(0)

    on_virtual_time(scenario)()


# -- every plane ------------------------------------------------------------------------------------


@on_virtual_time
async def test_every_plane_is_asked_and_the_majority_is_enough() -> None:
    planes = Planes("a", "b", "c", delays=(0, 0, 1))
    assert sorted(await every_plane(planes.ask, 3)) == ["a", "b"]
    assert planes.asked == [0, 1, 2] and now() == 0
    await asyncio.sleep(2)
    assert not planes.given_up, "the third one gets its time"


@on_virtual_time
async def test_slow_plane_is_given_up_after_lingering() -> None:
    planes = Planes("a", "b", "c", delays=(0, 0, 60))
    await every_plane(planes.ask, 3, linger_s=2)
    await asyncio.sleep(1.9)
    assert not planes.given_up
    await asyncio.sleep(0.2)
    assert planes.given_up == [2]


@pytest.mark.parametrize(
    "error", [GONE, StoreFull("full"), CorruptObject("rotten"), PeerError("broken")], ids=repr
)
def test_one_plane_in_trouble_does_not_stop_the_others(error: SsaStoreError) -> None:
    async def scenario() -> None:
        assert sorted(await every_plane(Planes(error, "b", "c").ask, 3)) == ["b", "c"]
        with pytest.raises(Unavailable, match="1 of 3"):
            await every_plane(Planes(error, GONE, "c").ask, 3)

    on_virtual_time(scenario)()


@on_virtual_time
async def test_majority_that_is_full_is_full() -> None:
    with pytest.raises(StoreFull):
        await every_plane(Planes(StoreFull("a"), StoreFull("b"), "c").ask, 3)


# -- the agreed read --------------------------------------------------------------------------------

ONE, TWO = b"1" * 16, b"2" * 16


def reply(ballot: bytes, cfg: int = 1, body: bytes = b"") -> Any:
    return [0, 7, cfg, ballot, 1, 5, b"metadata"], body


async def read(*replies: Any, delays: tuple[float, ...] = ()) -> tuple[Any, list[tuple[int, bool]]]:
    planes, asked = Planes(*replies, delays=delays), []

    def ask(plane: int, full: bool) -> Any:
        asked.append((plane, full))
        return planes.ask(plane)

    return await agreed_read(ask, len(replies)), asked


@on_virtual_time
async def test_equal_ballots_of_a_majority_are_the_agreed_value() -> None:
    found, asked = await read(reply(ONE, body=b"data"), reply(ONE), reply(TWO, body=b"other"))
    assert found == reply(ONE, body=b"data") and asked == [(0, True), (1, False)]


@on_virtual_time
async def test_planes_that_differ_leave_it_to_the_proposer() -> None:
    assert (await read(reply(ONE), reply(TWO), reply(TWO)))[0] is None
    assert (await read(reply(ONE, cfg=1), reply(ONE, cfg=2), reply(ONE)))[0] is None


@on_virtual_time
async def test_data_comes_from_the_plane_that_stands_in() -> None:
    found, asked = await read(GONE, reply(ONE), reply(ONE, body=b"data"))
    assert found == reply(ONE, body=b"data") and asked == [(0, True), (1, False), (2, True)]


@on_virtual_time
async def test_no_majority_leaves_it_to_the_proposer() -> None:
    assert (await read(GONE, reply(ONE), GONE))[0] is None


@on_virtual_time
async def test_value_without_its_data_is_no_answer() -> None:
    """Of five planes the two that were asked in full fail after the digests came."""
    found, _ = await read(
        reply(ONE, body=b"data"), reply(ONE), reply(ONE), GONE, GONE, delays=(60, 0, 0, 0, 0)
    )
    assert found == reply(ONE, body=b"data") and now() == 60


# -- configurations ---------------------------------------------------------------------------------


def cfg_of(answer: tuple[str, int]) -> int:
    return answer[1]


@on_virtual_time
async def test_answers_of_two_configurations_are_no_majority() -> None:
    """The third plane decides which of the two there is."""
    planes = Planes(("a", 1), ("b", 2), ("c", 2))
    assert sorted(await gather_majority(planes.ask, 3, cfg_of=cfg_of)) == [(1, ("b", 2)), (2, ("c", 2))]
    assert sorted(await gather_reachable(planes.ask, 3, cfg_of=cfg_of)) == [(1, ("b", 2)), (2, ("c", 2))]
    assert sorted(await every_plane(planes.ask, 3, cfg_of=cfg_of)) == [("b", 2), ("c", 2)]


@on_virtual_time
async def test_without_a_majority_under_one_configuration_it_says_so() -> None:
    for answers in ((("a", 1), ("b", 2), ("c", 3)), (("a", 1), ("b", 2), GONE)):
        for gather in (gather_majority, gather_reachable, every_plane):
            with pytest.raises(OutOfStep):
                await gather(Planes(*answers).ask, 3, cfg_of=cfg_of)


@pytest.mark.parametrize("gather", [gather_majority, gather_reachable, every_plane])
def test_who_ends_before_a_plane_was_asked_leaves_no_question_behind(gather: Callable[..., Any]) -> None:
    """A coroutine that nobody runs is a warning, here an error, whenever the collector comes by."""
    loop = VirtualLoop(1)
    planes = Planes("a", "b", "c")

    async def end_at_once() -> None:
        loop.create_task(gather(planes.ask, 3))
        loop.call_soon(loop.stop)

    loop.create_task(end_at_once())
    loop.run_forever()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        loop.retire()
        gc.collect()
    assert not planes.asked
    assert not [str(warning.message) for warning in seen]
