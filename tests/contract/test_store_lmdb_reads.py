"""Reads of the LMDB store beside its commits: old state until the end, whole bytes all along.

The store has no table of readers; why nothing is written over while it is read says ``lmdbtxn.ParkedRead``.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import lmdb
import pytest

from ssastore.env import WriteTxn
from ssastore.errors import EnvironmentProblem
from ssastore.limits import COMMIT_OPS_MAX, MIB
from ssastore.store import lmdbtxn
from ssastore.store.lmdb import LmdbStore
from ssastore.store.lmdbtxn import LmdbWriteTxn

BEYOND = b"\xff" * 100


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LmdbStore]:
    opened = LmdbStore.open(tmp_path / "store", map_bytes=64 * MIB)
    yield opened
    await opened.close()


def put(store: LmdbStore, key: bytes, value: bytes) -> asyncio.Future[None]:
    return store.submit(lambda txn: txn.put(key, value), size=len(value))


def get(store: LmdbStore, key: bytes) -> bytes | None:
    with store.read() as txn:
        value = txn.get(key)
        return None if value is None else bytes(value)


class HeldCommit:
    """Commits that wait on the writer's thread until the test lets them go."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    async def reached(self) -> None:
        await asyncio.to_thread(self.began.acquire)


@pytest.fixture
def held(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldCommit]:
    held = HeldCommit()
    commit = LmdbWriteTxn.commit

    def wait(txn: LmdbWriteTxn) -> None:
        held.began.release()
        held.go.acquire()
        commit(txn)

    monkeypatch.setattr(LmdbWriteTxn, "commit", wait)
    yield held
    held.go.release(100)
    monkeypatch.undo()


@pytest.mark.parametrize("size", [100, 5000, MIB])
async def test_commit_under_way_is_neither_acknowledged_nor_seen(
    store: LmdbStore, held: HeldCommit, size: int
) -> None:
    held.go.release()
    await put(store, b"a", b"old" * size)
    await held.reached()
    usage = store.usage()
    new = put(store, b"a", b"new" * size)
    gone = store.submit(lambda txn: txn.delete(b"a"))
    await held.reached()
    later = put(store, b"b", b"later")
    for _ in range(10):
        await asyncio.sleep(0)
        assert get(store, b"a") == b"old" * size and store.usage() == usage
    assert not new.done() and not gone.done() and not later.done()
    held.go.release(2)
    assert await new is None and await gone is True
    assert get(store, b"a") is None
    await later
    assert get(store, b"b") == b"later"


async def test_changes_run_on_the_event_loop_unless_they_are_large(store: LmdbStore) -> None:
    here = threading.get_ident()
    small = store.submit(lambda txn: threading.get_ident(), size=5000)
    assert await small == here
    large = store.submit(lambda txn: threading.get_ident(), size=MIB)
    beside = store.submit(lambda txn: threading.get_ident(), size=5000)
    assert await large == await beside != here


async def test_many_changes_leave_the_event_loop_time_for_others(store: LmdbStore) -> None:
    """They share a commit, and yet requests are answered in between."""
    reads = 0

    async def read() -> None:
        nonlocal reads
        while not pending.done():
            assert get(store, b"n") in (None, b"old")
            reads += 1
            await asyncio.sleep(0)

    turns = [
        store.submit(lambda txn: (reads, txn.put(b"n", b"old"))[0], size=5000) for _ in range(COMMIT_OPS_MAX)
    ]
    pending = asyncio.gather(*turns)
    await asyncio.gather(pending, read())
    assert len(set(pending.result())) > 10


async def test_read_held_across_an_await_is_refused(store: LmdbStore) -> None:
    await put(store, b"a", b"1")
    with pytest.raises(AssertionError, match="across an await"), store.read() as txn:
        await put(store, b"b", b"2")
    with pytest.raises(AssertionError, match="across an await"), store.read() as txn:
        assert txn.get(b"a") == b"1"
        await put(store, b"b", b"2")
        txn.get(b"a")
    with pytest.raises(AssertionError, match="across an await"), store.read() as txn:
        scan = txn.scan(b"", BEYOND)
        assert next(scan)[0] == b"a"
        await put(store, b"b", b"2")
        with pytest.raises(EnvironmentProblem):
            next(scan)
        with pytest.raises(AssertionError, match="across an await"):
            next(txn.scan(b"", BEYOND))
    assert get(store, b"a") == b"1"


