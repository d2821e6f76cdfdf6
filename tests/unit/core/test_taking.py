"""How slices that are written all the while are taken over: few changes are left when the source is sealed.

The source is scripted: names change at a rate, a call takes its time.  Virtual time.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from xxhash import xxh3_64_intdigest

from ssastore.control.memory import MemoryControlStore
from ssastore.core import taking
from ssastore.core.changelog import ChangeLog, NotedStore
from ssastore.core.groups import GroupRecord, PlaneOwner, group_key
from ssastore.core.held import Held
from ssastore.core.pace import SharedPace, Stint
from ssastore.core.pages import changes_page
from ssastore.core.taking import Taker
from ssastore.env import ReadTxn, Write
from ssastore.errors import NotFound, Unavailable
from ssastore.limits import MOVE_BYTES_PER_S_MAX, MOVE_REST_TO_WORK
from ssastore.messages import Changes, Copy, CountSlices, Kind, Seal
from ssastore.store.memory import MemoryStore
from ssastore.wire import Body
from tests.registermodel import run_virtually

GROUP = 0x1A3
CALL_S = 0.02
ROOM = 20_000
"Names that the source remembers: fewer than a real one, which takes its time to count."


@pytest.fixture(autouse=True)
def is_known_to_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "MOVE_CHANGES_MAX", ROOM)


def key(number: int) -> bytes:
    """A key of the group, as it is stored in plane 0."""
    return GROUP.to_bytes(2, "big") + b"\0\0" + bytes([Kind.OBJECT]) + number.to_bytes(4, "big")


class Source:
    """Answers ``Copy`` with so many pages, and ``Changes`` with what was noted. Implements a ``Caller``.

    Args:
        changed_per_s: names that are written a second from the beginning of the copy on.
        name_count: how many different ones there are.
        counts: how often it has to be asked before its slices are counted.
    """

    def __init__(
        self, *, pages: int = 1, changed_per_s: float = 0, name_count: int = 1 << 30, counts: int = 1
    ) -> None:
        self.noted = ChangeLog([GROUP], ROOM)
        self.calls: list[tuple[type, float]] = []
        "What was asked for, and when."
        self.left = 0
        "Changes that were not taken when the source was sealed."
        self._pages = pages
        self._changed_per_s = changed_per_s
        self._name_count = name_count
        self._counts = counts
        self._written = self._in_time = 0
        self._told = 0
        "Number of the last change that was told."

    def write(self, count: int) -> None:
        """Let so many names be changed now."""
        for number in range(self._written, self._written + count):
            self.noted.note(key(number % self._name_count))
        self._written += count

    def times_of(self, kind: type) -> list[float]:
        return [when for asked, when in self.calls if asked is kind]

    async def call(self, message: Any, iid: int, *, within_ms: int) -> tuple[list[Any], Body]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(CALL_S)
        self.calls.append((type(message), loop.time()))
        due = int((loop.time() - self.calls[0][1]) * self._changed_per_s)
        self.write(due - self._in_time)
        self._in_time = due
        if self.noted.is_overrun:
            raise NotFound("overrun")
        if isinstance(message, Copy):
            at = int.from_bytes(message.after, "big") + 1
            return [0, 7, 1, at < self._pages, at.to_bytes(4, "big"), xxh3_64_intdigest(b"")], b""
        if isinstance(message, Changes):
            listed = self.noted.take(message.seen, 1000)
            absent = cast(ReadTxn, SimpleNamespace(get=lambda key: None))
            _, page = changes_page(absent, [found for _, found in listed])
            self._told = listed[-1][0] if listed else message.seen
            return [0, 7, self._told, len(listed) == 1000, page.checksum], page.body
        if isinstance(message, CountSlices):
            return [0, 7, len(self.times_of(CountSlices)) >= self._counts], b""
        assert isinstance(message, Seal)
        self.left = len(self.noted.take(self._told, ROOM))
        raise Unavailable("sealed: that is all that is looked at")


async def take_from(source: Source, rest_to_work: float = MOVE_REST_TO_WORK) -> None:
    """Take the group over up to the seal."""
    control = MemoryControlStore()
    record = GroupRecord(GROUP, (PlaneOwner("a"),))
    revision = await control.transact([], [Write(group_key(GROUP), record.encode())])
    assert revision is not None

    async def note_standings(standings: Any) -> None:
        pass

    taker = Taker(
        custody=cast(Any, SimpleNamespace(note_standings=note_standings)),
        store=NotedStore(MemoryStore()),
        control=control,
        mates=cast(Any, source),
        cover=lambda txn, ballot: None,
        pace=SharedPace(MOVE_BYTES_PER_S_MAX),
    )
    with pytest.raises(Unavailable, match="sealed"):
        await taker.fill(0, {GROUP: Held(record, revision)}, Stint(rest_to_work))


def test_nobody_rests_between_rounds_of_changes() -> None:
    """While a target rests more is written, and what is left then is taken while nobody votes."""

    async def scenario() -> None:
        source = Source()
        source.write(5000)
        await take_from(source)
        (begun_s, *_), (sealed_s,) = source.times_of(Changes), source.times_of(Seal)
        asked = [kind for kind, when in source.calls if begun_s <= when < sealed_s]
        assert set(asked) == {Changes, CountSlices}
        assert sealed_s - begun_s == pytest.approx(len(asked) * CALL_S)
        assert source.left == 0

    run_virtually(scenario)


def test_rounds_go_on_while_they_leave_less() -> None:
    """At 70 % of the rate at which they can be taken: each round leaves that part of the one before."""

    async def scenario() -> None:
        source = Source(changed_per_s=0.7 * 1000 / CALL_S)
        source.write(ROOM // 2)
        await take_from(source)
        assert len(source.times_of(Changes)) > 30
        assert source.left <= 0.7 * 1000

    run_virtually(scenario)


@pytest.mark.parametrize(("changed_per_s", "name_count"), [(1.05 * 1000 / CALL_S, 1 << 30), (100_000, 300)])
def test_rounds_that_leave_no_less_come_to_an_end(changed_per_s: float, name_count: int) -> None:
    """Written faster than they can be taken, or few names again and again: only a seal ends that."""

    async def scenario() -> None:
        source = Source(changed_per_s=changed_per_s, name_count=name_count)
        await take_from(source)
        assert source.times_of(Seal)

    run_virtually(scenario)


def test_what_changes_during_a_gentle_copy_is_not_too_much_for_the_source() -> None:
    """More names than it remembers, in the time of the copy: they are taken between the pages."""

    async def scenario() -> None:
        source = Source(pages=80, changed_per_s=5000)
        await take_from(source)
        copied = source.times_of(Copy)
        assert (copied[-1] - copied[0]) * 5000 > 2 * ROOM
        assert source.left <= 5000 * CALL_S

    run_virtually(scenario)


def test_a_copy_in_a_hurry_has_no_changes_between_its_pages() -> None:
    """The next page is asked for ahead, so it may be older than changes that come in between."""

    async def scenario() -> None:
        source = Source(pages=50, changed_per_s=1000)
        await take_from(source, 0)
        kinds = [kind for kind, _ in source.calls]
        assert kinds[:50] == [Copy] * 50

    run_virtually(scenario)


def test_what_changes_while_slices_are_counted_is_not_too_much_for_the_source() -> None:
    """A large slice is counted before the seal, which takes its time."""

    async def scenario() -> None:
        source = Source(changed_per_s=5000, counts=400)
        await take_from(source)
        counted = source.times_of(CountSlices)
        assert len(counted) == 401, "and once more before the seal"
        assert (counted[-1] - counted[0]) * 5000 > 2 * ROOM
        assert counted[-1] < source.times_of(Seal)[0]
        assert source.left <= 5000 * CALL_S

    run_virtually(scenario)
