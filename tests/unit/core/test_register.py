"""One slot and its value: what an acceptor takes, what is stored, which operations are remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.register import (
    LIVE,
    NO_BALLOT,
    NONE,
    TOMBSTONE,
    Ballot,
    Ballots,
    Recent,
    Slot,
    Value,
    counter_of,
    decode_slot,
    decode_value,
    is_far_ahead,
    make_ballot,
    peek_slot,
    recent_of,
)
from ssastore.errors import CorruptObject
from ssastore.limits import BALLOT_AHEAD_US_MAX, RECENT_OPS_MAX, RECENT_OPS_MS

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
ballots = st.builds(make_ballot, u64, u32, u32)
small_ballots = st.builds(make_ballot, st.integers(0, 2**40), u32, u32)
recents = st.lists(
    st.builds(Recent, ballots, st.binary(min_size=16, max_size=16), u64, u64, st.integers(0, 255)),
    max_size=RECENT_OPS_MAX,
)
values = st.builds(
    Value,
    st.sampled_from([NONE, LIVE, TOMBSTONE]),
    u64,
    st.binary(max_size=300),
    st.binary(max_size=300),
    recents,
    ballots,
    u64,
)


def b(counter: int, env_id: int = 1) -> Ballot:
    return make_ballot(counter, env_id, 1)


def stored(of: Slot | Value) -> bytes:
    return b"".join(bytes(part) for part in of.encode())


# -- ballots ----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(u64, u32, u32), min_size=2, max_size=8))
def test_order_of_bytes_is_order_of_ballots(parts: list[tuple[int, int, int]]) -> None:
    assert sorted(make_ballot(*part) for part in parts) == [make_ballot(*part) for part in sorted(parts)]


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.builds(make_ballot, st.integers(0, 2**40), u32, u32), st.integers(0, 2**30)
        ),
        max_size=30,
    )
)
def test_ballot_is_drawn_once(steps: list[tuple[bool, Ballot, int]]) -> None:
    """Above what was seen, and never again: not by itself and not as a reserved one."""
    mine = Ballots(7, 3)
    drawn: list[Ballot] = []
    for is_reserving, seen, now_ms in steps:
        if is_reserving and drawn:
            drawn.append(mine.after(drawn[-1]))
        else:
            drawn.append(mine.next(seen, now_ms))
            assert drawn[-1] > seen and counter_of(drawn[-1]) >= now_ms * 1000
    assert drawn == sorted(set(drawn))


def test_ballots_of_two_environments_and_of_two_boots_differ() -> None:
    makers = [Ballots(1, 1), Ballots(1, 2), Ballots(2, 1)]
    assert len({maker.next(NO_BALLOT, 5) for maker in makers}) == 3


def test_ballot_of_more_than_a_day_ahead() -> None:
    assert not is_far_ahead(b(1_000_000 + BALLOT_AHEAD_US_MAX), 1000)
    assert is_far_ahead(b(1_000_001 + BALLOT_AHEAD_US_MAX), 1000)


# -- the acceptor -----------------------------------------------------------------------------------


def test_promise_is_for_higher_ballots_only() -> None:
    slot = Slot(b(5))
    assert not slot.prepare(b(4)) and not slot.prepare(b(5)) and slot.promise == b(5)
    assert slot.prepare(b(6)) and slot.seen == b(6)
    assert (slot.accepted, slot.value) == (NO_BALLOT, b"")


def test_two_proposers_with_one_counter_never_get_the_same_promise() -> None:
    slot = Slot(NO_BALLOT)
    assert slot.prepare(b(5, 2)) and not slot.prepare(b(5, 1)) and slot.prepare(b(5, 3))


def test_accept_under_the_promise_and_above_it() -> None:
    for ballot in (b(5), b(6)):
        slot = Slot(b(5))
        assert slot.accept(ballot, b"v", NO_BALLOT)
        assert (slot.accepted, slot.promise, slot.value) == (ballot, ballot, b"v")


def test_late_accept_changes_nothing() -> None:
    slot = Slot(b(5), b(3), b"old")
    assert not slot.accept(b(4), b"new", NO_BALLOT)
    assert (slot.promise, slot.accepted, slot.value) == (b(5), b(3), b"old")
    slot = Slot(b(5), b(5), b"old")
    assert not slot.accept(b(4), b"new", NO_BALLOT) and slot.value == b"old"


def test_retransmission_is_a_success_even_above_a_later_promise() -> None:
    """The value is there: to say no would make its sender doubt what a majority has."""
    slot = Slot(NO_BALLOT)
    assert slot.accept(b(3), b"v", b(4)) and slot.prepare(b(9))
    assert slot.accept(b(3), b"v", b(4))
    assert (slot.promise, slot.accepted, slot.value) == (b(9), b(3), b"v")


def test_prepare_of_the_accepted_ballot_comes_too_late() -> None:
    slot = Slot(NO_BALLOT)
    assert slot.accept(b(3), b"v", NO_BALLOT)
    assert not slot.prepare(b(3)) and not slot.prepare(b(2)) and slot.prepare(b(4))


def test_reserved_ballot_is_promised_along_and_others_lose_against_it() -> None:
    slot = Slot(NO_BALLOT)
    assert slot.accept(b(3), b"one", b(4))
    assert slot.promise == b(4) and slot.seen == b(4)
    assert not slot.prepare(b(3, 9)), "between the two ballots there is no room"
    assert not slot.accept(b(3, 9), b"other", NO_BALLOT)
    assert slot.accept(b(4), b"two", b(5)) and slot.value == b"two"


def test_reserved_ballot_is_lost_to_a_higher_promise() -> None:
    slot = Slot(NO_BALLOT)
    assert slot.accept(b(3), b"one", b(4)) and slot.prepare(b(5))
    assert not slot.accept(b(4), b"two", b(5)) and slot.value == b"one"


moves = st.lists(
    st.tuples(st.booleans(), st.integers(1, 6), st.integers(0, 3), st.integers(0, 1)), max_size=30
)


@given(moves)
def test_neither_promise_nor_accepted_ballot_ever_decreases(
    plan: list[tuple[bool, int, int, int]],
) -> None:
    slot = Slot(NO_BALLOT)
    for is_prepare, counter, env_id, reserve in plan:
        before = Slot(slot.promise, slot.accepted, slot.value)
        ballot = b(counter, env_id)
        if is_prepare:
            taken = slot.prepare(ballot)
            assert slot.accepted == before.accepted and slot.value == before.value
        else:
            taken = slot.accept(ballot, ballot, b(counter + 1, env_id) if reserve else NO_BALLOT)
            assert not taken or slot.accepted == ballot
        assert slot.promise >= max(before.promise, slot.accepted) and slot.accepted >= before.accepted
        assert taken or slot == before
        assert slot.value == (slot.accepted if slot.accepted != NO_BALLOT else b"")


# -- stored bytes -----------------------------------------------------------------------------------


@given(promise=ballots, accepted=ballots, value=values)
def test_round_trip(promise: Ballot, accepted: Ballot, value: Value) -> None:
    packed = stored(Slot(promise, accepted, stored(value)))
    slot = decode_slot(packed, b(77))
    assert (slot.promise, slot.accepted) == (promise, accepted)
    found = decode_value(slot.value)
    assert (bytes(found.metadata), bytes(found.data)) == (value.metadata, value.data)
    found.metadata, found.data = bytes(found.metadata), bytes(found.data)
    assert found == value
    short = peek_slot(packed)
    assert short[:3] == (accepted, value.state, value.modified_ms)
    assert (bytes(short[3]), bytes(short[4])) == (value.metadata, value.data)


def test_absent_slot_has_promised_the_floor() -> None:
    slot = decode_slot(None, b(5))
    assert (slot.promise, slot.accepted, slot.value) == (b(5), NO_BALLOT, b"")
    assert not slot.prepare(b(5))


def test_promise_without_a_value_is_the_value_none() -> None:
    packed = stored(Slot(b(5)))
    assert peek_slot(packed) == (NO_BALLOT, NONE, 0, b"", b"")
    assert decode_value(decode_slot(packed, NO_BALLOT).value) == Value()


def test_golden_slot() -> None:
    value = Value(LIVE, 0x0102, b"meta", b"data", [Recent(b(1), b"o" * 16, 3, 4, 2)], b(6), 7)
    one = "00" * 7 + "01" + "00000001" * 2
    six = "00" * 7 + "06" + "00000001" * 2
    assert stored(Slot(make_ballot(9, 8, 7), b(1), stored(value))).hex() == (
        ("02000000" + "0000000000000009" + "00000008" + "00000007" + one)
        + ("01010000" + "00000004" + "0000000000000102" + six + "0000000000000007")
        + (one + "6f" * 16 + "00" * 7 + "03" + "00" * 7 + "04" + "02")
        + b"metadata".hex()
    )


@given(st.binary(max_size=160))
def test_damaged_bytes_are_corrupt_or_a_slot(packed: bytes) -> None:
    for decode in (peek_slot, decode_value, lambda given: decode_slot(given, NO_BALLOT)):
        try:
            decode(packed)
        except CorruptObject:
            pass


def whole(packed: bytes) -> Value:
    return decode_value(decode_slot(packed, NO_BALLOT).value)


HEAD = b"\x02" + bytes(35)


@pytest.mark.parametrize("decode", [peek_slot, whole])
@pytest.mark.parametrize(
    "packed",
    [
        b"",
        HEAD[:-1],
        b"\x01" + HEAD[1:] + bytes(40),
        HEAD + bytes(39),
        HEAD + b"\x03" + bytes(39),
        HEAD + b"\x01\xff" + bytes(38 + 56),
        HEAD + b"\x01\0\0\0\0\0\0\x01" + bytes(32),
    ],
    ids=[
        "empty",
        "cut in its head",
        "another version",
        "cut in its value",
        "unknown state",
        "cut in its operations",
        "cut in its metadata",
    ],
)
def test_what_is_no_slot_is_corrupt(decode: Callable[[bytes], Any], packed: bytes) -> None:
    with pytest.raises(CorruptObject):
        decode(packed)


# -- recent operations ------------------------------------------------------------------------------


def op(number: int) -> bytes:
    return number.to_bytes(16, "big")


def entry(number: int, at_ms: int) -> Recent:
    return Recent(b(number), op(number), at_ms, at_ms, 0)


def test_operation_is_found_with_its_result() -> None:
    value = Value(LIVE)
    value.remember(Recent(b(1), op(1), 5, 6, 2), 5)
    assert value.find(op(1)) == Recent(b(1), op(1), 5, 6, 2) and value.find(op(2)) is None


def test_last_operations_are_remembered_and_the_cut_knows_the_rest() -> None:
    value = Value(LIVE)
    for number in range(1, RECENT_OPS_MAX + 1):
        value.remember(entry(number, 1000 + number), 1000 + number)
    assert len(value.recent) == RECENT_OPS_MAX and (value.cut_ballot, value.cut_ms) == (NO_BALLOT, 0)
    for number in range(RECENT_OPS_MAX + 1, 101):
        value.remember(entry(number, 1000 + number), 1000 + number)
    kept = list(range(101 - RECENT_OPS_MAX, 101))
    assert [found.op_id for found in value.recent] == [op(number) for number in kept]
    assert (value.cut_ballot, value.cut_ms) == (b(kept[0] - 1), 1000 + kept[0] - 1)
    assert decode_value(stored(value)).recent == value.recent


def test_old_operations_go_below_the_cut() -> None:
    value = Value(LIVE)
    value.remember(entry(1, 0), 0)
    value.remember(entry(2, RECENT_OPS_MS - 1), RECENT_OPS_MS - 1)
    assert len(value.recent) == 2 and value.cut_ballot == NO_BALLOT
    value.remember(entry(3, RECENT_OPS_MS), RECENT_OPS_MS)
    assert [found.op_id for found in value.recent] == [op(2), op(3)]
    assert (value.cut_ballot, value.cut_ms) == (b(1), 0)


def test_cut_keeps_the_latest_time_though_clocks_differ() -> None:
    """Entries are in order of ballots, not of their proposers' clocks."""
    value = Value(LIVE, recent=[entry(1, 9000), entry(2, 5)], cut_ballot=b(1), cut_ms=7)
    value.remember(entry(3, 5 + RECENT_OPS_MS), 5 + RECENT_OPS_MS)
    assert (value.cut_ballot, value.cut_ms) == (b(2), 7)
    value.remember(entry(4, 9000 + RECENT_OPS_MS), 9000 + RECENT_OPS_MS)
    assert (value.cut_ballot, value.cut_ms) == (b(2), 9000)


