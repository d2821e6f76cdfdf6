"""Gateways share the front plane evenly, in few prefixes, and as little as can be moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ssastore.core.front import UNITS, Arc, FrontRecord, GateRecord, planned
from ssastore.errors import ConfigError
from ssastore.keyspace import FRONT_PLANE, POSITION_BITS, TAIL_BITS
from ssastore.rules.address import UNBOUND_END, bound_locator
from ssastore.rules.hashes import hash_of

NOTHING = FrontRecord()


def gates(count: int, **changes: GateRecord) -> list[GateRecord]:
    found = {f"g{number}": GateRecord(f"g{number}", f"fd00::{number}") for number in range(1, count + 1)}
    return list((found | changes).values())


def done(record: FrontRecord) -> FrontRecord:
    """All moves that go on are over."""
    return record.changed(replace(arc, owner=arc.holder, target="", is_accepted=False) for arc in record.arcs)


def shares(record: FrontRecord, first: int, end: int) -> dict[str, float]:
    """Of a range of units, what each gateway is to have."""
    found: dict[str, float] = {}
    for arc in record.arcs:
        inside = max(0, min(arc.end, end) - max(arc.first, first))
        found[arc.holder] = found.get(arc.holder, 0) + inside / (end - first)
    return found


def holder_of(record: FrontRecord, iid: int) -> str:
    (arc,) = [arc for arc in record.arcs if any(iid in piece for piece in arc.slices)]
    return arc.holder


@pytest.mark.parametrize("count", [1, 3, 4, 100])
def test_bound_and_unbound_part_are_each_shared_evenly(count: int) -> None:
    record = planned(NOTHING, gates(count))
    for part in ((0, UNBOUND_END), (UNBOUND_END, UNITS)):
        found = shares(record, *part)
        assert len(found) == count and all(abs(share * count - 1) < 0.04 for share in found.values())


def test_the_first_plan_has_few_prefixes_and_needs_no_moves() -> None:
    record = planned(NOTHING, gates(4))
    assert [len(record.slices_of(f"g{number}")) for number in range(1, 5)] == [5] * 4
    assert all(arc.owner and not arc.target for arc in record.arcs)


def test_ten_thousand_clients_are_spread_over_four_gateways_within_a_tenth() -> None:
    """By rule ``source``: the locator that their /64s hash to (docs/reference/rules.md)."""
    record = planned(NOTHING, gates(4))
    counts = dict.fromkeys((f"g{number}" for number in range(1, 5)), 0)
    pieces = [(piece, name) for name in counts for piece in record.slices_of(name)]
    for client in range(10_000):
        locator = bound_locator(FRONT_PLANE, hash_of(b"k" * 16, 0x20010DB800000000 + client, "L", 0, 0) >> 36)
        (owner,) = [name for piece, name in pieces if locator << TAIL_BITS in piece]
        counts[owner] += 1
    assert sum(counts.values()) == 10_000
    assert all(2250 < count < 2750 for count in counts.values()), counts


@pytest.mark.parametrize("counts", [[1, 2, 4, 3], [8, 1, 5]])
def test_gateways_come_and_go_and_it_stays_even(counts: list[int]) -> None:
    record = NOTHING
    for count in counts:
        record = done(planned(record, gates(count)))
        assert planned(record, gates(count)) is record, "planned once more it is the same"
        found = shares(record, UNBOUND_END, UNITS)
        assert len(found) == count and all(0.89 < share * count < 1.11 for share in found.values())


def test_one_more_moves_only_what_it_gets() -> None:
    before = planned(NOTHING, gates(4))
    after = planned(before, gates(5))
    moved = [arc for arc in after.arcs if arc.target]
    given = sum(arc.end - arc.first for arc in moved if arc.target == "g5")
    assert given == pytest.approx(UNITS / 5, rel=0.04)
    assert sum(arc.end - arc.first for arc in moved) < 1.2 * given, "and others next to nothing"
    assert after.epoch == before.epoch + 1
    assert before.slices_of("g1") == after.slices_of("g1"), "routers go on until the move is done"


def test_what_a_gateway_had_that_is_gone_is_its_targets_or_others_at_once() -> None:
    moving = planned(planned(NOTHING, gates(4)), gates(5))
    after = planned(moving, [gate for gate in gates(5) if gate.name != "g1"])
    assert not {"g1", ""} & after.names() and all(arc.owner for arc in after.arcs)
    for arc in moving.arcs:
        if arc.owner == "g1" and arc.target:
            middle = (FRONT_PLANE << POSITION_BITS) + ((arc.first + arc.end) // 2 << TAIL_BITS)
            assert holder_of(after, middle) == "g5"


def test_a_target_that_is_gone_gets_nothing() -> None:
    before = planned(NOTHING, gates(4))
    assert planned(planned(before, gates(5)), gates(4)).arcs == before.arcs


def test_who_leaves_gives_everything_and_the_last_one_keeps_it() -> None:
    before = planned(NOTHING, gates(3))
    leaving = gates(3, g2=GateRecord("g2", "fd00::2", leaves=True))
    after = planned(before, leaving)
    assert all(arc.target for arc in after.arcs if arc.owner == "g2")
    assert "g2" not in done(after).names()
    assert planned(before, [replace(gate, leaves=True) for gate in leaving]) is before


def test_weights_count() -> None:
    found = shares(planned(NOTHING, gates(2, g2=GateRecord("g2", "fd00::2", weight=3))), UNBOUND_END, UNITS)
    assert found == {"g1": pytest.approx(0.25, abs=0.02), "g2": pytest.approx(0.75, abs=0.02)}


def test_records_survive_the_way_through_the_control_store() -> None:
    moving = planned(planned(NOTHING, gates(4)), gates(5))
    accepted = moving.changed(replace(arc, is_accepted=bool(arc.target)) for arc in moving.arcs)
    for record in (NOTHING, moving, accepted):
        assert FrontRecord.decode(record.encode()) == record
    gate = GateRecord("g1", "fd00::1", 7, leaves=True)
    assert GateRecord.decode(gate.encode()) == gate


@pytest.mark.parametrize(
    "arcs",
    [
        (),
        (Arc(0, UNITS - 1, "g1"),),
        (Arc(0, 5, "g1"), Arc(6, UNITS, "g1")),
        (Arc(0, UNITS, "", "g1"),),
        (Arc(0, UNITS, "g1", "g1"),),
        (Arc(0, UNITS, "g1", is_accepted=True),),
    ],
)
def test_what_is_no_record(arcs: tuple[Arc, ...]) -> None:
    with pytest.raises(ConfigError):
        FrontRecord(1, arcs)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b'{"format": 1, "epoch": 1, "arcs": []}',
        b'{"format": 1, "epoch": 1, "arcs": [[268435456, "g1", ""]]}',
        b'{"format": 1, "epoch": 1, "arcs": [[268435456, "g1", "", 1]]}',
        b'{"format": 1, "epoch": true, "arcs": [[268435456, "g1", "", false]]}',
        b'{"format": 1, "epoch": 1, "arcs": [[9, "g1", "", false]]}',
    ],
)
def test_what_is_no_record_as_bytes(value: bytes) -> None:
    with pytest.raises(ConfigError):
        FrontRecord.decode(value)


@pytest.mark.parametrize("changes", [{"name": "a b"}, {"address": "fe80::1"}, {"weight": 0}, {"leaves": 1}])
def test_what_is_no_gateway(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        GateRecord(**({"name": "g1", "address": "fd00::1"} | changes))  # type: ignore[arg-type]
