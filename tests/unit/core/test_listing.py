"""Pages of a shard and the merge of all shards, against a model that sorts everything in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssastore.core import listing
from ssastore.core.listing import Page, end_of_prefix, merge_shards, scan_page, slice_holds
from ssastore.core.metadata import Metadata, Version, listed, listed_packed
from ssastore.core.records import blob_key, record_key, shut_key
from ssastore.core.register import LIVE, TOMBSTONE, Slot, Value, make_ballot
from ssastore.errors import CorruptObject, Unavailable
from ssastore.keyspace import shard_of_key
from ssastore.limits import SCAN_PAGE_BYTES_MAX, SCAN_PAGE_ITEMS_MAX
from ssastore.messages import Kind, Scan
from ssastore.store.memory import MemoryStore

BUCKET, LOCATOR = 0x11FF, 0x0528_0001
START = record_key(LOCATOR, Kind.OBJECT, BUCKET, b"")


def slot_of(state: int, metadata: bytes = b"", data: bytes = b"") -> Slot:
    """A slot that has accepted a value at time 1."""
    value = b"".join(Value(state, 1, metadata, data).encode())
    return Slot(make_ballot(2, 1, 1), make_ballot(1, 1, 1), value)


def store_of(live: Sequence[bytes], dead: Sequence[bytes] = (), etag: str = "e") -> MemoryStore:
    """One shard with these keys, and records of others all around it."""
    store = MemoryStore()
    metadata = Metadata(etag, 3).encode()
    records: dict[bytes, Slot] = {}
    for key in dead:
        records[START + key] = slot_of(TOMBSTONE)
    for key in live:
        records[START + key] = slot_of(LIVE, metadata, b"abc")
    for other in (
        record_key(LOCATOR, Kind.OBJECT, BUCKET - 1, b"\xff"),
        record_key(LOCATOR, Kind.OBJECT, BUCKET + 1, b"a"),
        record_key(LOCATOR, Kind.UPLOAD, BUCKET, b"a\0" + b"0" * 32),
        record_key(LOCATOR - 1, Kind.OBJECT, BUCKET, b"a"),
        record_key(LOCATOR + 1, Kind.OBJECT, BUCKET, b"a"),
    ):
        records[other] = slot_of(LIVE, metadata)

    def fill(txn: Any) -> None:
        for key, slot in records.items():
            txn.put(key, *slot.encode())
        txn.put(shut_key(LOCATOR, BUCKET), b"\0" * 9)
        txn.put(blob_key(LOCATOR, bytes(32)), b"blob")

    async def run() -> None:
        await store.submit(fill)

    asyncio.run(run())
    return store


def page(
    store: MemoryStore, prefix: bytes = b"", after: bytes = b"", delimiter: bytes = b"", limit: int = 1000
) -> tuple[list[bytes], bool, bytes]:
    """(keys and common prefixes, truncated, last)."""
    request = Scan(0, Kind.OBJECT, BUCKET, 16, 0, prefix, after, delimiter, limit, False)
    with store.read() as txn:
        (truncated, last), body = scan_page(txn, START, request)
    rows = msgpack.unpackb(body)
    return [row[0] for row in rows], truncated, last


def all_pages(
    store: MemoryStore, prefix: bytes = b"", after: bytes = b"", delimiter: bytes = b"", limit: int = 1000
) -> list[bytes]:
    found: list[bytes] = []
    for _ in range(1000):
        rows, truncated, last = page(store, prefix, after, delimiter, limit)
        assert len(rows) <= limit
        found += rows
        if not truncated:
            return found
        # Below a roll-up the next page begins at the roll-up itself, which is skipped whole.
        assert last > after or after.startswith(last), "a page that is cut must get on"
        after = last
    raise AssertionError("the listing does not end")


def model(live: Sequence[bytes], prefix: bytes, after: bytes, delimiter: bytes) -> list[bytes]:
    """What a listing must show, worked out key by key."""
    found: set[bytes] = set()
    for key in live:
        if not key.startswith(prefix) or key <= after:
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key if at < 0 else key[: at + len(delimiter)]
        if entry == after and at >= 0:
            continue  # A roll-up that was shown before is skipped whole.
        found.add(entry)
    return sorted(found)


VERSION = Version("0001-a", 0, "")
OWNED = {"acl": {"owner": "bob", "grants": []}}


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        (Metadata("e", 3), ["e", 3]),
        (Metadata("e", 3, extra={"tags": {"a": "b"}}), ["e", 3]),
        (Metadata("e", 3, version=VERSION), ["e", 3, VERSION.name]),
        (Metadata("e", 3, extra=OWNED), ["e", 3, None, "bob"]),
        (Metadata("e", 3, extra=OWNED, version=VERSION), ["e", 3, VERSION.name, "bob"]),
    ],
)
async def test_a_row_says_what_the_record_says(metadata: Metadata, told: list[Any]) -> None:
    """Also with a witness, and where the agreed record is read instead of a plane's."""
    store = MemoryStore()
    slot = slot_of(LIVE, metadata.encode(), b"abc")
    await store.submit(lambda txn: txn.put(START + b"k", *slot.encode()))
    assert listed(metadata) == told
    for with_witness, ending in ((False, []), (True, [slot.accepted])):
        request = Scan(0, Kind.OBJECT, BUCKET, 16, 0, b"", b"", b"", 10, with_witness)
        with store.read() as txn:
            _, body = scan_page(txn, START, request)
        assert msgpack.unpackb(body) == [[b"k", 1, *told, *ending]]


