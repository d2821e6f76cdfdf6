"""Exactly the merged rows are left between two keys; what lies outside is not touched."""

from __future__ import annotations

from typing import Any

import pytest

from ssastore.core.filling import Cover, fill_range, pieces_of
from ssastore.core.floors import raise_floor, read_floor
from ssastore.core.pages import Rows, end_key, stored_key_of
from ssastore.core.records import (
    TOMBSTONES_END,
    TOMBSTONES_FIRST,
    blob_key,
    floor_key,
    record_key,
    slice_range,
)
from ssastore.core.register import LIVE, NO_BALLOT, TOMBSTONE, Slot, Value, make_ballot
from ssastore.errors import CorruptObject
from ssastore.limits import LOG_CHANGE_BYTES_MAX
from ssastore.messages import Kind
from ssastore.store.memory import MemoryStore

PLANE, GROUP = 1, 0xA3F
SLICE = PLANE << 12 | GROUP
B1, B2 = make_ballot(1, 1, 1), make_ballot(2, 1, 1)
BLOB = blob_key(GROUP << 16, b"d" * 32)


def key_of(name: bytes, group: int = GROUP) -> bytes:
    return record_key(group << 16, Kind.OBJECT, 1, name)


def slot_of(state: int = LIVE, data: bytes = b"x", at_ms: int = 77) -> bytes:
    return b"".join(Slot(B1, B1, b"".join(Value(state, at_ms, b"", data).encode())).encode())


async def store_with(*names: bytes) -> MemoryStore:
    store = MemoryStore()
    for name in names:
        stored = stored_key_of(key_of(name), PLANE)
        await store.submit(lambda txn, stored=stored: txn.put(stored, slot_of(data=b"old")))
    return store


async def fill(
    store: MemoryStore,
    merged: Rows,
    after: bytes = b"",
    last: bytes | None = None,
    groups: Any = (GROUP,),
    cover: Cover = lambda txn, ballot: None,
) -> list[int]:
    return await store.submit(lambda txn: fill_range(txn, PLANE, groups, (after, last), merged, cover))


def names_in(store: MemoryStore, slice16: int = SLICE) -> list[bytes]:
    with store.read() as txn:
        return [key[13:] for key, _ in txn.scan(*slice_range(slice16))]


async def test_merged_rows_take_the_place_of_all_others() -> None:
    store = await store_with(b"a", b"b", b"z")
    merged: Rows = {key_of(b"b"): slot_of(data=b"new"), key_of(b"c"): slot_of(), end_key(GROUP): NO_BALLOT}
    assert await fill(store, merged) == [GROUP]
    assert names_in(store) == [b"b", b"c"]
    with store.read() as txn:
        assert txn.get(stored_key_of(key_of(b"b"), PLANE)) == slot_of(data=b"new")


async def test_only_the_range_is_replaced() -> None:
    store = await store_with(b"a", b"b", b"c", b"d")
    assert await fill(store, {key_of(b"c"): slot_of()}, key_of(b"a"), key_of(b"c")) == []
    assert names_in(store) == [b"a", b"c", b"d"]


async def test_other_slices_keep_what_they_have() -> None:
    store = await store_with(b"a")
    for group in (GROUP - 1, GROUP + 1):
        await store.submit(
            lambda txn, group=group: txn.put(stored_key_of(key_of(b"k", group), PLANE), slot_of())
        )
    await fill(store, {end_key(GROUP): NO_BALLOT})
    assert names_in(store) == [] and names_in(store, SLICE - 1) == [b"k"] == names_in(store, SLICE + 1)


async def test_blob_that_is_here_stays() -> None:
    store = MemoryStore()
    await store.submit(lambda txn: txn.put(stored_key_of(BLOB, PLANE), b"content"))
    await fill(store, {BLOB: b"", end_key(GROUP): NO_BALLOT})
    with store.read() as txn:
        assert txn.get(stored_key_of(BLOB, PLANE)) == b"content"
    await fill(store, {end_key(GROUP): NO_BALLOT})
    with store.read() as txn:
        assert txn.get(stored_key_of(BLOB, PLANE)) is None


