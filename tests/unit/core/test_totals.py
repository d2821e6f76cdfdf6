"""What a slice holds in all: the same whether it is counted once or kept through every change."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from xxhash import xxh3_128_intdigest

from ssastore.core.changelog import NotedStore, _NotedTxn
from ssastore.core.numbers import number_of_slice, numbered_slice
from ssastore.core.records import TOTALS_END, TOTALS_FIRST, in_plane, slice_range, total_key
from ssastore.core.totals import KeptTotals, RunningTotal, SliceTotal, pack_totals, unpack_totals
from ssastore.env import Store, WriteTxn
from ssastore.errors import BadFrame, StoreFull
from ssastore.messages import Kind
from ssastore.store.lmdb import LmdbStore
from ssastore.store.memory import MemoryStore

HERE, ELSEWHERE = 0x1A3F, 0x1A40
HALVES = [number_of_slice(piece) for piece in numbered_slice(ELSEWHERE).split()]


@pytest.fixture(params=["memory", "lmdb"])
async def raw(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store: Store
    if request.param == "memory":
        store = MemoryStore(commit_ms=1)
    else:
        store = LmdbStore.open(tmp_path / "data", map_bytes=16 << 20, log_bytes=1 << 20)
    yield store
    await store.close()


def key(number: int, slice16: int = HERE, kind: int = Kind.OBJECT) -> bytes:
    return (
        slice16.to_bytes(2, "big")
        + (number * 7919 % 65536).to_bytes(2, "big")
        + bytes([kind])
        + b"%d" % number
    )


def put(store: Store | NotedStore, stored: bytes, value: bytes) -> asyncio.Future[None]:
    return store.submit(lambda txn: txn.put(stored, value[:1], value[1:]))


def delete(store: NotedStore, stored: bytes) -> asyncio.Future[bool]:
    return store.submit(lambda txn: txn.delete(stored))


def counted(store: NotedStore, number: int, plane: int) -> tuple[int, int]:
    """Straight from what is stored."""
    records = total = 0
    with store.read() as txn:
        for stored, value in txn.scan(*slice_range(number)):
            named = in_plane(stored, plane)
            content = b"" if stored[4] == Kind.BLOB else bytes(value)
            records += 1
            total ^= xxh3_128_intdigest(len(named).to_bytes(2, "big") + named + content)
    return records, total


def kept(store: NotedStore, totals: dict[int, RunningTotal], number: int) -> tuple[int, int] | None:
    with store.read() as txn:
        return totals[number].of(txn)


async def count_all(store: NotedStore, totals: dict[int, RunningTotal], slices: Sequence[int]) -> None:
    for number in slices:
        while await store.submit(totals[number].step):
            pass


@pytest.mark.parametrize("seed", range(8))
async def test_a_total_that_is_kept_is_the_one_that_is_counted(raw: Store, seed: int) -> None:
    """Changes of all kinds while it is counted and after, some of which fail."""
    draw = random.Random(seed)
    store, plane = NotedStore(raw), 5
    for number in range(1500):
        put(store, key(number), b"old%d" % number)
    await put(store, key(1, ELSEWHERE), b"old")
    totals = store.begin_totals([HERE, *HALVES], plane)

    def fail(txn: WriteTxn) -> None:
        txn.put(key(draw.randrange(1500)), b"never")
        txn.delete(key(draw.randrange(1500)))
        raise ValueError("after its changes")

    def write() -> asyncio.Future[object]:
        stored = key(draw.randrange(2500), draw.choice((HERE, HERE, ELSEWHERE)), draw.choice((16, Kind.BLOB)))
        what = draw.randrange(5)
        if what == 0:
            return asyncio.ensure_future(delete(store, stored))
        if what == 1:
            return store.submit(fail)
        return asyncio.ensure_future(put(store, stored, b"%d" % draw.randrange(100)))

    going = dict.fromkeys((HERE, *HALVES), True)
    while any(going.values()):
        writes = [write() for _ in range(draw.randrange(200))]
        for number in (number for number, is_more in going.items() if is_more):
            assert kept(store, totals, number) is None
            going[number] = await store.submit(totals[number].step)
        await asyncio.gather(*writes, return_exceptions=True)
    for _ in range(3):
        for number in (HERE, *HALVES):
            assert kept(store, totals, number) == counted(store, number, plane)
        await asyncio.gather(*[write() for _ in range(100)], return_exceptions=True)
    assert not await store.submit(totals[HERE].step), "there is nothing to count again"


async def test_nothing_is_left_of_totals_that_ended_or_were_left_behind(raw: Store) -> None:
    store = NotedStore(raw)
    await put(store, key(1), b"one")
    await put(raw, total_key(HERE), bytes(24) + b"\xff")
    totals = store.begin_totals([HERE])
    await count_all(store, totals, [HERE])
    assert kept(store, totals, HERE) == counted(store, HERE, 1)
    store.end_totals(totals.values())
    await put(store, key(2), b"two")
    with store.read() as txn:
        assert not list(txn.scan(TOTALS_FIRST, TOTALS_END))
    assert (store.do, store.submit) == (raw.do, raw.submit), "without totals nobody pays for them"


async def test_the_key_that_is_next_is_not_counted_twice() -> None:
    store = NotedStore(MemoryStore())
    for number in range(501):
        await put(store, key(number), b"value")
    totals = store.begin_totals([HERE])
    assert await store.submit(totals[HERE].step)
    *_, last = sorted(map(key, range(501)))[:500]
    await put(store, last + b"\0", b"right behind it")
    await count_all(store, totals, [HERE])
    assert kept(store, totals, HERE) == counted(store, HERE, 1)


async def test_what_is_rotten_is_counted_again() -> None:
    raw = MemoryStore()
    store = NotedStore(raw)
    for number in range(10):
        await put(store, key(number), b"value")
    totals = store.begin_totals([HERE])
    await count_all(store, totals, [HERE])
    for rotten in (key(3), total_key(HERE)):
        raw.poke(rotten, b"\0" * len(raw.peek(rotten)))
        await put(store, key(3), b"repaired")
        assert kept(store, totals, HERE) is None
        await count_all(store, totals, [HERE])
        assert kept(store, totals, HERE) == counted(store, HERE, 1)


async def test_a_slice_has_one_total_and_who_was_replaced_is_silent(raw: Store) -> None:
    """A source keeps one a little longer than the slice is its own; it may come back meanwhile."""
    store = NotedStore(raw)
    for number in range(3):
        await put(store, key(number), b"value")
    first = store.begin_totals([HERE, ELSEWHERE])
    await count_all(store, first, [HERE, ELSEWHERE])
    second = store.begin_totals([HERE], 5)
    assert kept(store, first, HERE) is None and kept(store, first, ELSEWHERE) is not None
    assert not await store.submit(first[HERE].step), "it writes nothing any more"
    await count_all(store, second, [HERE])
    await put(store, key(3), b"another")
    store.end_totals(first.values())
    await put(store, key(4), b"another")
    assert kept(store, second, HERE) == counted(store, HERE, 5)
    store.end_totals(second.values())
    await put(store, key(5), b"another")
    with store.read() as txn:
        assert not list(txn.scan(TOTALS_FIRST, TOTALS_END))


async def test_a_step_that_waits_while_its_total_ends_leaves_nothing(raw: Store) -> None:
    store = NotedStore(raw)
    await put(store, key(1), b"one")
    totals = store.begin_totals([HERE])
    steps = [store.submit(totals[HERE].step) for _ in range(3)]
    store.end_totals(totals.values())
    steps.append(store.submit(totals[HERE].step))
    await asyncio.gather(*steps)
    with store.read() as txn:
        assert not list(txn.scan(TOTALS_FIRST, TOTALS_END))


async def test_a_put_that_is_refused_has_left_nothing_before_it_raised() -> None:
    """The contract of ``env.Store.do``: else every change of its commit runs in one of its own."""

    class Refusing:
        def __init__(self, txn: WriteTxn) -> None:
            self.get, self.scan = txn.get, txn.scan
            self.writes: list[bytes] = []

        def put(self, stored: bytes, *parts: bytes | memoryview, use_reserve: bool = False) -> None:
            if not use_reserve:
                raise StoreFull("only the reserve is left")
            self.writes.append(stored)

    raw = MemoryStore()
    store = NotedStore(raw)
    await put(store, key(1), b"one")
    totals = store.begin_totals([HERE])
    await count_all(store, totals, [HERE])

    def refused(txn: WriteTxn) -> list[bytes]:
        refusing = Refusing(txn)
        noted = _NotedTxn(cast(WriteTxn, refusing), (), KeptTotals(totals))
        with pytest.raises(StoreFull):
            noted.put(key(1), b"two")
        return refusing.writes

    assert await raw.submit(refused) == []


def test_totals_are_packed_and_bounded() -> None:
    rows = {5: SliceTotal(3, 1 << 127, b"f" * 16, 7), 4095: SliceTotal(0, 0, bytes(16), 1)}
    assert unpack_totals(pack_totals(rows.items())) == rows
    with pytest.raises(BadFrame, match="cut short"):
        unpack_totals(pack_totals(rows.items())[:-1])
    with pytest.raises(BadFrame, match="no such part"):
        unpack_totals(pack_totals([(4096, rows[5])]))