@pytest.mark.parametrize(
    "packed",
    [
        ["e", 3, [], {}, {}],
        ["e", 3, [], {}, {}, {}, ["n", 0, ""], 5],
        ["e", 3, [], {}, {}, 5],
        ["e", 3, [], {}, {}, {"acl": 5}],
        ["e", 3, [], {}, {}, {"acl": {}}],
        ["e", 3, [], {}, {}, {}, 5],
        ["e", 3, [], {}, {}, {}, []],
        [5, 3, [], {}, {}, {}],
        ["e", "3", [], {}, {}, {}],
        5,
    ],
    ids=str,
)
def test_what_is_no_metadata_is_not_listed(packed: Any) -> None:
    with pytest.raises(CorruptObject):
        listed_packed(msgpack.packb(packed))


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"a", b"b"),
        (b"a\xff", b"b"),
        (b"\xff", None),
        (b"", None),
        (b"a\xff\xff", b"b"),
        (b"\xfea", b"\xfeb"),
        (b"a\0", b"a\x01"),
    ],
)
def test_end_of_prefix(prefix: bytes, end: bytes | None) -> None:
    assert end_of_prefix(prefix) == end


KEYS = [b"a", b"a/", b"a//b", b"a/b", b"a/c", b"a0", b"b", b"b/", b"b/c/d", b"c", "é".encode(), b"\x01"]


def test_page_is_in_order_and_of_one_bucket_only() -> None:
    store = store_of(KEYS)
    rows, truncated, last = page(store)
    assert (rows, truncated, last) == (sorted(KEYS), False, max(KEYS))


def test_row_says_what_the_object_is() -> None:
    request = Scan(0, Kind.OBJECT, BUCKET, 16, 0, b"", b"", b"/", 1000, False)
    with store_of([b"k", b"x/y"], etag="the tag").read() as txn:
        _, body = scan_page(txn, START, request)
    assert msgpack.unpackb(body) == [[b"k", 1, "the tag", 3], [b"x/"]]


