"""What the memory store can do beyond ``env.Store``: crash, take its time, catch what callers do wrong."""

from __future__ import annotations

import asyncio

import pytest

from ssastore.env import ReadTxn
from ssastore.store.memory import MemoryStore


def put(store: MemoryStore, key: bytes, value: bytes) -> asyncio.Future[None]:
    return store.submit(lambda txn: txn.put(key, value))


def keys(store: MemoryStore) -> list[bytes]:
    with store.read() as txn:
        return [key for key, _ in txn.scan(b"", b"\xff")]


async def test_crash_forgets_what_is_not_acknowledged() -> None:
    store = MemoryStore()
    await put(store, b"a", b"1")
    lost = [put(store, b"b", b"2"), put(store, b"a", b"2")]
    store.crash()
    assert all(future.cancelled() for future in lost)
    assert keys(store) == [b"a"]
    await put(store, b"c", b"3")
    assert keys(store) == [b"a", b"c"]


async def test_crash_during_a_commit_undoes_all_of_it() -> None:
    store = MemoryStore(commit_ms=60_000)
    lost = [put(store, b"a", b"1"), put(store, b"b", b"2")]
    await asyncio.sleep(0)
    late = put(store, b"c", b"3")
    store.crash()
    assert all(future.cancelled() for future in (*lost, late))
    assert keys(store) == []


async def test_crash_ends_a_close() -> None:
    store = MemoryStore(commit_ms=60_000)
    lost = put(store, b"a", b"1")
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    store.crash()
    await closing
    assert lost.cancelled()


async def test_commits_take_time_one_after_the_other() -> None:
    """Time comes from the loop alone, so a loop with virtual time makes it exact."""
    loop = asyncio.get_running_loop()
    store = MemoryStore(commit_ms=5)
    began = loop.time()
    first = put(store, b"a", b"1")
    await asyncio.sleep(0)
    second = put(store, b"b", b"2")
    await first
    assert loop.time() - began >= 0.004 and not second.done()
    assert keys(store) == [b"a"]
    await second
    assert loop.time() - began >= 0.009


async def test_view_dies_with_its_transaction() -> None:
    store = MemoryStore()
    await put(store, b"a", b"1")
    with store.read() as txn:
        value = txn.get(b"a")
        assert isinstance(value, memoryview)
    with pytest.raises(ValueError, match="released"):
        bytes(value)


async def test_view_of_a_scan_dies_at_the_next_step() -> None:
    store = MemoryStore()
    await asyncio.gather(put(store, b"a", b"1"), put(store, b"b", b"2"))
    with store.read() as txn:
        (_, first), (_, _) = txn.scan(b"", b"z")
        with pytest.raises(ValueError, match="released"):
            bytes(first)


async def test_transaction_is_unusable_after_its_end() -> None:
    store = MemoryStore()
    await asyncio.gather(put(store, b"a", b"1"), put(store, b"b", b"2"))
    with store.read() as txn:
        scan = txn.scan(b"", b"z")
        next(scan)
    for use in (lambda: txn.get(b"a"), lambda: next(scan)):
        with pytest.raises(AssertionError, match="has ended"):
            use()


async def test_old_state_is_kept_only_for_those_who_read_it() -> None:
    store = MemoryStore()
    await put(store, b"a", b"1")
    seen: list[ReadTxn] = []
    with store.read() as before:
        seen.append(before)
        for number in range(3):
            await put(store, b"b%d" % number, b"2")
        assert [key for key, _ in before.scan(b"", b"z")] == [b"a"]
    assert keys(store) == [b"a", b"b0", b"b1", b"b2"]
