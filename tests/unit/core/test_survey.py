"""What a slice holds, in short: equal for planes that hold the same, and readable past what is rotten."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.records import BOOKKEEPING_FIRST, blob_key, in_plane, record_key, shut_key
from ssastore.core.register import LIVE, NO_BALLOT, Slot, Value, make_ballot
from ssastore.core.survey import EMPTY, SurveyPage, differences, digest_of, occupied, survey, walk
from ssastore.limits import SURVEY_ENTRIES_MAX
from ssastore.messages import Kind
from ssastore.store.memory import MemoryStore

GROUP = 0x0A42
LOCATOR = GROUP << 16 | 0x1234


def slot(counter: int, data: bytes = b"d", promise: int = 0) -> bytes:
    accepted = make_ballot(counter, 1, 1) if counter else NO_BALLOT
    value = Value(LIVE, 1, b"m", data).encode() if counter else []
    return b"".join([Slot(make_ballot(max(counter, promise), 1, 1), accepted).head(), *value])


async def stored(records: dict[bytes, bytes], plane: int = 0) -> MemoryStore:
    store = MemoryStore()

    def change(txn: object) -> None:
        for key, value in records.items():
            txn.put(in_plane(key, plane), value)  # type: ignore[attr-defined]

    await store.submit(change)
    return store


def page_of(store: MemoryStore, plane: int = 0, after: bytes = b"", end: bytes = b"") -> SurveyPage:
    with store.read() as txn:
        return survey(txn, plane << 12 | GROUP, after, end)


def key(name: bytes) -> bytes:
    return record_key(LOCATOR, Kind.OBJECT, 7, name)


RECORDS = {
    key(b"a"): slot(5),
    key(b"b"): slot(6),
    shut_key(LOCATOR, 7): b"\0" * 8 + b"\1",
    blob_key(LOCATOR, bytes(32)): b"blob",
}


async def test_planes_that_hold_the_same_have_one_digest() -> None:
    pages = [page_of(await stored(RECORDS, plane), plane) for plane in range(3)]
    assert len({page.digest for page in pages}) == 1 and pages[0].count == 4 and not pages[0].is_cut
    assert [page.last for page in pages] == [max(RECORDS)] * 3


async def test_promises_do_not_count() -> None:
    one = page_of(await stored(RECORDS))
    other = page_of(await stored(RECORDS | {key(b"a"): slot(5, promise=99), key(b"c"): slot(0, promise=3)}))
    assert one.digest == other.digest and other.seen == 5


@pytest.mark.parametrize(
    "change",
    [
        {key(b"a"): slot(7)},
        {key(b"a"): slot(5, b"other bytes under one ballot")},
        {key(b"c"): slot(1)},
        {shut_key(LOCATOR, 7): b"\0" * 8 + b"\0"},
        {blob_key(LOCATOR, b"\1" * 32): b"another"},
    ],
    ids=["newer", "diverged", "more", "mark", "blob"],
)
async def test_every_difference_shows(change: dict[bytes, bytes]) -> None:
    one, other = page_of(await stored(RECORDS)), page_of(await stored(RECORDS | change, 2), 2)
    assert one.digest != other.digest
    found = differences(one.rows, other.rows)
    assert [difference.key for difference in found] == list(change)


async def test_rotten_records_are_told_and_passed_over() -> None:
    store = await stored(RECORDS)
    for name in (b"a", b"b"):
        store.poke(key(name), b"rotten bytes")
    page = page_of(store)
    assert page.rotten == [key(b"a"), key(b"b")] and page.count == 2
    with store.read() as txn:
        assert [value is None for _, value in walk(txn, b"\0", BOOKKEEPING_FIRST)] == [
            False,
            True,
            True,
            False,
        ]


async def test_pages_join_without_gap_or_overlap() -> None:
    records = {key(b"%04d" % number): slot(number + 1) for number in range(2 * SURVEY_ENTRIES_MAX + 3)}
    store, rows, after = await stored(records), [], b""
    while True:
        page = page_of(store, after=after)
        rows += page.rows
        if not page.is_cut:
            break
        after = page.last
    assert [row[0] for row in rows] == sorted(records)
    part = page_of(store, after=rows[9][0], end=rows[19][0])
    assert part.rows == rows[10:20] and part.digest == digest_of(rows[10:20])


async def test_neighbours_are_not_looked_at() -> None:
    store = await stored(
        {record_key((GROUP + step) << 16, Kind.OBJECT, 7, b"k"): slot(1) for step in (-1, 1)}
    )
    assert page_of(store).seen == 0 and page_of(store).digest == EMPTY


@given(st.sets(st.integers(0, 4095), max_size=12), st.sets(st.integers(0, 4095), max_size=12))
async def test_occupied_slices_are_found(held: set[int], asked: set[int]) -> None:
    store = await stored({record_key(group << 16 | 5, Kind.OBJECT, 7, b"k"): slot(1) for group in held})
    wanted: Sequence[int] = sorted(asked)
    with store.read() as txn:
        assert occupied(txn, wanted) == held & asked