@pytest.mark.parametrize(
    ("prefix", "after", "delimiter", "expected"),
    [
        (b"", b"", b"/", [b"\x01", b"a", b"a/", b"a0", b"b", b"b/", b"c", "é".encode()]),
        (b"a", b"", b"/", [b"a", b"a/", b"a0"]),
        (b"a/", b"", b"/", [b"a/", b"a//", b"a/b", b"a/c"]),
        (b"b/", b"", b"/", [b"b/", b"b/c/"]),
        (b"", b"a/", b"/", [b"a0", b"b", b"b/", b"c", "é".encode()]),
        (b"", b"a/b", b"/", [b"a/", b"a0", b"b", b"b/", b"c", "é".encode()]),
        (b"a", b"a/", b"/", [b"a0"]),
        (b"a/", b"a/", b"/", [b"a//", b"a/b", b"a/c"]),
        (b"", b"a", b"", KEYS[1:6] + sorted(KEYS[6:11])),
        (b"zz", b"", b"/", []),
        (b"", b"zz", b"", ["é".encode()]),
        (b"", b"\xff", b"/", []),
        (b"b", b"a", b"/", [b"b", b"b/"]),
        (b"a", b"b", b"/", []),
        (b"", b"", b"//", sorted([*KEYS[:2], b"a//", *KEYS[3:]])),
        (b"", b"a0", b"c", [b"b", b"b/", b"b/c", b"c", "é".encode()]),
    ],
)
def test_prefix_delimiter_and_start(
    prefix: bytes, after: bytes, delimiter: bytes, expected: list[bytes]
) -> None:
    store = store_of(KEYS)
    assert model(KEYS, prefix, after, delimiter) == expected, "the example itself"
    for limit in (1, 2, 1000):
        assert all_pages(store, prefix, after, delimiter, limit) == expected


small_keys = st.lists(st.text("ab/é\x01", min_size=1, max_size=5).map(str.encode), max_size=20)
pieces = st.text("ab/é", max_size=3).map(str.encode)


@given(
    live=small_keys, dead=small_keys, prefix=pieces, after=pieces, delimiter=pieces, limit=st.integers(1, 7)
)
@example([b"a/x", b"a/y"], [b"a/w"], b"", b"", b"/", 1)
@example([b"a/a"], [], b"", b"a/", b"/", 1)
@settings(max_examples=150)
def test_pages_show_what_the_model_shows(
    live: list[bytes], dead: list[bytes], prefix: bytes, after: bytes, delimiter: bytes, limit: int
) -> None:
    store = store_of(live, [key for key in dead if key not in live])
    assert all_pages(store, prefix, after, delimiter, limit) == model(live, prefix, after, delimiter)


def test_page_of_tombstones_is_empty_and_truncated() -> None:
    """Deleted keys cost work too: a page ends after 4000 of them and the next goes on from there."""
    dead = [b"%06d" % number for number in range(4 * SCAN_PAGE_ITEMS_MAX + 5)]
    store = store_of([b"z"], dead)
    rows, truncated, last = page(store)
    assert (rows, truncated, last) == ([], True, dead[4 * SCAN_PAGE_ITEMS_MAX - 1])
    assert page(store, after=last) == ([b"z"], False, b"z")


def test_tombstones_under_a_prefix_that_lives_on_show_it_once() -> None:
    dead = [b"a/%06d" % number for number in range(4 * SCAN_PAGE_ITEMS_MAX)]
    store = store_of([b"a/z", b"b"], dead)
    rows, truncated, last = page(store, delimiter=b"/")
    assert (rows, truncated) == ([], True)
    assert page(store, after=last, delimiter=b"/") == ([b"a/", b"b"], False, b"b")


def test_roll_up_skips_what_is_below_it() -> None:
    """A million keys below a prefix cost one step: the page reads no more records than it has rows."""
    reads = 0
    store = store_of([b"a/%04d" % number for number in range(3000)] + [b"b"])

    class Counted:
        def __init__(self, txn: Any) -> None:
            self._txn = txn

        def scan(self, first: bytes, end: bytes) -> Any:
            nonlocal reads
            for item in self._txn.scan(first, end):
                reads += 1
                yield item

    request = Scan(0, Kind.OBJECT, BUCKET, 16, 0, b"", b"", b"/", 1000, False)
    with store.read() as txn:
        _, body = scan_page(Counted(txn), START, request)  # type: ignore[arg-type]
    assert [row[0] for row in msgpack.unpackb(body)] == [b"a/", b"b"]
    assert reads == 2


