"""A control store made anew from what nodes have left of it: what is known, in doubt, refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.boot import ENV_PREFIX, FIRST_PREFIX, Environment
from ssastore.core.cluster import CLUSTER_KEY, Cluster, ClusterRecord, NodeRecord, node_key
from ssastore.core.clusterreading import read_cluster
from ssastore.core.controlcopy import ControlCopy, decode_backup, encode_backup, is_backup, read_whole
from ssastore.core.groups import ACTIVE, GroupRecord, PlaneOwner, group_key
from ssastore.core.marks import Watermark, mark_name
from ssastore.core.moving import begin_move, cancel_move, finish_move
from ssastore.core.numbers import slice_name, slice_number
from ssastore.core.planner import initial_layout
from ssastore.core.rebuilding import Disk, Rebuilt, Trace, rebuild, write_rebuilt
from ssastore.core.recut import (
    begin_merge,
    cancel_merge,
    halves_of,
    merged_epoch,
    ready_for_merge,
    split_part,
)
from ssastore.core.renumbering import renumbered, switched
from ssastore.core.standing import Standing, State, judge
from ssastore.core.widening import begin_fill, finish_fill
from ssastore.env import Write
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS

NODES = tuple(NodeRecord(f"n{at}", f"fd00::{at}") for at in range(1, 6))
RECORD = ClusterRecord("ab" * 16, "2001:db8:5a:1::/64", 3, 0)
LAYOUT = tuple(initial_layout(NODES, 3))
ZONES = {node.name: "" for node in NODES}
ENVS = {node.name: 10 * at for at, node in enumerate(NODES, 1)}
GROUP = 7
A, B, C = LAYOUT[GROUP].owners
ONE = GroupRecord(GROUP, (PlaneOwner(A),))
SPARE = next(node.name for node in NODES if node.name not in LAYOUT[GROUP].owners)


def items_of(*changed: GroupRecord) -> dict[str, bytes]:
    items = {CLUSTER_KEY: RECORD.encode()}
    items |= {node_key(node.name): node.encode() for node in NODES}
    items |= {group_key(record.group): record.encode() for record in (*LAYOUT, *changed)}
    items |= {f"{ENV_PREFIX}{env:08x}": f"{name}/0".encode() for name, env in ENVS.items()}
    return items | {f"{FIRST_PREFIX}{name}/0": f"{env:08x}".encode() for name, env in ENVS.items()}


def traces(
    *changed: GroupRecord, standings: dict[str, dict[int, Standing]] | None = None, without: str = ""
) -> list[Trace]:
    """All nodes' traces: all have the same copy; ``standings`` by node and slice."""
    copy, told = ControlCopy(5, items_of(*changed)), standings or {}
    return [
        Trace(name, copy, (Disk(name, 0, env, Watermark(3, 7), told.get(name, {})),))
        for name, env in ENVS.items()
        if name != without
    ]


def group_in(made: Rebuilt, group: int = GROUP) -> GroupRecord:
    assert not made.unclear, made.unclear
    return GroupRecord.decode(made.items[group_key(group)])


def state(record: GroupRecord, plane: int, name: str, standing: Standing) -> State:
    return judge(record, plane, Environment(ENVS[name], 4, ENVS[name]), standing)


async def test_what_was_left_alone_is_what_it_was() -> None:
    made = rebuild(traces())
    assert (made.groups, made.raised, made.doubtful, made.missing) == (GROUPS, [], [], [])
    control = MemoryControlStore()
    await write_rebuilt(control, made.items)
    assert await read_cluster(control) == Cluster(RECORD, NODES, LAYOUT)
    mark = await control.get(mark_name(ENVS["n1"]))
    assert mark is not None and Watermark.decode(mark.value) == (3, 7)
    with pytest.raises(ConfigError, match="holds a cluster already"):
        await write_rebuilt(control, made.items)


