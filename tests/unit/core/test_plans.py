from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ssastore.core.cluster import NodeRecord
from ssastore.core.layout import (
    Layout,
    Part,
    empty_layout,
    layout_of,
    merge_equals,
    merge_parts,
    move_part,
    split_part,
)
from ssastore.core.numbers import slice_from_text
from ssastore.core.planfile import decode_plan, encode_plan
from ssastore.core.planner import initial_layout
from ssastore.core.plans import FILL, MOVE, RECOVER, Change, Plan, Recut, make_plan
from ssastore.core.replan import first_layout, replan
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS, Slice, slice_of
from ssastore.limits import PLAN_FILE_BYTES_MAX

NODES = [NodeRecord(f"n{at}", f"fd00::{at + 1:x}") for at in range(6)]
LAYOUT = layout_of(initial_layout(NODES[:4], 3))
A3F = slice_of(0, 0xA3F)


def plan_of(count: int = 5, **options: Any) -> Plan:
    nodes = NODES[:count]
    return make_plan(LAYOUT, replan(LAYOUT, nodes, 3), nodes, **options)


def other_than_owners(group: int) -> str:
    return next(node.name for node in NODES if node.name not in LAYOUT.parts[group].owners)


# -- what a plan says -------------------------------------------------------------------------------


def test_a_plan_leads_from_one_layout_to_the_other() -> None:
    after = replan(LAYOUT, NODES, 3)
    plan = make_plan(LAYOUT, after, NODES)
    assert plan.apply(LAYOUT) == after
    assert {change.kind for change in plan.changes} == {MOVE}
    assert sum(change.piece.size for change in plan.changes) == plan.figures.moved_groups * A3F.size


def test_a_plan_of_a_thousand_nodes_cuts_groups_and_leads_there() -> None:
    nodes = [NodeRecord(f"n{at:04}", f"fd00::{at + 1:x}") for at in range(1000)]
    after = first_layout(nodes, 3)
    plan = make_plan(empty_layout(3), after, nodes)
    assert plan.splits
    assert {change.kind for change in plan.changes} == {FILL}
    assert plan.apply(empty_layout(3)) == after
    assert decode_plan(encode_plan(plan)) == plan


def test_who_is_lost_is_recovered_and_who_drains_is_moved() -> None:
    left = [node for node in NODES[:5] if node.name != "n0"]
    after = replan(LAYOUT, left, 3)
    lost = make_plan(LAYOUT, after, left, lost=["n0"])
    drained = make_plan(LAYOUT, after, left)
    assert {change.kind for change in lost.changes if change.source == "n0"} == {RECOVER}
    assert {change.kind for change in drained.changes} == {MOVE}


def test_the_figures() -> None:
    plan = plan_of(sizes=dict.fromkeys(range(GROUPS), 1000))
    assert plan.figures.bytes == plan.figures.moved_groups * 1000
    assert plan_of().figures.bytes is None
    assert plan.figures.fullest[0] == pytest.approx(1.25)
    assert plan.figures.fullest[1] <= 1.05
    by_name = {node.name: node for node in plan.figures.nodes}
    assert by_name["n0"].loads[0] == 0.75
    assert by_name["n0"].prefixes[0] == 3
    assert by_name["n4"].loads[0] == by_name["n4"].prefixes[0] == 0
    assert sum(node.loads[1] for node in plan.figures.nodes) == pytest.approx(3)


def test_a_plan_for_another_ownership_is_refused() -> None:
    plan = plan_of()
    moved = move_part(LAYOUT, slice_of(1, 7), other_than_owners(7))
    for other in (moved, plan.apply(LAYOUT), split_part(LAYOUT, A3F, 17)):
        with pytest.raises(ConfigError, match="plan again"):
            plan.require(other)
        with pytest.raises(ConfigError, match="plan again"):
            plan.apply(other)


# -- by hand ----------------------------------------------------------------------------------------


def test_a_hot_slice_is_cut_out_and_moved() -> None:
    target = other_than_owners(0xA3F)
    hot = Slice(slice_of(2, 0xA3F).first | 3 << 44, 20)
    after = move_part(LAYOUT, hot, target)
    plan = make_plan(LAYOUT, after, NODES)
    (cut,) = plan.splits
    assert cut.whole == A3F
    assert [str(piece) for piece in cut.pieces] == [
        "0a3f0/83",
        "0a3f2/84",
        "0a3f3/84",
        "0a3f4/82",
        "0a3f8/81",
    ]
    source = LAYOUT.parts[0xA3F].owners[2]
    assert plan.changes == (Change(MOVE, hot, source, target),)
    assert plan.apply(LAYOUT) == after
    assert plan.figures.moved_groups == 1 / 16


