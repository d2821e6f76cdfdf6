from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ssastore.core.cluster import NodeRecord
from ssastore.core.groups import GroupRecord
from ssastore.core.planner import initial_layout, owned_slices
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS, Slice, minimal_cover, range_cover, slice_of


def nodes_of(weights: Sequence[int], zones: Sequence[str] | None = None) -> list[NodeRecord]:
    zones = zones or [""] * len(weights)
    return [
        NodeRecord(f"n{at:03}", f"fd00::{at + 1:x}", weight=weight, zone=zone)
        for at, (weight, zone) in enumerate(zip(weights, zones, strict=True))
    ]


def counts(groups: Sequence[GroupRecord], node: NodeRecord) -> list[int]:
    """How many groups a node has, by plane."""
    return [
        sum(owner == node.name for owner in plane) for plane in zip(*(g.owners for g in groups), strict=True)
    ]


def prefixes(groups: Sequence[GroupRecord], node: NodeRecord, plane: int) -> int:
    owned = [piece for piece in owned_slices(groups, node.name) if piece.plane == plane]
    return len(minimal_cover(owned))


def shares(nodes: Sequence[NodeRecord], replicas: int) -> dict[str, Fraction]:
    """What each node should get of a plane, found in another way than the planner does.

    Raises the level of the water until everything is poured: those at the brim stay there.
    """
    brim = Fraction(GROUPS, replicas)
    zones_count = {node.zone for node in nodes if node.zone}
    by_zone = len(zones_count) >= replicas
    unit_of = {n.name: n.zone if by_zone and n.zone else "/" + n.name for n in nodes}
    weights: dict[str, int] = {}
    for node in nodes:
        weights[unit_of[node.name]] = weights.get(unit_of[node.name], 0) + node.weight
    full: set[str] = set()
    while True:
        free = GROUPS - brim * len(full)
        weight = sum(w for unit, w in weights.items() if unit not in full)
        level = {u: brim if u in full else free * w / weight for u, w in weights.items()}
        over = {unit for unit, groups in level.items() if groups > brim}
        if not over:
            break
        full |= over
    return {n.name: level[unit_of[n.name]] * n.weight / weights[unit_of[n.name]] for n in nodes}


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[NodeRecord], int]:
    replicas = draw(st.sampled_from([1, 3, 5]))
    count = draw(st.integers(replicas, 24))
    weights = draw(st.lists(st.integers(1, 100) | st.just(1), min_size=count, max_size=count))
    labels = st.sampled_from(["", "a", "b", "c", "d", "e", "f"][: draw(st.integers(1, 7))])
    zones = draw(st.lists(labels, min_size=count, max_size=count))
    return nodes_of(weights, zones), replicas


Run = tuple[str, int, int]
"Owner, first group, end."


def runs_of(groups: Sequence[GroupRecord], plane: int) -> list[Run]:
    """A plane as runs of one owner each."""
    runs: list[Run] = []
    for name, run in groupby(record.owners[plane] for record in groups):
        first = runs[-1][2] if runs else 0
        runs.append((name, first, first + len(list(run))))
    return runs


def check_apart(groups: Sequence[GroupRecord], nodes: Sequence[NodeRecord], replicas: int) -> None:
    """The slices of a group are on different nodes, and in different zones where there are enough."""
    zone_of = {node.name: node.zone or "/" + node.name for node in nodes}
    are_zones_apart = len({node.zone for node in nodes if node.zone}) >= replicas
    for owners in {record.owners for record in groups}:
        assert len(set(owners)) == replicas
        assert not are_zones_apart or len({zone_of[owner] for owner in owners}) == replicas


def check_plane(runs: Sequence[Run], wanted: Mapping[str, Fraction]) -> None:
    """Every node has its share to within one group, as one arc, in few prefixes."""
    counts: dict[str, int] = dict.fromkeys(wanted, 0)
    covers: dict[str, int] = dict.fromkeys(wanted, 0)
    for name, first, end in runs:
        counts[name] += end - first
        covers[name] += len(range_cover(slice_of(0, first).first, slice_of(0, end - 1).end))
    assert sum(counts.values()) == GROUPS
    for name, share in wanted.items():
        assert abs(counts[name] - share) < 1
        # An arc of n groups, even one that wraps around, needs at most twice as many as n has bits.
        assert covers[name] <= 2 * counts[name].bit_length()
    arcs = [name for name, _, _ in runs]
    if len(arcs) > 1 and arcs[0] == arcs[-1]:
        arcs.pop()
    assert len(arcs) == len(set(arcs))


