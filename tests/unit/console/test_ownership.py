"""Who owns what, as a browser is told."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ssastore.console.ownership import STATES, Mark, Ownership, runs_of
from ssastore.core.cluster import NodeRecord
from ssastore.core.groups import GroupRecord
from ssastore.core.moving import begin_move, cancel_move, finish_move
from ssastore.core.planner import initial_layout
from ssastore.core.recut import halves_of, split_part
from ssastore.keyspace import GROUP_BITS

ZONES = {f"n{at}": "" for at in range(1, 6)}
CELLS = st.dictionaries(
    st.integers(0, 80), st.tuples(st.integers(-1, 2), st.integers(0, 2), st.just(-1)), max_size=60
)


def formed() -> dict[int, GroupRecord]:
    nodes = [NodeRecord(name, f"fd00::{name[1:]}") for name in sorted(ZONES)]
    return {record.group: record for record in initial_layout(nodes, 3)}


def cells_of(runs: list[list[int]]) -> dict[int, tuple[int, ...]]:
    """What a page makes of runs."""
    return {first + at: tuple(cell) for first, count, *cell in runs for at in range(count)}


@given(CELLS)
def test_runs_say_every_slice_once_and_are_as_few_as_can_be(cells: dict[int, tuple[int, int, int]]) -> None:
    runs = list(runs_of(cells))
    assert cells_of(runs) == cells and sum(run[1] for run in runs) == len(cells)
    for run, following in itertools.pairwise(runs):
        assert run[0] + run[1] < following[0] or run[2:] != following[2:]


def test_what_is_told_is_the_layout() -> None:
    groups, ownership = formed(), Ownership()
    assert not ownership.take(groups)
    found = cells_of(ownership.since(0)["runs"])
    assert found == {
        plane << GROUP_BITS | group: (ownership.place_of(owner), 0, -1)
        for group, record in groups.items()
        for plane, owner in enumerate(record.owners)
    }


def test_only_groups_that_changed_are_told() -> None:
    groups, ownership = formed(), Ownership()
    ownership.take(groups)
    first = ownership.version
    assert not ownership.take(groups) and ownership.version == first
    source, target = groups[7].owners[1], next(name for name in ZONES if name not in groups[7].owners)
    moved = begin_move(groups[7], 1, target, 5, ZONES)
    groups[7] = moved
    assert ownership.take(groups) == {Mark("begun", source, target): 1}
    places = [ownership.place_of(name) for name in (source, target)]
    runs = cells_of(ownership.since(first)["runs"])
    assert set(runs) == {7, 7 | 1 << GROUP_BITS, 7 | 2 << GROUP_BITS}
    assert runs[7 | 1 << GROUP_BITS] == (places[0], STATES.index("MOVING"), places[1])
    assert ownership.since(ownership.version)["runs"] == []
    groups[7] = cancel_move(moved, 1)
    assert ownership.take(groups) == {Mark("called off", source, target): 1}
    groups[7] = finish_move(begin_move(groups[7], 1, target, 5, ZONES), 1)
    assert ownership.take(groups) == {Mark("moved", source, target): 1}
    assert cells_of(ownership.since(first)["runs"])[7 | 1 << GROUP_BITS] == (places[1], 0, -1)


def test_a_loss_and_its_end() -> None:
    groups, ownership = formed(), Ownership()
    ownership.take(groups)
    owner = groups[3].owners[0]
    groups[3] = groups[3].begin_recovery(0, 9)
    assert ownership.take(groups) == {Mark("lost", owner, owner): 1}
    groups[3] = groups[3].finish_recovery(0)
    assert ownership.take(groups) == {Mark("recovered", "", owner): 1}


def test_parts_of_a_split_group() -> None:
    groups, ownership = formed(), Ownership()
    ownership.take(groups)
    groups[5] = split_part(groups[5], 5, halves_of(5, 17))
    assert ownership.take(groups) == {Mark("split", "", ""): 1}
    told = ownership.since(1)
    assert {cell[1] for cell in cells_of(told["runs"]).values()} == {STATES.index("SPLIT")}
    first, second = [found for found in told["parts"]["005"] if found[0] < 1 << 28]
    assert first[:2] == [5 << 16, 17] and second[:2] == [(5 << 16) + (1 << 15), 17]
