"""What only the LMDB store can do wrong: files, locks, crashes, real disks. The suite is in test_store.py."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import lmdb
import pytest

from ssastore.env import WriteTxn
from ssastore.errors import (
    ConfigError,
    CorruptObject,
    DataDirError,
    EnvironmentProblem,
    SsaStoreError,
    StoreFull,
)
from ssastore.limits import KIB, LOG_CHANGE_BYTES_MAX, MIB, STORE_READERS_MAX
from ssastore.store.datadir import LOCK_NAME
from ssastore.store.lmdb import DATA_NAME, LONG_NAME, LmdbStore
from ssastore.store.recovery import FORMAT


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LmdbStore]:
    opened = LmdbStore.open(tmp_path / "store", map_bytes=4 * MIB)
    yield opened
    await opened.close()


def put(store: LmdbStore, key: bytes, value: bytes) -> asyncio.Future[None]:
    return store.submit(lambda txn: txn.put(key, value), size=len(value))


def put_direct(store: LmdbStore, key: bytes, value: bytes) -> asyncio.Future[None]:
    """A put that says it is too large for the log."""
    return store.submit(lambda txn: txn.put(key, value), size=LOG_CHANGE_BYTES_MAX + 1)


def delete(store: LmdbStore, key: bytes) -> asyncio.Future[bool]:
    return store.submit(lambda txn: txn.delete(key))


def get(store: LmdbStore, key: bytes) -> bytes | None:
    with store.read() as txn:
        value = txn.get(key)
        return None if value is None else bytes(value)


def python(script: str, *arguments: object, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Run a script in a process of its own."""
    command = [*wrapper, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


# -- opening ----------------------------------------------------------------------------------------


async def test_records_are_there_after_reopening(tmp_path: Path, store: LmdbStore) -> None:
    await put(store, b"short", b"1")
    await put(store, b"long" * 300, b"2")
    await store.close()
    again = LmdbStore.open(tmp_path / "store", map_bytes=4 * MIB)
    assert get(again, b"short") == b"1" and get(again, b"long" * 300) == b"2"
    assert again.usage().records == 2
    await again.close()


async def test_second_open_is_refused(tmp_path: Path, store: LmdbStore) -> None:
    path = tmp_path / "store"
    with pytest.raises(DataDirError, match=f"in use by process {os.getpid()}"):
        LmdbStore.open(path)
    script = "import sys; from ssastore.store.lmdb import LmdbStore; LmdbStore.open(sys.argv[1])"
    refused, _ = python(script, path).communicate()
    assert f"DataDirError: data directory {path} is in use by process {os.getpid()}" in refused
    await put(store, b"a", b"the first one is not disturbed")
    await store.close()
    await LmdbStore.open(path).close()


async def test_directory_is_private(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "deep" / "store", map_bytes=MIB)
    await put(store, b"a", b"1")
    await store.close()
    path = tmp_path / "deep" / "store"
    assert path.stat().st_mode & 0o777 == 0o700
    assert {child.name: child.stat().st_mode & 0o777 for child in path.iterdir()} == {
        LOCK_NAME: 0o600,
        DATA_NAME: 0o600,
        "lock.mdb": 0o600,
        "log.0": 0o600,
        "log.1": 0o600,
    }
    assert (path / DATA_NAME).stat().st_blocks * 512 < 100 * KIB, "the map is sparse"


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/no-such-place"])
def test_path_that_cannot_be_a_directory_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataDirError, match="cannot be used"):
        LmdbStore.open(tmp_path / place)


@pytest.mark.parametrize("garbage", [b"not a database " * 1000, b"x"])
def test_damaged_file_is_refused(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / DATA_NAME).write_bytes(garbage)
    for _ in range(2):  # The first refusal must have unlocked the directory.
        with pytest.raises(DataDirError, match="damaged"):
            LmdbStore.open(tmp_path)


def test_environment_of_another_program_is_refused(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path)) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"1")
    with pytest.raises(DataDirError, match="another program"):
        LmdbStore.open(tmp_path)
    with lmdb.open(str(tmp_path)) as env, env.begin() as txn:
        assert txn.get(b"theirs") == b"1" and txn.stat()["entries"] == 1