# Shrinking a failure would take minutes, and the example as drawn says enough.
@settings(max_examples=40, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(clusters(), st.randoms(use_true_random=False))
def test_any_layout_is_complete_apart_fair_contiguous_and_determined(
    cluster: tuple[list[NodeRecord], int], random: Random
) -> None:
    nodes, replicas = cluster
    groups = initial_layout(nodes, replicas)
    assert [record.group for record in groups] == list(range(GROUPS))
    check_apart(groups, nodes, replicas)
    wanted = shares(nodes, replicas)
    for plane in range(replicas):
        check_plane(runs_of(groups, plane), wanted)
    shuffled = list(nodes)
    random.shuffle(shuffled)
    assert initial_layout(shuffled, replicas) == groups


@pytest.mark.parametrize(
    ("replicas", "count", "zones"),
    [
        (1, 1, 1),
        (1, 2, 1),
        (1, 8, 8),
        (3, 4, 1),
        (3, 4, 4),
        (3, 8, 4),
        (3, 16, 2),
        (3, 64, 8),
        (5, 8, 1),
        (5, 16, 8),
    ],
)
def test_power_of_two_of_equals_get_one_prefix_per_plane(replicas: int, count: int, zones: int) -> None:
    nodes = nodes_of([7] * count, [f"z{at % zones}" for at in range(count)])
    groups = initial_layout(nodes, replicas)
    for plane in range(replicas):
        runs = runs_of(groups, plane)
        assert sorted(name for name, _, _ in runs) == [node.name for node in nodes]
        for _, first, end in runs:
            assert len(range_cover(slice_of(plane, first).first, slice_of(plane, end - 1).end)) == 1


def test_owned_slices_are_those_of_the_records() -> None:
    nodes = nodes_of([1, 2, 3, 4])
    groups = initial_layout(nodes, 3)
    owned = [owned_slices(groups, node.name) for node in nodes]
    assert all(pieces == sorted(pieces) for pieces in owned)
    assert sorted(piece for pieces in owned for piece in pieces) == [
        slice_of(plane, group) for plane in range(3) for group in range(GROUPS)
    ]
    for node, pieces in zip(nodes, owned, strict=True):
        assert all(groups[piece.group].owners[piece.plane] == node.name for piece in pieces)


@pytest.mark.parametrize(
    ("weights", "zones"),
    [
        ([1, 4, 1, 2, 4, 4], None),
        ([1, 2, 1] * 4, ["a"] * 3 + ["b"] * 3 + ["c"] * 3 + ["d"] * 3),
    ],
)
def test_weights_on_round_numbers_stay_there_in_every_plane(
    weights: list[int], zones: list[str] | None
) -> None:
    nodes = nodes_of(weights, zones)
    groups = initial_layout(nodes, 3)
    for node in nodes:
        assert counts(groups, node) == [node.weight * GROUPS // sum(weights)] * 3
        assert [prefixes(groups, node, plane) for plane in range(3)] == [1] * 3


@pytest.mark.parametrize(
    ("weights", "fewest"),
    [
        ([1, 1, 1, 1, 1, 2, 2, 2, 3, 4, 4], 228),  # a power of two; the widest arc would take 260
        ([1, 1, 1, 1, 1], 123),  # a third of the circle would take 139
    ],
)
def test_step_with_the_fewest_prefixes_is_taken(weights: list[int], fewest: int) -> None:
    nodes = nodes_of(weights)
    groups = initial_layout(nodes, 3)
    assert sum(prefixes(groups, node, plane) for node in nodes for plane in range(3)) == fewest


def test_three_equal_nodes() -> None:
    """The smallest cluster with replicas: a third of each plane for each node, turned by a node."""
    nodes = nodes_of([1, 1, 1])
    groups = initial_layout(nodes, 3)
    runs = [
        [(n, len(list(run))) for n, run in groupby(g.owners[plane] for g in groups)] for plane in range(3)
    ]
    assert runs == [
        [("n000", 1366), ("n001", 1365), ("n002", 1365)],
        [("n002", 1366), ("n000", 1365), ("n001", 1365)],
        [("n001", 1366), ("n002", 1365), ("n000", 1365)],
    ]


def test_node_gets_no_more_than_one_slice_of_a_group() -> None:
    """A node of nine tenths of the weight gets a third of each plane, and the others share the rest."""
    nodes = nodes_of([900, 30, 40, 30])
    groups = initial_layout(nodes, 3)
    assert all(count in (1365, 1366) for count in counts(groups, nodes[0]))
    assert all(count in (1092, 1093) for count in counts(groups, nodes[2]))


def test_zones_count_only_when_enough_are_labelled() -> None:
    two_zones = nodes_of([1] * 4, ["a", "a", "b", "b"])
    assert [g.owners for g in initial_layout(two_zones, 3)] == [
        g.owners for g in initial_layout(nodes_of([1] * 4), 3)
    ]


def test_small_zone_takes_its_part_of_every_group() -> None:
    """Three zones, three replicas: each zone has each group once, however unequal the zones are."""
    nodes = nodes_of([1] * 7, ["a", "a", "a", "b", "b", "b", "c"])
    groups = initial_layout(nodes, 3)
    assert all("n006" in record.owners for record in groups)


def test_one_node_owns_everything_as_one_prefix() -> None:
    (node,) = nodes_of([5])
    groups = initial_layout([node], 1)
    assert minimal_cover(owned_slices(groups, node.name)) == [Slice(0, 4)]


def test_more_nodes_than_groups_leave_some_without() -> None:
    nodes = [NodeRecord(f"n{at}", f"fd00::{at + 1:x}") for at in range(GROUPS + 10)]
    groups = initial_layout(nodes, 1)
    assert len({record.owners for record in groups}) == GROUPS


def test_stranger_owns_nothing() -> None:
    assert owned_slices(initial_layout(nodes_of([1]), 1), "stranger") == []


@pytest.mark.parametrize(("count", "replicas"), [(0, 1), (2, 3), (4, 5)])
def test_fewer_nodes_than_replicas_are_refused(count: int, replicas: int) -> None:
    with pytest.raises(ConfigError, match="add nodes"):
        initial_layout(nodes_of([1] * count), replicas)


@pytest.mark.parametrize("replicas", [0, 2, 4, 16])
def test_impossible_replica_count_is_refused(replicas: int) -> None:
    with pytest.raises(ConfigError):
        initial_layout(nodes_of([1] * 20), replicas)


def test_two_nodes_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError):
        initial_layout(nodes_of([1, 1, 1]) + nodes_of([1]), 3)
