"""The head start: what is promised by it and to whom it is given, and the first value of a name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ssastore.core.ceiling import Ceiling, start_ceiling
from ssastore.core.headstart import BEGUN_MAX, HeadStart
from ssastore.core.planes import First, Outrun, Stale, first_to_all
from ssastore.core.records import HEAD_START_KEY
from ssastore.core.register import NO_BALLOT, Ballot, Ballots, counter_of, make_ballot
from ssastore.errors import OutcomeUnknown, StoreFull, Unavailable
from ssastore.keyspace import iid_of
from ssastore.store.memory import MemoryStore
from tests.registermodel import NoHeadStart

NOW_MS = 1_700_000_000_000
PLANE_0, PLANE_1 = iid_of(7 << 32, 0), iid_of(7 << 32, 1)


async def opened(store: MemoryStore, boot: int = 1) -> HeadStart:
    ceiling = Ceiling()
    with store.read() as txn:
        is_new = not list(txn.scan(b"", b"\xff" * 8))
    if is_new:
        await store.submit(start_ceiling)
    ceiling.open(store)
    head_start = HeadStart(Ballots(1, boot), ceiling)
    head_start.open(store)
    return head_start


async def test_nothing_is_promised_or_given_before_it_is_durable() -> None:
    head_start = await opened(MemoryStore())
    assert head_start.over(PLANE_0, NO_BALLOT) == NO_BALLOT
    assert head_start.begin(b"a", NO_BALLOT) is None


async def test_promise_is_for_plane_0_and_outlives_a_restart() -> None:
    store = MemoryStore()
    head_start = await opened(store)
    await head_start.renew(store, NOW_MS)
    ballot = head_start.begin(b"a", NO_BALLOT)
    assert ballot is not None and counter_of(ballot) == NOW_MS * 1000
    assert head_start.over(PLANE_0, NO_BALLOT) == ballot
    assert head_start.over(PLANE_1, NO_BALLOT) == NO_BALLOT
    higher = make_ballot(NOW_MS * 1000 + 1, 0, 0)
    assert head_start.over(PLANE_0, higher) == higher
    again = await opened(store, boot=2)
    assert again.over(PLANE_0, NO_BALLOT) == ballot
    assert again.begin(b"b", NO_BALLOT) is None, "it is of another start: it may have been used"
    await again.renew(store, NOW_MS - 1000)
    renewed = again.begin(b"a", NO_BALLOT)
    assert renewed is not None and renewed > ballot


async def test_promise_holds_for_what_is_applied_after_it_and_is_given_when_it_is_durable() -> None:
    store = MemoryStore(commit_ms=50)
    head_start = await opened(store)
    found: list[Ballot] = []
    renewing = asyncio.ensure_future(head_start.renew(store, NOW_MS))
    await asyncio.sleep(0)
    await store.submit(lambda txn: found.append(head_start.over(PLANE_0, NO_BALLOT)))
    await renewing
    assert found == [head_start.begin(b"a", NO_BALLOT)]


async def test_name_is_begun_once_until_plane_0_holds_it() -> None:
    store = MemoryStore()
    head_start = await opened(store)
    await head_start.renew(store, NOW_MS)
    ballot = head_start.begin(b"a", NO_BALLOT)
    assert ballot is not None and head_start.begin(b"a", NO_BALLOT) is None
    assert head_start.begin(b"b", NO_BALLOT) == ballot
    head_start.end(b"a", make_ballot(1, 1, 1))
    assert head_start.begin(b"a", NO_BALLOT) is None, "that was another head start's"
    head_start.end(b"a", ballot)
    assert head_start.begin(b"a", NO_BALLOT) == ballot


async def test_floor_that_has_come_up_to_it_calls_for_a_new_one() -> None:
    """A name that was written under it may have been collected: its ballot would be used again."""
    store = MemoryStore()
    head_start = await opened(store)
    await head_start.renew(store, NOW_MS)
    first = head_start.begin(b"a", NO_BALLOT)
    assert first is not None and head_start.begin(b"b", first) is None
    await head_start.renew(store, NOW_MS + 5000)
    second = head_start.begin(b"b", first)
    assert second is not None and second > first


async def test_renewing_without_need_writes_nothing() -> None:
    store = MemoryStore()
    head_start = await opened(store)
    await head_start.renew(store, NOW_MS)
    ballot = head_start.begin(b"a", NO_BALLOT)
    await head_start.renew(store, NOW_MS + 5000)
    assert head_start.begin(b"b", NO_BALLOT) == ballot


async def test_names_that_nobody_could_hold_are_bounded() -> None:
    store = MemoryStore()
    head_start = await opened(store)
    await head_start.renew(store, NOW_MS)
    for number in range(BEGUN_MAX):
        assert head_start.begin(b"%d" % number, NO_BALLOT)
    assert head_start.begin(b"one more", NO_BALLOT) is None
    await head_start.renew(store, NOW_MS + 5000)
    assert head_start.begin(b"0", NO_BALLOT)


async def test_full_store_leaves_none_and_another_is_tried_for() -> None:
    class Full(MemoryStore):
        def submit(self, change: Any, *, size: int = 0) -> Any:
            raise StoreFull("full")

    store = MemoryStore()
    head_start = await opened(store)
    with pytest.raises(StoreFull):
        await head_start.renew(Full(), NOW_MS)
    assert head_start.begin(b"a", NO_BALLOT) is None
    await head_start.renew(store, NOW_MS)
    assert head_start.begin(b"a", NO_BALLOT)


async def test_reserved_ballot_is_never_drawn_for_another_round() -> None:
    store = MemoryStore()
    ceiling = Ceiling()
    await store.submit(start_ceiling)
    ceiling.open(store)
    ballots = Ballots(1, 1)
    head_start = HeadStart(ballots, ceiling)
    await head_start.renew(store, NOW_MS)
    ballot = head_start.begin(b"a", NO_BALLOT)
    assert ballot is not None
    assert ballots.next(NO_BALLOT, NOW_MS) > ballots.after(ballot)


async def test_ceiling_covers_it_and_a_rotten_one_counts_as_the_ceiling() -> None:
    store = MemoryStore()
    head_start = await opened(store)
    await head_start.renew(store, NOW_MS)
    ballot = head_start.begin(b"a", NO_BALLOT)
    assert ballot is not None
    await store.submit(lambda txn: txn.put(HEAD_START_KEY, b"short"))
    again = await opened(store, boot=2)
    assert again.over(PLANE_0, NO_BALLOT) > ballot
    await store.submit(again.restore)
    assert (await opened(store, boot=3)).promised == again.promised


# -- the first value of a name ------------------------------------------------------------------------


class Planes(NoHeadStart):
    """Three planes with a script: what each says, or nothing."""

    count, cfg, bill = 3, 1, None

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = errors
        self.asked: list[int] = []
        self.ended = False

    def now(self) -> Planes:
        return self

    async def prepare(self, plane: int, ballot: Ballot) -> Any:
        raise AssertionError

    async def accept(self, *_: Any) -> None:
        raise AssertionError

    def end_head_start(self, ballot: Ballot) -> None:
        self.ended = True

    async def accept_first(self, plane: int, ballot: Ballot, value: bytes, reserved: Ballot) -> None:
        self.asked.append(plane)
        error = self.errors[plane]
        if error is not None:
            raise error


SEEN = make_ballot(9, 9, 9)
B1 = make_ballot(1, 1, 1)


@pytest.mark.parametrize(
    ("errors", "first", "asked", "is_ended"),
    [
        ((None, None, None), First(True, True, NO_BALLOT), [1, 2, 0], True),
        ((None, Unavailable("down"), None), First(True, True, NO_BALLOT), [1, 2, 0], True),
        ((Outrun(SEEN), None, None), First(True, True, SEEN), [1, 2, 0], True),
        ((StoreFull("full"), None, None), First(True, True, NO_BALLOT), [1, 2, 0], False),
        ((StoreFull("full"), None, Unavailable("down")), First(False, True, NO_BALLOT), [1, 2, 0], False),
        ((None, Outrun(SEEN), Stale("cfg")), First(False, False, SEEN), [1, 2], False),
        ((None, Outrun(SEEN), OutcomeUnknown("?")), First(False, True, SEEN), [1, 2], False),
        ((None, Unavailable("a"), Unavailable("b")), First(False, False, NO_BALLOT), [1, 2], False),
    ],
)
async def test_first_value_of_a_name(
    errors: tuple[Exception | None, ...], first: First, asked: list[int], is_ended: bool
) -> None:
    planes = Planes(*errors)
    assert await first_to_all(planes, B1, b"", NO_BALLOT) == first
    assert planes.asked == asked and planes.ended is is_ended


async def test_bug_at_a_plane_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        await first_to_all(Planes(None, ZeroDivisionError(), None), B1, b"", NO_BALLOT)
