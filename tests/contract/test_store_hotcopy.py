"""A copy of a store that another process writes to: a whole beginning of what it was told to keep."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from ssastore.backups import copy_node
from ssastore.core.boot import make_durable, read_environment
from ssastore.core.marks import Watermark
from ssastore.errors import ConfigError, DataDirError, EnvironmentProblem
from ssastore.limits import KIB, MIB
from ssastore.store.hotcopy import open_copy, snapshot
from ssastore.store.lmdb import LIB_VERSION, LmdbStore

MAP_BYTES = 256 * MIB

WRITER = f"""
    import asyncio, sys
    from ssastore.core.boot import make_durable
    from ssastore.core.marks import Watermark
    from ssastore.limits import KIB, LOG_CHANGE_BYTES_MAX
    from ssastore.store.lmdb import LIB_VERSION, LmdbStore

    async def main():
        store = LmdbStore.open(sys.argv[1], map_bytes={MAP_BYTES}, log_bytes={256 * KIB})
        await make_durable(store, 7, Watermark(3, 9))
        for at in range(1 << 30):
            # Two records that belong together; now and then past the log.
            def change(txn, at=at):
                txn.put(b"a%08d" % at, at.to_bytes(8, "big") * 200)
                txn.put(b"b%08d" % (at % 50), at.to_bytes(8, "big"))
            await store.submit(change, size=LOG_CHANGE_BYTES_MAX + 1 if at % 97 == 0 else 1600)
            print(at, flush=True)

    asyncio.run(main())
"""


@contextmanager
def writer(path: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to the store at ``path`` without end; ``log`` says what was acknowledged."""
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(path)], stdout=out)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def acknowledged(log: Path) -> int:
    lines = log.read_bytes().split(b"\n")
    return int(lines[-2]) if len(lines) > 1 else -1


async def check(path: Path, before: int) -> int:
    """The copy holds all that was acknowledged before it, and what it holds has no gap; how far it goes."""
    store = open_copy(path, MAP_BYTES)
    try:
        with store.read() as txn:
            keys = [bytes(key) for key, _ in txn.scan(b"a", b"b")]
            last = len(keys) - 1
            assert keys == [b"a%08d" % at for at in range(last + 1)] and last >= before
            latest = [int.from_bytes(bytes(value), "big") for _, value in txn.scan(b"b", b"c")]
            assert max(latest) == last, "both records of a change are there"
            assert bytes(txn.get(b"a%08d" % last) or b"") == last.to_bytes(8, "big") * 200
    finally:
        await store.close()
    return last


def wait_for(process: subprocess.Popen[bytes], log: Path, count: int) -> None:
    """Until so many more changes are acknowledged."""
    wanted = acknowledged(log) + count
    while acknowledged(log) < wanted:
        assert process.poll() is None
        time.sleep(0.005)


async def test_copies_of_a_store_that_is_written_to_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log is so small that it changes files, and is brought into LMDB, in the middle of a copy."""
    tries: list[str] = []

    def slow(path: Path, target: Path) -> None:
        tries.append(path.name)
        if len(tries) <= 2:  # Both files are filled anew: before the first is copied, and before the second.
            wait_for(process, log, 500)
        target.write_bytes(path.read_bytes())

    source, log = tmp_path / "source", tmp_path / "log"
    with writer(source, log) as process:
        wait_for(process, log, 300)
        monkeypatch.setattr("ssastore.store.hotcopy.shutil.copyfile", slow)
        reached = []
        for number in range(8):
            before, target = acknowledged(log), tmp_path / f"copy{number}"
            target.mkdir()
            with snapshot(source, target) as copy:
                copy()
            reached.append(await check(target, before))
        assert process.poll() is None and reached == sorted(set(reached)), "it went on meanwhile"
    assert len(tries) > 2 * 8, "the first copy of the log was cut, and made again"


async def test_what_a_stopped_store_held_is_in_the_copy_and_the_copy_votes_for_nothing(
    tmp_path: Path,
) -> None:
    node, out = tmp_path / "node", tmp_path / "out"
    store = LmdbStore.open(node / "worker-0", map_bytes=MAP_BYTES)
    await make_durable(store, 7, Watermark(3, 9))
    await store.submit(lambda txn: txn.put(b"key", b"value"))
    await store.close()
    with pytest.raises(ConfigError, match=r"no node\.json"):
        copy_node(node, out, MAP_BYTES)
    (node / "node.json").write_text('{"node": "n1"}')
    (node / "secrets.json").write_text('{"cluster_secret": "0123"}')
    (node / "worker-0.old").mkdir()
    made = copy_node(node, out, MAP_BYTES)
    assert (made.workers, made.records) == (1, 1)
    assert sorted(path.name for path in out.iterdir()) == ["node.json", "worker-0"]
    assert sorted(path.name for path in (out / "worker-0").iterdir()) == ["data.mdb", "log.0", "log.1"]
    for path in (out, *out.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    for path, env_id in ((out, 0), (node, 7)):
        opened = LmdbStore.open(path / "worker-0", map_bytes=MAP_BYTES)
        with opened.read() as txn:
            assert read_environment(txn)[0] == env_id and bytes(txn.get(b"key") or b"") == b"value"
        await opened.close()
    with pytest.raises(ConfigError, match="exists"):
        copy_node(node, out, MAP_BYTES)


async def test_what_is_damaged_or_no_store_leaves_nothing_behind(tmp_path: Path) -> None:
    node = tmp_path / "node"
    (node / "worker-0").mkdir(parents=True)
    (node / "node.json").write_text("{}")
    for content in (None, b"", os.urandom(64 * KIB)):
        if content is not None:
            (node / "worker-0" / "data.mdb").write_bytes(content)
        with pytest.raises(DataDirError, match="worker-0"):
            copy_node(node, tmp_path / "out", MAP_BYTES)
    assert [path.name for path in tmp_path.iterdir()] == ["node"]


async def test_a_copy_is_of_the_moment_of_its_snapshot(tmp_path: Path) -> None:
    """What is written before the data are read is not in it: several stores are copied as of one moment."""
    source, target, log = tmp_path / "source", tmp_path / "target", tmp_path / "log"
    target.mkdir()
    with writer(source, log) as process:
        wait_for(process, log, 300)
        before = acknowledged(log)
        with snapshot(source, target) as copy:
            taken = acknowledged(log)
            wait_for(process, log, 1_000)  # Several times through both files of the log.
            copy()
    assert await check(target, before) <= taken + 2


def test_all_stores_are_held_before_the_first_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record and its blob lie in two workers' stores."""
    told = tmp_path / "told"

    @contextmanager
    def noted(source: Path, target: Path) -> Iterator[Callable[[], None]]:
        def note(what: str) -> None:
            with told.open("a") as file:
                file.write(f"{what} {source.name}\n")

        with snapshot(source, target) as copy:
            note("holds")

            def noted_copy() -> None:
                note("copies")
                copy()

            yield noted_copy

    monkeypatch.setattr("ssastore.backups.snapshot", noted)
    node = a_node(tmp_path, workers=2)
    copy_node(node, tmp_path / "out", MAP_BYTES)
    assert told.read_text().split("\n")[:-1] == [
        "holds worker-0",
        "holds worker-1",
        "copies worker-0",
        "copies worker-1",
    ]


