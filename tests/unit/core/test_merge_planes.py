"""Pages of planes that differ: the merged listing is that of the agreed state, and asks about the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgpack
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssastore.core.listing import Page, Row, merge_planes, merge_shards, scan_page
from ssastore.core.metadata import Metadata
from ssastore.core.records import record_key
from ssastore.core.register import LIVE, NO_BALLOT, NONE, TOMBSTONE, Ballot, Slot, Value, make_ballot
from ssastore.messages import Kind, Scan
from ssastore.store.memory import MemoryStore

BUCKET, LOCATOR = 0x11FF, 0x0528_0001
START = record_key(LOCATOR, Kind.OBJECT, BUCKET, b"")

Held = tuple[int, int]
"Counter of the accepted ballot, and state; counter 0 is a promise without a value."
Plane = dict[bytes, Held]


def ballot_of(counter: int) -> Ballot:
    return make_ballot(counter, 1, 1) if counter else NO_BALLOT


def store_of(plane: Plane) -> MemoryStore:
    store = MemoryStore()

    def fill(txn: Any) -> None:
        for key, (counter, state) in plane.items():
            metadata = Metadata(f"e{counter}", counter).encode() if state == LIVE else b""
            value = b"".join(Value(state, counter, metadata).encode()) if counter else b""
            txn.put(START + key, *Slot(make_ballot(9, 9, 9), ballot_of(counter), value).encode())

    async def run() -> None:
        await store.submit(fill)

    asyncio.run(run())
    return store


class Shard:
    """One shard on several planes. What is agreed on is the newest of all, as a proposer finds it."""

    def __init__(self, planes: Sequence[Plane]) -> None:
        self.stores = [store_of(plane) for plane in planes]
        self.agreed: Plane = {}
        for plane in planes:
            for key, held in plane.items():
                self.agreed[key] = max(held, self.agreed.get(key, (0, NONE)))
        self.asked: list[bytes] = []

    def live(self) -> list[bytes]:
        return sorted(key for key, (_, state) in self.agreed.items() if state == LIVE)

    async def resolve(self, key: bytes) -> Row | None:
        self.asked.append(key)
        counter, state = self.agreed.get(key, (0, NONE))
        return [key, counter, f"e{counter}", counter] if state == LIVE else None

    async def holds_any(self, prefix: bytes, after: bytes) -> bool:
        self.asked.append(prefix)
        return any(key.startswith(prefix) and key > after for key in self.live())

    def plane_page(self, plane: int, prefix: bytes, after: bytes, delimiter: bytes, limit: int) -> Page:
        request = Scan(0, Kind.OBJECT, BUCKET, 16, 0, prefix, after, delimiter, limit, True)
        with self.stores[plane].read() as txn:
            (truncated, last), body = scan_page(txn, START, request)
        return Page(msgpack.unpackb(body), truncated, last)

    async def page(
        self, prefix: bytes = b"", after: bytes = b"", delimiter: bytes = b"", limit: int = 1000
    ) -> Page:
        pages = [self.plane_page(plane, prefix, after, delimiter, limit) for plane in range(len(self.stores))]
        return await merge_planes(
            pages,
            prefix,
            delimiter,
            resolve=self.resolve,
            holds_any=lambda common: self.holds_any(common, after),
        )

    async def listing(self, prefix: bytes, start: bytes, delimiter: bytes, limit: int) -> list[bytes]:
        def reach(last: bytes) -> bytes:
            """How far a page that ends with ``last`` has got: a roll-up's name stands for all of it."""
            at = last.find(delimiter, len(prefix)) if delimiter and last.startswith(prefix) else -1
            return last + b"\xff" if at >= 0 and at + len(delimiter) == len(last) else last

        async def fetch(shard: int, after: bytes, share: int) -> Page:
            page = await self.page(prefix, after, delimiter, limit)
            assert not page.truncated or reach(page.last) > reach(after), "a page that is cut must get on"
            assert [row[0] for row in page.rows] == sorted({row[0] for row in page.rows})
            return page

        rows = merge_shards(fetch, 1, start, limit=1000, gather=asyncio.gather)
        return [row[0] async for row in rows]


def listed(planes: Sequence[Plane], **options: Any) -> tuple[list[Row], list[bytes]]:
    """(rows of one page, what the registers were asked about)."""
    shard = Shard(planes)
    page = asyncio.run(shard.page(**options))
    return page.rows, shard.asked


def row(key: bytes, counter: int) -> Row:
    return [key, counter, f"e{counter}", counter]


OBJECT, GONE, PROMISE = (1, LIVE), (2, TOMBSTONE), (0, NONE)


def test_planes_that_agree_are_believed() -> None:
    plane: Plane = {b"a": OBJECT, b"b": GONE, b"c": (3, LIVE), b"d": PROMISE}
    assert listed([plane, plane]) == ([row(b"a", 1), row(b"c", 3)], [])


def test_stale_live_row_is_not_shown() -> None:
    assert listed([{b"a": GONE}, {b"a": OBJECT}]) == ([], [b"a"])


def test_newer_version_is_shown() -> None:
    assert listed([{b"a": (3, LIVE)}, {b"a": OBJECT}]) == ([row(b"a", 3)], [b"a"])


def test_missing_row_is_asked_about() -> None:
    assert listed([{b"a": OBJECT, b"b": OBJECT}, {b"a": OBJECT}]) == ([row(b"a", 1), row(b"b", 1)], [b"b"])


def test_row_that_never_was_is_not_shown_though_a_plane_has_promised_it() -> None:
    assert listed([{b"a": PROMISE}, {}]) == ([], [b"a"])


