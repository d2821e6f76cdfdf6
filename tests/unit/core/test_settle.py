"""Rounds that change no value: seeded runs in which records rot and are collected, and rules one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ssastore.core.birth import Birth
from ssastore.core.floors import floor_over
from ssastore.core.metadata import Metadata, Segment, SegmentKind
from ssastore.core.place import Place
from ssastore.core.planes import Outrun, Promise
from ssastore.core.proposer import Operation, Proposer
from ssastore.core.records import reference_name
from ssastore.core.register import (
    LIVE,
    NO_BALLOT,
    TOMBSTONE,
    Ballot,
    Ballots,
    Decision,
    Slot,
    Value,
    counter_of,
    decode_slot,
    decode_value,
    make_ballot,
)
from ssastore.core.settle import Settler
from ssastore.core.sweep import Sweeper
from ssastore.env import spawn
from ssastore.errors import BucketNotFound, ObjectNotFound, OutcomeUnknown, SsaStoreError, Unavailable
from ssastore.messages import Kind
from tests.registermodel import (
    APPLIED,
    CALLS,
    NAME,
    REFUSED,
    Call,
    LoopClock,
    Network,
    Run,
    Seeded,
    is_linearizable,
    run_virtually,
)

SEEDS = 60
BLOCK = 10
EMPTY_SEED = 2316
"One of some thousands that shows a rotten slot which comes back empty."


class Garden(Network):
    """Planes of one register whose slots rot and are collected."""

    answers_floor = True
    keeps_floor = True

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.floors = [NO_BALLOT] * self.count
        self.ceilings = [0] * self.count
        self.rotten: set[int] = set()
        self.repaired = self.collected = 0

    def _apply(self, plane: int, change: Callable[[Slot], Any]) -> Any:
        if plane in self.rotten:
            raise Unavailable("rotten")
        slot = decode_slot(self.slots[plane], self.floors[plane])
        answer = change(slot)
        self.ceilings[plane] = max(self.ceilings[plane], counter_of(slot.promise))
        self.slots[plane] = b"".join(slot.encode())
        return answer

    async def prepare(self, plane: int, ballot: Ballot) -> Promise:
        promise = await super().prepare(plane, ballot)
        is_empty = promise.accepted == NO_BALLOT and self.answers_floor
        return Promise(1, promise.accepted, self.floors[plane] if is_empty else NO_BALLOT, promise.value)

    async def collect(self, plane: int, cfg: int, ballot: Ballot) -> None:
        await self._travel()
        slot = decode_slot(self.slots[plane], self.floors[plane])
        if plane in self.rotten or slot.accepted != ballot:
            raise Outrun(slot.seen)
        value = decode_value(slot.value)
        assert value.state != LIVE
        self.slots[plane] = None
        if self.keeps_floor:
            self.floors[plane] = max(self.floors[plane], floor_over(slot, value))
        await self._travel()

    def install(self, plane: int, ballot: Ballot, value: bytes) -> None:
        self.slots[plane] = b"".join([Slot(ballot, ballot).head(), value])
        self.ceilings[plane] = max(self.ceilings[plane], counter_of(ballot))
        self.rotten.discard(plane)
        self.repaired += 1


def decide(call: Call) -> Callable[[Value], Decision]:
    """A put; a delete when there is no value; either may have a condition."""

    def decide(value: Value) -> Decision:
        current = bytes(value.data) if value.is_live else None
        if call.kind == "cas" and current != call.expected:
            return Decision(REFUSED, None)
        if call.value is None:
            return Decision(APPLIED, Value(TOMBSTONE, 1))
        return Decision(APPLIED, Value(LIVE, 1, b"", call.value))

    return decide


class GardenRun(Run):
    """Clients as ever, and beside them rot, repair and collecting."""

    network: Garden

    def _settler(self, number: int) -> Settler:
        ballots = Ballots(number, 1)
        return Settler(Proposer(ballots, LoopClock(), self.network.random), ballots, LoopClock())

    async def play(self) -> list[Call]:
        helpers = [spawn("rot", self._rot()), spawn("collect", self._collect())]
        await super().play()
        for helper in helpers:
            helper.cancel()
        return self.history

    async def _client(self) -> None:
        network, random = self.network, self.network.random
        for _ in range(CALLS):
            await asyncio.sleep(random.random() * network.delay_s * 8)
            kind = random.choice(["put", "put", "put", "cas", "get"])
            call = Call(kind, asyncio.get_running_loop().time())
            call.value = None if random.random() < 0.4 else b"%d" % next(self._values)  # type: ignore[assignment]
            if self.history:
                call.expected = random.choice([None, *[earlier.value for earlier in self.history]])
            self.history.append(call)
            await self._repeat(call)

    async def _rot(self) -> None:
        network, settler = self.network, self._settler(8)
        while True:
            await asyncio.sleep(network.random.random() * network.delay_s * 6)
            plane = network.random.randrange(network.count)
            if network.slots[plane] is None:
                continue
            network.rotten.add(plane)
            while network.rotten:
                await asyncio.sleep(network.random.random() * network.delay_s)
                try:
                    found = await settler.rebuild(NAME, network, plane, network.ceilings[plane])
                    network.install(plane, *found)
                except SsaStoreError:
                    continue

    async def _collect(self) -> None:
        network, settler = self.network, self._settler(9)
        while True:
            await asyncio.sleep(network.random.random() * network.delay_s * 6)
            plane = network.random.randrange(network.count)
            slot = decode_slot(network.slots[plane], NO_BALLOT)
            if slot.accepted != NO_BALLOT and decode_value(slot.value).state != LIVE:
                network.collected += await settler.collect(NAME, network, slot.seen)


def play(seed: int) -> tuple[list[Call], Garden]:
    """The history of one seed, and the planes at its end."""
    garden = Garden(seed)

    async def work() -> list[Call]:
        return await GardenRun(garden).play()

    return run_virtually(work), garden


@pytest.fixture(autouse=True)
def deletes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.registermodel.decide_write", decide)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_histories_are_linearizable(first: int) -> None:
    repaired = 0
    for seed in range(first, first + BLOCK):
        history, garden = play(seed)
        assert is_linearizable(history), f"seed {seed}: {history}"
        repaired += garden.repaired
    assert repaired > BLOCK, "a run in which nothing happens proves nothing"


def test_some_of_these_runs_collect() -> None:
    assert sum(play(seed)[1].collected for seed in range(30)) > 0


def test_rotten_slot_that_comes_back_empty_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted mutant, and a seed that shows it: the checker sees what a lost vote does."""

    def install(self: Garden, plane: int, ballot: Ballot, value: bytes) -> None:
        self.slots[plane] = None
        self.rotten.discard(plane)

    monkeypatch.setattr(Garden, "install", install)
    assert not is_linearizable(play(EMPTY_SEED)[0])


