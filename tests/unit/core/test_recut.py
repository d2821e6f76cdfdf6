"""Splitting and merging the record of a group: properties, by random walks over what can be done with it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssastore.core.groups import ACTIVE, MOVING, GroupRecord, Merging, PlaneOwner, Split, split_record
from ssastore.core.layout import layout_of
from ssastore.core.moving import begin_move, cancel_move, finish_move
from ssastore.core.numbers import number_of_part, part_piece, slice_from_text
from ssastore.core.planner import initial_layout
from ssastore.core.recut import (
    begin_merge,
    cancel_merge,
    halves_of,
    merged_epoch,
    merging_parts,
    ready_for_merge,
    split_part,
)
from ssastore.errors import ConfigError
from ssastore.keyspace import SLICE_DEPTH_MAX
from tests.unit.core.test_planner import nodes_of

NODES = dict.fromkeys(("a", "b", "c", "d", "e"), "")
FRESH = GroupRecord(0xA3F, (PlaneOwner("a"), PlaneOwner("b"), PlaneOwner("c")))


def part(text: str) -> int:
    return number_of_part(slice_from_text(text))


LOW, HIGH = part("0a3f0/81"), part("0a3f8/81")


def halved(record: GroupRecord = FRESH) -> GroupRecord:
    return split_part(record, record.group, [LOW, HIGH])


def view(record: GroupRecord, number: int) -> GroupRecord:
    found = record.at(number)
    assert found is not None
    return found


def merged(record: GroupRecord, number: int) -> GroupRecord:
    record = begin_merge(record, number)
    for plane in range(3):
        record = ready_for_merge(record, plane, 0xE0 + plane)
    return record


def test_a_split_changes_nothing_but_the_prefixes() -> None:
    record = halved(replace(FRESH, cfg=7))
    assert [str(part_piece(found.part)) for found in record.parts] == ["0a3f0/81", "0a3f8/81"]
    for found in record.parts:
        assert found.planes == FRESH.planes and found.cfg == 7
    assert record.next_cfg == 8 and not record.is_untouched


def test_json_of_a_split_group_is_what_an_operator_reads() -> None:
    """These texts are stored: a change of them is a new format."""
    record = begin_merge(halved(), 0xA3F)
    assert record.encode() == (
        b'{"format": 2, "group": "a3f", "next_cfg": 3, '
        b'"merging": {"part": "0a3f", "ready": ["00000000", "00000000", "00000000"]}, "parts": ['
        b'{"part": "0a3f0/81", "cfg": 2, "planes": ['
        b'{"owner": "a", "epoch": 2, "state": "ACTIVE", "since": 1}, '
        b'{"owner": "b", "epoch": 2, "state": "ACTIVE", "since": 1}, '
        b'{"owner": "c", "epoch": 2, "state": "ACTIVE", "since": 1}]}, '
        b'{"part": "0a3f8/81", "cfg": 2, "planes": ['
        b'{"owner": "a", "epoch": 2, "state": "ACTIVE", "since": 1}, '
        b'{"owner": "b", "epoch": 2, "state": "ACTIVE", "since": 1}, '
        b'{"owner": "c", "epoch": 2, "state": "ACTIVE", "since": 1}]}]}'
    )
    assert GroupRecord.decode(record.encode()).parts == record.parts


def test_parts_move_by_themselves_and_a_merge_wants_them_at_one_node() -> None:
    record = finish_move(begin_move(view(halved(), HIGH), 0, "d", 0xD, NODES), 0)
    assert view(record, LOW).owners == ("a", "b", "c") and view(record, HIGH).owners == ("d", "b", "c")
    with pytest.raises(ConfigError, match="different owners"):
        begin_merge(record, 0xA3F)
    record = finish_move(begin_move(view(record, HIGH), 0, "a", 0xA, NODES), 0)
    whole = merged(record, 0xA3F)
    assert whole.split is None and whole.owners == ("a", "b", "c")
    assert [plane.env for plane in whole.planes] == [0xE0, 0xE1, 0xE2]
    assert whole.planes[0].epoch > view(record, HIGH).planes[0].epoch


def test_a_configuration_is_drawn_for_the_group_not_for_the_part() -> None:
    record = view(halved(), LOW).begin_recovery(0, 0xE)
    record = record.finish_recovery(0)
    record = view(record, HIGH).begin_recovery(1, 0xF)
    assert (view(record, LOW).cfg, view(record, HIGH).cfg) == (2, 3)


def test_one_thing_at_a_time_in_a_group() -> None:
    moving = begin_move(view(halved(), LOW), 0, "d", 0xD, NODES)
    for busy in (moving, begin_merge(halved(), 0xA3F)):
        with pytest.raises(ConfigError):
            begin_move(view(busy, HIGH), 0, "d", 0xD, NODES)
        with pytest.raises(ConfigError):
            split_part(busy, LOW, halves_of(LOW, 18))
        with pytest.raises(ConfigError):
            begin_merge(busy, 0xA3F)
        with pytest.raises(ConfigError):
            view(busy, HIGH).begin_recovery(1, 0xE)


def test_a_merge_that_was_called_off_leaves_epochs_of_its_own() -> None:
    begun = ready_for_merge(begin_merge(halved(), 0xA3F), 1, 0xE1)
    called_off = cancel_merge(begun)
    assert called_off.merging is None
    again = begin_merge(called_off, 0xA3F)
    assert merged_epoch(again, 1) > merged_epoch(begun, 1), (
        "what was noted for the first is good for no other"
    )
    assert all(found.planes[1].complete_epoch == 1 for found in again.parts), "the data stays complete"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="can be split"):
        halves_of(0xA3F, SLICE_DEPTH_MAX + 1)
    with pytest.raises(ConfigError, match="holds no parts"):
        begin_merge(halved(), LOW)
    with pytest.raises(ConfigError, match="not in group"):
        begin_merge(halved(), 0xA3E)
    with pytest.raises(ConfigError, match="no part"):
        split_part(halved(), 0xA3F, [LOW, HIGH])
    with pytest.raises(ConfigError, match="not all of it"):
        split_part(FRESH, 0xA3F, [HIGH, LOW])
    with pytest.raises(ConfigError):
        split_part(FRESH, 0xA3F, [LOW])
    with pytest.raises(ConfigError, match="at most 256"):
        split_part(FRESH, 0xA3F, halves_of(0xA3F, 25))
    with pytest.raises(ConfigError, match="next_cfg"):
        split_record(0xA3F, Split(halved().parts, LOW, 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parts", []),
        ("parts", None),
        ("next_cfg", 0),
        ("merging", {"part": "0a3f"}),
        ("merging", {"part": "0a3f", "ready": ["00000000"]}),
        ("merging", {"part": "1a3f", "ready": ["00000000"] * 3}),
    ],
)
def test_a_split_record_of_another_form_is_refused(field: str, value: object) -> None:
    found = json.loads(halved().encode())
    found[field] = value
    with pytest.raises(ConfigError):
        GroupRecord.decode(json.dumps(found).encode())


def test_a_layout_reads_parts() -> None:
    groups = initial_layout(nodes_of([1, 1, 1]), 3)
    groups[0xA3F] = halved(groups[0xA3F])
    layout = layout_of(groups)
    layout.check()
    assert len(layout.parts) == 4097


class Walk:
    """A record under random changes, with all configurations that were ever drawn in it."""

    def __init__(self) -> None:
        self.record = FRESH
        self.drawn = [1]

    def take(self, record: GroupRecord) -> None:
        before = {found.cfg for found in self.record.parts}
        self.drawn += sorted({found.cfg for found in record.parts} - before)
        self.record = GroupRecord.decode(record.encode())
        assert {replace(v).parts for v in self.record.views()} == {record.parts}


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_is_done_the_group_is_covered_once_and_no_configuration_is_drawn_twice(
    data: st.DataObject,
) -> None:
    walk = Walk()
    for _ in range(data.draw(st.integers(1, 25))):
        seen = data.draw(st.sampled_from(walk.record.views()))
        plane, depth = data.draw(st.integers(0, 2)), part_piece(seen.part).depth
        step = data.draw(st.sampled_from(["split", "merge", "ready", "cancel", "move", "end", "recover"]))
        try:
            if step == "split":
                walk.take(
                    split_part(
                        seen, seen.part, halves_of(seen.part, min(depth + data.draw(st.integers(1, 3)), 32))
                    )
                )
            elif step == "merge":
                above = data.draw(st.integers(16, depth))
                piece = part_piece(seen.part)
                while piece.depth > above:
                    piece = piece.parent()
                walk.take(begin_merge(seen, number_of_part(piece)))
            elif step == "ready":
                walk.take(ready_for_merge(seen, plane, 0xE0 + plane))
            elif step == "cancel":
                walk.take(cancel_merge(seen))
            elif step == "move":
                walk.take(begin_move(seen, plane, data.draw(st.sampled_from(sorted(NODES))), 0xE, NODES))
            elif step == "recover":
                walk.take(seen.begin_recovery(plane, 0xF))
            elif seen.planes[plane].state == MOVING:
                walk.take(data.draw(st.sampled_from([finish_move, cancel_move]))(seen, plane))
            elif seen.planes[plane].state != ACTIVE:
                walk.take(seen.finish_recovery(plane))
        except ConfigError:
            continue
        finally:
            record = walk.record
            # split_record has checked that the parts are all of the group, once; and here again.
            covered = [part_piece(found.part) for found in record.parts]
            assert covered[0].first == part_piece(0xA3F).first and covered[-1].end == part_piece(0xA3F).end
            assert all(low.end == high.first for low, high in pairwise(covered))
            assert len(walk.drawn) == len(set(walk.drawn)), "I15"
            assert walk.drawn == sorted(walk.drawn)
            if record.merging is not None:
                assert isinstance(record.merging, Merging)
                inside = [found for found in record.parts if found.part in merging_parts(record)]
                assert len({tuple(p.owner for p in found.planes) for found in inside}) == 1
                assert len({found.cfg for found in inside}) == 1


@given(st.integers(17, 22), st.integers(1, 1 << 40))
@settings(deadline=None)
def test_split_and_merged_again_is_the_same_group_one_configuration_on(depth: int, cfg: int) -> None:
    before = replace(FRESH, cfg=cfg)
    after = merged(split_part(before, 0xA3F, halves_of(0xA3F, depth)), 0xA3F)
    assert after.split is None and after.owners == before.owners and after.cfg == cfg + 1