def test_equal_tombstones_are_nothing() -> None:
    assert listed([{b"a": GONE}, {b"a": GONE}]) == ([], [])


def test_tombstones_that_differ_are_asked_about() -> None:
    """Between two deletes there may have been an object, which the older half has missed."""
    assert listed([{b"a": GONE}, {b"a": (4, TOMBSTONE)}])[1] == [b"a"]


def test_roll_up_on_the_same_first_object_is_believed() -> None:
    planes: list[Plane] = [{b"a/b": OBJECT, b"a/c": OBJECT}, {b"a/b": OBJECT}]
    assert listed(planes, delimiter=b"/") == ([[b"a/"]], [])


def test_roll_up_of_one_plane_only_is_asked_about_once() -> None:
    assert listed([{b"a/b": OBJECT}, {b"a/b": GONE}], delimiter=b"/") == ([], [b"a/"])
    assert listed([{b"a/b": (3, LIVE)}, {b"a/b": GONE}], delimiter=b"/") == ([[b"a/"]], [b"a/"])


def test_key_that_one_plane_has_rolled_up_is_no_row_of_its_own() -> None:
    """One plane shows tombstones below the prefix, the other only the prefix."""
    planes: list[Plane] = [{b"a/b": GONE, b"a/c": OBJECT}, {b"a/b": (3, LIVE), b"a/c": OBJECT}]
    assert listed(planes, delimiter=b"/") == ([[b"a/"]], [b"a/"])


def test_page_ends_where_the_shortest_one_is_cut() -> None:
    keys = [b"%02d" % number for number in range(10)]
    shard = Shard([dict.fromkeys(keys, OBJECT), {key: GONE if key < b"05" else OBJECT for key in keys}])
    page = asyncio.run(shard.page(limit=3))
    assert (page.truncated, page.last) == (True, b"02") and not page.rows
    sparse = Shard([{b"00": OBJECT, b"09": OBJECT}, dict.fromkeys(keys, OBJECT)])
    page = asyncio.run(sparse.page(limit=3))
    assert [found[0] for found in page.rows] == [b"00", b"01", b"02"] and page.last == b"02"


def test_roll_up_that_is_cut_in_its_middle_is_shown_once() -> None:
    dead: Plane = {b"a/%d" % number: GONE for number in range(5)}
    shard = Shard([dead | {b"a/9": OBJECT, b"b": OBJECT}, {b"a/9": OBJECT, b"b": OBJECT}])
    page = asyncio.run(shard.page(delimiter=b"/", limit=2))
    assert page.rows == [[b"a/"]] and page.truncated and page.last == b"a/"
    page = asyncio.run(shard.page(after=b"a/", delimiter=b"/"))
    assert page.rows == [row(b"b", 1)] and not page.truncated


def test_deleted_marker_of_a_directory_does_not_hide_the_directory() -> None:
    """A page that is cut right after the tombstone of ``a/`` goes on inside it."""
    plane: Plane = {b"a/": GONE, b"a/b": OBJECT}
    shard = Shard([plane, plane])
    page = asyncio.run(shard.page(delimiter=b"/", limit=1))
    assert page.truncated and not page.rows
    page = asyncio.run(shard.page(after=page.last, delimiter=b"/", limit=1))
    assert page.rows == [[b"a/"]]


keys = st.text("ab/", min_size=1, max_size=4).map(str.encode)
held = st.one_of(st.just(PROMISE), st.tuples(st.integers(1, 4), st.sampled_from([LIVE, TOMBSTONE, NONE])))


@st.composite
def shards(draw: st.DrawFn) -> list[Plane]:
    """Planes that hold of each key nothing or one of its versions; one version has one state."""
    versions = draw(st.dictionaries(keys, st.lists(held, min_size=1, max_size=3), max_size=12))
    planes: list[Plane] = [{} for _ in range(draw(st.integers(2, 3)))]
    for key, found in versions.items():
        by_counter = dict(found)
        for plane in planes:
            counter = draw(st.sampled_from([None, *by_counter]))
            if counter is not None:
                plane[key] = counter, by_counter[counter]
    return planes


@given(
    planes=shards(),
    prefix=st.sampled_from([b"", b"a", b"a/", b"b/a"]),
    start=st.one_of(st.just(b""), keys),
    delimiter=st.sampled_from([b"", b"/", b"a"]),
    limit=st.integers(1, 5),
)
@example([{b"a/a": GONE, b"a/b": OBJECT}, {b"a/a": (3, LIVE)}], b"", b"", b"/", 1)
@example([{b"a/": GONE}, {b"a/": GONE, b"a/b": OBJECT}], b"", b"", b"/", 1)
@example([{b"a/a": OBJECT, b"a/x": GONE}, {b"a/a": OBJECT, b"a/x": OBJECT}], b"", b"a/b", b"/", 1)
@example([{b"ab": PROMISE}, {b"aa": (1, LIVE), b"aaa": PROMISE, b"ab": PROMISE}], b"", b"", b"a", 1)
@settings(max_examples=300)
def test_merged_listing_is_that_of_the_agreed_state(
    planes: list[Plane], prefix: bytes, start: bytes, delimiter: bytes, limit: int
) -> None:
    def entry(key: bytes) -> bytes:
        at = key.find(delimiter, len(prefix)) if delimiter and key.startswith(prefix) else -1
        return key if at < 0 else key[: at + len(delimiter)]

    shard = Shard(planes)
    found = {entry(key) for key in shard.live() if key.startswith(prefix) and key > start}
    assert asyncio.run(shard.listing(prefix, start, delimiter, limit)) == sorted(found - {start}), (
        "a prefix that it begins after is skipped"
    )
