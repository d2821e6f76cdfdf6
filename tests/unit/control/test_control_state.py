from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ssastore.control.state import Change, ControlState, Entry
from ssastore.env import Compare, Event, Item, WatchCompacted, Write
from ssastore.errors import Overloaded, RequestError, StoreFull
from ssastore.limits import (
    CONTROL_BYTES_MAX,
    CONTROL_EVENTS_BYTES_MAX,
    CONTROL_EVENTS_MAX,
    CONTROL_LEASES_MAX,
    CONTROL_OPS_MAX,
    CONTROL_TRANSACTION_BYTES_MAX,
)

KEYS = ["a", "a/1", "a/2", "b", "c"]


def write(state: ControlState, *writes: Write, now_ms: int = 0) -> Change:
    change = state.plan_transact([], writes)
    assert change is not None
    state.apply(change, now_ms)
    return change


def test_planning_changes_nothing() -> None:
    state = ControlState()
    state.plan_transact([], [Write("a", b"1")])
    state.plan_grant(10)
    assert (state.revision, state.items(""), state.next_lease) == (0, [], 1)


def test_changes_applied_out_of_order_are_a_bug() -> None:
    state = ControlState()
    early, late = (state.plan_transact([], [Write("a", b"1")]) for _ in range(2))
    assert early and late
    state.apply(early, 0)
    with pytest.raises(AssertionError):
        state.apply(late, 0)


