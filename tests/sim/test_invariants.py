"""Each invariant, seen red once: the watcher is shown what must never happen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ssastore.core.groups import GroupRecord, PlaneOwner
from ssastore.core.held import Held
from ssastore.core.place import Served
from ssastore.core.records import floor_key, record_key
from ssastore.core.register import LIVE, NO_BALLOT, TOMBSTONE, Recent, Slot, Value, make_ballot
from ssastore.keyspace import iid_of, position_of_key, slice16_of
from ssastore.messages import Kind, Prepare
from ssastore.sim.invariants import Invariants
from ssastore.store.memory import Records
from ssastore.store.seal import seal

BUCKET, KEY = 7, b"key"
B1, B2, B3 = (make_ballot(counter, 1, 1) for counter in (1, 2, 3))


def stored_key(plane: int) -> bytes:
    return record_key(plane << 28 | 0x123, Kind.OBJECT, BUCKET, KEY)


def sealed(plane: int, slot: Slot) -> bytes:
    return seal(stored_key(plane), tuple(slot.encode()))


def value(op: str, *, before: tuple[Recent, ...] = (), state: int = LIVE) -> bytes:
    recent = [*before, entry(op)]
    return b"".join(Value(state, 1, b"", op.encode(), recent).encode())


def entry(op: str) -> Recent:
    return Recent(make_ballot(ord(op), 1, 1), op.encode() * 16, 1, 1, 0)


class Planes:
    """Three planes of one name; ``slot`` commits what a plane holds from now on."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.invariants = Invariants(3, self.story.append)
        self._held: dict[int, bytes] = {}

    def slot(self, plane: int, promise: bytes, accepted: bytes = NO_BALLOT, held: bytes = b"") -> Planes:
        after = sealed(plane, Slot(promise, accepted, held))
        self.invariants.committed(f"n{plane}", stored_key(plane), self._held.get(plane), after)
        self._held[plane] = after
        return self

    def drop(self, plane: int) -> Planes:
        self.invariants.committed(f"n{plane}", stored_key(plane), self._held.pop(plane), None)
        return self

    def broken(self) -> list[str]:
        assert self.story == [f"VIOLATION {text}" for text in self.invariants.violations]
        return [text[:2] for text in self.invariants.violations]


def test_what_an_acceptor_does_right_is_silent() -> None:
    planes = Planes()
    planes.slot(0, B1).slot(0, B2, B1, value("a")).slot(1, B2, B1, value("a"))
    planes.slot(0, B3, B2, value("b", before=(entry("a"),))).slot(2, B2, B2, value("b", before=(entry("a"),)))
    assert planes.invariants.checks == 5 and not planes.broken()


def test_i4_a_promise_below_what_is_accepted() -> None:
    assert Planes().slot(0, B1, B2, value("a")).broken() == ["I4"]


def test_i4_a_promise_that_goes_back() -> None:
    assert Planes().slot(0, B2).slot(0, B1).broken() == ["I4"]


def test_i4_an_accept_that_is_lost() -> None:
    assert Planes().slot(0, B2, B2, value("a")).slot(0, B2, B1, value("b")).broken() == ["I4"]


def test_i5_two_values_under_one_ballot() -> None:
    assert Planes().slot(0, B1, B1, value("a")).slot(1, B1, B1, value("b")).broken() == ["I5"]


def test_i6_a_chosen_value_that_does_not_know_the_one_before() -> None:
    planes = Planes().slot(0, B1, B1, value("a")).slot(1, B1, B1, value("a"))
    planes.slot(1, B2, B2, value("b")).slot(2, B2, B2, value("b"))
    assert planes.broken() == ["I6"]


def test_i6_is_silent_on_a_value_that_was_never_chosen() -> None:
    planes = Planes().slot(0, B1, B1, value("a"))
    planes.slot(1, B2, B2, value("b")).slot(2, B2, B2, value("b"))
    assert not planes.broken()


def test_i8_a_tombstone_dropped_while_a_plane_holds_an_older_object() -> None:
    planes = Planes().slot(0, B1, B1, value("a"))
    gone = value("b", before=(entry("a"),), state=TOMBSTONE)
    planes.slot(1, B2, B2, gone).slot(2, B2, B2, gone).drop(1)
    assert planes.broken() == ["I8"]


