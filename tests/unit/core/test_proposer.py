"""The conversation over planes: seeded runs on a bad network, and each rule of it on its own.

What a checker accepts proves nothing until it has rejected something: each planted
mutant below breaks one rule, and a known seed shows it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ssastore.core import proposer as module
from ssastore.core.birth import Birth
from ssastore.core.planes import Outrun, Promise
from ssastore.core.proposer import Operation, Outcome, Proposer
from ssastore.core.register import (
    LIVE,
    NO_BALLOT,
    Ballot,
    Ballots,
    Decision,
    Recent,
    Slot,
    Value,
    counter_of,
    decode_slot,
    decode_value,
    make_ballot,
)
from ssastore.env import spawn
from ssastore.errors import BucketNotFound, OutcomeUnknown, StoreFull, Unavailable
from ssastore.limits import BALLOT_AHEAD_US_MAX, PROPOSER_CACHE_BYTES
from tests.registermodel import (
    APPLIED,
    NAME,
    REFUSED,
    LoopClock,
    Seeded,
    is_linearizable,
    play,
    run_virtually,
)

SEEDS = 150
BLOCK = 10


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_histories_are_linearizable(first: int) -> None:
    for seed in range(first, first + BLOCK):
        history = play(seed)
        assert is_linearizable(history), f"seed {seed}: {history}"


def test_most_outcomes_are_known() -> None:
    """A proposer that always doubts would be linearizable too."""
    calls = [call for seed in range(30) for call in play(seed)]
    assert sum(not call.result for call in calls) < len(calls) // 10
    assert sum(call.result == "refused" for call in calls) > 20


def test_same_seed_is_the_same_run() -> None:
    assert play(7) == play(7)


# -- planted mutants --------------------------------------------------------------------------------


def no_write_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of a majority counts as chosen although planes differ."""
    monkeypatch.setattr(module, "_is_agreed", lambda promises: True)


def operation_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Value, "find", lambda self, op_id: None)


def promises_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The acceptor takes whatever is above what it accepted."""

    def accept(self: Slot, ballot: Ballot, value: bytes, reserved: Ballot) -> bool:
        if ballot <= self.accepted:
            return ballot == self.accepted
        self.accepted, self.value = ballot, value
        self.promise = max(self.promise, ballot, reserved)
        return True

    monkeypatch.setattr(Slot, "accept", accept)


def promises_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A promise does not count as seen: a lower one is given after it, and an accept under that passes."""

    def prepare(self: Slot, ballot: Ballot) -> bool:
        if ballot <= self.accepted:
            return False
        self.promise = ballot
        return True

    monkeypatch.setattr(Slot, "prepare", prepare)