def test_split_down_to_96_in_all_planes_and_merged_again() -> None:
    fine = split_part(LAYOUT, A3F, 32)
    assert len(fine.parts) == GROUPS - 1 + (1 << 16)
    fine.check()
    with pytest.raises(ConfigError, match="can be split to"):
        split_part(fine, fine.parts[0xA3F].piece, 33)
    split = make_plan(LAYOUT, split_part(LAYOUT, A3F, 18), NODES)
    assert not split.changes
    assert [str(piece) for piece in split.splits[0].pieces] == [
        "0a3f0/82",
        "0a3f4/82",
        "0a3f8/82",
        "0a3fc/82",
    ]
    merged = make_plan(split.apply(LAYOUT), LAYOUT, NODES)
    assert (merged.splits, merged.changes) == ((), ())
    assert merged.merges == (Recut(A3F, split.splits[0].pieces),)
    assert merged.apply(split.apply(LAYOUT)) == LAYOUT
    assert merge_equals(fine) == LAYOUT


def test_a_merge_moves_what_has_other_owners_first() -> None:
    target = other_than_owners(0xA3F)
    apart = move_part(LAYOUT, Slice(A3F.first, 17), target)
    together = merge_parts(apart, A3F)
    plan = make_plan(apart, together, NODES)
    upper = Slice(A3F.first, 17).sibling()
    assert plan.changes == (Change(MOVE, upper, LAYOUT.parts[0xA3F].owners[0], target),)
    assert plan.apply(apart) == together


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layout: split_part(layout, Slice(A3F.first, 17), 18), "no part"),
        (lambda layout: split_part(layout, A3F, 16), "can be split to"),
        (lambda layout: merge_parts(layout, A3F), "no parts to merge"),
        (lambda layout: merge_parts(layout, Slice(0, 15)), "no group and no piece"),
        (
            lambda layout: move_part(layout, A3F, layout.parts[0xA3F].owners[1]),
            "owns plane 1 of 0a3f already",
        ),
        (lambda layout: move_part(layout, slice_of(3, 1), "n5"), "no slice of planes 0 to 2"),
        (lambda layout: move_part(split_part(layout, A3F, 17), A3F, "n5"), "holds several parts"),
        (lambda layout: Layout(layout.parts[1:]).check(), "is not the next one"),
        (lambda layout: Layout((Part(slice_of(0, 0), ("a", "a")), *layout.parts[1:])).check(), "has owners"),
    ],
)
def test_what_cannot_be_done_by_hand(change: Callable[[Layout], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        change(LAYOUT)


def test_a_merge_in_which_planes_would_meet_is_refused() -> None:
    low, high = Slice(A3F.first, 17), Slice(A3F.first, 17).sibling()
    parts = list(LAYOUT.parts)
    parts[0xA3F : 0xA3F + 1] = [Part(low, ("n0", "n1", "n2")), Part(high, ("n1", "n3", "n2"))]
    with pytest.raises(ConfigError, match="has n1 in another plane"):
        merge_parts(Layout(tuple(parts)), A3F)


# -- the file ---------------------------------------------------------------------------------------


def test_a_file_can_be_read_again_and_has_a_change_on_each_line() -> None:
    plan = make_plan(LAYOUT, move_part(LAYOUT, Slice(A3F.first, 18), other_than_owners(0xA3F)), NODES)
    text = encode_plan(plan)
    found = decode_plan(text)
    assert found == plan
    assert found.figures == plan.figures
    source, target = LAYOUT.parts[0xA3F].owners[0], other_than_owners(0xA3F)
    line = f'    {{"do": "move", "slice": "0a3f0/82", "from": "{source}", "to": "{target}"}}'
    assert line in text.decode().splitlines()


@pytest.mark.parametrize("text", ["1a3f", "0/68", "0a3e/79", "1a3f8/82", "2fffffff/96"])
def test_slices_as_text(text: str) -> None:
    assert str(slice_from_text(text)) == text


GOOD = encode_plan(plan_of())


def edited(*path: str | int, value: Any) -> bytes:
    """The file of a good plan with one thing changed."""
    found = json.loads(GOOD)
    at = found
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return json.dumps(found).encode()


CHANGE = {"do": "move", "slice": "0001", "from": "n0", "to": "n4"}
SPLIT = {"part": "0a3f", "pieces": ["0a3f0/81", "0a3f8/81"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"kind": NaN}', "not JSON"),
        (b"[]", "no plan"),
        (b'{"kind": "something"}', "no plan"),
        (b" " * (PLAN_FILE_BYTES_MAX + 1), "at most"),
        (edited("format", value=2), "format 2, this version reads 1"),
        (edited("format", value=True), "format True"),
        (edited("more", value=1), "wants exactly the fields"),
        (edited("made_for", value="00"), "32 hex digits"),
        (edited("gives", value=None), "32 hex digits"),
        (edited("replicas", value=[3]), "two values"),
        (edited("replicas", value=[3, 2]), "replicas must be one of"),
        (edited("replicas", value=[True, 3]), "replicas must be one of"),
        (edited("replicas", value=[3, 1]), "planes are only added"),
        (edited("changes", value={}), "must be a list"),
        (edited("changes", 0, value=1), "a change wants exactly"),
        (edited("changes", 0, value=CHANGE | {"eta": 1}), "a change wants exactly"),
        (edited("changes", 0, value=CHANGE | {"do": "drop"}), "one of move, recover, fill"),
        (edited("changes", 0, value=CHANGE | {"do": []}), "one of move, recover, fill"),
        (edited("changes", 0, value=CHANGE | {"slice": 7}), "a slice is written like"),
        (edited("changes", 0, value=CHANGE | {"slice": "1A3F"}), "a slice is written like"),
        (edited("changes", 0, value=CHANGE | {"slice": "1a3f/80"}), "is written 1a3f"),
        (edited("changes", 0, value=CHANGE | {"slice": "1a3f1/82"}), "not aligned"),
        (edited("changes", 0, value=CHANGE | {"slice": "00/66"}), "is written"),
        (edited("changes", 0, value=CHANGE | {"slice": "0/66"}), "no slice of planes"),
        (edited("changes", 0, value=CHANGE | {"slice": "3001"}), "no slice of planes 0 to 2"),
        (edited("changes", 0, value=CHANGE | {"slice": "0/999"}), "no such slice"),
        (edited("changes", 0, value=CHANGE | {"to": "n 4"}), "node name must be"),
        (edited("changes", 0, value=CHANGE | {"to": None}), "node name must be"),
        (edited("changes", 0, value=CHANGE | {"to": "n0"}), "cannot go from 'n0' to n0"),
        (edited("changes", 0, value=CHANGE | {"from": ""}), "node name must be"),
        (edited("changes", 0, value=CHANGE | {"do": "fill"}), "cannot go from"),
        (edited("splits", value=[SPLIT | {"part": "1a3f"}]), "no group and no piece of one"),
        (edited("splits", value=[SPLIT | {"pieces": []}]), "not all of it"),
        (edited("splits", value=[SPLIT | {"pieces": ["0a3f8/81"]}]), "not the next piece"),
        (edited("splits", value=[SPLIT | {"pieces": ["0a3f0/81"]}]), "not all of it"),
        (edited("merges", value=[SPLIT | {"pieces": ["0a3f"]}]), "only one"),
        (edited("figures", value=[]), "the figures wants exactly"),
        (edited("figures", "bytes", value=-1), "a count must be"),
        (edited("figures", "bytes", value=1.5), "a count must be"),
        (edited("figures", "moved_groups", value="1"), "a figure must be a number"),
        (edited("figures", "moved_groups", value=10**400), "a figure must be a number"),
        (edited("figures", "nodes", 0, "prefixes", value=[1, True]), "a count must be"),
    ],
)
def test_a_bad_file_gets_a_clear_error(text: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode_plan(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (edited("changes", value=[]), "leads to ownership"),
        (edited("splits", value=[SPLIT]), "leads to ownership|ends inside|does not own"),
        (edited("merges", value=[SPLIT]), "merges 0a3f, whose pieces"),
        (edited("changes", 0, value=CHANGE | {"from": "n9"}), "who does not own it"),
        (edited("changes", 0, value=CHANGE | {"slice": "0001800/89"}), "ends inside a part"),
    ],
)
def test_a_file_that_contradicts_itself_is_not_applied(text: bytes, message: str) -> None:
    plan = decode_plan(text)
    with pytest.raises(ConfigError, match=message):
        plan.apply(LAYOUT)
