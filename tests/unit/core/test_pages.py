"""Pages of records: complete, in order, cut anywhere, and the same from every plane."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssastore.core import pages
from ssastore.core.floors import raise_floor
from ssastore.core.pages import Page, Rows, end_key, plain_key, pull_page, stored_key_of
from ssastore.core.records import blob_key, record_key
from ssastore.core.register import NO_BALLOT, make_ballot
from ssastore.env import WriteTxn
from ssastore.errors import CorruptObject
from ssastore.messages import Kind
from ssastore.store.memory import MemoryStore

GROUPS = [0x00A, 0x00B, 0xFFF]
FLOOR = make_ballot(9, 1, 1)
DIGEST = b"d" * 32


async def filled(plane: int, values: dict[bytes, bytes]) -> MemoryStore:
    """A store with these plain keys in a plane, and other planes' records around them."""
    store = MemoryStore()

    def write(txn: WriteTxn) -> None:
        for key, value in values.items():
            txn.put(stored_key_of(key, plane), value)
        for other in (plane - 1, plane + 1):
            txn.put(record_key((other << 12 | 0x00A) << 16, Kind.OBJECT, 1, b"k"), b"other plane")
        txn.put(record_key((plane << 12 | 0x00C) << 16, Kind.OBJECT, 1, b"k"), b"other group")
        raise_floor(txn, plane << 12 | 0x00B, FLOOR)

    await store.submit(write)
    return store


def key_of(group: int, name: bytes, low: int = 0) -> bytes:
    return record_key(group << 16 | low, Kind.OBJECT, 1, name)


def pulled(store: MemoryStore, plane: int) -> list[Page]:
    """All pages, each asked for behind the last."""
    found: list[Page] = []
    after = b""
    while True:
        with store.read() as txn:
            page = pull_page(txn, plane, GROUPS, after)
        found.append(page)
        if not page.truncated:
            return found
        assert page.last > after
        after = page.last


VALUES = {
    key_of(0x00A, b"a"): b"1",
    key_of(0x00A, b"a" * 600, 0xFFFF): b"2",
    key_of(0xFFF, b"z", 0xFFFF): b"",
    blob_key(0x00B << 16, DIGEST): b"content",
}
ENDS = {end_key(0x00A): NO_BALLOT, end_key(0x00B): FLOOR, end_key(0xFFF): NO_BALLOT}


@pytest.mark.parametrize("plane", [1, 4, 14])
@pytest.mark.parametrize("page_bytes", [1, 100, 1 << 20])
async def test_pages_hold_everything_once(
    plane: int, page_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PULL_PAGE_BYTES", page_bytes)
    found = pulled(await filled(plane, VALUES), plane)
    rows: Rows = {}
    for page in found:
        assert not rows.keys() & page.rows().keys()
        rows |= page.rows()
    assert rows == VALUES | ENDS | {blob_key(0x00B << 16, DIGEST): b""}
    assert list(rows) == sorted(rows)
    assert all(a.last < b.last for a, b in pairwise(found))


async def test_work_of_a_page_is_bounded_by_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs are not in the page, yet each of them was read."""
    monkeypatch.setattr(pages, "PULL_SCAN_BYTES_MAX", 10)
    blobs = {blob_key(0x00A << 16, bytes([n]) * 32): b"content" for n in range(9)}
    assert max(len(page.rows()) for page in pulled(await filled(1, blobs), 1)) <= 3


async def test_rotten_record_is_not_left_out() -> None:
    store = await filled(1, VALUES)
    store.poke(stored_key_of(key_of(0x00A, b"a"), 1), b"rotten rotten")
    with store.read() as txn, pytest.raises(CorruptObject):
        pull_page(txn, 1, GROUPS, b"")


async def test_damaged_page_is_noticed() -> None:
    (page,) = pulled(await filled(1, VALUES), 1)
    sent = bytes(page.body)
    for body in (sent[:-1], sent + b"x", b"\x7f" + sent[1:]):
        with pytest.raises(CorruptObject):
            Page(page.truncated, page.last, page.checksum, body).rows()


@given(st.binary(max_size=60))
def test_no_bytes_are_read_beyond_a_page(body: bytes) -> None:
    """With a checksum that fits: then only the lengths protect."""
    from xxhash import xxh3_64_intdigest

    try:
        Page(False, b"", xxh3_64_intdigest(body), body).rows()
    except CorruptObject:
        pass


@settings(max_examples=50)
@given(st.integers(0, 15), st.integers(0, 4095), st.binary(max_size=20))
def test_plain_keys_know_no_plane(plane: int, group: int, name: bytes) -> None:
    stored = record_key((plane << 12 | group) << 16, Kind.OBJECT, 1, name)
    plain = plain_key(stored)
    assert stored_key_of(plain, plane) == stored and plain[:2] == group.to_bytes(2, "big")
    assert plain < end_key(group)