def test_history_is_bounded_in_events_and_keeps_the_youngest() -> None:
    state = ControlState()
    for _ in range(CONTROL_EVENTS_MAX // CONTROL_OPS_MAX + 3):
        write(state, *(Write(f"{n}", b"") for n in range(CONTROL_OPS_MAX)))
        state.check()
    assert state.compacted > 0
    assert len(state.events("", state.compacted)) <= CONTROL_EVENTS_MAX
    assert len(state.events("", state.revision - 1)) == CONTROL_OPS_MAX
    with pytest.raises(WatchCompacted):
        state.events("", state.compacted - 1)


def test_history_is_bounded_in_bytes() -> None:
    state = ControlState()
    value = bytes(CONTROL_TRANSACTION_BYTES_MAX - 10)
    count = CONTROL_EVENTS_BYTES_MAX // CONTROL_TRANSACTION_BYTES_MAX
    for _ in range(count + 5):
        write(state, Write("a", value))
        state.check()
    assert state.compacted == 5
    assert len(state.events("a", 5)) == count


def test_history_ends_with_whole_revisions() -> None:
    """A transaction that was half forgotten is forgotten: nobody gets the second half alone."""
    state = ControlState()
    write(state, Write("first", b""))
    rounds, rest = divmod(CONTROL_EVENTS_MAX, CONTROL_OPS_MAX)
    assert rest, "else the bound cuts between transactions"
    for _ in range(rounds + 1):
        write(state, *(Write(f"{n}", b"") for n in range(CONTROL_OPS_MAX)))
    assert state.compacted == 2
    with pytest.raises(WatchCompacted):
        state.events("", 1)
    assert {event.revision for event in state.events("", 2)} == set(range(3, state.revision + 1))


def test_loaded_state_has_no_history() -> None:
    state = ControlState(revision=7, entries={"a": Entry(b"1", 7)})
    assert state.events("", 7) == []
    with pytest.raises(WatchCompacted):
        state.events("", 6)


def test_loaded_lease_gets_a_fresh_period() -> None:
    state = ControlState(
        now_ms=1000, revision=1, next_lease=5, entries={"a": Entry(b"1", 1, 4)}, periods={4: 100}
    )
    assert state.due(1099) == []
    assert state.next_deadline_ms() == 1100
    assert state.due(1100) == [4]
    assert state.plan_grant(1).granted == (5, 1)


def test_full_store_takes_no_more_but_lets_go() -> None:
    state = ControlState()
    value = bytes(CONTROL_TRANSACTION_BYTES_MAX - 3)
    count = CONTROL_BYTES_MAX // CONTROL_TRANSACTION_BYTES_MAX
    for number in range(count):
        write(state, Write(f"{number:02}", value))
    write(state, Write("x", bytes(count - 1)))
    with pytest.raises(StoreFull):
        state.plan_transact([], [Write("y", b"")])
    write(state, Write("00", value[1:]))
    write(state, Write("y", b""))
    write(state, Write("01", None))
    write(state, Write("z", b"more"))
    state.check()


def test_overfull_store_lets_go() -> None:
    """As one would be that was saved under a higher bound."""
    value = bytes(CONTROL_TRANSACTION_BYTES_MAX - 1)
    count = CONTROL_BYTES_MAX // CONTROL_TRANSACTION_BYTES_MAX + 5
    state = ControlState(revision=1, entries={chr(at + 64): Entry(value, 1) for at in range(count)})
    write(state, Write("A", None))
    write(state, Write("B", value[1:]))
    with pytest.raises(StoreFull):
        state.plan_transact([], [Write("B", value)])


def test_leases_are_bounded() -> None:
    state = ControlState(periods=dict.fromkeys(range(CONTROL_LEASES_MAX), 10), next_lease=CONTROL_LEASES_MAX)
    with pytest.raises(Overloaded):
        state.plan_grant(10)


@pytest.mark.parametrize("ttl_ms", [0, -1])
def test_lease_needs_a_period(ttl_ms: int) -> None:
    with pytest.raises(RequestError):
        ControlState().plan_grant(ttl_ms)


def test_end_of_lease_deletes_only_its_keys() -> None:
    state = ControlState()
    for _ in range(2):
        state.apply(state.plan_grant(10), 0)
    write(state, Write("b", b"", 1), Write("a", b"", 1), Write("c", b"", 2), Write("d", b""))
    change = state.plan_end([1, 77])
    assert change == Change(2, 3, (Write("a", None), Write("b", None)), ended=(1,))
    state.apply(change, 0)
    assert [item.key for item in state.items("")] == ["c", "d"]
    assert state.plan_end([1]) is None


def test_end_of_lease_without_keys_is_no_new_revision() -> None:
    state = ControlState()
    state.apply(state.plan_grant(10), 0)
    change = state.plan_end([1])
    assert change == Change(0, 2, ended=(1,))
    state.apply(change, 0)
    assert state.next_deadline_ms() is None


@given(st.lists(st.text(max_size=4), unique=True), st.text(max_size=2))
def test_list_is_what_a_scan_finds(keys: list[str], prefix: str) -> None:
    state = ControlState(revision=1, entries={key: Entry(b"", 1) for key in keys})
    assert [item.key for item in state.items(prefix)] == sorted(k for k in keys if k.startswith(prefix))


class AgainstPlainDict(RuleBasedStateMachine):
    """Random histories: the state equals a dict of items, and its events replay to the same dict."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ControlState()
        self.now = 0
        self.items: dict[str, tuple[bytes, int, int | None]] = {}
        self.deadlines: dict[int, int] = {}
        self.periods: dict[int, int] = {}

    @rule(
        values=st.dictionaries(st.sampled_from(KEYS), st.none() | st.binary(max_size=2), max_size=4),
        compared=st.sampled_from(KEYS),
        error=st.integers(-1, 1) | st.just(0),
        data=st.data(),
    )
    def transact(
        self, values: dict[str, bytes | None], compared: str, error: int, data: st.DataObject
    ) -> None:
        lease = data.draw(st.sampled_from([None, *self.periods]))
        revision = self.items[compared][1] if compared in self.items else 0
        change = self.state.plan_transact(
            [Compare(compared, revision + error)], [Write(k, v, lease) for k, v in values.items()]
        )
        assert (change is None) == (error != 0)
        if change is None:
            return
        self.state.apply(change, self.now)
        for key, value in values.items():
            if value is None:
                self.items.pop(key, None)
            else:
                self.items[key] = (value, self.state.revision, lease)

    @rule(ttl=st.integers(1, 50))
    def grant(self, ttl: int) -> None:
        change = self.state.plan_grant(ttl)
        self.state.apply(change, self.now)
        assert change.granted and change.granted[0] not in self.periods
        lease, self.periods[lease] = change.granted[0], ttl
        self.deadlines[lease] = self.now + ttl

    @rule(lease=st.integers(1, 5))
    def keep_alive(self, lease: int) -> None:
        assert self.state.keep_alive(lease, self.now) == (lease in self.periods)
        if lease in self.periods:
            self.deadlines[lease] = self.now + self.periods[lease]

    @rule(ms=st.integers(1, 30))
    def pass_time(self, ms: int) -> None:
        self.now += ms
        due = [lease for lease, deadline in self.deadlines.items() if deadline <= self.now]
        assert self.state.due(self.now) == due
        if change := self.state.plan_end(due):
            self.state.apply(change, self.now)
        for lease in due:
            del self.deadlines[lease], self.periods[lease]
        self.items = {key: item for key, item in self.items.items() if item[2] not in due}

    @invariant()
    def state_is_the_dict(self) -> None:
        self.state.check()
        assert self.state.items("") == [Item(k, v, r) for k, (v, r, _) in sorted(self.items.items())]
        assert self.state.next_deadline_ms() == min(self.deadlines.values(), default=None)

    @invariant()
    def events_replay_to_the_dict(self) -> None:
        replayed: dict[str, Event] = {}
        for event in self.state.events("", 0):
            replayed[event.key] = event
        live = {key: (e.value, e.revision) for key, e in replayed.items() if e.value is not None}
        assert live == {key: item[:2] for key, item in self.items.items()}


TestAgainstPlainDict = AgainstPlainDict.TestCase