async def test_other_format_is_refused(tmp_path: Path, store: LmdbStore) -> None:
    await store.close()
    path = tmp_path / "store"
    with lmdb.open(str(path), max_dbs=1) as env:
        long = env.open_db(LONG_NAME)
        with env.begin(write=True) as txn:
            txn.put(FORMAT, b"ssastore-store 3", db=long)
    with pytest.raises(DataDirError, match="ssastore-store 3"):
        LmdbStore.open(path)


async def test_map_smaller_than_the_data_is_refused(tmp_path: Path, store: LmdbStore) -> None:
    await put(store, b"a", bytes(2 * MIB))
    await store.close()
    path = tmp_path / "store"
    with pytest.raises(ConfigError, match="too small"):
        LmdbStore.open(path, map_bytes=MIB)
    with pytest.raises(ConfigError, match="too small"):
        LmdbStore.open(tmp_path / "tiny", map_bytes=8 * KIB)
    again = LmdbStore.open(path, map_bytes=3 * MIB)
    assert get(again, b"a") == bytes(2 * MIB)
    await again.close()


async def test_cut_file_is_damage_of_records_and_not_of_the_process(tmp_path: Path, store: LmdbStore) -> None:
    """Reading a mapped page behind the end of the file would be SIGBUS."""
    await put(store, b"a", b"1")
    await put(store, b"z", b"z" * MIB)
    await store.close()
    data = tmp_path / "store" / DATA_NAME
    os.truncate(data, data.stat().st_size - MIB // 2)
    again = LmdbStore.open(tmp_path / "store", map_bytes=4 * MIB)
    with pytest.raises((CorruptObject, EnvironmentProblem)):
        get(again, b"z")
    await again.close()


async def test_damaged_marker_of_long_keys_is_found(tmp_path: Path, store: LmdbStore) -> None:
    key = b"k" * 501
    await put(store, key, b"1")
    await store.close()
    path = tmp_path / "store"
    with lmdb.open(str(path)) as env, env.begin(write=True) as txn:
        txn.put(key[:500] + b"\0", bytes(16))
    again = LmdbStore.open(path, map_bytes=4 * MIB)
    assert get(again, key) == b"1"
    with again.read() as read, pytest.raises(CorruptObject, match="marker"):
        list(read.scan(b"", b"z"))
    await again.close()


def test_store_is_not_usable_in_a_forked_child(tmp_path: Path) -> None:
    script = """
        import os, sys
        from ssastore.store.lmdb import LmdbStore
        store = LmdbStore.open(sys.argv[1])
        child = os.fork()
        for use in (store.read, lambda: store.do(lambda txn: None, print)) if child == 0 else ():
            try:
                use()
            except AssertionError as error:
                print(error, flush=True)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    """
    output, _ = python(script, tmp_path / "store").communicate()
    assert output.splitlines() == ["a store must not be used across a fork"] * 2


# -- transactions -----------------------------------------------------------------------------------


async def test_change_that_does_not_fit_the_map_fails_alone(store: LmdbStore) -> None:
    """LMDB itself says that the map is full; the batch runs again, one change at a time.

    Method: an open read transaction pins the pages of the old value, so overwriting it uses up the map
    although few pages hold records and the store sees no reason to refuse.
    """
    ran: list[str] = []

    def swallow(txn: WriteTxn) -> None:
        ran.append("swallow")
        try:
            txn.put(b"big", bytes(500 * KIB))
        except StoreFull:
            return

    await put(store, b"small", b"1")
    with store.read():
        with pytest.raises(StoreFull, match="MAP_FULL"):
            for _ in range(20):
                await put(store, b"big", bytes(400 * KIB))
        outcomes = await asyncio.gather(
            put(store, b"new", b"2"),
            store.submit(swallow),
            delete(store, b"small"),
            return_exceptions=True,
        )
    assert [type(outcome) for outcome in outcomes] == [type(None), StoreFull, bool]
    assert ran == ["swallow"] * 4, "in a batch for the log, alone in one, among others on LMDB, alone there"
    assert get(store, b"new") == b"2" and get(store, b"small") is None
    assert get(store, b"big") == bytes(400 * KIB)
    await put(store, b"big", bytes(500 * KIB))


async def test_too_many_old_states_that_are_read_are_an_error_and_not_a_crash(store: LmdbStore) -> None:
    """Readers of one state share a transaction of LMDB; each state that is still read needs its own."""
    with contextlib.ExitStack() as stack:
        for _ in range(3 * STORE_READERS_MAX):
            stack.enter_context(store.read())
        for number in range(STORE_READERS_MAX):
            stack.enter_context(store.read())
            await put_direct(store, b"a", b"%d" % number)
        with pytest.raises(EnvironmentProblem, match="READERS_FULL"):
            stack.enter_context(store.read())
        with pytest.raises(EnvironmentProblem, match="READERS_FULL"):
            await put(store, b"a", b"x")
    assert get(store, b"a") == b"%d" % (STORE_READERS_MAX - 1)
    await put(store, b"a", b"y")


def test_commits_are_synced(store: LmdbStore) -> None:
    """No test here can cut the power, and a killed process leaves its writes to the kernel."""
    flags = store._databases.env.flags()
    assert flags["sync"] and flags["metasync"] and flags["lock"] and flags["meminit"]
    assert not flags["writemap"] and not flags["map_async"]


# -- crashes and full disks -------------------------------------------------------------------------

WRITER = """
    import asyncio, itertools, sys
    from ssastore.store.lmdb import LmdbStore

    async def main():
        store = LmdbStore.open(sys.argv[1], map_bytes=1 << 28)
        first = int(sys.argv[2])

        async def write(lane):
            for number in itertools.count(first + lane, 32):
                key = b"%08d" % number * (1 + number % 2 * 80)
                await store.submit(lambda txn: txn.put(key, key * (number % 7)))
                print(number, flush=True)

        await asyncio.gather(*(write(lane) for lane in range(32)))

    asyncio.run(main())
"""


async def test_acknowledged_writes_survive_kill(tmp_path: Path) -> None:
    acknowledged: set[int] = set()
    for number_of_kill in range(5):
        writer = python(WRITER, tmp_path / "store", number_of_kill * 1_000_000)
        assert writer.stdout is not None
        acknowledged |= {int(line) for line in itertools.islice(writer.stdout, 100 + 40 * number_of_kill)}
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        acknowledged |= {int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")}
        assert writer.returncode == -signal.SIGKILL

        store = LmdbStore.open(tmp_path / "store", map_bytes=1 << 28)
        for number in acknowledged:
            key = b"%08d" % number * (1 + number % 2 * 80)
            assert get(store, key) == key * (number % 7)
        with store.read() as txn:
            listed = [bytes(key) for key, _ in txn.scan(b"", b":")]
        assert listed == sorted(listed) and len(listed) == store.usage().records >= len(acknowledged)
        await store.close()
    assert len(acknowledged) >= 500


FULL_DISK = """
    import asyncio, os, sys
    from ssastore.errors import StoreFull
    from ssastore.store.lmdb import LmdbStore

    async def fill(store, size):
        kept = []
        try:
            while True:
                key = b"%06d" % len(kept)
                await store.submit(lambda txn: txn.put(key, key * (size // 6)))
                kept.append(key)
        except StoreFull as error:
            print("full:", error)
        return kept

    async def main():
        path, ballast, reserve, size = *sys.argv[1:3], *map(int, sys.argv[3:5])
        with open(ballast, "wb") as file:
            file.write(bytes(1 << 20))
        store = LmdbStore.open(path, map_bytes=1 << 30, disk_reserve_bytes=reserve)
        kept = await fill(store, size)
        print("kept", len(kept) * size)
        await store.close()
        store = LmdbStore.open(path, map_bytes=1 << 30, disk_reserve_bytes=reserve)
        with store.read() as txn:
            assert [key for key, value in txn.scan(b"", b":") if value == key * (size // 6)] == kept
        if not reserve:
            os.unlink(ballast)
        for key in kept:
            assert await store.submit(lambda txn: txn.delete(key))
        again = await fill(store, size)
        print("again", len(again) * size)
        await store.close()

    asyncio.run(main())
"""

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    return (
        subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not can_mount(), reason="no user and mount namespace for a small disk")
@pytest.mark.parametrize(
    ("reserve", "message"), [(2 * MIB, "the disk is full"), (0, "the store is full: mdb_txn_commit")]
)
@pytest.mark.parametrize("size", [600, 60_000])
def test_full_disk_takes_deletes_and_then_puts_again(
    tmp_path: Path, reserve: int, message: str, size: int
) -> None:
    """With the reserve the store refuses in time. Without it the kernel refuses: nothing is lost either, but
    deletes wait until somebody else has made room.
    """
    mounted = ("sh", "-c", 'mount -t tmpfs -o size=12m disk "$0" && exec "$@"', str(tmp_path))
    arguments = (tmp_path / "store", tmp_path / "ballast", reserve, size)
    process = python(FULL_DISK, *arguments, wrapper=(*NAMESPACE, *mounted))
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert output.count(message) == 2, output
    figures = dict(line.split() for line in output.splitlines() if line.startswith(("kept", "again")))
    assert int(figures["kept"]) > 5 * MIB
    assert int(figures["again"]) > 0.7 * int(figures["kept"])


async def test_store_error_reaches_everybody(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that fails for another reason than room is reported to all of its changes."""

    def fail(txn: object) -> None:
        raise lmdb.Error("mdb_txn_commit", errno.EIO)

    monkeypatch.setattr("ssastore.store.lmdbtxn.LmdbWriteTxn.commit", fail)
    outcomes = await asyncio.gather(
        put_direct(store, b"a", b"1"), delete(store, b"b"), put(store, b"c", b"2"), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [EnvironmentProblem] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3
    assert all(isinstance(outcome, SsaStoreError) and "commit" in str(outcome) for outcome in outcomes)
    monkeypatch.undo()
    assert get(store, b"a") is None


@pytest.mark.parametrize("is_one_reader", [True, False])
async def test_damaged_page_hides_its_own_records_only(tmp_path: Path, is_one_reader: bool) -> None:
    """LMDB gives up a transaction in which it has met one: the records of all other pages are read on."""
    keys = [b"key-%05d" % number for number in range(2000)]
    store = LmdbStore.open(tmp_path / "store", map_bytes=16 * MIB)
    await asyncio.gather(*[put(store, key, key * 10) for key in keys])
    await store.close()
    data = tmp_path / "store" / DATA_NAME
    pages = bytearray(data.read_bytes())
    page_bytes = 4096
    pages[pages.rfind(keys[1000]) // page_bytes * page_bytes + 13] ^= 0x80  # The offset of its free space.
    data.write_bytes(pages)
    store = LmdbStore.open(tmp_path / "store", map_bytes=16 * MIB)
    readers = [store.read()] * len(keys) if is_one_reader else [store.read() for _ in keys]
    lost = []
    with contextlib.ExitStack() as stack:
        if is_one_reader:
            stack.enter_context(readers[0])
        for key, reader in zip(keys, readers, strict=True):
            with contextlib.nullcontext(reader) if is_one_reader else reader as txn:
                try:
                    assert txn.get(key) == key * 10
                except CorruptObject:
                    lost.append(key)
    assert lost == keys[keys.index(lost[0]) :][: len(lost)] and keys[1000] in lost, "one page"
    assert len(lost) < 60
    assert store.usage().records == len(keys)
    await store.close()


async def test_who_still_holds_what_it_has_read_from_takes_no_place_among_the_readers(
    store: LmdbStore,
) -> None:
    """As a traceback does, until the garbage collector comes by."""
    held = []
    for number in range(2 * STORE_READERS_MAX):
        await put_direct(store, b"key", b"%d" % number)
        with store.read() as txn:
            assert txn.get(b"key") == b"%d" % number
        held.append(txn)
    assert get(store, b"key") == b"%d" % (len(held) - 1)