# -- schedules by hand ------------------------------------------------------------------------------


class Hand:
    """Three planes that answer at once, or not at all."""

    count, cfg, bill = 3, 1, None

    def __init__(self) -> None:
        self.slots: list[bytes | None] = [None] * 3
        self.floors = [NO_BALLOT] * 3
        self.lost: set[tuple[str, int]] = set()
        "Messages that do not arrive: what and where to."
        self.keeps_floor = True

    def now(self) -> Hand:
        return self

    def slot(self, plane: int) -> Slot:
        return decode_slot(self.slots[plane], self.floors[plane])

    def value(self, plane: int) -> bytes | None:
        value = decode_value(self.slot(plane).value)
        return bytes(value.data) if value.is_live else None

    def set(self, plane: int, promise: Ballot, accepted: Ballot, value: Value) -> None:
        self.slots[plane] = b"".join([Slot(promise, accepted).head(), *value.encode()])

    async def prepare(self, plane: int, ballot: Ballot) -> Promise:
        if ("prepare", plane) in self.lost:
            raise Unavailable("lost")
        slot = self.slot(plane)
        if not slot.prepare(ballot):
            raise Outrun(slot.seen)
        self.slots[plane] = b"".join(slot.encode())
        floor = self.floors[plane] if slot.accepted == NO_BALLOT else NO_BALLOT
        return Promise(1, slot.accepted, floor, bytes(slot.value))

    async def accept(
        self, plane: int, cfg: int, ballot: Ballot, value: bytes, reserved: Ballot, hold: bytes = b""
    ) -> None:
        if ("accept", plane) in self.lost:
            raise Unavailable("lost")
        slot = self.slot(plane)
        if not slot.accept(ballot, value, reserved):
            raise Outrun(slot.seen)
        self.slots[plane] = b"".join(slot.encode())

    async def collect(self, plane: int, cfg: int, ballot: Ballot) -> None:
        if ("collect", plane) in self.lost:
            raise Unavailable("lost")
        slot = self.slot(plane)
        if slot.accepted != ballot:
            raise Outrun(slot.seen)
        self.slots[plane] = None
        if self.keeps_floor:
            self.floors[plane] = max(self.floors[plane], slot.seen)


def at(counter: int) -> Ballot:
    return make_ballot(counter * 1000, 7, 1)


def live(data: bytes) -> Value:
    return Value(LIVE, 1, b"", data)


GONE = Value(TOMBSTONE, 1)


def settler() -> tuple[Settler, Proposer]:
    ballots = Ballots(1, 1)
    proposer = Proposer(ballots, LoopClock(), Seeded(1))
    return Settler(proposer, ballots, LoopClock()), proposer