def test_operations_are_kept_when_the_clock_steps_back() -> None:
    value = Value(LIVE)
    value.remember(entry(1, 10 * RECENT_OPS_MS), 10 * RECENT_OPS_MS)
    value.remember(entry(2, 0), 0)
    assert len(value.recent) == 2 and value.cut_ms == 0


@given(st.lists(st.integers(0, 2 * RECENT_OPS_MS), max_size=150))
def test_every_operation_is_in_the_list_or_not_above_the_cut(times: list[int]) -> None:
    value = Value(LIVE)
    for number, at_ms in enumerate(times, 1):
        value.remember(entry(number, at_ms), at_ms)
    for number, at_ms in enumerate(times, 1):
        assert value.find(op(number)) or (b(number) <= value.cut_ballot and at_ms <= value.cut_ms)
    assert len(value.recent) <= RECENT_OPS_MAX


@given(st.integers(1, 1 << 50), st.integers(0, 1 << 25), st.integers(0, 1 << 25))
def test_cut_of_repeated_attempts_is_stored_not_too_early_and_does_not_creep(
    repeated_ms: int, ahead_ms: int, further_ms: int
) -> None:
    value = Value(LIVE, cut_ms=repeated_ms + ahead_ms, cut_repeated_ms=repeated_ms)
    read = decode_value(stored(value))
    assert read.cut_repeated_ms >= repeated_ms
    seventeen_minutes_ms = 0xFFFD * 16
    if ahead_ms <= seventeen_minutes_ms:
        assert read.cut_repeated_ms < repeated_ms + 16
        read.cut_ms += min(further_ms, seventeen_minutes_ms - ahead_ms)
        assert decode_value(stored(read)).cut_repeated_ms == read.cut_repeated_ms
    else:
        assert read.cut_repeated_ms <= value.cut_ms - seventeen_minutes_ms + 16


def test_operation_says_whether_it_was_repeated() -> None:
    first, second = (
        recent_of(b(1), op(1), at_ms=5, modified_ms=6, result=3, attempt=attempt) for attempt in (1, 2)
    )
    assert (first.result, first.is_repeated, second.result, second.is_repeated) == (3, False, 3, True)
    value = Value(LIVE, recent=[second])
    value.remember(first._replace(op_id=op(2)), 5 + RECENT_OPS_MS)
    assert (value.cut_ms, value.cut_repeated_ms) == (5, 5)