def planes_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is delivered twice counts as that of two planes."""
    real, turns = vars(module)["majority"], itertools.count()

    async def majority(count: int, ask: Callable[[int], Any]) -> Any:
        twice = next(turns) % count
        shared: dict[int, asyncio.Task[Any]] = {}

        async def ask_one(plane: int) -> Any:
            asked = twice if plane == (twice + 1) % count else plane
            if asked not in shared:
                shared[asked] = spawn("shared", ask(asked))
            return await shared[asked]

        return await real(count, ask_one)

    monkeypatch.setattr(module, "majority", majority)


def refusal_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Proposer._write_cached

    async def write_cached(self: Proposer, name: bytes, planes: Any, call: Any, cached: Any) -> Any:
        if call.operation.decide(replace(cached.value, data=cached.value.metadata)).value is None:
            return Outcome(REFUSED, 0)
        return await real(self, name, planes, call, cached)

    monkeypatch.setattr(Proposer, "_write_cached", write_cached)


# Seeds that show them: the first of the first few thousand.
MUTANTS: dict[Callable[[pytest.MonkeyPatch], None], list[int]] = {
    no_write_back: [14, 37, 50],
    operation_not_looked_up: [2, 4, 14],
    promises_ignored: [0, 23, 135],
    promises_forgotten: [118, 790, 820],
    planes_counted_twice: [2, 6, 17],
    refusal_from_the_cache: [6, 54, 115],
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_mutant_is_caught(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    assert not all(is_linearizable(play(seed)) for seed in MUTANTS[mutant])


# -- one rule at a time -----------------------------------------------------------------------------


class Planes:
    """Three slots that answer at once; ``deaf`` planes do not answer, ``refusing`` ones refuse accepts."""

    count = 3
    bill = None

    def __init__(self) -> None:
        self.slots: list[bytes | None] = [None] * 3
        self.deaf: set[int] = set()
        self.refusing: dict[int, Exception] = {}
        self.not_promising: dict[int, Exception] = {}
        self.silence: Exception = Unavailable("deaf")
        self.cfgs = [1, 1, 1]
        self.cfg = 1
        self.messages: list[str] = []
        self.on_accept: Callable[[], None] = lambda: None

    def slot(self, plane: int) -> Slot:
        return decode_slot(self.slots[plane], NO_BALLOT)

    def value(self, plane: int) -> Value:
        return decode_value(self.slot(plane).value)

    def _store(self, plane: int, slot: Slot) -> None:
        self.slots[plane] = b"".join(slot.encode())

    def now(self) -> Planes:
        return self

    async def prepare(self, plane: int, ballot: Ballot) -> Promise:
        await asyncio.sleep(0)
        self.messages.append("prepare")
        if plane in self.deaf:
            raise Unavailable("deaf")
        if plane in self.not_promising:
            raise self.not_promising[plane]
        slot = self.slot(plane)
        if not slot.prepare(ballot):
            raise Outrun(slot.seen)
        self._store(plane, slot)
        return Promise(self.cfgs[plane], slot.accepted, NO_BALLOT, bytes(slot.value))

    async def accept(
        self, plane: int, cfg: int, ballot: Ballot, value: bytes, reserved: Ballot, hold: bytes = b""
    ) -> None:
        await asyncio.sleep(0)
        self.messages.append("accept")
        self.on_accept()
        if plane in self.deaf:
            raise self.silence
        if plane in self.refusing:
            raise self.refusing[plane]
        slot = self.slot(plane)
        if not slot.accept(ballot, value, reserved):
            raise Outrun(slot.seen)
        self._store(plane, slot)

    def put_directly(self, plane: int, counter: int, value: Value) -> None:
        """As another proposer, which reached only this plane, left it."""
        ballot = make_ballot(counter, 99, 1)
        self._store(plane, Slot(ballot, ballot, b"".join(value.encode())))


def proposer_of(env_id: int = 1) -> Proposer:
    return Proposer(Ballots(env_id, 1), LoopClock(), Seeded(env_id))


def put_of(data: bytes, op: int, *, attempt: int = 1, only_if: bytes | None = None, at: int = 0) -> Operation:
    def decide(value: Value) -> Decision:
        if only_if is not None and bytes(value.data) != only_if:
            return Decision(REFUSED, None)
        return Decision(APPLIED, Value(LIVE, 5, data, data))

    born_ms = at or LoopClock().now_ms()
    return Operation(op.to_bytes(16, "big"), decide, Birth(born_ms, born_ms), attempt)


Scenario = Callable[[], Any]


def on_virtual_time(scenario: Scenario) -> Callable[[], None]:
    def test() -> None:
        run_virtually(scenario)

    test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
    return test


@on_virtual_time
async def test_new_name_takes_two_phases_and_its_overwrite_one() -> None:
    planes, proposer = Planes(), proposer_of()
    assert (await proposer.write(NAME, planes, put_of(b"one", 1))).result == APPLIED
    await asyncio.sleep(1)
    assert planes.messages == ["prepare"] * 3 + ["accept"] * 3
    planes.messages.clear()
    await proposer.write(NAME, planes, put_of(b"two", 2))
    await asyncio.sleep(1)
    assert planes.messages == ["accept"] * 3
    assert {bytes(planes.value(plane).data) for plane in range(3)} == {b"two"}
    assert [entry.op_id[-1] for entry in planes.value(0).recent] == [1, 2]


@on_virtual_time
async def test_cached_ballot_that_was_outrun_leads_to_a_full_round() -> None:
    planes, first, second = Planes(), proposer_of(1), proposer_of(2)
    await first.write(NAME, planes, put_of(b"one", 1))
    await second.write(NAME, planes, put_of(b"two", 2))
    assert (await first.write(NAME, planes, put_of(b"three", 3))).result == APPLIED
    _, value = await second.read(NAME, planes)
    assert bytes(value.data) == b"three" and [entry.op_id[-1] for entry in value.recent] == [1, 2, 3]


@on_virtual_time
async def test_refusal_is_never_answered_from_the_cache() -> None:
    """The cached value is old: the condition is true by now."""
    planes, first, second = Planes(), proposer_of(1), proposer_of(2)
    await first.write(NAME, planes, put_of(b"one", 1))
    await second.write(NAME, planes, put_of(b"two", 2))
    outcome = await first.write(NAME, planes, put_of(b"three", 3, only_if=b"two"))
    assert outcome.result == APPLIED


@on_virtual_time
async def test_repetition_elsewhere_gets_the_first_result() -> None:
    planes = Planes()
    first = await proposer_of(1).write(NAME, planes, put_of(b"one", 1, only_if=b""))
    again = await proposer_of(2).write(NAME, planes, put_of(b"one", 1, only_if=b"", attempt=2))
    assert first == again and first.result == APPLIED
    assert len(planes.value(0).recent) == 1


@on_virtual_time
async def test_repeated_refusal_is_written_so_that_the_first_attempt_cannot_be_applied_later() -> None:
    planes = Planes()
    await proposer_of(1).write(NAME, planes, put_of(b"one", 1))
    late, early = put_of(b"two", 2, only_if=b"x"), put_of(b"two", 2, only_if=b"x", attempt=2)
    assert (await proposer_of(2).write(NAME, planes, early)).result == REFUSED
    await proposer_of(3).write(NAME, planes, put_of(b"x", 3))
    assert (await proposer_of(1).write(NAME, planes, late)).result == REFUSED
    assert bytes(planes.value(0).data) == b"x"


@on_virtual_time
async def test_first_refusal_writes_nothing() -> None:
    planes = Planes()
    await proposer_of(1).write(NAME, planes, put_of(b"one", 1))
    await asyncio.sleep(1)
    planes.messages.clear()
    outcome = await proposer_of(2).write(NAME, planes, put_of(b"two", 2, only_if=b"x"))
    assert (outcome.result, outcome.modified_ms) == (REFUSED, 5) and "accept" not in planes.messages


@on_virtual_time
async def test_refusal_from_a_value_of_a_minority_is_made_true_first() -> None:
    planes = Planes()
    planes.put_directly(0, 5, Value(LIVE, 5, b"", b"half"))
    planes.deaf = {2}
    assert (await proposer_of().write(NAME, planes, put_of(b"two", 2, only_if=b"x"))).result == REFUSED
    assert bytes(planes.value(1).data) == b"half"


@on_virtual_time
async def test_read_finishes_a_write_that_stopped_half_way() -> None:
    planes = Planes()
    planes.put_directly(0, 5, Value(LIVE, 5, b"", b"half"))
    planes.deaf = {2}
    ballot, value = await proposer_of().read(NAME, planes)
    assert bytes(value.data) == b"half" and ballot > make_ballot(5, 99, 1)
    assert planes.slot(0).accepted == planes.slot(1).accepted == ballot


@on_virtual_time
async def test_without_a_majority_nothing_is_sent() -> None:
    planes = Planes()
    planes.deaf = {0, 2}
    with pytest.raises(Unavailable):
        await proposer_of().write(NAME, planes, put_of(b"one", 1))
    with pytest.raises(Unavailable):
        await proposer_of().read(NAME, planes)
    assert "accept" not in planes.messages


@on_virtual_time
async def test_majority_that_goes_away_between_the_phases_leaves_a_doubt() -> None:
    planes = Planes()
    planes.on_accept = lambda: planes.deaf.update({1, 2})
    with pytest.raises(OutcomeUnknown):
        await proposer_of().write(NAME, planes, put_of(b"one", 1))


@on_virtual_time
async def test_own_value_at_a_minority_that_cannot_be_spread_leaves_a_doubt() -> None:
    """ "Nothing was written" would be wrong: the next reader may make it the agreed value."""
    planes = Planes()
    op = (1).to_bytes(16, "big")
    planes.put_directly(0, 5, Value(LIVE, 5, b"", b"one", [Recent(make_ballot(5, 99, 1), op, 1, 5, APPLIED)]))
    planes.on_accept = lambda: planes.deaf.update({1, 2})
    planes.deaf = {2}
    with pytest.raises(OutcomeUnknown):
        await proposer_of().write(NAME, planes, put_of(b"one", 1))


def on_accepts(planes: Planes, *actions: Callable[[], None]) -> None:
    """Do the n-th action when the n-th accept arrives, before it is looked at; nothing after the last."""
    script = iter(actions)

    def on_accept() -> None:
        next(script, nothing)()

    planes.on_accept = on_accept


def nothing() -> None:
    pass


def outrun_at(planes: Planes, *outrun: int) -> None:
    """Another proposer has prepared at these planes."""
    for plane in outrun:
        slot = planes.slot(plane)
        slot.promise = make_ballot(counter_of(slot.seen) + 10**6, 99, 1)
        planes._store(plane, slot)


def planes_that_differ() -> tuple[Planes, Operation]:
    """Planes that agree on one value but for plane 0, and a write whose condition only plane 0 meets."""
    planes = Planes()
    for plane in range(3):
        planes.put_directly(plane, 5, Value(LIVE, 5, b"", b"agreed"))
    planes.put_directly(0, 6, Value(LIVE, 5, b"", b"half"))
    return planes, put_of(b"mine", 1, only_if=b"half")


@on_virtual_time
async def test_refusal_after_an_accept_of_its_own_is_made_to_stay() -> None:
    """Plane 0 has taken the value of this very call: who reads plane 0 later would adopt it."""
    planes, operation = planes_that_differ()
    on_accepts(planes, lambda: outrun_at(planes, 1, 2), nothing, lambda: planes.deaf.add(0))
    assert (await proposer_of(1).write(NAME, planes, operation)).result == REFUSED
    assert planes.value(0).find(operation.op_id)
    planes.deaf = {2}
    _, value = await proposer_of(2).read(NAME, planes)
    assert bytes(value.data) == b"agreed"


@on_virtual_time
async def test_accept_of_its_own_stays_a_doubt_until_something_newer_is_chosen() -> None:
    """Plane 0 has taken the value; a later round sees a newer one, but cannot make it the agreed one."""
    planes, operation = planes_that_differ()

    def outrun() -> None:
        newer = counter_of(planes.slot(1).seen) + 10**6
        planes.put_directly(1, newer, Value(LIVE, 5, b"", b"newer"))
        outrun_at(planes, 2)

    on_accepts(
        planes, outrun, nothing, lambda: planes.deaf.add(0), nothing, lambda: planes.deaf.update({1, 2})
    )
    with pytest.raises(OutcomeUnknown):
        await proposer_of(1).write(NAME, planes, operation)
    planes.deaf = {1}
    _, value = await proposer_of(2).read(NAME, planes)
    assert bytes(value.data) == b"mine"


@on_virtual_time
async def test_operation_that_others_adopted_and_trimmed_between_two_rounds_is_not_applied_again() -> None:
    """The first accept reached plane 0 only and was taken up from there after the second round's promises."""
    planes = Planes()
    first = NO_BALLOT

    def adopt_and_trim() -> None:
        newest = make_ballot(counter_of(planes.slot(1).seen) + 10**6, 99, 1)
        for plane in range(3):
            value = Value(LIVE, 5, b"", b"later", [], first, LoopClock().now_ms())
            planes.put_directly(plane, counter_of(newest), value)

    def first_is_sent() -> None:
        outrun_at(planes, 1, 2)

    def first_is_over() -> None:
        nonlocal first
        first = planes.slot(0).accepted
        planes.deaf.add(0)

    on_accepts(planes, first_is_sent, nothing, first_is_over, adopt_and_trim)
    with pytest.raises(OutcomeUnknown):
        await proposer_of(1).write(NAME, planes, put_of(b"mine", 1))
    assert bytes(planes.value(1).data) == b"later"


