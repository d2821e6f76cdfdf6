"""What is changed while slices are copied: nothing is missed, nothing is older than its number."""

from __future__ import annotations

import asyncio

import pytest

from ssastore.core.changelog import ChangeLog, NotedStore
from ssastore.store.memory import MemoryStore

HERE, ELSEWHERE = 0x1A3F, 0x1A40


def key(name: bytes, slice16: int = HERE) -> bytes:
    return slice16.to_bytes(2, "big") + b"\0\0" + name


def test_a_key_has_the_number_of_its_last_change() -> None:
    log = ChangeLog([HERE], 10)
    for name in (b"a", b"b", b"a"):
        log.note(key(name))
    log.note(key(b"c", ELSEWHERE))
    assert log.take(0, 10) == [(2, key(b"b")), (3, key(b"a"))]


def test_what_was_seen_is_forgotten_and_the_rest_is_told_again() -> None:
    log = ChangeLog([HERE], 10)
    for name in (b"a", b"b", b"c"):
        log.note(key(name))
    assert log.take(0, 2) == [(1, key(b"a")), (2, key(b"b"))]
    assert log.take(0, 2) == [(1, key(b"a")), (2, key(b"b"))]
    log.note(key(b"a"))
    assert log.take(2, 2) == [(3, key(b"c")), (4, key(b"a"))]
    assert log.take(4, 2) == []


def test_too_many_keys_end_a_log() -> None:
    log = ChangeLog([HERE], 2)
    for name in (b"a", b"b", b"b", b"a"):
        log.note(key(name))
    assert not log.is_overrun
    log.note(key(b"c"))
    assert log.is_overrun and log.take(0, 10) == []


async def test_changes_from_the_beginning_of_a_log_on_are_noted_and_no_others() -> None:
    raw = MemoryStore(commit_ms=1)
    store = NotedStore(raw)
    early = store.submit(lambda txn: txn.put(key(b"early"), b""))
    log = await store.begin([HERE], 10)
    assert early.done(), "what came before is in the store when the copy begins"
    await store.submit(lambda txn: txn.put(key(b"late"), b""))
    store.do(lambda txn: txn.delete(key(b"early")), lambda result, error: None)
    await store.submit(lambda txn: txn.put(key(b"other", ELSEWHERE), b""))
    assert [found for _, found in log.take(0, 10)] == [key(b"late"), key(b"early")]
    store.end(log)
    await store.submit(lambda txn: txn.put(key(b"later"), b""))
    assert len(log.take(0, 10)) == 2
    assert (store.do, store.submit) == (raw.do, raw.submit), "without a log nobody pays for it"


async def test_what_is_listed_in_a_transaction_is_in_the_store_afterwards() -> None:
    store = NotedStore(MemoryStore(commit_ms=5))
    log = await store.begin([HERE], 10)
    for number in range(20):
        store.submit(lambda txn, number=number: txn.put(key(b"k%d" % (number % 3)), b"%d" % number))
        listed = await store.submit(lambda txn: log.take(0, 10))
        with store.read() as txn:
            assert bytes(txn.get(listed[-1][1]) or b"") == b"%d" % number
        await asyncio.sleep(0)


async def test_a_change_that_fails_is_noted_and_harmless() -> None:
    store = NotedStore(MemoryStore())
    await store.begin([HERE], 10)

    def fail(txn: object) -> None:
        raise ValueError("before its first put")

    with pytest.raises(ValueError, match="before"):
        await store.submit(fail)