async def test_who_died_while_writing_is_followed_by_who_finishes() -> None:
    """Until the last transaction there is no cluster that a node could start with."""
    made = rebuild(traces())
    shared, left = MemoryControlStore(), 9

    class Dying(MemoryControlStore):
        async def transact(self, compares: object, writes: object) -> int | None:
            nonlocal left
            left -= 1
            if left < 0:
                raise TimeoutError
            return await shared.transact(compares, writes)  # type: ignore[arg-type]

    with pytest.raises(TimeoutError):
        await write_rebuilt(Dying(), made.items)
    assert await shared.get(CLUSTER_KEY) is None and (await shared.list("group/"))[0]
    await write_rebuilt(shared, made.items)
    assert (await read_cluster(shared)).groups == LAYOUT


def test_of_copies_the_one_with_the_latest_record_counts() -> None:
    """Whoever took it, and whenever by his clock."""
    moved = finish_move(begin_move(LAYOUT[GROUP], 0, SPARE, ENVS[SPARE], ZONES), 0)
    found = traces(standings={SPARE: {GROUP: Standing(3, 1, 2)}, A: {GROUP: Standing(1, 1, 2)}})
    found[2] = replace(found[2], copy=ControlCopy(1, items_of(moved)))
    made = rebuild(found)
    assert group_in(made) == moved and not made.doubtful


def test_who_took_over_after_the_copies_has_it_and_rebuilds_it() -> None:
    """Its source is sealed, and it is filled: whether it has voted nobody knows."""
    done = {SPARE: {GROUP: Standing(3, 1, 2)}, A: {GROUP: Standing(1, 1, 2)}}
    for record in (LAYOUT[GROUP], begin_move(LAYOUT[GROUP], 0, SPARE, ENVS[SPARE], ZONES)):
        made = rebuild(traces(record, standings=done))
        found = group_in(made)
        assert found.planes[0] == PlaneOwner(SPARE, 5, ACTIVE, ENVS[SPARE]) and made.doubtful == [
            slice_name(GROUP)
        ]
        assert state(found, 0, SPARE, done[SPARE][GROUP]) is State.QUARANTINED, "it does not vote before"
        assert found.planes[1:] == LAYOUT[GROUP].planes[1:] and found.next_cfg == 2


def test_a_move_that_was_not_sealed_is_called_off() -> None:
    """What it has copied is good for no later one."""
    moving = begin_move(LAYOUT[GROUP], 0, SPARE, ENVS[SPARE], ZONES)
    for record in (moving, LAYOUT[GROUP]):
        made = rebuild(traces(record, standings={SPARE: {GROUP: Standing(0, 1, 2)}}))
        found = group_in(made)
        assert found.owners[0] == A and state(found, 0, A, Standing()) is State.ACTIVE
        assert found.planes[0].epoch > 2 and not made.doubtful
    assert group_in(rebuild(traces(moving))) == cancel_move(moving, 0)


def test_a_sealed_source_rebuilds_what_it_had() -> None:
    """Its seal may have ended, and it may have gone on: then its disk would look the same."""
    sealed = {A: {GROUP: Standing(1, 1, 2)}}
    for record in (begin_move(LAYOUT[GROUP], 0, SPARE, ENVS[SPARE], ZONES), LAYOUT[GROUP]):
        found = group_in(rebuild(traces(record, standings=sealed)))
        assert found.owners[0] == A and found.planes[0].epoch == 4
        assert state(found, 0, A, sealed[A][GROUP]) is State.QUARANTINED


def test_a_fill_that_was_not_sealed_is_called_off() -> None:
    filling = begin_fill(ONE, B, ENVS[B], ZONES)
    for told in ({}, {B: {slice_number(1, GROUP): Standing(0, 1, 2)}}):
        made = rebuild(traces(filling, standings=told))
        assert group_in(made) == cancel_move(filling, 0) and not made.doubtful
    sealed = rebuild(traces(filling, standings={A: {GROUP: Standing(1, 1, 2)}}))
    assert "1 of 1 planes are in doubt" in sealed.unclear[f"{GROUP:03x}"]


def test_a_move_of_which_neither_end_is_known_is_in_doubt() -> None:
    moving = begin_move(LAYOUT[GROUP], 0, SPARE, ENVS[SPARE], ZONES)
    found = [trace for trace in traces(moving) if trace.node not in (A, SPARE)]
    made = rebuild(found)
    assert made.doubtful == [slice_name(GROUP)] and made.missing == sorted([A, SPARE])
    # With one of them it is not: who was not filled has not taken over.
    assert not rebuild(traces(moving, without=A)).doubtful