@pytest.mark.parametrize("error", [BucketNotFound("shut"), StoreFull("full")], ids=["shut", "full"])
def test_refused_value_after_an_accept_of_its_own_leaves_a_doubt(error: Exception) -> None:
    async def scenario() -> None:
        planes = Planes()
        on_accepts(
            planes,
            lambda: outrun_at(planes, 1, 2),
            nothing,
            lambda: planes.deaf.add(0),
            lambda: planes.refusing.update({1: error, 2: error}),
        )
        with pytest.raises(OutcomeUnknown):
            await proposer_of().write(NAME, planes, put_of(b"one", 1))

    run_virtually(scenario)


@pytest.mark.parametrize("error", [BucketNotFound("shut"), StoreFull("full")], ids=["shut", "full"])
def test_refused_promise_after_an_accept_of_its_own_leaves_a_doubt(error: Exception) -> None:
    """One plane took the value, one outran it; then no plane has room for so much as a promise."""

    async def scenario() -> None:
        planes = Planes()

        def fill() -> None:
            planes.not_promising = dict.fromkeys(range(3), error)

        on_accepts(planes, lambda: outrun_at(planes, 1, 2), nothing, fill)
        with pytest.raises(OutcomeUnknown):
            await proposer_of().write(NAME, planes, put_of(b"one", 1))
        assert bytes(planes.value(0).data) == b"one"

    run_virtually(scenario)


