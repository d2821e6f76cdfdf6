"""Which groups have a majority of their planes: by owners, states, and who answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ssastore.core.cluster import Cluster, ClusterRecord, NodeRecord
from ssastore.core.groups import RECOVERING, GroupRecord
from ssastore.core.majorities import Planes, Worker, part_name
from ssastore.core.planner import initial_layout
from ssastore.core.recut import halves_of, split_part
from ssastore.keyspace import GROUPS


def cluster_of(nodes: int, replicas: int, workers: int = 1) -> Cluster:
    records = tuple(NodeRecord(f"n{at}", f"fd00::{at}", workers=workers) for at in range(1, nodes + 1))
    record = ClusterRecord("ab" * 16, "2001:db8:5a:1::/64", replicas, 0)
    return Cluster(record, records, tuple(initial_layout(records, replicas)))


def everybody(cluster: Cluster) -> dict[Worker, dict[str, int]]:
    return {(node.name, at): {} for node in cluster.nodes for at in range(node.workers)}


def changed(cluster: Cluster, group: GroupRecord) -> Cluster:
    groups = list(cluster.groups)
    groups[group.group] = group
    return replace(cluster, groups=tuple(groups))


def test_while_everybody_answers_all_is_whole() -> None:
    cluster = cluster_of(4, 3)
    found = Planes(cluster).majorities(Planes(cluster).voters(everybody(cluster)))
    assert (found.parts, found.lost, found.degraded) == (GROUPS, (), 0)


@pytest.mark.parametrize(("replicas", "is_lost"), [(1, True), (3, False)])
def test_one_of_three_may_be_silent_and_one_of_one_may_not(replicas: int, is_lost: bool) -> None:
    cluster = cluster_of(4, replicas)
    found = Planes(cluster).majorities({(name, 0) for name in ("n1", "n3", "n4")})
    owned = [group.group for group in cluster.groups if "n2" in group.owners]
    assert list(found.lost) == (owned if is_lost else [])
    assert found.degraded == (0 if is_lost else len(owned))


def test_two_silent_nodes_lose_what_both_of_them_have() -> None:
    cluster = cluster_of(5, 3)
    found = Planes(cluster).majorities({(name, 0) for name in ("n1", "n2", "n3")})
    both = [group.group for group in cluster.groups if {"n4", "n5"} <= set(group.owners)]
    assert both and list(found.lost) == both


def test_a_silent_worker_is_silent_in_its_lanes_alone() -> None:
    cluster = cluster_of(3, 3, workers=2)
    voting = set(everybody(cluster)) - {("n1", 1), ("n2", 1)}
    found = Planes(cluster).majorities(voting)
    assert list(found.lost) == [number for number in range(GROUPS) if number % 2]


def test_what_is_being_recovered_does_not_count() -> None:
    cluster = cluster_of(3, 3)
    first = cluster.groups[7]
    cluster = changed(cluster, first.begin_recovery(0, 9))
    answers = everybody(cluster)
    answers[first.owners[0], 0] = {"RECOVERING": 1}
    voting = Planes(cluster).voters(answers)
    assert voting == set(answers)
    assert Planes(cluster).majorities(voting).degraded == 1
    assert Planes(cluster).majorities(voting - {(first.owners[1], 0)}).lost == (7,)
    assert cluster.groups[7].planes[0].state == RECOVERING


@pytest.mark.parametrize("states", [{"QUARANTINED": 1}, {"UNKNOWN": 3}, {"RECOVERING": 1}])
def test_a_worker_that_is_silent_where_no_record_says_it_counts_nowhere(states: dict[str, int]) -> None:
    cluster = cluster_of(3, 3)
    assert Planes(cluster).voters(everybody(cluster) | {("n2", 0): states}) == {("n1", 0), ("n3", 0)}


def test_the_end_of_a_handover_makes_nobody_doubt_a_worker() -> None:
    cluster = cluster_of(3, 3)
    assert len(Planes(cluster).voters(everybody(cluster) | {("n2", 0): {"SEALED": 1, "FILLED": 2}})) == 3


def test_parts_of_a_split_group_count_each() -> None:
    cluster = cluster_of(4, 3)
    cluster = changed(cluster, split_part(cluster.groups[2100], 2100, halves_of(2100, 17)))
    found = Planes(cluster).majorities(set())
    assert found.parts == len(found.lost) == GROUPS + 1
    named = [part_name(part) for part in found.lost[2100:2102]]
    assert len(set(named)) == 2 and all("/" in name or "*" in name for name in named), named