@pytest.mark.parametrize("limit", [SCAN_PAGE_ITEMS_MAX, SCAN_PAGE_ITEMS_MAX + 1, 10**9])
def test_page_has_a_bound_whatever_is_asked(limit: int) -> None:
    store = store_of([b"%06d" % number for number in range(SCAN_PAGE_ITEMS_MAX + 1)])
    rows, truncated, _ = page(store, limit=limit)
    assert len(rows) == SCAN_PAGE_ITEMS_MAX and truncated
    exact = store_of([b"%06d" % number for number in range(SCAN_PAGE_ITEMS_MAX)])
    rows, truncated, _ = page(exact, limit=limit)
    assert len(rows) == SCAN_PAGE_ITEMS_MAX and not truncated


def test_page_of_long_keys_and_etags_has_a_bound_in_bytes() -> None:
    keys = [b"%04d" % number + b"k" * 1020 for number in range(1000)]
    store = store_of(keys, etag="e" * 8000)
    request = Scan(0, Kind.OBJECT, BUCKET, 16, 0, b"", b"", b"", 1000, False)
    with store.read() as txn:
        (truncated, _), body = scan_page(txn, START, request)
    assert truncated and len(body) < SCAN_PAGE_BYTES_MAX + 16 * 1024
    assert all_pages(store) == keys


def test_rotten_record_fails_the_page() -> None:
    """A listing that left it out would be short, and nobody would know."""
    store = store_of([b"a", b"b"])
    store.poke(START + b"b", b"rotten")
    with pytest.raises(CorruptObject):
        page(store)


# -- a slice of a hashed bucket ---------------------------------------------------------------------


def holds(records: dict[bytes, Slot], slice16: int = 0x0528) -> bool:
    store = MemoryStore()

    def fill(txn: Any) -> None:
        for key, record in records.items():
            txn.put(key, *record.encode())

    async def run() -> None:
        await store.submit(fill)

    asyncio.run(run())
    with store.read() as txn:
        return slice_holds(txn, slice16, Kind.OBJECT, BUCKET)


def test_slice_holds_a_live_record_of_the_bucket() -> None:
    live, dead = slot_of(LIVE), slot_of(TOMBSTONE)
    strangers = {
        record_key(0x05270000 | 0xFFFF, Kind.OBJECT, BUCKET, b"k"): live,
        record_key(0x05290000, Kind.OBJECT, BUCKET, b"k"): live,
        record_key(0x05280000, Kind.OBJECT, BUCKET + 1, b"k"): live,
        record_key(0x05280005, Kind.OBJECT, BUCKET - 1, b"k"): live,
        record_key(0x05280006, Kind.UPLOAD, BUCKET, b"k"): live,
        record_key(0x05280007, Kind.OBJECT, BUCKET, b"k"): dead,
        record_key(0x05280007, Kind.OBJECT, BUCKET, b"l"): dead,
        blob_key(0x05280008, bytes(32)): live,
        shut_key(0x05280009, BUCKET): live,
        record_key(0x0528FFFF, Kind.OBJECT, BUCKET + 1, b"k"): live,
    }
    assert not holds({})
    assert not holds(strangers)
    for locator in (0x05280000, 0x05280007, 0x05281234, 0x0528FFFF):
        assert holds(strangers | {record_key(locator, Kind.OBJECT, BUCKET, b"m"): live})


def test_slice_at_the_end_of_the_planes_ends() -> None:
    live = slot_of(LIVE)
    assert holds({record_key(0xEFFFFFFF, Kind.OBJECT, BUCKET, b"m"): live}, 0xEFFF)
    assert not holds({record_key(0xEFFFFFFF, Kind.OBJECT, BUCKET + 1, b"m"): live}, 0xEFFF)