@pytest.mark.parametrize("is_above", [True, False], ids=["above the ceiling", "mutant: below it"])
def test_repair_goes_above_what_the_lost_slot_had_promised(is_above: bool) -> None:
    """ADR 0009. X (plane 2) has promised p to a slow proposer and loses it; B (plane 1) has a newer value."""

    async def work() -> tuple[bool, bool]:
        hand = Hand()
        for plane in range(3):
            hand.set(plane, at(1), at(1), live(b"old"))
        hand.set(1, at(2), at(2), live(b"new"))
        slow = at(5)
        told_by_x = await hand.prepare(2, slow)
        hand.lost.add(("accept", 0))
        ballot, value = await settler()[0].rebuild(b"k", hand, 2, counter_of(slow) if is_above else 0)
        hand.slots[2] = b"".join([Slot(ballot, ballot).head(), value])
        hand.lost.clear()
        # Two planes hold it under one ballot: any reader is told so.
        assert hand.value(1) == hand.value(2) == b"new" and hand.slot(1).accepted == hand.slot(2).accepted
        try:
            told_by_a = await hand.prepare(0, slow)
            newest = max(told_by_x, told_by_a, key=lambda promise: promise.accepted)
            assert bytes(decode_value(newest.value).data) == b"old"
            mine = b"".join(live(b"mine").encode())
            for plane in (0, 2):
                await hand.accept(plane, 1, slow, mine, NO_BALLOT)
        except Outrun:
            pass
        return hand.value(0) == hand.value(2) == b"mine", ballot > slow

    is_lost, went_above = run_virtually(work)
    assert is_lost is not is_above and went_above is is_above


def test_two_rotten_copies_of_three_wait() -> None:
    async def work() -> None:
        hand = Hand()
        for plane in range(3):
            hand.set(plane, at(1), at(1), live(b"v"))
        hand.lost = {("prepare", 1), ("prepare", 2)}
        with pytest.raises(Unavailable):
            await settler()[0].rebuild(b"k", hand, 2, 0)

    run_virtually(work)


def test_repair_finds_the_newest_value_of_the_others() -> None:
    async def work() -> None:
        hand = Hand()
        hand.set(0, at(1), at(1), live(b"old"))
        hand.set(1, at(3), at(2), live(b"new"))
        ballot, value = await settler()[0].rebuild(b"k", hand, 2, 10**9)
        assert bytes(decode_value(value).data) == b"new" and counter_of(ballot) > 10**9
        assert hand.value(0) == hand.value(1) == b"new"

    run_virtually(work)


@pytest.mark.parametrize("missing", [("prepare", 2), ("accept", 1), ("prepare", 0)])
def test_nothing_is_collected_before_all_planes_hold_it(missing: tuple[str, int]) -> None:
    async def work() -> None:
        hand = Hand()
        hand.set(0, at(2), at(2), GONE)
        hand.set(1, at(1), at(1), live(b"old"))
        hand.set(2, at(2), at(2), GONE)
        hand.lost = {missing}
        assert not await settler()[0].collect(b"k", hand, at(2))
        assert None not in hand.slots
        hand.lost.clear()
        assert await settler()[0].collect(b"k", hand, at(2))
        assert hand.slots == [None] * 3 and min(hand.floors) > at(2)

    run_virtually(work)


def test_live_record_is_not_collected() -> None:
    async def work() -> None:
        hand = Hand()
        for plane in range(2):
            hand.set(plane, at(1), at(1), GONE)
        hand.set(2, at(2), at(2), live(b"again"))
        assert not await settler()[0].collect(b"k", hand, at(1))
        assert None not in hand.slots

    run_virtually(work)


@pytest.mark.parametrize("keeps_floor", [True, False], ids=["floor", "mutant: no floor"])
def test_late_value_of_before_does_not_come_back(keeps_floor: bool) -> None:
    async def work() -> list[bytes | None]:
        hand = Hand()
        hand.keeps_floor = keeps_floor
        for plane in range(3):
            hand.set(plane, at(3), at(3), GONE)
        assert await settler()[0].collect(b"k", hand, at(3))
        for plane in range(3):
            try:
                await hand.accept(plane, 1, at(2), b"".join(live(b"late").encode()), NO_BALLOT)
            except Outrun:
                continue
        return [hand.value(plane) for plane in range(3)]

    assert (run_virtually(work) == [None] * 3) is keeps_floor


