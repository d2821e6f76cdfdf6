"""What `plan --hot` and `--largest` make of the nodes' reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ssastore.cli.hot import cores, hottest, largest
from ssastore.core.cluster import Cluster, ClusterRecord, NodeRecord
from ssastore.core.numbers import slice_number
from ssastore.core.planner import initial_layout
from ssastore.core.recut import halves_of, split_part
from ssastore.errors import ConfigError, Unavailable
from ssastore.keyspace import slice_of
from ssastore.operating import sizes_of

NODES = tuple(NodeRecord(f"n{at}", f"fd00::{at}") for at in range(1, 5))
CLUSTER = Cluster(
    ClusterRecord("ab" * 16, "2001:db8:5a:1::/64", 3, 0), NODES, tuple(initial_layout(NODES, 3))
)
GROUP = 7
SOURCE = CLUSTER.groups[GROUP].owners[0]
TARGET = next(node.name for node in NODES if node.name not in CLUSTER.groups[GROUP].owners)


def worker(calls: int, *, stored: int = 0, cpu_s: float = 0.0, weight: int = 0) -> dict[str, Any]:
    """``weight`` of its 4096 samples, or of its bytes, are in the group, spread over it."""
    pieces = [[GROUP << 16 | at << 12, 20, weight // 16] for at in range(16)] if weight else []
    slices = [[GROUP, weight, pieces]] if weight else []
    heat = {"calls": calls, "samples": 4096, "slices": slices}
    return {"worker": 0, "ok": True, "heat": heat, "largest": slices, "used_bytes": stored, "cpu_s": cpu_s}


def report(**workers: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": [{"name": name, "slices": 9, "workers": [found]} for name, found in workers.items()]}


def of_all(calls: int, source: dict[str, Any]) -> dict[str, Any]:
    return report(**{node.name: worker(calls) for node in NODES} | {SOURCE: source})


def test_loads_are_the_calls_between_two_reports() -> None:
    """At the source 2000 calls a second more than elsewhere, a half of them in one slice."""
    before = of_all(10**6, worker(10**6, cpu_s=1.0))
    after = of_all(10**6 + 1000, worker(10**6 + 11_000, cpu_s=3.5, weight=2048))
    found = hottest(CLUSTER, before, after, 5.0)
    assert (found.source, found.before[0], found.piece) == (SOURCE, 2200, slice_of(0, GROUP))
    assert found.load == pytest.approx(1100)
    assert cores(before, after, 5.0, SOURCE) == pytest.approx(0.5)


def test_few_calls_say_nothing() -> None:
    quiet = of_all(10, worker(20, weight=16))
    for found in quiet["nodes"]:
        found["workers"][0]["heat"]["samples"] = 1
    with pytest.raises(ConfigError, match="too few to tell"):
        hottest(CLUSTER, quiet, quiet, 5.0)


def test_a_worker_that_began_anew_has_no_calls_that_it_had_before() -> None:
    before, after = of_all(0, worker(10**9)), of_all(5000, worker(50, weight=2048))
    with pytest.raises(ConfigError):
        hottest(CLUSTER, before, after, 5.0)


def test_bytes_are_those_of_the_last_scrub() -> None:
    found = largest(CLUSTER, of_all(0, worker(0, stored=4096, weight=4096)))
    assert found.source == SOURCE and found.load == 2048 and found.piece.depth == 17
    with pytest.raises(ConfigError, match="no worker has ended a scrub"):
        largest(CLUSTER, of_all(0, worker(0, stored=4096)))


def test_who_is_silent_may_be_who_has_most_to_do() -> None:
    silent = of_all(0, {"worker": 0, "ok": False, "error": "?"})
    with pytest.raises(Unavailable, match="does not answer"):
        largest(CLUSTER, silent)
    # Who owns nothing is asked for nothing.
    idle = of_all(0, worker(0, stored=4096, weight=4096))
    next(node for node in idle["nodes"] if node["name"] == TARGET)["workers"] = [
        {"worker": 0, "ok": True, "idle": True}
    ]
    assert largest(CLUSTER, idle).target == TARGET


def test_the_size_of_a_group_is_that_of_its_large_slices_or_an_even_share_of_the_rest() -> None:
    """The source has a slice of 1000 bytes and 80 in eight others; of other nodes nothing is known."""
    found = sizes_of(CLUSTER, of_all(0, worker(0, stored=1080, weight=1000)))
    assert found[GROUP] == 1000
    (other,) = [g for g in CLUSTER.groups if g.group == GROUP + 1]
    assert found.get(other.group) == (10 if SOURCE in other.owners else None)


def test_what_two_owners_have_of_a_group_is_its_mean() -> None:
    second = CLUSTER.groups[GROUP].owners[1]
    told = {name: worker(0, stored=90) for name in CLUSTER.groups[GROUP].owners}
    told[SOURCE] = worker(0, stored=1080, weight=1000)
    told[second] = worker(0, stored=2000, weight=2000)
    told[second]["largest"][0][0] = slice_number(1, GROUP)
    assert sizes_of(CLUSTER, report(**told))[GROUP] == round((1000 + 2000 + 10) / 3)


def test_a_group_that_is_split_has_what_all_of_its_owners_have() -> None:
    """Half of it went to another node: neither of them has the size of the whole."""
    halves = halves_of(GROUP, 17)
    record = split_part(CLUSTER.groups[GROUP], GROUP, halves)
    high = record.at(halves[1])
    assert high is not None
    moved = high.replaced(0, replace(high.planes[0], owner=TARGET, env=9), high.cfg)
    groups = (*CLUSTER.groups[:GROUP], moved, *CLUSTER.groups[GROUP + 1 :])
    cluster = replace(CLUSTER, groups=groups)
    told = {SOURCE: halves[0], TARGET: halves[1]}
    found = {
        name: {"worker": 0, "ok": True, "used_bytes": 3000, "largest": [[slice_number(0, part), 3000, []]]}
        for name, part in told.items()
    }
    assert sizes_of(cluster, report(**found))[GROUP] == 6000
    whole = {"worker": 0, "ok": True, "used_bytes": 5000, "largest": [[GROUP, 5000, []]]}
    assert sizes_of(cluster, report(**found | {SOURCE: whole}))[GROUP] == 2500 + 3000, "read before the split"


def test_a_node_of_which_every_slice_is_known_has_their_sizes() -> None:
    """It has no other slices to share the rest."""
    told = of_all(0, worker(0, stored=1000, weight=1000))
    next(node for node in told["nodes"] if node["name"] == SOURCE)["slices"] = 1
    assert sizes_of(CLUSTER, told)[GROUP] == 1000