def test_i8_is_silent_when_all_planes_hold_the_tombstone() -> None:
    planes = Planes()
    for plane in range(3):
        planes.slot(plane, B2, B2, value("b", state=TOMBSTONE))
    assert not planes.drop(0).drop(1).drop(2).broken()


def floor(ballot: bytes) -> bytes:
    return seal(floor_key(0x123), (ballot,))


def test_i9_a_floor_that_goes_back() -> None:
    invariants = Invariants(3, lambda text: None)
    invariants.committed("n1", floor_key(0x123), None, floor(B1))
    invariants.committed("n1", floor_key(0x123), floor(B1), floor(B2))
    assert not invariants.violations
    invariants.committed("n1", floor_key(0x123), floor(B2), floor(B1))
    assert [text[:2] for text in invariants.violations] == ["I9"]


def custody_of(epoch: int) -> Any:
    """One that says since when the data of all planes is complete."""
    record = GroupRecord(0, tuple(PlaneOwner(name, epoch) for name in "abc"))
    return SimpleNamespace(held=lambda number: Held(record, 1))


def vote(invariants: Invariants, cfg: int, *, active: bool, env_id: int = 1, epoch: int = 1) -> None:
    """One promise of an acceptor that says yes to everything."""
    iid = iid_of(position_of_key(BUCKET, 0, KEY), 1)
    acceptor: Any = SimpleNamespace(
        write=lambda request, txn, body, now_ms: ([], b""),
        active={slice16_of(iid)} if active else set(),
        served=Served(replicas=3, worker=0, workers=1),
    )
    invariants.watch_votes("n1", env_id, acceptor, custody_of(epoch))
    acceptor.write(Prepare(iid, int(Kind.OBJECT), BUCKET, 0, KEY, cfg, B1), None, b"", 0)


def test_i1_two_environments_vote_under_one_cfg() -> None:
    invariants = Invariants(3, lambda text: None)
    vote(invariants, 1, active=True)
    vote(invariants, 1, active=True)
    assert not invariants.violations
    vote(invariants, 1, active=True, env_id=2)
    assert [text[:3] for text in invariants.violations] == ["I1:"]


def test_i1_who_handed_a_slice_over_votes_once_more() -> None:
    invariants = Invariants(3, lambda text: None)
    vote(invariants, 1, active=True)
    vote(invariants, 1, active=True, env_id=2, epoch=3)
    assert not invariants.violations
    vote(invariants, 1, active=True)
    assert [text[:3] for text in invariants.violations] == ["I1:"]


def test_i16_a_slice_that_is_not_the_same_at_its_new_owner() -> None:
    source, target = Records(), Records()
    for records in (source, target):
        records.set(stored_key(1), sealed(1, Slot(B2, B1, value("a"))))
        records.set(stored_key(2), b"of another slice %d" % id(records))
    invariants = Invariants(3, lambda text: None)
    number = slice16_of(int.from_bytes(stored_key(1)[:4], "big") << 32)
    invariants.handed_over(number, source, number, target)
    assert not invariants.violations
    target.set(stored_key(1), sealed(1, Slot(B1, B1, value("a"))))
    invariants.handed_over(number, source, number, target)
    assert [text[:4] for text in invariants.violations] == ["I16:"]


def test_i4_what_a_lost_acceptor_had_may_be_replaced_by_less() -> None:
    """A slice that does not vote is being rebuilt: nobody counts on what it held."""
    planes = Planes().slot(0, B3, B2, value("a"))
    owned = {int.from_bytes(stored_key(0)[:2], "big")}
    acceptor: Any = SimpleNamespace(
        write=None, active=set(), owned=owned, served=Served(replicas=3, worker=0, workers=1)
    )
    planes.invariants.watch_votes("n0", 1, acceptor, custody_of(1))
    assert not planes.slot(0, B1, B1, value("b")).broken()


@pytest.mark.parametrize(("active", "broken"), [(True, []), (False, ["I10"])])
def test_i10_a_vote_for_a_slice_that_is_not_active(active: bool, broken: list[str]) -> None:
    invariants = Invariants(3, lambda text: None)
    vote(invariants, 1, active=active)
    assert [text[:3] for text in invariants.violations] == broken


def test_i11_votes_of_two_cfg_for_one_ballot() -> None:
    invariants = Invariants(3, lambda text: None)
    vote(invariants, 1, active=True)
    assert not invariants.violations
    vote(invariants, 2, active=True)
    assert [text[:3] for text in invariants.violations] == ["I11"]