@pytest.mark.parametrize("error", [BucketNotFound("shut"), StoreFull("full")], ids=["shut", "full"])
def test_refused_promise_of_a_call_that_sent_nothing_is_passed_on(error: Exception) -> None:
    async def scenario() -> None:
        planes = Planes()
        planes.not_promising = dict.fromkeys(range(3), error)
        with pytest.raises(type(error)):
            await proposer_of().write(NAME, planes, put_of(b"one", 1))

    run_virtually(scenario)


@on_virtual_time
async def test_repetition_that_is_older_than_what_is_remembered_has_an_unknown_outcome() -> None:
    planes, now_ms = Planes(), LoopClock().now_ms()
    for plane in range(3):
        planes.put_directly(plane, 5, Value(LIVE, 5, b"", b"one", [], make_ballot(4, 99, 1), now_ms))
    with pytest.raises(OutcomeUnknown):
        await proposer_of().write(NAME, planes, put_of(b"two", 2, attempt=2, at=now_ms))
    young = put_of(b"two", 2, attempt=2, at=now_ms + 1)
    assert (await proposer_of().write(NAME, planes, young)).result == APPLIED


@on_virtual_time
async def test_first_attempt_fears_only_what_was_repeated() -> None:
    planes, now_ms = Planes(), LoopClock().now_ms()
    for plane in range(3):
        cut = make_ballot(4, 99, 1)
        planes.put_directly(plane, 5, Value(LIVE, 5, b"", b"one", [], cut, now_ms, now_ms - 1000))
    late = put_of(b"two", 2, at=now_ms - 1000)
    with pytest.raises(OutcomeUnknown):
        await proposer_of().write(NAME, planes, late)
    # Times of repeated attempts are kept in ticks of 16 ms.
    assert (await proposer_of().write(NAME, planes, put_of(b"two", 2, at=now_ms - 984))).result == APPLIED