def test_no_configuration_is_given_again() -> None:
    """Mates were fenced for a recovery that no copy has, and no disk has more of."""
    fenced = {name: {slice_number(plane, GROUP): Standing(1, 2)} for plane, name in ((1, B), (2, C))}
    made = rebuild(traces(standings=fenced))
    found = group_in(made)
    assert (found.cfg, found.next_cfg, made.raised) == (3, 4, [f"{GROUP:03x}"]) and not made.doubtful
    assert [state(found, p, n, Standing(1, 2)) for p, n in ((1, B), (2, C))] == [State.ACTIVE] * 2
    # It may have come to its end at the node that is not here.
    assert "no node here knows" in rebuild(traces(standings=fenced, without=SPARE)).unclear[f"{GROUP:03x}"]


def test_a_doubtful_plane_explains_no_recovery_but_its_own() -> None:
    """Else the former owner of a plane, back with an old disk, would vote again."""
    own, fenced = {slice_number(0, GROUP): Standing(3, 2)}, {slice_number(2, GROUP): Standing(1, 2)}
    other = next(name for name in ENVS if name not in (A, B, C, SPARE))
    # Plane 0 was recovered at SPARE, which is not here; then plane 1 was sealed, or handed over.
    for told in (
        {B: {slice_number(1, GROUP): Standing(1, 2, 2)}},
        {B: {slice_number(1, GROUP): Standing(1, 2, 2)}, other: {slice_number(1, GROUP): Standing(3, 2, 2)}},
    ):
        made = rebuild(traces(standings={**told, C: fenced}, without=SPARE))
        assert "no node here knows" in made.unclear[f"{GROUP:03x}"]
        assert not rebuild(traces(standings={**told, C: fenced})).unclear, (
            "with all disks it never was complete"
        )
    # Two were begun, of which one shows; with the one alone nothing is hidden.
    twice = {slice_number(2, GROUP): Standing(1, 3)}
    late = {slice_number(1, GROUP): Standing(3, 3)}
    made = rebuild(traces(standings={other: late, C: twice}, without=SPARE))
    assert "no node here knows" in made.unclear[f"{GROUP:03x}"]
    made = rebuild(traces(standings={SPARE: own, C: fenced}, without=other))
    assert group_in(made).planes[0] == PlaneOwner(SPARE, 5, ACTIVE, ENVS[SPARE])
    # It was begun in the record, and another one after it.
    recovering = LAYOUT[GROUP].begin_recovery(0, ENVS[SPARE], SPARE)
    done = {SPARE: {slice_number(0, GROUP): Standing(3, 3)}, C: twice}
    assert (
        "no node here knows"
        in rebuild(traces(recovering, standings=done, without=other)).unclear[f"{GROUP:03x}"]
    )


def test_a_worker_whose_disk_is_not_there_is_missing() -> None:
    """Its node's directory is, without what it knew."""
    fenced = {name: {slice_number(plane, GROUP): Standing(1, 2)} for plane, name in ((1, B), (2, C))}
    found = [replace(t, disks=()) if t.node == SPARE else t for t in traces(standings=fenced)]
    made = rebuild(found)
    assert made.missing == [f"{SPARE}/0"]
    assert "no node here knows" in made.unclear[f"{GROUP:03x}"]


def test_a_recovery_begins_again_where_it_was_seen() -> None:
    recovering = LAYOUT[GROUP].begin_recovery(0, ENVS[SPARE], SPARE)
    fenced = {name: {slice_number(plane, GROUP): Standing(1, 2)} for plane, name in ((1, B), (2, C))}
    for more in ({}, {SPARE: {GROUP: Standing(3, 2)}}):
        made = rebuild(traces(recovering, standings=fenced | more))
        found = group_in(made)
        assert found.planes[0].owner == SPARE and made.doubtful == [slice_name(GROUP)]
        assert state(found, 0, SPARE, Standing(3, 2)) is State.QUARANTINED
        assert found.next_cfg == 3


