"""What is kept up to date says the same as a look at all records."""

from __future__ import annotations

import random

from ssastore.core.cluster import NodeRecord
from ssastore.core.groups import GroupRecord
from ssastore.core.moving import begin_move, finish_move
from ssastore.core.ownership import OwnedPrefixes
from ssastore.core.planner import initial_layout, owned_slices
from ssastore.core.recut import begin_merge, halves_of, ready_for_merge, split_part
from ssastore.core.widening import FILLED_PLANE, begin_fill, finish_fill
from ssastore.keyspace import SLICE_DEPTH_MIN, minimal_cover, slice_of

NODES = [NodeRecord(f"n{number}", f"fd00::{number}") for number in range(1, 6)]
ZONES = dict.fromkeys((node.name for node in NODES), "")
REPLICAS = 3


def changed(record: GroupRecord, drawn: random.Random) -> GroupRecord:
    """Moved, split or merged; what a group is split into stays with the owners that it had."""
    if record.split is not None:
        record = begin_merge(record, record.group)
        for plane in range(REPLICAS):
            record = ready_for_merge(record, plane, 7)
        return record
    if drawn.random() < 0.3:
        return split_part(
            record, record.group, halves_of(record.group, SLICE_DEPTH_MIN + drawn.randrange(1, 4))
        )
    plane = drawn.randrange(REPLICAS)
    target = drawn.choice([node.name for node in NODES if node.name not in record.owners])
    moving = begin_move(record, plane, target, 9, ZONES)
    return finish_move(moving, plane)


def test_walks_over_moves_splits_and_merges_end_with_the_fewest_prefixes() -> None:
    drawn = random.Random(1)
    records = initial_layout(NODES[:4], REPLICAS)
    owned = OwnedPrefixes(records)
    splits = 0
    for turn in range(200):
        group = drawn.randrange(40)
        records[group] = changed(records[group], drawn)
        splits += records[group].split is not None
        if turn % 3 == 0:
            owned.show(records)
        if turn % 20 == 0:
            owned.show(records)
            for node in NODES:
                assert list(owned.of(node.name)) == minimal_cover(owned_slices(records, node.name))
    assert splits > 10


def test_a_plane_that_is_made_has_its_prefix_before_it_counts() -> None:
    records = initial_layout(NODES[:3], 1)
    record = records[5]
    target = NODES[3].name
    owned = OwnedPrefixes(records)
    assert list(owned.of(target)) == []
    filling = begin_fill(record, target, 9, ZONES)
    owned.show([filling])
    assert list(owned.of(target)) == [slice_of(FILLED_PLANE, record.group)]
    owned.show([finish_fill(filling)])
    assert list(owned.of(target)) == [slice_of(FILLED_PLANE, record.group)]
    # Given up: nobody has that plane.
    owned.show([record])
    assert list(owned.of(target)) == []


def test_who_owns_nothing_has_no_prefix() -> None:
    assert list(OwnedPrefixes(initial_layout(NODES[:3], REPLICAS)).of("n5")) == []
