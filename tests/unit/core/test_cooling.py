"""Which piece goes where so that the most loaded node has less to do."""

from __future__ import annotations

import pytest

from ssastore.core.cluster import Cluster, ClusterRecord, NodeRecord
from ssastore.core.cooling import Cooling, HeavySlice, cool, heavy_slice
from ssastore.core.heat import pieces_of
from ssastore.core.numbers import numbered_slice, slice_number
from ssastore.core.planner import initial_layout
from ssastore.core.recut import halves_of, split_part
from ssastore.errors import ConfigError
from ssastore.keyspace import slice_of
from ssastore.rebalance import plan_by_hand

NODES = tuple(NodeRecord(f"n{at}", f"fd00::{at}") for at in range(1, 6))


def cluster(nodes: tuple[NodeRecord, ...] = NODES) -> Cluster:
    record = ClusterRecord("ab" * 16, "2001:db8:5a:1::/64", 3, 0)
    return Cluster(record, nodes, tuple(initial_layout(nodes, 3)))


CLUSTER = cluster()
GROUP = 7
OWNERS = CLUSTER.groups[GROUP].owners
FREE = [node.name for node in NODES if node.name not in OWNERS]
EVENLY = {GROUP << 16 | at << 8: 10 for at in range(256)}
"A slice whose load is spread over it."


def heavy(weights: dict[int, int], unit: float = 1.0, number: int = GROUP) -> HeavySlice:
    return heavy_slice([number, sum(weights.values()), pieces_of(number, weights)], unit)


def loads(source: float, **others: float) -> dict[str, float]:
    return dict.fromkeys((node.name for node in NODES), 100.0) | {OWNERS[0]: source} | others


def test_a_slice_goes_as_a_whole_when_it_is_half_of_the_difference() -> None:
    found = cool(CLUSTER, loads(100 + 2 * 2560, **{FREE[1]: 99.0}), {OWNERS[0]: [heavy(EVENLY)]})
    assert found == Cooling(slice_of(0, GROUP), OWNERS[0], FREE[1], 2560, (5220, 99))
    assert found.after == (2660, 2659)


def test_a_slice_that_is_too_hot_is_cut_where_its_load_is() -> None:
    """All load is in the upper half, and evenly there: a half of that goes."""
    upper = {GROUP << 16 | 0x8000 | at << 8: 20 for at in range(128)}
    found = cool(CLUSTER, loads(100 + 2560), {OWNERS[0]: [heavy(upper)]})
    assert found.piece.depth == 18 and slice_of(0, GROUP).split()[1].covers(found.piece)
    assert found.load == pytest.approx(1280) and max(found.after) < 1400
    plan = plan_by_hand(CLUSTER, moves=[(found.piece, found.target)])
    assert [recut.whole for recut in plan.splits] and [change.target for change in plan.changes] == [
        found.target
    ]


def test_a_part_is_cut_further_down_to_96_and_no_further() -> None:
    one_name = {GROUP << 16 | 0x1234: 1000, GROUP << 16 | 0x1235: 900}
    found = cool(CLUSTER, loads(100 + 1900), {OWNERS[0]: [heavy(one_name)]})
    assert found.piece.depth == 32 and found.load == 1000
    record = split_part(CLUSTER.groups[GROUP], GROUP, halves_of(GROUP, 17))
    groups = (*CLUSTER.groups[:GROUP], record, *CLUSTER.groups[GROUP + 1 :])
    part = slice_number(0, halves_of(GROUP, 17)[0])
    split = Cluster(CLUSTER.record, NODES, groups)
    lower = {GROUP << 16 | at << 8: 10 for at in range(128)}
    found = cool(split, loads(100 + 1280), {OWNERS[0]: [heavy(lower, number=part)]})
    assert found.piece.depth == 18 and numbered_slice(part).covers(found.piece)


def test_what_cannot_be_cut_stays_and_the_next_hottest_goes() -> None:
    """Where it went, there would be as much to do as here now."""
    single = {GROUP << 16 | 0x1234: 1000}
    only = {OWNERS[0]: [heavy(single)]}
    with pytest.raises(ConfigError, match="cannot be cut"):
        cool(CLUSTER, loads(1100), only)
    other = next(r.group for r in CLUSTER.groups if r.owners[0] == OWNERS[0] and r.group != GROUP)
    second = heavy({other << 16 | at: 30 for at in range(10)}, number=other)
    found = cool(CLUSTER, loads(1400), {OWNERS[0]: [heavy(single), second]})
    assert found.piece == slice_of(0, other) and found.load == 300


def test_nodes_that_are_about_as_loaded_are_left_alone() -> None:
    with pytest.raises(ConfigError, match="about as loaded"):
        cool(CLUSTER, loads(108), {OWNERS[0]: [heavy(EVENLY, 0.01)]})


def test_weights_count() -> None:
    """Who weighs three times as much has three times as much to do."""
    nodes = tuple(
        NodeRecord(node.name, node.address, weight=3 if node.name == OWNERS[0] else 1) for node in NODES
    )
    weighty = Cluster(CLUSTER.record, nodes, CLUSTER.groups)
    with pytest.raises(ConfigError, match="about as loaded"):
        cool(weighty, loads(300), {OWNERS[0]: [heavy(EVENLY, 0.1)]})
    found = cool(weighty, loads(100 * 3 + 400), {OWNERS[0]: [heavy(EVENLY, 0.1)]})
    assert found.load == pytest.approx(100, rel=0.3)


def test_no_two_planes_meet_in_a_node_or_in_a_zone() -> None:
    zones = dict(zip(OWNERS, "abc", strict=True)) | {FREE[0]: "b", FREE[1]: "a"}
    nodes = tuple(NodeRecord(node.name, node.address, zone=zones[node.name]) for node in NODES)
    zoned = Cluster(CLUSTER.record, nodes, CLUSTER.groups)
    found = cool(zoned, loads(100 + 2560, **{FREE[0]: 1.0}), {OWNERS[0]: [heavy(EVENLY)]})
    assert found.target == FREE[1], "the coolest has a plane in its zone"
    with pytest.raises(ConfigError, match="no other node may have it"):
        cool(
            zoned,
            {name: load for name, load in loads(3000).items() if name != FREE[1]},
            {OWNERS[0]: [heavy(EVENLY)]},
        )


def test_a_slice_that_has_gone_meanwhile_is_passed_over() -> None:
    with pytest.raises(ConfigError):
        cool(CLUSTER, loads(5000), {OWNERS[0]: [heavy(EVENLY, number=slice_number(1, GROUP))]})


def test_what_is_no_report_is_refused() -> None:
    for wrong in (None, [1, 2], [1, 2, [[1]]], ["x", 1, []], [1, 2, [[1, 99, 3]]]):
        with pytest.raises(ConfigError):
            heavy_slice(wrong, 1.0)