def test_what_too_few_planes_are_certain_of_is_unclear() -> None:
    twice = {
        A: {slice_number(0, GROUP): Standing(1, 1, 2)},
        B: {slice_number(1, GROUP): Standing(1, 1, 2)},
    }
    made = rebuild(traces(standings=twice))
    assert (
        list(made.unclear) == [f"{GROUP:03x}"]
        and "2 of 3 planes are in doubt" in made.unclear[f"{GROUP:03x}"]
    )
    assert group_key(GROUP) not in made.items


def test_a_group_that_nobody_has_a_record_of_has_no_owner() -> None:
    found = traces()
    bare = {key: value for key, value in items_of().items() if key != group_key(GROUP)}
    found = [replace(trace, copy=ControlCopy(5, bare)) for trace in found]
    assert "has no owner" in rebuild(found).unclear[f"{GROUP:03x}"]


def test_an_owner_whose_first_environment_nobody_knows_may_not_get_a_new_one() -> None:
    def bare(trace: Trace) -> Trace:
        known = {key: value for key, value in items_of().items() if not key.startswith(FIRST_PREFIX)}
        return replace(trace, copy=ControlCopy(5, known))

    sealed = {B: {slice_number(1, GROUP): Standing(1, 1, 2)}}
    for told in ({}, sealed):
        made = rebuild([bare(trace) for trace in traces(standings=told, without=A)])
        assert f"nobody knows the first environment of {A}/0" in made.unclear[f"{GROUP:03x}"]
        assert len(made.unclear) == sum(A in record.owners for record in LAYOUT)
    # Its disk says it.
    assert group_in(rebuild([bare(trace) for trace in traces()])) == LAYOUT[GROUP]
    # Unless its worker had another one, which may have been the first.
    found = [bare(trace) for trace in traces()]
    later = [replace(t, disks=(replace(t.disks[0], env_id=999),)) if t.node == A else t for t in found]
    assert f"nobody knows the first environment of {A}/0" in rebuild(later).unclear[f"{GROUP:03x}"]
    # Where records name the environment nobody needs to know the first one.
    named = [
        replace(r, planes=tuple(replace(p, env=ENVS[p.owner]) if p.owner == A else p for p in r.planes))
        for r in LAYOUT
    ]
    known = {group_key(r.group): r.encode() for r in named}
    found = [
        replace(t, copy=ControlCopy(5, {**copy.items, **known}))
        for t in traces(without=A)
        if (copy := bare(t).copy) is not None
    ]
    assert group_in(rebuild(found)) == named[GROUP]


def test_a_second_plane_that_was_filled_after_the_copies_is_unclear() -> None:
    """What the source alone says would be older than what the two have decided, or a third one."""
    name, filling = f"{GROUP:03x}", begin_fill(ONE, B, ENVS[B], ZONES)
    filled = {B: {slice_number(1, GROUP): Standing(3, 1, 2)}}
    for record in (ONE, filling):
        for told in (filled, {C: {slice_number(2, GROUP): Standing(2, 3)}}):
            assert name in rebuild(traces(record, standings=told, without=A)).unclear
    # Called off, says the record; and a later one gets another number.
    off = cancel_move(filling, 0)
    assert group_in(rebuild(traces(off, standings=filled))) == off
    begun = group_in(rebuild(traces(ONE, standings={B: {slice_number(1, GROUP): Standing(0, 1, 2)}})))
    assert begin_fill(begun, B, ENVS[B], ZONES).planes[0].epoch > 3
    two = finish_fill(filling)
    assert group_in(rebuild(traces(two, standings=filled))) == two


