"""What is deleted stays deleted and gives its space back, and nothing that is needed goes (T-GC-01, T-GC-02).

The times are short here: a delete is remembered for seconds, a blob without an object is kept for
seconds more, and every worker scrubs all the time.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ssastore.messages import Kind
from tests.lab.shared import parent_of, wait_until
from tests.lab.test_scrub import SHAPE, keys_of, scrub, with_store
from tests.labs import PYTHON, RunningLab, running_lab, start_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

SETTINGS = ("tombstone_kept_s=4", "blob_grace_s=10", "scrub_every_s=3")
SHORT = (*SHAPE, *[part for setting in SETTINGS for part in ("--node-setting", setting)])
NODES = ("n1", "n2", "n3", "n4")

DELETES = int(os.environ.get("SSASTORE_SOAK_DELETES", "2000"))
LIVE = DELETES // 4
BOOKKEEPING_BYTES = 64 << 10
"Of a node: floors, and pages that are not full."
BACK_S = 60 + DELETES / 100

USE = """
import asyncio, sys
from ssastore import AsyncClient
from ssastore.errors import ObjectNotFound
from ssastore.system import run

async def many(first, end, call):
    for at in range(first, end, 200):
        await asyncio.gather(*[call(n) for n in range(at, min(at + 200, end))])

async def main(what, live, deletes):
    async with AsyncClient.from_env() as client:
        bucket = client.bucket("photos")
        if what == "live":
            bucket = await client.create_bucket("photos")
            await many(0, live, lambda n: bucket.put(f"live{n}", b"live %d" % n * 50))
        elif what == "dead":
            await many(0, deletes, lambda n: bucket.put(f"dead{n}", b"dead %d" % n * 50))
        elif what == "delete":
            await many(0, deletes, lambda n: bucket.delete(f"dead{n}"))
        else:
            async def check(n):
                assert await bucket.get(f"live{n}") == b"live %d" % n * 50
            await many(0, live, check)
            async def gone(n):
                try:
                    await bucket.get(f"dead{n}")
                except ObjectNotFound:
                    return
                raise AssertionError(f"dead{n} is back")
            await many(0, deletes, gone)
            listed = [entry.key async for entry in bucket.list("dead")]
            assert listed == [], listed[:5]
        print("done")

run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""

LARGE = """
import asyncio, hashlib, os, sys, time
from ssastore import AsyncClient
from ssastore.errors import SsaStoreError
from ssastore.system import run

MIB = 1 << 20

def block(n):
    return hashlib.shake_128(b"%d" % n).digest(MIB)

async def stream(first, count):
    for n in range(first, first + count):
        yield block(n)

async def main():
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket("photos")
        await bucket.put("large", stream(0, 300))
        # Shares its blobs with a part of the other, by digest.
        await bucket.put("kept", stream(0, 280))
        print("stored", flush=True)
        sys.stdin.readline()
        at = 0
        try:
            async for piece in await bucket.open("large"):
                await asyncio.to_thread(check, at, bytes(piece))
                at += len(piece)
                if at == 4 * MIB:
                    await bucket.delete("large")
                    print("deleted", flush=True)
                if at % (16 * MIB) == 0:
                    await asyncio.sleep(float(sys.argv[1]))
            print(f"whole {at}", flush=True)
        except SsaStoreError as error:
            print(f"{type(error).__name__} {at}", flush=True)
        sys.stdin.readline()
        at = 0
        async for piece in await bucket.open("kept"):
            check(at, bytes(piece))
            at += len(piece)
        assert at == 280 * MIB, at
        # An upload that breaks off.
        async def broken():
            for n in range(1000, 1040):
                yield block(n)
            raise ZeroDivisionError
        try:
            await bucket.put("broken", broken())
        except ZeroDivisionError:
            pass
        await bucket.delete("kept")
        print("done", flush=True)

def check(at, piece):
    n = at // MIB
    whole = b"".join(block(n + more) for more in range(len(piece) // MIB + 2))
    assert whole[at % MIB:at % MIB + len(piece)] == piece, f"other bytes at {at}"

run(main())
"""


def use(lab: RunningLab, what: str) -> None:
    assert lab.python(USE, what, str(LIVE), str(DELETES), timeout=600).split() == ["done"]


def used_bytes(lab: RunningLab) -> int:
    return sum(worker.get("used_bytes", 0) for node in lab.status()["nodes"] for worker in node["workers"])


def records(lab: RunningLab) -> int:
    return sum(worker.get("records", 0) for node in lab.status()["nodes"] for worker in node["workers"])


def test_deletes_while_a_node_is_away_stay_and_give_their_space_back(tmp_path: Path) -> None:
    """The node has all of them as objects when it comes back; nobody may forget before."""
    with running_lab(tmp_path, "forget", *SHORT) as lab:
        use(lab, "live")
        lab.stop()
        lab = start_lab(tmp_path, "forget", *SHORT)  # From then on all of it is in pages, as at the end.
        live_records, live_bytes = records(lab), used_bytes(lab)
        use(lab, "dead")
        os.kill(parent_of(lab.worker_pid("n2")), signal.SIGKILL)
        use(lab, "delete")
        use(lab, "read")
        lab.stop()
        lab = start_lab(tmp_path, "forget", *SHORT)
        # Some bookkeeping is left: floors, and the queue of what was just written.
        wait_until(lambda: records(lab) <= live_records + 200, "all deletes are forgotten", BACK_S)
        use(lab, "read")
        found = scrub(lab)
        assert found["health"] == "healthy", found
        lab.stop()
        lab = start_lab(tmp_path, "forget", *SHORT)
        print(f"\n{DELETES} deletes: {live_bytes} bytes before, {used_bytes(lab)} after", end=" ")
        assert used_bytes(lab) <= 1.1 * live_bytes + len(NODES) * BOOKKEEPING_BYTES


def test_large_objects_give_back_their_space_and_none_that_is_needed_goes(tmp_path: Path) -> None:
    """Manifests, blobs that two objects share, a slow reader of what is deleted, an upload that broke off."""
    with running_lab(tmp_path, "large", *SHORT) as lab:
        with lab.start(PYTHON, "-c", LARGE, "1.0") as work:
            use_and_delete(lab, work)
        assert work.returncode == 0
        wait_until(lambda: used_bytes(lab) < 4 << 20, "all space is given back", 120)
        assert scrub(lab)["health"] == "healthy"
        lab.stop()
        for node in NODES:
            for kind in (Kind.BLOB, Kind.REF):
                assert with_store(lab, node, lambda store, kind=kind: names(store, kind)) == []


def use_and_delete(lab: RunningLab, work: subprocess.Popen[str]) -> None:
    tell, heard = work.stdin, work.stdout
    assert tell is not None and heard is not None
    assert heard.readline() == "stored\n"
    stored = records(lab)
    print(file=tell, flush=True)
    assert heard.readline() == "deleted\n"
    ended = heard.readline().split()
    # Complete, or an error: never other bytes. (Those would have ended the script.)
    assert ended[0] in ("whole", "CorruptObject"), ended
    print(f"\na reader of a deleted object: {' '.join(ended)}", end=" ")
    # Its references to 75 chunks and a manifest, and the 5 chunks and the manifest that no other has.
    wait_until(lambda: records(lab) < stored - 3 * 80, "what only the deleted object had is gone", 90)
    print(file=tell, flush=True)
    assert heard.readline() == "done\n"


async def names(store: Any, kind: Kind) -> list[bytes]:
    return keys_of(store, kind)
