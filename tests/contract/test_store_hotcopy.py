"""A copy of a store that another process writes to: a whole beginning of what it was told to keep."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ssastore.backups import copy_node
from ssastore.core.boot import make_durable, read_environment
from ssastore.core.marks import Watermark
from ssastore.errors import ConfigError, DataDirError
from ssastore.limits import KIB, MIB
from ssastore.store.hotcopy import copy_store, open_copy
from ssastore.store.lmdb import LmdbStore

MAP_BYTES = 256 * MIB

WRITER = f"""
    import asyncio, sys
    from ssastore.core.boot import make_durable
    from ssastore.core.marks import Watermark
    from ssastore.limits import KIB, LOG_CHANGE_BYTES_MAX
    from ssastore.store.lmdb import LmdbStore

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
            copy_store(source, target)
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
        await copy_node(node, out, MAP_BYTES)
    (node / "node.json").write_text('{"node": "n1"}')
    made = await copy_node(node, out, MAP_BYTES)
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
        await copy_node(node, out, MAP_BYTES)


async def test_what_is_damaged_or_no_store_leaves_nothing_behind(tmp_path: Path) -> None:
    node = tmp_path / "node"
    (node / "worker-0").mkdir(parents=True)
    (node / "node.json").write_text("{}")
    for content in (None, b"", os.urandom(64 * KIB)):
        if content is not None:
            (node / "worker-0" / "data.mdb").write_bytes(content)
        with pytest.raises(DataDirError, match="worker-0"):
            await copy_node(node, tmp_path / "out", MAP_BYTES)
    assert [path.name for path in tmp_path.iterdir()] == ["node"]
