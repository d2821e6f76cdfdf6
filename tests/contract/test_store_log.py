"""The log in front of LMDB: order of events, crashes, damage, failures. Power: test_store_powercut.py."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from ssastore.errors import DataDirError, EnvironmentProblem, StoreFull
from ssastore.limits import KIB, LOG_BLOCK_BYTES, LOG_CHANGE_BYTES_MAX, MIB
from ssastore.store import log, logio
from ssastore.store.lmdb import EXIT_LOG_FAILED, LONG_NAME, LmdbStore
from ssastore.store.lmdbtxn import LmdbWriteTxn
from ssastore.store.logfiles import LOG_NAMES
from ssastore.store.logformat import LogRecord
from ssastore.store.logio import AsyncIo, Die, LogIo, ThreadIo
from tests.contract.test_store_lmdb import delete, get, put, python

LOG_BYTES = 128 * KIB


class HeldIo:
    """``LogIo`` whose writes are durable when the test says so."""

    def __init__(self, paths: tuple[Path, ...], frame_bytes_max: int, name: str, die: Die) -> None:
        self.files = [os.open(path, os.O_RDWR) for path in paths]
        self.held: deque[Callable[[], None]] = deque()
        self.frames: list[tuple[int, int, int]] = []
        self.die = die

    def write(self, file: int, frame: bytearray, at: int, then: Callable[[], None]) -> None:
        assert not self.held, "one frame at a time"
        os.pwrite(self.files[file], frame, at)
        self.frames.append((file, at, len(frame)))
        self.held.append(then)

    def release(self) -> None:
        self.held.popleft()()

    def close(self) -> None:
        for file in self.files:
            os.close(file)


class Held:
    """A store on a ``HeldIo``."""

    def __init__(self, store: LmdbStore, io: HeldIo) -> None:
        self.store = store
        self.io = io

    async def close(self) -> None:
        closing = asyncio.ensure_future(self.store.close())
        async with asyncio.timeout(10):
            while not closing.done():
                if self.io.held:
                    self.io.release()
                await asyncio.sleep(0)
        await closing


@pytest.fixture
async def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Held]:
    made: list[HeldIo] = []

    def make(*arguments: Any) -> LogIo:
        made.append(HeldIo(*arguments))
        return made[-1]

    monkeypatch.setattr(log, "open_log_io", make)
    store = LmdbStore.open(tmp_path / "store", map_bytes=64 * MIB, log_bytes=LOG_BYTES)
    monkeypatch.undo()
    held = Held(store, made[-1])
    yield held
    await held.close()


async def turns(count: int = 5) -> None:
    """Let the event loop do what it can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(claim: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    async with asyncio.timeout(10):
        while not claim():
            await asyncio.sleep(0.001)


# -- order of events --------------------------------------------------------------------------------


async def test_nothing_is_answered_or_read_before_it_is_durable(held: Held) -> None:
    """Later changes see it, and wait for it: their answers would tell of it."""
    first = put(held.store, b"a", b"1")
    await turns()
    seen = held.store.submit(lambda txn: bytes(txn.get(b"a") or b""))
    await turns()
    assert len(held.io.held) == 1 and not first.done() and not seen.done()
    assert get(held.store, b"a") is None
    held.io.release()
    assert get(held.store, b"a") == b"1"
    await first
    assert await seen == b"1" and len(held.io.frames) == 1, "who only reads needs no frame"


async def test_what_comes_during_a_write_shares_the_next_frame(held: Held) -> None:
    futures = [put(held.store, b"0", b"")]
    await turns()
    for number in range(1, 6):
        futures.append(put(held.store, b"%d" % number, b""))
        await turns()
    held.io.release()
    await turns()
    assert len(held.io.frames) == 2
    held.io.release()
    await asyncio.gather(*futures)
    assert held.io.frames == [(0, 0, LOG_BLOCK_BYTES), (0, LOG_BLOCK_BYTES, LOG_BLOCK_BYTES)]


async def test_large_change_waits_for_the_batch_before_it_and_leaves_the_log_alone(held: Held) -> None:
    small = put(held.store, b"a", b"1")
    await turns()
    large = held.store.submit(
        lambda txn: txn.put(b"b", bytes(txn.get(b"a") or b"") * MIB), size=LOG_CHANGE_BYTES_MAX + 1
    )
    later = put(held.store, b"c", b"3")
    await turns()
    assert not small.done() and not large.done()
    held.io.release()
    await large
    assert small.done() and get(held.store, b"b") == b"1" * MIB
    await later
    assert len(held.io.frames) == 1, "the small one behind it went the same way"


async def test_change_that_hides_its_size_goes_to_lmdb_all_the_same(held: Held) -> None:
    first = put(held.store, b"a", b"1")
    large = held.store.submit(lambda txn: txn.put(b"b", bytes(3 * MIB)))
    await turns()
    held.io.release()
    await asyncio.gather(first, large)
    assert get(held.store, b"b") == bytes(3 * MIB) and len(held.io.frames) == 1


async def test_full_log_waits_for_the_checkpoint(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the table, and so in memory, is bounded by the files, however slow LMDB is."""
    commit = LmdbWriteTxn.commit
    go = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(txn: LmdbWriteTxn) -> None:
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)
        commit(txn)

    monkeypatch.setattr(LmdbWriteTxn, "commit", slow)
    futures = [put(held.store, b"%d" % number, bytes(4000)) for number in range(200)]
    for _ in range(1000):
        await asyncio.sleep(0)
        if held.io.held:
            held.io.release()
    written = sum(size for _, _, size in held.io.frames)
    assert 1.2 * LOG_BYTES < written <= 2 * LOG_BYTES and not futures[-1].done()
    assert get(held.store, b"0") == bytes(4000), "read from the table that is being checkpointed"
    go.set()
    while not futures[-1].done():
        await asyncio.sleep(0)
        if held.io.held:
            held.io.release()
    assert all(get(held.store, b"%d" % number) == bytes(4000) for number in range(200))


async def test_deleted_record_of_lmdb_stays_away_from_scans(held: Held) -> None:
    for number in range(6):
        future = held.store.submit(
            lambda txn, key=b"%d" % number: txn.put(key, b"old"),
            size=LOG_CHANGE_BYTES_MAX + 1,
        )
        await future
    changes: list[Awaitable[Any]] = [
        delete(held.store, b"1"),
        put(held.store, b"2", b"new"),
        put(held.store, b"25", b"new"),
    ]
    await turns()
    with held.store.read() as before:
        held.io.release()
        assert len(list(before.scan(b"", b"9"))) == 6, "a reader keeps its state"
        with held.store.read() as after:
            found = [(key, bytes(value)) for key, value in after.scan(b"1", b"4")]
    assert found == [(b"2", b"new"), (b"25", b"new"), (b"3", b"old")]
    assert await asyncio.gather(*changes) == [True, None, None]
    assert held.store.usage().records == 6


# -- crashes ----------------------------------------------------------------------------------------


@pytest.fixture(params=["asynchronous", "thread"])
def io(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to write the log."""
    if request.param == "thread":
        monkeypatch.setattr(logio, "AsyncIo", unsupported)
    return str(request.param)


def unsupported(*arguments: object) -> LogIo:
    raise OSError(errno.ENOSYS, "not here")


async def test_copy_of_a_running_store_has_all_that_was_acknowledged(tmp_path: Path, io: str) -> None:
    """Copying it between two turns is what a crash leaves."""
    store = LmdbStore.open(tmp_path / "store", map_bytes=64 * MIB, log_bytes=LOG_BYTES)
    assert isinstance(store._log._io, AsyncIo if io == "asynchronous" else ThreadIo)  # type: ignore[union-attr]
    keys = [b"%d" % number * (1 + number % 2 * 300) for number in range(100)]
    await asyncio.gather(*(put(store, key, key[:1] * 3000) for key in keys))
    for key in keys[::3]:
        await delete(store, key)
    await asyncio.to_thread(shutil.copytree, tmp_path / "store", tmp_path / "copy")
    await store.close()
    for folder in ("copy", "copy", "store"):  # Twice: the first start has cleared the log.
        again = LmdbStore.open(tmp_path / folder, map_bytes=64 * MIB)
        kept = sorted(set(keys) - set(keys[::3]))
        with again.read() as txn:
            assert [(key, bytes(value)) for key, value in txn.scan(b"", b"\xff")] == [
                (key, key[:1] * 3000) for key in kept
            ]
        await put(again, b"more", b"1")
        await delete(again, b"more")
        await again.close()


async def test_store_of_version_1_is_opened_and_gets_a_log(tmp_path: Path) -> None:
    old = LmdbStore.open(tmp_path, map_bytes=64 * MIB, log_bytes=0)
    await put(old, b"a", b"1")
    assert old.usage().records == 1
    await old.close()
    assert stored_format(tmp_path) == b"ssastore-store 1" and not (tmp_path / LOG_NAMES[0]).exists()
    new = LmdbStore.open(tmp_path, map_bytes=64 * MIB)
    assert get(new, b"a") == b"1" and new.usage().records == 1
    await put(new, b"b", b"2")
    await new.close()
    assert stored_format(tmp_path) == b"ssastore-store 2"
    assert [(tmp_path / name).stat().st_size for name in LOG_NAMES] == [MIB, MIB]


def stored_format(folder: Path) -> bytes | None:
    with lmdb.open(str(folder), max_dbs=1, readonly=True, lock=False) as env:
        long = env.open_db(LONG_NAME, create=False)
        with env.begin() as txn:
            found: bytes | None = txn.get(b"format", db=long)
            return found


async def crashed(folder: Path) -> LogRecord:
    """A store that a crash left with ten frames of a block in its log; what LMDB says of the log."""
    store = LmdbStore.open(folder / "store", map_bytes=64 * MIB, log_bytes=LOG_BYTES)
    for number in range(10):
        await put(store, b"%d" % number, b"value")
    shutil.copytree(folder / "store", folder / "crashed")
    record = store._log.record()  # type: ignore[union-attr]
    await store.close()
    return record


async def damage(folder: Path, frame: int) -> None:
    await crashed(folder)
    with (folder / "crashed" / LOG_NAMES[0]).open("r+b") as file:
        file.seek(frame * LOG_BLOCK_BYTES + 50)
        file.write(b"?")


@pytest.mark.parametrize("frame", [0, 4, 8])
async def test_damage_before_the_last_frame_is_refused(tmp_path: Path, frame: int) -> None:
    await damage(tmp_path, frame)
    for _ in range(2):  # Trying does not make it worse.
        with pytest.raises(DataDirError, match=f"batch {frame + 1} is missing, and batch {frame + 2}"):
            LmdbStore.open(tmp_path / "crashed", map_bytes=64 * MIB)


async def test_last_frame_that_is_not_whole_was_not_acknowledged(tmp_path: Path) -> None:
    await damage(tmp_path, 9)
    store = LmdbStore.open(tmp_path / "crashed", map_bytes=64 * MIB)
    with store.read() as txn:
        assert len(list(txn.scan(b"", b"\xff"))) == 9
    await store.close()


@pytest.mark.parametrize("name", LOG_NAMES)
async def test_log_that_is_missing_or_short_is_refused(tmp_path: Path, name: str) -> None:
    await crashed(tmp_path)
    path = tmp_path / "crashed" / name
    os.truncate(path, LOG_BYTES - 1)
    with pytest.raises(DataDirError, match="has 131071 bytes and should have 131072"):
        LmdbStore.open(tmp_path / "crashed", map_bytes=64 * MIB)
    path.unlink()
    with pytest.raises(DataDirError, match="cannot be read"):
        LmdbStore.open(tmp_path / "crashed", map_bytes=64 * MIB)


async def test_old_data_with_a_newer_log_are_refused(tmp_path: Path) -> None:
    """A backup of one file put beside the others: the batches between are gone."""
    store = LmdbStore.open(tmp_path / "store", map_bytes=64 * MIB, log_bytes=LOG_BYTES)
    old = (tmp_path / "store" / "data.mdb").read_bytes()
    for number in range(200):
        await put(store, b"%d" % number, bytes(2000))
    shutil.copytree(tmp_path / "store", tmp_path / "crashed")
    await store.close()
    (tmp_path / "crashed" / "data.mdb").write_bytes(old)
    with pytest.raises(DataDirError, match="batch 1 is missing"):
        LmdbStore.open(tmp_path / "crashed", map_bytes=64 * MIB)


# -- failures ---------------------------------------------------------------------------------------


async def test_failed_write_of_the_log_is_answered_to_nobody(tmp_path: Path, io: str) -> None:
    """The process ends; until then nothing more is written, and nobody sees what was."""
    died: list[BaseException] = []
    store = LmdbStore.open(tmp_path / "store", map_bytes=64 * MIB, die=died.append)
    await put(store, b"a", b"1")
    real: Any = store._log._io  # type: ignore[union-attr]
    for file in real._files:
        with open(os.devnull, "rb") as other:
            os.dup2(other.fileno(), file)
    futures = [put(store, b"b", b"2")]
    await until(lambda: bool(died))
    futures.append(put(store, b"c", b"3"))
    await asyncio.sleep(0.05)
    assert isinstance(died[0], OSError) and died[0].errno in (errno.EBADF, errno.EINVAL)
    assert not any(future.done() for future in futures)
    assert get(store, b"a") == b"1" and get(store, b"b") is None


DIES = """
    import asyncio, os, sys
    from ssastore.store.lmdb import LmdbStore

    async def main():
        store = LmdbStore.open(sys.argv[1], map_bytes=1 << 26)
        for file in store._log._io._files:
            os.dup2(os.open("/dev/full", os.O_RDONLY), file)
        await store.submit(lambda txn: txn.put(b"a", b"1"))
        print("acknowledged")

    asyncio.run(main())
"""


def test_failed_write_of_the_log_ends_the_process(tmp_path: Path) -> None:
    process = python(DIES, tmp_path / "store")
    output, _ = process.communicate()
    assert process.returncode == EXIT_LOG_FAILED and "acknowledged" not in output
    assert "the log could not be written" in output or "Bad file descriptor" in output


class Refusal:
    """Makes LMDB say that the map is full, for as long as ``is_on``, or for the next ``left`` records."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        apply = LmdbWriteTxn.apply

        def refuse(txn: LmdbWriteTxn, key: bytes, sealed: bytes | None) -> None:
            if self.left:
                self.left -= 1
                raise lmdb.MapFullError("planted")
            apply(txn, key, sealed)

        monkeypatch.setattr(LmdbWriteTxn, "apply", refuse)


async def test_checkpoint_without_room_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one piece it does not fit; the next change brings it into LMDB in parts."""
    store = LmdbStore.open(tmp_path, map_bytes=64 * MIB, log_bytes=LOG_BYTES)
    refusal = Refusal(monkeypatch)
    refusal.left = 2
    for number in range(60):
        await put(store, b"%d" % number, bytes(3000))
    assert refusal.left == 0
    with store.read() as txn:
        assert len(list(txn.scan(b"", b"\xff"))) == 60
    await store.close()
    again = LmdbStore.open(tmp_path, map_bytes=64 * MIB)
    assert again.usage().records == 60
    await again.close()


async def test_log_that_does_not_fit_stays_and_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start on a full disk: all that was acknowledged is served, writes are refused until there is room."""
    await crashed(tmp_path)
    refusal = Refusal(monkeypatch)
    refusal.left = 1_000_000
    for _ in range(2):
        store = LmdbStore.open(tmp_path / "crashed", map_bytes=64 * MIB)
        assert get(store, b"3") == b"value" and store.usage().records == 10
        for outcome in await asyncio.gather(
            put(store, b"a", b"1"), delete(store, b"3"), return_exceptions=True
        ):
            assert isinstance(outcome, StoreFull)
        await store.close()
    store = LmdbStore.open(tmp_path / "crashed", map_bytes=64 * MIB)
    refusal.left = 0
    assert await delete(store, b"3")
    await put(store, b"a", b"1")
    assert store.usage().records == 10
    await store.close()


async def test_bug_in_a_direct_commit_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(txn: LmdbWriteTxn) -> None:
        raise ZeroDivisionError("planted")

    store = LmdbStore.open(tmp_path, map_bytes=64 * MIB, log_bytes=0)
    monkeypatch.setattr(LmdbWriteTxn, "used_bytes", fail)
    for outcome in await asyncio.gather(*(put(store, b"a", b"1") for _ in range(2)), return_exceptions=True):
        assert isinstance(outcome, EnvironmentProblem) and "planted" in str(outcome)
    monkeypatch.undo()
    await put(store, b"a", b"1")
    await store.close()


async def test_cancelled_close_can_be_called_again(held: Held) -> None:
    future = put(held.store, b"a", b"1")
    await turns()
    closing = asyncio.ensure_future(held.store.close())
    await turns()
    closing.cancel()
    await turns()
    with pytest.raises(EnvironmentProblem, match="closed"):
        await held.store.submit(lambda txn: None)
    held.io.release()
    await future
    await held.store.close()