@on_virtual_time
async def test_cached_value_that_may_have_forgotten_a_first_attempt_is_not_enough() -> None:
    planes, proposer, now_ms = Planes(), proposer_of(), LoopClock().now_ms()
    cut = make_ballot(4, 99, 1)
    for plane in range(3):
        planes.put_directly(plane, 5, Value(LIVE, 5, b"", b"one", [], cut, now_ms, now_ms))
    assert (await proposer.write(NAME, planes, put_of(b"two", 2, at=now_ms + 17))).result == APPLIED
    with pytest.raises(OutcomeUnknown):
        await proposer.write(NAME, planes, put_of(b"three", 3, at=now_ms))
    assert (await proposer.write(NAME, planes, put_of(b"four", 4, at=now_ms + 17))).result == APPLIED


@on_virtual_time
async def test_promises_of_two_configurations_are_no_majority() -> None:
    planes = Planes()
    planes.cfgs = [1, 2, 3]
    with pytest.raises(Unavailable):
        await proposer_of().write(NAME, planes, put_of(b"one", 1))
    assert "accept" not in planes.messages


@pytest.mark.parametrize("error", [BucketNotFound("shut"), StoreFull("full")], ids=["shut", "full"])
@pytest.mark.parametrize(
    ("refusing", "deaf", "expected"),
    [
        ({0, 1, 2}, set(), None),
        ({0, 1}, {2}, None),
        ({0, 2}, set(), OutcomeUnknown),
        ({1}, {2}, OutcomeUnknown),
    ],
    ids=["all", "majority", "one took it", "one took it, one is silent"],
)
def test_refused_value(error: Exception, refusing: set[int], deaf: set[int], expected: type | None) -> None:
    """A refusal is passed on as one only when no plane is known to have taken the value."""

    async def scenario() -> None:
        planes = Planes()
        planes.refusing = dict.fromkeys(refusing, error)
        planes.on_accept = lambda: planes.deaf.update(deaf)
        with pytest.raises(expected or type(error)):
            await proposer_of().write(NAME, planes, put_of(b"one", 1))

    run_virtually(scenario)