async def test_scan_that_was_left_half_way_disturbs_nobody(store: LmdbStore) -> None:
    for number in range(3):
        await put(store, b"%d" % number, b"x")
    with store.read() as txn:
        scan = txn.scan(b"", BEYOND)
        assert next(scan)[0] == b"0"
    await put(store, b"3", b"x")
    scan.close()
    with store.read() as txn:
        assert len(list(txn.scan(b"", BEYOND))) == 4


async def test_read_on_another_thread_is_refused(store: LmdbStore) -> None:
    with pytest.raises(AssertionError, match="thread"):
        await asyncio.to_thread(store.read)


async def test_failed_environment_refuses_reads_and_writes(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB lets nobody begin a transaction after it has failed to write a meta page."""
    await put(store, b"a", b"1")

    def refuse(*arguments: object) -> None:
        error = lmdb.PanicError("mdb_txn_begin")
        error.code = -30795
        raise error

    monkeypatch.setattr(lmdbtxn, "LmdbReadTxn", refuse)
    await put(store, b"b", b"2")
    with pytest.raises(EnvironmentProblem, match="mdb_txn_begin"):
        store.read()
    ran: list[WriteTxn] = []
    outcomes = await asyncio.gather(*(store.submit(ran.append) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EnvironmentProblem] * 2 and not ran
    monkeypatch.undo()
    assert get(store, b"b") == b"2"
    await put(store, b"c", b"3")


# -- pages that are used again ----------------------------------------------------------------------

State = dict[bytes, tuple[int, int]]
"What was committed: version and size of each value."


def content(key: bytes, version: int, size: int) -> bytes:
    text = b"%s of %d|" % (key, version)
    return (text * (size // len(text) + 1))[:size]


class Churn:
    """Replaces and deletes values of all sizes without end; knows what every commit leaves behind."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.states: list[State] = [{}]

    def _size(self) -> int:
        largest = self._random.choice([100, 3000, 10_000, 10_000, 60_000, 400_000])
        return self._random.randrange(largest)

    def submit(self, store: LmdbStore) -> asyncio.Future[None]:
        """The next version, as one change."""
        version = len(self.states)
        keys = [b"key %d" % number for number in self._random.sample(range(24), 6)]
        puts = {key: self._size() for key in keys[:4]}

        def change(txn: WriteTxn) -> None:
            txn.put(b"version", b"%d" % version)
            for key, size in puts.items():
                txn.put(key, content(key, version, size))
            for key in keys[4:]:
                txn.delete(key)

        state = self.states[-1] | {key: (version, size) for key, size in puts.items()}
        self.states.append({key: what for key, what in state.items() if key not in keys[4:]})
        return store.submit(change, size=sum(puts.values()))

    def check(self, store: LmdbStore) -> int:
        """Compare every byte of the store with one of the states; returns which."""
        with store.read() as txn:
            version = int(bytes(txn.get(b"version") or b"0"))
            state = self.states[version]
            for key, (since, size) in state.items():
                assert txn.get(key) == content(key, since, size), (version, key)
            assert {bytes(key) for key, _ in txn.scan(b"key", b"kez")} == set(state)
        return version


@pytest.mark.parametrize("seed", range(3))
async def test_reads_beside_commits_see_whole_old_states(store: LmdbStore, seed: int) -> None:
    """The file soon has its size; from then on every commit writes over what an earlier one has freed."""
    churn = Churn(seed)
    checks = 0
    for version in range(1, 200):
        pending = churn.submit(store)
        while not pending.done():
            assert churn.check(store) == version - 1, "neither late nor before it is acknowledged"
            checks += 1
            await asyncio.sleep(0)
        await pending
        assert churn.check(store) == version
    pages_freed = sum(size for state in churn.states for _, size in state.values()) // 4096
    assert checks > 400 and store._databases.env.info()["last_pgno"] * 4 < pages_freed
