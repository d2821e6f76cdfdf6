"""What is stored, what there is room for, when it is full; and who notes it."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import Cluster, ClusterRecord, NodeRecord
from ssastore.core.election import COORDINATOR_KEY
from ssastore.core.fields import encode_fields
from ssastore.core.groups import GroupRecord, PlaneOwner
from ssastore.core.planner import initial_layout
from ssastore.core.recut import halves_of, split_part
from ssastore.core.usage import (
    USAGE_KEY,
    Fill,
    Growth,
    Historian,
    UsageHistory,
    UsageNote,
    even_planes,
    growth_of,
    shares_of,
    usable,
)
from ssastore.env import Write
from ssastore.errors import ConfigError
from ssastore.limits import DISK_RESERVE_BYTES, GIB, USAGE_EVERY_MS, USAGE_NOTES_MAX
from tests.registermodel import LoopClock, run_virtually

DAY_MS = 86_400_000


def history(*sizes: int, every_ms: int = USAGE_EVERY_MS, replicas: int = 3) -> UsageHistory:
    return UsageHistory(
        tuple(UsageNote(10**12 + at * every_ms, size, replicas) for at, size in enumerate(sizes))
    )


def test_notes_round_trip_and_nothing_else_passes_for_them() -> None:
    found = history(1, 2, 3)
    assert UsageHistory.decode(found.encode()) == found and UsageHistory.of(None) == UsageHistory()
    for wrong in (
        b"?",
        b'{"format": 1, "notes": {}}',
        b'{"format": 1, "notes": [[1, 2]]}',
        b'{"format": 1, "notes": [[1, 2, 0]]}',
        b'{"format": 1, "notes": [[1, -2, 3]]}',
        b'{"format": 1, "notes": [[1, true, 3]]}',
        b'{"format": 1, "notes": [], "more": 1}',
    ):
        with pytest.raises(ConfigError):
            UsageHistory.decode(wrong)


def test_notes_are_bounded_and_a_clock_that_was_wrong_leaves_none_behind() -> None:
    known = UsageHistory()
    for at in range(USAGE_NOTES_MAX + 5):
        assert known.is_due(at * USAGE_EVERY_MS)
        known = known.with_note(UsageNote(at * USAGE_EVERY_MS, at, 3))
        assert not known.is_due((at + 1) * USAGE_EVERY_MS - 1)
    assert len(known.notes) == USAGE_NOTES_MAX and known.notes[0].used_bytes == 5
    ahead = known.with_note(UsageNote(10**15, 7, 3))
    now_ms = known.notes[-1].at_ms + USAGE_EVERY_MS
    assert ahead.is_due(now_ms), "what lies ahead holds up nothing"
    assert ahead.with_note(UsageNote(now_ms, 8, 3)).notes[-2:] == (known.notes[-1], UsageNote(now_ms, 8, 3))


def test_growth_is_that_of_bytes_of_users_by_all_notes() -> None:
    """Two days at 3 GiB a day in three copies, with a wave on it; then a fifth of that a day."""
    sizes = [round(9 * GIB * hour / 24) + (hour % 2) * 1000 for hour in range(49)]
    found = growth_of(history(*sizes))
    assert found is not None and (found.days, found.notes) == (2.0, 49)
    assert found.bytes_per_day == pytest.approx(3 * GIB, rel=0.001)
    assert growth_of(history(*sizes, replicas=1)) == Growth(
        cast(float, pytest.approx(9 * GIB, rel=0.001)), 2.0, 49
    )
    shrinking = growth_of(history(*sizes[::-1]))
    assert shrinking is not None and shrinking.bytes_per_day < 0


def test_there_is_no_growth_before_the_notes_are_of_a_day() -> None:
    assert growth_of(UsageHistory()) is None
    assert growth_of(history(*range(24))) is None
    assert growth_of(history(0, 10**9, every_ms=DAY_MS)) is None, "two notes are no line"
    assert growth_of(history(*range(25))) is not None


def test_a_part_of_a_group_is_a_part_of_its_share() -> None:
    nodes = [NodeRecord(f"n{at}", f"fd00::{at}", workers=2) for at in (1, 2, 3)]
    record = ClusterRecord("0" * 32, "fd00:5a:1:2::/64", 3, 0)
    groups = initial_layout(nodes, 3)
    whole = shares_of(Cluster(record, tuple(nodes), tuple(groups)))
    assert whole == {(f"n{at}", worker): pytest.approx(0.5) for at in (1, 2, 3) for worker in (0, 1)}
    groups[7] = split_part(groups[7], 7, halves_of(7, 18))
    assert shares_of(Cluster(record, tuple(nodes), tuple(groups))) == pytest.approx(whole)


def test_a_cluster_is_full_with_its_first_worker_or_disk() -> None:
    free = GIB + DISK_RESERVE_BYTES
    fills = {
        ("a", 0): Fill(used_bytes=300, limit_bytes=1300, disk_free_bytes=100 * GIB),
        ("b", 0): Fill(used_bytes=300, limit_bytes=2300, disk_free_bytes=100 * GIB),
        ("b", 1): Fill(used_bytes=0, limit_bytes=10**15, disk_free_bytes=100 * GIB),
    }
    shares = {("a", 0): 0.5, ("b", 0): 0.25, ("b", 1): 0.25}
    assert usable(fills, shares) == (600, 2000, "a worker 0")
    three = {worker: 3 * share for worker, share in shares.items()}
    assert usable(fills, three).used_bytes == 200, "as many copies as there are, whatever there are to be"
    fills["a", 0] = Fill(0, 10**15, free)
    fills["b", 0] = fills["b", 1] = Fill(0, 10**15, free)
    assert usable(fills, shares) == (0, 2 * GIB, "the disk of a")
    shares = {("a", 0): 0.4, ("b", 0): 0.3, ("b", 1): 0.3}
    assert usable(fills, shares)[1:] == (int(GIB / 0.6), "the disk of b"), "its workers share it"
    assert usable({("a", 0): Fill(500, 100, free)}, {("a", 0): 1.0}).free_bytes == 0
    assert usable({}, {}) == (0, 0, "")


def test_who_coordinates_notes_what_is_stored_every_hour() -> None:
    """Not while a worker is silent; another one goes on with the same notes."""

    async def scenario() -> None:
        store = MemoryControlStore()
        stored: int | None = 100
        planes = 3

        async def measure() -> int | None:
            return stored

        async def coordinate(name: str) -> None:
            claim = encode_fields({"node": name, "lease": 1})
            await store.transact([], [Write(COORDINATOR_KEY, claim)])

        async def notes() -> list[int]:
            return [note.used_bytes for note in UsageHistory.of(await store.get(USAGE_KEY)).notes]

        tasks = [
            asyncio.ensure_future(Historian(store, name, measure, lambda: planes, LoopClock()).run())
            for name in ("n1", "n2")
        ]
        await asyncio.sleep(USAGE_EVERY_MS / 1000)
        assert await notes() == [], "nobody coordinates"
        await coordinate("n1")
        await asyncio.sleep(USAGE_EVERY_MS / 1000 * 2.5)
        assert await notes() == [100] * 3
        stored = None
        await asyncio.sleep(USAGE_EVERY_MS / 1000 * 2)
        assert await notes() == [100] * 3
        stored, planes = 200, 0
        await asyncio.sleep(USAGE_EVERY_MS / 1000 * 2)
        assert await notes() == [100] * 3
        planes = 3
        await coordinate("n2")
        await asyncio.sleep(USAGE_EVERY_MS / 1000 * 1.5)
        assert await notes() == [100, 100, 100, 200, 200]
        for task in tasks:
            task.cancel()

    run_virtually(scenario)


def test_owners_of_one_worker_have_one_share() -> None:
    nodes = (NodeRecord("n1", "fd00::1"),)
    groups = tuple(GroupRecord(group, (PlaneOwner("n1"),)) for group in range(4096))
    record = ClusterRecord("0" * 32, "fd00:5a:1:2::/64", 1, 0)
    assert shares_of(Cluster(record, nodes, groups)) == {("n1", 0): 1.0}


def test_nothing_is_noted_while_groups_have_different_numbers_of_planes() -> None:
    """The same bytes of users would be up to three times as many an hour later: no growth."""
    one = {group: GroupRecord(group, (PlaneOwner("n1"),)) for group in range(3)}
    three = GroupRecord(0, tuple(PlaneOwner(name) for name in ("n1", "n2", "n3")))
    assert even_planes(one) == 1 and even_planes({0: three}) == 3
    assert even_planes(one | {0: three}) == 0 == even_planes({})