# -- the merge --------------------------------------------------------------------------------------


class Shards:
    """A bucket's shards in memory; pages of the size the node likes, empty ones among them."""

    def __init__(self, live: Sequence[bytes], shards: int, prefix: bytes, delimiter: bytes, page_rows: int):
        self.rows: list[list[bytes]] = [[] for _ in range(shards)]
        for key in sorted(live):
            self.rows[shard_of_key(key, shards)].append(key)
        self._prefix, self._delimiter, self._page_rows = prefix, delimiter, page_rows
        self.fetches = 0

    async def fetch(self, shard: int, after: bytes, limit: int) -> Page:
        self.fetches += 1
        rows = model(self.rows[shard], self._prefix, after, self._delimiter)
        if self.fetches % 3 == 0 and rows:
            # As after many tombstones: nothing to show, and more to come.
            return Page([], True, after)
        cut = rows[: min(limit, self._page_rows)]
        return Page([[row] for row in cut], len(cut) < len(rows), cut[-1] if cut else after)


async def merged(shards: Shards, after: bytes = b"", limit: int = 1000) -> list[bytes]:
    rows = merge_shards(shards.fetch, len(shards.rows), after, limit=limit, gather=asyncio.gather)
    return [row[0] async for row in rows]


@given(
    live=small_keys,
    count=st.sampled_from([1, 2, 16]),
    prefix=pieces,
    after=pieces,
    delimiter=pieces,
    page_rows=st.integers(1, 5),
    limit=st.sampled_from([1, 10, 1000]),
)
def test_merge_shows_each_entry_once_in_order(
    live: list[bytes], count: int, prefix: bytes, after: bytes, delimiter: bytes, page_rows: int, limit: int
) -> None:
    shards = Shards(live, count, prefix, delimiter, page_rows)
    assert asyncio.run(merged(shards, after, limit)) == model(live, prefix, after, delimiter)


async def test_common_prefix_of_all_shards_is_shown_once() -> None:
    keys = [b"a/%d" % number for number in range(100)] + [b"b"]
    assert await merged(Shards(keys, 16, b"", b"/", 100)) == [b"a/", b"b"]


async def test_shard_that_cannot_be_read_fails_the_listing() -> None:
    shards = Shards([b"%d" % number for number in range(100)], 4, b"", b"", 5)

    async def fetch(shard: int, after: bytes, limit: int) -> Page:
        if shard == 2 and after:
            raise Unavailable("slice 0528")
        return await shards.fetch(shard, after, limit)

    seen: list[bytes] = []
    with pytest.raises(Unavailable):
        async for row in merge_shards(fetch, 4, b"", limit=10, gather=asyncio.gather):
            seen += row[:1]
    assert seen == sorted(seen) and len(seen) < 100


async def test_thousand_keys_cost_about_one_page_a_shard() -> None:
    keys = [b"%06d" % number for number in range(5000)]
    shards = Shards(keys, 16, b"", b"", 1000)
    counted = Counting(shards.fetch)
    found = []
    async for row in merge_shards(counted, 16, b"", limit=1000, gather=asyncio.gather):
        found.append(row[0])
        if len(found) == 1000:
            break
    assert found == keys[:1000]
    assert counted.rows <= 1000 + 16 * (4 * 8 + 4), "the shares add up to little more than is asked for"


class Counting:
    def __init__(self, fetch: Any) -> None:
        self._fetch = fetch
        self.rows = 0

    async def __call__(self, shard: int, after: bytes, limit: int) -> Page:
        found: Page = await self._fetch(shard, after, limit)
        self.rows += len(found.rows)
        return found


def test_row_overhead_is_no_less_than_what_msgpack_adds() -> None:
    row = [b"", 2**63, "", 2**43]
    assert len(msgpack.packb([row])) <= listing._ROW_OVERHEAD_BYTES