@pytest.mark.parametrize("is_told", [True, False], ids=["floor told", "mutant: floor not told"])
def test_call_that_is_repeated_across_a_collection_is_not_applied_again(is_told: bool) -> None:
    async def work() -> str:
        hand = Hand()
        sent_ms = LoopClock().now_ms()
        late = make_ballot(sent_ms * 1000, 7, 1)
        for plane in range(3):
            hand.set(plane, late, late, GONE)
        conversation, proposer = settler()
        assert await conversation.collect(b"k", hand, late)
        if not is_told:
            hand.floors = [NO_BALLOT] * 3
        operation = Operation(
            b"o" * 16, lambda value: Decision(APPLIED, live(b"again")), Birth(sent_ms, sent_ms), 2
        )
        try:
            await proposer.write(b"k", hand, operation)
        except OutcomeUnknown:
            return "unknown"
        return "applied"

    assert run_virtually(work) == ("unknown" if is_told else "applied")


def test_settled_value_buries_what_a_minority_has_accepted() -> None:
    """A quorum read of planes 0 and 1 says "old"; without the round plane 2 could still bring "new" up."""

    async def work() -> None:
        hand = Hand()
        for plane in range(2):
            hand.set(plane, at(1), at(1), live(b"old"))
        hand.set(2, at(2), at(2), live(b"new"))
        hand.lost = {("prepare", 2)}
        conversation, proposer = settler()
        settled = await conversation.settle(b"k", hand)
        assert bytes(settled.value.data) == b"old" and settled.held >= 2
        hand.lost = {("prepare", 0)}
        _, value = await proposer.read(b"k", hand)
        assert bytes(value.data) == b"old"

    run_virtually(work)


def test_settling_what_all_planes_hold_alike_writes_nothing() -> None:
    async def work() -> None:
        hand = Hand()
        for plane in range(3):
            hand.set(plane, at(1), at(1), live(b"v"))
        settled = await settler()[0].settle(b"k", hand)
        assert settled.ballot == at(1) == hand.slot(0).accepted and settled.held == 3

    run_virtually(work)


class ShutHand(Hand):
    """Planes of a bucket that is shut: no ACC passes."""

    async def accept(
        self, plane: int, cfg: int, ballot: Ballot, value: bytes, reserved: Ballot, hold: bytes = b""
    ) -> None:
        raise BucketNotFound("shut")


@pytest.mark.parametrize("holding", [2, 1])
def test_in_a_shut_bucket_what_a_majority_holds_is_agreed_and_nothing_else(holding: int) -> None:
    """One plane missed a delete, and the bucket went: what the deleted object named can still be swept."""

    async def work() -> None:
        hand = ShutHand()
        for plane in range(3):
            hand.set(plane, at(1), at(1), live(b"old"))
        for plane in range(holding):
            hand.set(plane, at(2), at(2), GONE)
        if holding < 2:
            with pytest.raises(Unavailable):
                await settler()[0].settle(b"k", hand)
            return
        settled = await settler()[0].settle(b"k", hand)
        assert not settled.value.is_live and settled.held == holding and settled.ballot == at(2)

    run_virtually(work)


def test_ballot_just_above_is_promised_once_however_often_it_is_drawn() -> None:
    ballots = Ballots(1, 1)
    first, again = ballots.just_above(at(1)), ballots.just_above(at(1))
    slot = Slot(at(1))
    assert first == again and slot.prepare(first) and not slot.prepare(again)
    assert first != ballots.next(at(1), 0) and first != ballots.after(at(1))


class HastySweeper(Sweeper):
    """The planted mutant: a reader's "no" is believed."""

    async def _holds(self, place: Place, kind: Kind, key: bytes, digest: bytes | None) -> bool:
        return await self._read(place, kind, key, digest)


@pytest.mark.parametrize("kind", [Sweeper, HastySweeper], ids=["sweeper", "mutant: a quorum read"])
def test_reference_that_does_not_stand_cannot_come_to_stand(kind: type[Sweeper]) -> None:
    """Planes 0 and 1 know no object; plane 2 took a put that names the blob and stopped half way."""

    async def work() -> bool:
        digest = bytes(32)
        named = Metadata("e", 4, [Segment(SegmentKind.DATA, digest, 4)]).encode()
        hand = Hand()
        hand.set(2, at(2), at(2), Value(LIVE, 1, named, b""))
        hand.lost = {("prepare", 2)}
        conversation, proposer = settler()

        async def absent(*_: Any, **options: Any) -> Any:
            raise ObjectNotFound

        async def planes_anywhere(name: Any) -> Hand:
            return hand

        tools: Any = SimpleNamespace(
            settler=conversation,
            coordinator=SimpleNamespace(planes_anywhere=planes_anywhere),
            registers=SimpleNamespace(get=absent),
        )
        blobs: Any = None
        assert not await kind(tools, blobs).stands(digest, reference_name(7, 16, b"k"))
        # The blob may go now. The put must not be found by whoever asks planes 1 and 2.
        hand.lost = {("prepare", 0)}
        _, value = await proposer.read(b"k", hand)
        return value.is_live

    assert run_virtually(work) is (kind is HastySweeper)