async def test_tombstones_are_queued_to_be_collected() -> None:
    store = MemoryStore()
    await fill(store, {key_of(b"t"): slot_of(TOMBSTONE, b"", 99), key_of(b"k"): slot_of()})
    with store.read() as txn:
        queue = [(key[5:13], bytes(value)) for key, value in txn.scan(TOMBSTONES_FIRST, TOMBSTONES_END)]
    assert queue == [((99).to_bytes(8, "big"), stored_key_of(key_of(b"t"), PLANE))]


async def test_floor_comes_along_and_never_decreases() -> None:
    store = MemoryStore()
    await fill(store, {end_key(GROUP): B1})
    await fill(store, {end_key(GROUP): B2})
    await fill(store, {end_key(GROUP): NO_BALLOT})
    with store.read() as txn:
        assert read_floor(txn, slice_range(SLICE)[0]) == B2


async def test_rotten_records_are_replaced_too() -> None:
    store = await store_with(b"a", b"b")
    store.poke(stored_key_of(key_of(b"a"), PLANE), b"rotten rotten")
    await store.submit(lambda txn: raise_floor(txn, SLICE, B1))
    store.poke(floor_key(SLICE), b"rotten rotten")
    await fill(store, {key_of(b"b"): slot_of(), end_key(GROUP): B2})
    assert names_in(store) == [b"b"]
    with store.read() as txn:
        assert read_floor(txn, slice_range(SLICE)[0]) == B2


async def test_nothing_is_changed_by_rows_that_make_no_sense() -> None:
    store = await store_with(b"a")
    with pytest.raises(CorruptObject):
        await fill(store, {key_of(b"b"): b"no slot", end_key(GROUP): NO_BALLOT})
    assert names_in(store) == [b"a"]


async def test_ceiling_covers_what_mates_had_promised() -> None:
    """Else a record that rots later would be repaired under a ballot that is not above its promise."""
    covered: list[bytes] = []
    high = b"".join(Slot(B2, B1, b"").encode())
    merged: Rows = {key_of(b"a"): slot_of(), key_of(b"b"): high, end_key(GROUP): NO_BALLOT}
    await fill(MemoryStore(), merged, cover=lambda txn, ballot: covered.append(ballot))
    assert covered == [B2]


@pytest.mark.parametrize("count", [0, 1, 40, 400])
async def test_pieces_of_rows_leave_what_all_of_them_do(count: int) -> None:
    """And each goes to the log of a store: a larger change lets every other write wait for a commit."""
    merged: Rows = {key_of(b"%04d" % n): slot_of(data=b"new" * (n % 7) * 1000) for n in range(count)}
    merged[end_key(GROUP)] = NO_BALLOT
    whole, pieced = await store_with(b"0007", b"0007x", b"9999"), await store_with(b"0007", b"0007x", b"9999")
    assert await fill(whole, merged) == [GROUP]
    ended: list[int] = []
    after = b""
    for bounds, piece, size in pieces_of(merged, (b"", None)):
        assert bounds[0] == after and sum(map(len, piece.values())) <= size <= LOG_CHANGE_BYTES_MAX
        ended += await fill(pieced, piece, *bounds)
        after = bounds[1] or b""
    assert ended == [GROUP] and names_in(pieced) == names_in(whole) == [b"%04d" % n for n in range(count)]


def test_short_records_make_pieces_of_some_hundred() -> None:
    """What a record takes of the event loop does not end with its bytes."""
    merged: Rows = {key_of(b"%04d" % n): b"x" for n in range(1000)}
    lengths = [len(piece) for _, piece, _ in pieces_of(merged, (b"", None))]
    assert sum(lengths) == 1000 and max(lengths) <= 150
