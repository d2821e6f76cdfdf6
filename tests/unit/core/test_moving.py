"""Group records of slices that are handed over: every transition, and what may not be."""

from __future__ import annotations

import pytest

from ssastore.core.groups import ACTIVE, MOVING, GroupRecord, PlaneOwner
from ssastore.core.moving import begin_move, cancel_move, finish_move
from ssastore.errors import ConfigError

FRESH = GroupRecord(0xA3F, (PlaneOwner("a"), PlaneOwner("b"), PlaneOwner("c")))
ZONES = {"a": "", "b": "", "c": "", "d": "", "e": ""}
BEGUN = begin_move(FRESH, 1, "d", 7, ZONES)


def test_a_move_raises_the_epoch_at_each_step_and_leaves_the_configuration() -> None:
    assert BEGUN.planes[1] == PlaneOwner("b", 2, MOVING, 0, 1, "d", 7)
    done = finish_move(BEGUN, 1)
    assert done.planes[1] == PlaneOwner("d", 3, ACTIVE, 7) and done.planes[1].complete_epoch == 3
    assert {BEGUN.cfg, done.cfg} == {1} and done.owners == ("a", "d", "c")


def test_a_cancelled_move_leaves_the_data_complete_under_another_epoch() -> None:
    cancelled = cancel_move(BEGUN, 1)
    assert cancelled.planes[1] == PlaneOwner("b", 3, ACTIVE, 0, 1)
    assert cancelled.planes[1].complete_epoch == 1
    again = begin_move(cancelled, 1, "e", 8, ZONES)
    assert (again.planes[1].epoch, again.planes[1].complete_epoch) == (4, 1)
    assert finish_move(again, 1).planes[1].complete_epoch == 5


def test_records_of_moves_survive_their_way_through_the_control_store() -> None:
    for record in (BEGUN, cancel_move(BEGUN, 1), finish_move(BEGUN, 1)):
        assert GroupRecord.decode(record.encode()) == record
        assert not record.is_untouched


def test_one_slice_of_a_group_at_a_time() -> None:
    for plane in range(3):
        with pytest.raises(ConfigError, match="one slice at a time"):
            begin_move(BEGUN, plane, "e", 8, ZONES)
    with pytest.raises(ConfigError, match="one slice at a time"):
        begin_move(FRESH.begin_recovery(0, 9), 1, "d", 7, ZONES)
    with pytest.raises(ConfigError, match="one slice at a time"):
        BEGUN.begin_recovery(0, 9)


def test_recovery_of_the_plane_itself_ends_its_move() -> None:
    record = BEGUN.begin_recovery(1, 9)
    assert record.planes[1].epoch == 3 and record.cfg == 2
    for change in (finish_move, cancel_move):
        with pytest.raises(ConfigError, match="not being moved"):
            change(record, 1)


@pytest.mark.parametrize(
    ("target", "why"), [("a", "has a plane at a"), ("b", "has a plane at b"), ("x", "unknown node")]
)
def test_planes_stay_on_different_nodes(target: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        begin_move(FRESH, 1, target, 7, ZONES)


def test_planes_stay_in_different_zones_where_there_are_enough() -> None:
    zones = {"a": "x", "b": "y", "c": "z", "d": "z", "e": "y"}
    with pytest.raises(ConfigError, match="zone z already, at c"):
        begin_move(FRESH, 1, "d", 7, zones)
    assert begin_move(FRESH, 1, "e", 7, zones).planes[1].target == "e"
    begin_move(FRESH, 1, "d", 7, {**dict.fromkeys("abc", "x"), "d": "x", "e": "y"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": MOVING},
        {"state": MOVING, "since": 1, "target": "d"},
        {"state": MOVING, "target": "d", "target_env": 7},
        {"state": ACTIVE, "target": "d"},
        {"state": ACTIVE, "since": 9},
    ],
)
def test_records_that_no_move_makes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        PlaneOwner("b", 2, **wrong)  # type: ignore[arg-type]