def test_the_source_of_a_second_plane_has_all_that_the_two_decided() -> None:
    """Both are a majority of two. So it goes on alone, unless a third may have voted or a disk is missing."""
    name, first, second = f"{GROUP:03x}", slice_number(0, GROUP), slice_number(1, GROUP)
    for record in (ONE, begin_fill(ONE, B, ENVS[B], ZONES)):
        for own, other in (
            (Standing(1, 1, 2), Standing(0, 1, 2)),
            (Standing(1, 1, 2), Standing(3, 1, 2)),
            (Standing(1, 2, 2), Standing(3, 2, 2)),
        ):
            told = {A: {first: own}, B: {second: other}}
            made = rebuild(traces(record, standings=told))
            found = group_in(made)
            assert found.owners == (A,) and not made.doubtful and found.cfg in (1, own.cfg + 1)
            assert state(found, 0, A, own) is State.ACTIVE
            assert begin_fill(found, B, ENVS[B], ZONES).planes[0].epoch + 1 > other.epoch, "it is filled anew"
            assert name in rebuild(traces(record, standings=told, without=SPARE)).unclear
        for own, other in (
            (Standing(1, 3, 2), Standing(3, 3, 2)),  # A third one was begun.
            (Standing(1, 2, 4), Standing(3, 2, 2)),  # It was handed over itself.
            (Standing(1, 2, 4), Standing(5, 2, 4)),  # And the second plane as well, under the same number.
            (Standing(0, 1, 2), Standing(3, 1, 2)),
        ):
            told = {A: {first: own}, B: {second: other}}
            assert name in rebuild(traces(record, standings=told)).unclear
        elsewhere = {
            A: {first: Standing(1, 1, 2)},
            B: {second: Standing(3, 1, 2)},
            C: {first: Standing(5, 2)},
        }
        assert name in rebuild(traces(record, standings=elsewhere)).unclear


def test_a_later_plane_that_was_rebuilt_after_the_copies_rebuilds_it_again() -> None:
    two = GroupRecord(GROUP, LAYOUT[GROUP].planes[:2], 2)
    done = {C: {slice_number(2, GROUP): Standing(2, 3)}, A: {slice_number(0, GROUP): Standing(1, 3)}}
    made = rebuild(traces(two, standings=done))
    found = group_in(made)
    assert found.planes == (*two.planes, PlaneOwner(C, 4, ACTIVE, ENVS[C])) and found.cfg == 3
    assert state(found, 2, C, Standing(2, 3)) is State.QUARANTINED and len(made.doubtful) == 1
    # One that is not rebuilt has not voted: it is begun anew, under a number that is not given again.
    begun = group_in(rebuild(traces(two, standings={A: {slice_number(0, GROUP): Standing(1, 3)}})))
    assert len(begun.planes) == 2 and begun.cfg == 4
    # Of five, two are not enough to ask; nor does anybody know whose the one between is.
    five = {SPARE: {slice_number(3, GROUP): Standing(2, 4)}}
    for told in (done | five, five):
        assert f"{GROUP:03x}" in rebuild(traces(two, standings=told)).unclear


def test_copies_that_disagree_about_the_number_of_planes_are_unclear() -> None:
    two = finish_fill(begin_fill(ONE, B, ENVS[B], ZONES))
    made = []
    for other in (ONE, replace(ONE, cfg=2), replace(ONE, cfg=3)):
        found = traces(two)
        found[2] = replace(found[2], copy=ControlCopy(1, items_of(other)))
        made.append(rebuild(found))
    assert group_in(made[0]) == two, "one is older"
    for wrong in made[1:]:
        assert "disagree" in wrong.unclear[f"{GROUP:03x}"]


def test_a_cluster_has_as_many_replicas_as_anybody_knows() -> None:
    """Of the latest copy by the clocks the cluster's record may be older, or of all of them."""
    single = replace(RECORD, replicas=1)
    layout = [GroupRecord(record.group, record.planes[:1]) for record in LAYOUT]
    two = finish_fill(begin_fill(layout[GROUP], B, ENVS[B], ZONES))
    old = ControlCopy(9, items_of(*layout, two) | {CLUSTER_KEY: single.encode()})
    for told in (old, ControlCopy(5, items_of(*layout))):
        found = [replace(trace, copy=old) for trace in traces()]
        found[1] = replace(found[1], copy=told)
        made = rebuild(found)
        assert group_in(made) == two and ClusterRecord.decode(made.items[CLUSTER_KEY]) == RECORD
    assert ClusterRecord.decode(rebuild(traces()).items[CLUSTER_KEY]) == RECORD


