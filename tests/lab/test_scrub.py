"""Damage on real disks: planted while nodes are stopped, found and put right by a scrub.

What is planted (T-SCRUB-01): a missing chunk, an orphan, a wrong chunk, lost records, a node that was
down while others wrote; and single flipped bits in the LMDB file.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from ssastore.core.records import BOOKKEEPING_FIRST, blob_key, in_plane, split_place
from ssastore.core.survey import walk
from ssastore.keyspace import position_of_blob
from ssastore.messages import Kind
from ssastore.store.lmdb import LmdbStore
from tests.lab.shared import parent_of, wait_until
from tests.labs import RunningLab, running_lab, start_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1")
OBJECTS, LARGE = 2000, 6
FLIPS = 400
"One bit each, of another value each."
FLIPPED_OBJECTS = 1000
HEAD = 36
"Bytes of a stored slot before its value: its ballots make it unlike any other."

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
        elif what == "again":
            await bucket.put("large0", bytes(5_000_000))
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


def test_flipped_bits_are_never_served_and_healed_by_one_pass(tmp_path: Path) -> None:
    """In values. What a flip in LMDB's own pages does to an environment is not for a scrub to mend."""
    with running_lab(tmp_path, "flips", *SHAPE) as lab:
        use(lab, "write", FLIPPED_OBJECTS, 3)
        lab.stop()
        with_store(lab, "n1", flip_values)
        flipped = with_store(lab, "n1", rotten)
        assert len(flipped) == FLIPS
        lab = start_lab(tmp_path, "flips", *SHAPE)
        found = scrub(lab, codes=(0, 1))
        # Of a copy whose mates are too busy to answer a pass says that it is not good, and looks again soon.
        assert found["unrepaired"] <= FLIPS // 100, found
        wait_until(lambda: lab.status()["health"] == "healthy", f"{found} is looked at again", 60)
        use(lab, "read", FLIPPED_OBJECTS, 3)
        repaired = sum(w["scrub"]["repaired"] for node in lab.status()["nodes"] for w in node["workers"])
        assert repaired == FLIPS
        lab.stop()
        assert not with_store(lab, "n1", rotten)


def test_what_no_pass_can_heal_is_said_with_its_reason(tmp_path: Path) -> None:
    """Two of three copies of some records are rotten: what was agreed on is not known any more."""
    with running_lab(tmp_path, "lost", *SHAPE) as lab:
        use(lab, "write", 300, 0)
        lab.stop()
        names = [set(with_store(lab, node, object_names)) for node in ("n1", "n2")]
        lost = sorted(names[0] & names[1])[:3]
        assert len(lost) == 3
        for node in ("n1", "n2"):
            with_store(lab, node, lambda store: rot(store, lost))
        lab = start_lab(tmp_path, "lost", *SHAPE)
        found = scrub(lab, codes=(1,))
        assert found["unrepaired"] == 6 and "not good" in found["health"], found
        assert found["why"]["too few of its other copies can be read"] == 6, found
        said = lab.cli("scrub", "--wait", check=False)
        assert said.returncode == 1 and "too few of its other copies can be read" in said.stdout
        assert "not good" in lab.status()["health"]


def test_objects_that_lost_their_data_on_all_nodes_are_named(tmp_path: Path) -> None:
    """As after backups of different moments. Of another one only references are gone."""
    with running_lab(tmp_path, "named", *SHAPE) as lab:
        use(lab, "write", 100, 3)
        lab.stop()
        nodes = ("n1", "n2", "n3", "n4")
        taken = [with_store(lab, node, take_data) for node in nodes]
        kept = set(with_store(lab, "n1", references))
        lab = start_lab(tmp_path, "named", *SHAPE)
        found = scrub(lab, codes=(1,))
        assert sum(taken) == 3 * 2 * 3 and found["unrepaired"] == 1, found
        assert found["objects"] == ["photos/large0"] and "not good" in found["health"], found
        said = lab.cli("scrub", "--wait", check=False)
        assert said.returncode == 1 and "lack of a blob: photos/large0" in said.stdout
        use(lab, "again", 100, 3)
        assert scrub(lab)["health"] == "healthy"
        use(lab, "read", 100, 3)
        lab.stop()
        assert set(with_store(lab, "n1", references)) > kept


async def take_data(store: LmdbStore) -> int:
    """From an environment the blobs of large0, and all references to those of large0 and large1; how many."""
    with store.read() as txn:
        first = {key: bytes(txn.get(key) or b"")[0] for key in keys_of(store, Kind.BLOB)}
    blobs = [key for key, byte in first.items() if byte == 0]
    digests = {key[5:] for key, byte in first.items() if byte < 2}
    gone = [*blobs, *[key for key in await references(store) if key[5:37] in digests]]
    await store.submit(lambda txn: [txn.delete(key) for key in gone])
    return len(gone)


async def references(store: LmdbStore) -> list[bytes]:
    return keys_of(store, Kind.REF)


async def object_names(store: LmdbStore) -> list[bytes]:
    return [in_plane(key, 0) for key in keys_of(store, Kind.OBJECT)]


async def rot(store: LmdbStore, names: list[bytes]) -> None:
    """One bit of each of these records."""
    held = {in_plane(key, 0): key for key in keys_of(store, Kind.OBJECT)}
    with store.read() as txn:
        values = [bytes(txn.get(held[name]) or b"") for name in names]
    flip(store, values, random.Random(7))


async def flip_values(store: LmdbStore) -> None:
    """One bit of each of some values."""
    draw = random.Random(7)
    with store.read() as txn:
        held = [bytes(txn.get(key) or b"") for key in keys_of(store, Kind.OBJECT)]
    flip(store, draw.sample(held, FLIPS), draw)


def flip(store: LmdbStore, values: list[bytes], draw: random.Random) -> None:
    """In LMDB's file; in the copies that pages which are free hold as well, since they look the same."""
    path = Path(store._directory.path) / "data.mdb"
    wanted = {value[:HEAD]: (value, draw.randrange(len(value)), 1 << draw.randrange(8)) for value in values}
    image = path.read_bytes()
    with open(path, "r+b") as file:
        for found in re.finditer(rb"\x02\0\0\0", image):  # What a stored slot begins with.
            at = found.start()
            value, place, bit = wanted.get(image[at : at + HEAD], (b"", 0, 0))
            if value and image.startswith(value, at):  # Else other things have been written over its end.
                file.seek(at + place)
                file.write(bytes([image[at + place] ^ bit]))


async def rotten(store: LmdbStore) -> list[bytes]:
    with store.read() as txn:
        return [key for key, value in walk(txn, b"\0", BOOKKEEPING_FIRST) if value is None]