@on_virtual_time
async def test_refusal_of_a_majority_is_a_doubt_while_the_last_plane_may_have_taken_the_value() -> None:
    """It was sent there and no answer came: once there is room again, a reader may make it agreed."""
    planes = Planes()
    planes.refusing = {0: StoreFull("full"), 1: StoreFull("full")}
    planes.silence = OutcomeUnknown("sent, no answer")
    planes.on_accept = lambda: planes.deaf.add(2)
    with pytest.raises(OutcomeUnknown):
        await proposer_of().write(NAME, planes, put_of(b"one", 1))


@on_virtual_time
async def test_clock_of_next_year_at_one_plane_harms_nobody() -> None:
    """Its ballot outruns everybody at that plane; who followed it would be refused by all others."""
    planes, proposer = Planes(), proposer_of()
    future = LoopClock().now_ms() * 1000 + 10 * BALLOT_AHEAD_US_MAX
    planes.put_directly(1, future, Value(LIVE, 5, b"", b"future"))
    planes.deaf = {2}
    with pytest.raises(Unavailable):
        await proposer.write(NAME, planes, put_of(b"one", 1))
    planes.deaf.clear()
    assert (await proposer.write(NAME, planes, put_of(b"two", 2))).result == APPLIED
    assert bytes(planes.value(0).data) == bytes(planes.value(2).data) == b"two"


@on_virtual_time
async def test_duel_without_end_has_an_end() -> None:
    planes = Planes()

    def outrun() -> None:
        for plane in range(3):
            slot = planes.slot(plane)
            slot.promise = make_ballot(LoopClock().now_ms() * 1000 + 10**6, 99, 1)
            planes._store(plane, slot)

    planes.on_accept = outrun
    with pytest.raises((OutcomeUnknown, Unavailable)):
        await proposer_of().write(NAME, planes, put_of(b"one", 1))
    assert asyncio.get_running_loop().time() < 2 * module.CALL_BUDGET_S


@on_virtual_time
async def test_cancelled_call_frees_the_name() -> None:
    planes, proposer = Planes(), proposer_of()
    for turns in range(8):
        calls = [
            spawn("write", proposer.write(NAME, planes, put_of(b"one", 10 * turns + n))) for n in range(3)
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert not proposer._locks
    assert (await proposer.write(NAME, planes, put_of(b"last", 999))).result == APPLIED
    _, value = await proposer_of(2).read(NAME, planes)
    assert bytes(value.data) == b"last"


@on_virtual_time
async def test_cache_is_bounded_in_bytes() -> None:
    """Sixteen thousand names of large metadata would be gigabytes."""
    planes, proposer = Planes(), proposer_of()
    large = put_of(bytes(1_000_000), 1)
    for number in range(2 * PROPOSER_CACHE_BYTES // 1_000_000):
        planes.slots = [None] * 3
        await proposer.write(b"%d" % number, planes, large)
    kept = sum(len(cached.value.metadata) for cached in proposer._cache._entries.values())
    assert PROPOSER_CACHE_BYTES // 2 < kept <= PROPOSER_CACHE_BYTES
    proposer.forget()
    assert not proposer._cache._entries and proposer._cache._size == 0


@on_virtual_time
async def test_forgotten_cache_costs_a_round_and_no_more() -> None:
    planes, proposer = Planes(), proposer_of()
    await proposer.write(NAME, planes, put_of(b"one", 1))
    proposer.forget()
    assert (await proposer.write(NAME, planes, put_of(b"two", 2))).result == APPLIED