def test_a_cluster_is_where_clients_were_told_last() -> None:
    """Whatever the clocks of those say that made the copies."""
    moved = switched(renumbered(RECORD, IPv6Network("2001:db8:77:5::/64"), 60))
    late = ControlCopy(9, items_of())
    told = ControlCopy(5, items_of() | {CLUSTER_KEY: moved.encode()})
    found = [replace(trace, copy=late) for trace in traces()]
    found[1] = replace(found[1], copy=told)
    assert ClusterRecord.decode(rebuild(found).items[CLUSTER_KEY]) == moved


def test_parts_are_looked_at_one_by_one_and_a_merge_is_called_off() -> None:
    low, high = halves_of(GROUP, 17)
    split = split_part(LAYOUT[GROUP], GROUP, [low, high])
    low0, high0 = slice_number(0, low), slice_number(0, high)
    noted = {A: {GROUP: Standing(0, 1), low0: Standing(1, 1), high0: Standing(1, 1, 2)}}
    noted[A][high0] = Standing(1, 1, 2)
    found = group_in(rebuild(traces(split, standings=noted)))
    views = found.views()
    assert [view.planes[0].epoch for view in views] == [1, 4]
    assert [state(view, 0, A, noted[A][n]) for view, n in zip(views, (low0, high0), strict=True)] == [
        State.ACTIVE,
        State.QUARANTINED,
    ]
    merging = begin_merge(split, GROUP)
    called_off = group_in(rebuild(traces(merging)))
    assert called_off.merging is None and len(called_off.parts) == 2 and called_off.next_cfg > merging.cfg
    # Split after the copies: nobody knows how.
    assert "nobody noted how" in rebuild(traces(standings=noted)).unclear[f"{GROUP:03x}"]


def test_what_a_merge_that_was_called_off_has_left_is_none_that_was_finished() -> None:
    """Who was ready has a note of the whole for ever. A merge that may have been finished is unclear."""
    low, high = halves_of(GROUP, 17)
    merging = begin_merge(split_part(LAYOUT[GROUP], GROUP, [low, high]), GROUP)
    whole = Standing(merged_epoch(merging, 0), merging.cfg)
    parts = {slice_number(0, part): Standing(1, merging.cfg) for part in (low, high)}
    noted = {A: {GROUP: whole, **parts}}
    called_off = cancel_merge(merging)
    found = group_in(rebuild(traces(called_off, standings=noted)))
    assert found == called_off
    for view, part in zip(found.views(), (low, high), strict=True):
        assert state(view, 0, A, noted[A][slice_number(0, part)]) is State.ACTIVE
    for before in (merging, split_part(LAYOUT[GROUP], GROUP, [low, high])):
        assert "nobody noted how" in rebuild(traces(before, standings=noted)).unclear[f"{GROUP:03x}"]
    again = begin_merge(called_off, GROUP)
    later = {A: noted[A] | {GROUP: Standing(merged_epoch(again, 0), again.cfg)}}
    assert "nobody noted how" in rebuild(traces(called_off, standings=later)).unclear[f"{GROUP:03x}"]


def test_a_merge_that_was_finished_is_later_than_its_beginning() -> None:
    """Although it has fewer parts, and so the sum of their epochs is less."""
    merging = begin_merge(split_part(LAYOUT[GROUP], GROUP, halves_of(GROUP, 17)), GROUP)
    merged = merging
    for plane, name in enumerate((A, B, C)):
        merged = ready_for_merge(merged, plane, ENVS[name])
    found = traces(merged)
    found[2] = replace(found[2], copy=ControlCopy(1, items_of(merging)))
    assert group_in(rebuild(found)) == merged


def test_what_are_no_traces_of_one_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="no traces"):
        rebuild([])
    other = replace(RECORD, cluster_id="cd" * 16)
    strange = ControlCopy(5, items_of() | {CLUSTER_KEY: other.encode()})
    with pytest.raises(ConfigError, match="2 clusters"):
        rebuild([*traces(), Trace("n9", strange, ())])
    with pytest.raises(ConfigError, match="2 clusters"):
        rebuild(traces(), [strange])
    with pytest.raises(ConfigError, match="2 clusters"):
        rebuild([Trace("n9", None, (), "cd" * 16)], [ControlCopy(5, items_of())])
    with pytest.raises(ConfigError, match="no traces"):
        rebuild([], [ControlCopy(5, items_of())])
    with pytest.raises(ConfigError, match="add a backup"):
        rebuild([Trace("n9", None, (), RECORD.cluster_id)])