def test_a_copy_does_not_lie_in_what_is_copied(tmp_path: Path) -> None:
    node = a_node(tmp_path)
    (tmp_path / "link").symlink_to(node)
    for out in (node / "worker-9", tmp_path / "link" / "copy"):
        with pytest.raises(ConfigError, match="lies in"):
            copy_node(node, out, MAP_BYTES)
    assert sorted(path.name for path in node.iterdir()) == ["node.json", "worker-0"]


def test_a_copy_without_room_is_not_the_stores_fault(tmp_path: Path) -> None:
    """Method: of a store without a log, whose data are larger than this process may write a file."""
    node = a_node(tmp_path, log_bytes=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12 * KIB, before[1]))
    try:
        with pytest.raises(EnvironmentProblem, match=r"out\.part/worker-0 cannot be written: .*too large"):
            copy_node(node, tmp_path / "out", MAP_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["node"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_who_ends_a_copy_in_the_middle_waits_for_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Method: its data go to a file of a size that is allowed, and the process stands still there."""
    node, out = a_node(tmp_path), tmp_path / "out"
    config = tmp_path / "n1.toml"
    settings = {"name": "n1", "control": "c", "data_dir": str(node), "secrets_file": "s"}
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    command = ["backup", "node", "--config", str(config), "--out", str(out)]
    # Who opens a store that nobody has open begins with a new table of readers.
    runs = subprocess.Popen([sys.executable, "-c", OPEN, str(node / "worker-0")], stdout=subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", STUCK, *command], stderr=subprocess.PIPE, text=True)
    try:
        assert runs.stdout is not None and runs.stdout.read(1)
        look_at_an_end(node, out, process, number)
    finally:
        for each in (process, runs):
            each.kill()
            each.communicate()


def look_at_an_end(node: Path, out: Path, process: subprocess.Popen[str], number: signal.Signals) -> None:
    part = out.with_name("out.part")
    while not (part / "worker-0" / "stuck").exists():
        assert process.poll() is None
        time.sleep(0.01)
    copier = int((part / "worker-0" / "stuck").read_text())
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    while is_there(copier):
        time.sleep(0.01)
    assert part.exists() == (number == signal.SIGKILL) and not out.exists()
    if number == signal.SIGKILL:
        with pytest.raises(ConfigError, match=r"out\.part is there"):
            copy_node(node, out, MAP_BYTES)
        shutil.rmtree(part)
        copy_node(node, out, MAP_BYTES)
    else:
        assert process.returncode == 130 and "interrupted" in said
    with lmdb.open(str(node / "worker-0"), readonly=True, max_dbs=1, lib_version=LIB_VERSION) as env:
        assert str(copier) not in env.readers(), "nobody holds back what the store frees"


OPEN = f"""
import lmdb, sys, time
env = lmdb.open(sys.argv[1], readonly=True, max_dbs=1, lib_version={LIB_VERSION})
print(1, flush=True)
time.sleep(1000)
"""

STUCK = """
import ctypes, os, sys
import ssastore.store.hotcopy as hotcopy
from ssastore.cli import main

def stuck(env, txn, source, target):
    (target / "new").write_text(str(os.getpid()))
    (target / "new").rename(target / "stuck")
    ctypes.PyDLL(None).sleep(1000)  # Hears no signal in Python, as LMDB.

hotcopy._copy_data = stuck
main()
"""


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def a_node(tmp_path: Path, workers: int = 1, log_bytes: int = 256 * KIB) -> Path:
    """A node's directory, with stores that hold something."""
    node = tmp_path / "node"

    async def fill() -> None:
        for number in range(workers):
            store = LmdbStore.open(node / f"worker-{number}", map_bytes=MAP_BYTES, log_bytes=log_bytes)
            await store.submit(lambda txn: txn.put(b"key", bytes(64 * KIB)), size=64 * KIB)
            await store.close()

    asyncio.run(fill())
    (node / "node.json").write_text("{}")
    return node
