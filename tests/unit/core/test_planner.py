from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.cluster import GroupRecord, NodeRecord
from ssastore.core.planner import initial_layout, owned_slices
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS, Slice, minimal_cover, slice_of


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


@given(clusters())
def test_planes_are_covered_exactly_once(cluster: tuple[list[NodeRecord], int]) -> None:
    nodes, replicas = cluster
    groups = initial_layout(nodes, replicas)
    owned = sorted(piece for node in nodes for piece in owned_slices(groups, node.name))
    assert owned == [slice_of(plane, group) for plane in range(replicas) for group in range(GROUPS)]


@given(clusters())
def test_slices_of_a_group_are_apart(cluster: tuple[list[NodeRecord], int]) -> None:
    nodes, replicas = cluster
    zone_of = {node.name: node.zone or "/" + node.name for node in nodes}
    are_zones_apart = len({node.zone for node in nodes if node.zone}) >= replicas
    for record in initial_layout(nodes, replicas):
        assert len(set(record.owners)) == replicas
        if are_zones_apart:
            assert len({zone_of[owner] for owner in record.owners}) == replicas


@given(clusters())
def test_every_plane_is_shared_by_weight_to_within_one_group(cluster: tuple[list[NodeRecord], int]) -> None:
    nodes, replicas = cluster
    groups = initial_layout(nodes, replicas)
    wanted = shares(nodes, replicas)
    assert sum(wanted.values()) == GROUPS
    for node in nodes:
        for count in counts(groups, node):
            assert abs(count - wanted[node.name]) < 1


@given(clusters())
def test_node_has_one_arc_per_plane_and_few_prefixes(cluster: tuple[list[NodeRecord], int]) -> None:
    """An arc of n groups that may wrap around needs at most twice as many prefixes as n has bits."""
    nodes, replicas = cluster
    groups = initial_layout(nodes, replicas)
    for plane in range(replicas):
        runs = [name for name, _ in groupby(record.owners[plane] for record in groups)]
        if len(runs) > 1 and runs[0] == runs[-1]:
            runs.pop()
        assert len(runs) == len(set(runs))
    for node in nodes:
        for plane, count in enumerate(counts(groups, node)):
            assert prefixes(groups, node, plane) <= 2 * count.bit_length()


@given(clusters(), st.randoms(use_true_random=False))
def test_layout_depends_on_the_nodes_alone(cluster: tuple[list[NodeRecord], int], random: object) -> None:
    nodes, replicas = cluster
    shuffled = list(nodes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert initial_layout(shuffled, replicas) == initial_layout(nodes, replicas)


@pytest.mark.parametrize("replicas", [1, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("zones", [1, 4, 8])
def test_power_of_two_of_equals_get_one_prefix_per_plane(replicas: int, count: int, zones: int) -> None:
    if count < replicas:
        return
    if zones > count or zones > 1 and zones < replicas:
        zones = 1
    nodes = nodes_of([7] * count, [f"z{at % zones}" for at in range(count)])
    groups = initial_layout(nodes, replicas)
    for node in nodes:
        assert counts(groups, node) == [GROUPS // count] * replicas
        assert [prefixes(groups, node, plane) for plane in range(replicas)] == [1] * replicas


def test_weights_of_powers_of_two_get_one_prefix_per_plane() -> None:
    nodes = nodes_of([1, 4, 1, 2, 4, 4])
    groups = initial_layout(nodes, 3)
    for node in nodes:
        assert counts(groups, node) == [node.weight * GROUPS // 16] * 3
        assert [prefixes(groups, node, plane) for plane in range(3)] == [1] * 3


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