def test_a_copy_survives_its_way_through_a_file() -> None:
    copy = ControlCopy(7, items_of())
    assert ControlCopy.decode(copy.encode()) == copy
    for wrong in (
        b"",
        b"{}",
        b'{"format": 1, "taken_ms": 1, "items": {}}',
        b'{"format": 1, "taken_ms": 1, "items": 3}',
    ):
        with pytest.raises(ConfigError):
            ControlCopy.decode(wrong)


MOVED = finish_move(begin_move(LAYOUT[GROUP], 0, SPARE, ENVS[SPARE], ZONES), 0)
SINCE = {SPARE: {GROUP: Standing(3, 1, 2)}, A: {GROUP: Standing(1, 1, 2)}}


def test_a_backup_never_takes_back_what_a_node_knows() -> None:
    """Also where its clock was ahead, and a node has been given another weight since."""
    heavier = tuple(replace(node, weight=2) for node in NODES)
    newer = items_of(MOVED) | {node_key(node.name): node.encode() for node in heavier}
    found = [replace(trace, copy=ControlCopy(5, newer)) for trace in traces(standings=SINCE)]
    for known in (found, found[:1]):
        made = rebuild(known, [ControlCopy(1 << 40, items_of())])
        assert group_in(made) == MOVED and not made.doubtful
        assert made.taken == {trace.node: 0 for trace in known} | {known[-1].node: GROUPS, "backup": 0}
        assert all(made.items[node_key(node.name)] == node.encode() for node in heavier)


def test_a_backup_takes_the_place_of_copies_that_were_lost() -> None:
    """What has happened since shows on the disks, as after a copy of a node."""
    backup = ControlCopy(5, items_of())
    found = [replace(trace, copy=None, noted=RECORD.cluster_id) for trace in traces(standings=SINCE)]
    made = rebuild(found, [backup])
    assert group_in(made).planes[0] == PlaneOwner(SPARE, 5, ACTIVE, ENVS[SPARE])
    assert made.doubtful == [slice_name(GROUP)] and made.taken == {"backup": GROUPS}


def test_a_backup_that_knows_more_than_the_nodes_wants_all_disks() -> None:
    """Those that are missing may know of what came after it, and give an epoch a second time."""
    backup = ControlCopy(5, items_of(MOVED))
    assert group_in(rebuild(traces(standings=SINCE), [backup])) == MOVED
    made = rebuild(traces(standings=SINCE, without=B), [backup])
    assert list(made.unclear) == [f"{GROUP:03x}"] and "add the directories of all nodes" in str(made.unclear)
    lost = [replace(trace, copy=None, noted=RECORD.cluster_id) for trace in traces(without=B)]
    assert len(rebuild(lost, [backup]).unclear) == GROUPS


async def test_a_backup_is_of_one_moment_and_survives_its_way_through_a_file() -> None:
    control = MemoryControlStore()
    with pytest.raises(ConfigError, match="holds no cluster"):
        await read_whole(control, 7)
    await write_rebuilt(control, rebuild(traces()).items)
    await control.transact([], [Write("move/003", b"an order"), Write("setting/rate", b"5")])
    copy = await read_whole(control, 7)
    assert copy == ControlCopy(7, items_of() | {"setting/rate": b"5"})
    file = encode_backup(copy)
    assert is_backup(file) and decode_backup(file) == copy and not is_backup(copy.encode())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda file: file[:-100], "damaged"),
        (lambda file: file.replace(b'"taken_ms": 7', b'"taken_ms": 8'), "damaged"),
        (lambda file: file.replace(b"backup 1 ", b"backup 2 "), "format must be 1"),
        (lambda file: b"\n" + file, "begins otherwise"),
        (lambda file: b"", "begins otherwise"),
        (lambda file: file.partition(b"\n")[0], "damaged"),
    ],
)
def test_a_backup_that_is_none_or_damaged_is_refused(change: Callable[[bytes], bytes], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        decode_backup(change(encode_backup(ControlCopy(7, items_of()))))
