"""A whole worker and power cuts: puts and deletes that were acknowledged over the wire are on every disk.

A worker, its control store and a client run in one process under strace; disks are made of what the worker
wrote, and read with the real code.  How many: SSASTORE_TEST_POWERCUTS.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from pathlib import Path
from random import Random

import pytest

from ssastore import AsyncClient
from ssastore.client import AsyncBucket
from ssastore.config import NodeConfig, load
from ssastore.control.embedded import EmbeddedControlServer, EmbeddedControlStore
from ssastore.core.cluster import NodeRecord
from ssastore.core.objects import Objects
from ssastore.env import spawn
from ssastore.errors import BucketAlreadyExists, ObjectNotFound
from ssastore.keyspace import service_network
from ssastore.limits import MIB
from ssastore.rebalance import form_cluster, read_cluster
from ssastore.store.lmdb import LmdbStore
from ssastore.system import SystemClock, SystemRandomness
from ssastore.transport.tcp import simulated_links
from ssastore.worker import Worker
from tests.direct import DirectCaller
from tests.powercut import Recording, can_record, record

CUTS = int(os.environ.get("SSASTORE_TEST_POWERCUTS", "40"))

SERVICE, BUCKET = "fd5a:1:2:3::/64", "cuts"
KEYS, TURNS = 24, 12
"Each key is written so often by each of two processes."
MAP_BYTES = 32 * MIB
"The log is a share of it, so that checkpoints come often."

pytestmark = pytest.mark.skipif(not can_record(), reason="no strace that may trace")


def value_of(number: int, version: int) -> bytes | None:
    """What a key holds after its n-th change; None: it is deleted."""
    random = Random(1000 * number + version)
    if version == 0 or random.random() < 0.2:
        return None
    size = random.choice((10, 600, 4096, 4096, 20_000, 100_000 if number % 8 == 0 else 60_000))
    return b"%d/%d " % (number, version) + random.randbytes(size)


# -- the recorded program ---------------------------------------------------------------------------


def say(text: str) -> None:
    """One line on standard output, at its place among the writes."""
    os.write(1, f"{text}\n".encode())


async def run_worker(directory: Path) -> AsyncClient:
    """A worker in this process, as its supervisor would start it; a client of it."""
    server = await EmbeddedControlServer.start(directory / "control", directory / "control.sock")
    control = EmbeddedControlStore(directory / "control.sock")
    listener = socket.socket(socket.AF_INET6)
    port_file = directory / "port"
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::1", int(port_file.read_text()) if port_file.exists() else 0))
    listener.listen()
    port = listener.getsockname()[1]
    port_file.write_text(str(port))
    node = NodeRecord("n1", "fd5a:1:2:4::1", port, "", 1, 1)
    random_bytes = SystemRandomness().bytes
    now_ms = SystemClock().now_ms()
    await form_cluster(control, service_network(SERVICE), 1, [node], now_ms=now_ms, random_bytes=random_bytes)
    secrets = directory / "secrets.json"
    if not secrets.exists():
        secrets.write_text(
            '{"cluster_secret": "%s", "access_keys": {"AK": "secret-secret-secret"}}' % ("ab" * 32)
        )
        secrets.chmod(0o600)
    path = directory / "node.toml"
    path.write_text(
        f'name = "n1"\ncontrol = "{directory}/control.sock"\ndata_dir = "{directory}/data"\n'
        f'secrets_file = "{secrets}"\nport = {port}\nworkers = 1\nmanage_routes = false\n'
        f"map_bytes = {MAP_BYTES}\n"
    )
    spawn("worker", Worker(load(str(path), NodeConfig), 0, listener).serve())
    links = simulated_links(await read_cluster(control))
    assert server is not None
    return AsyncClient(SERVICE, access_key="AK", secret_key="secret-secret-secret", links=links)


async def write(directory: Path, half: int) -> None:
    """Change all keys side by side; say what is sent and what was acknowledged."""
    client = await run_worker(directory)
    try:
        bucket = await client.create_bucket(BUCKET)
    except BucketAlreadyExists:
        bucket = client.bucket(BUCKET)
    say("ready")
    works = [spawn(f"key {number}", change_key(bucket, number, half)) for number in range(KEYS)]
    # The first process ends in the middle, with calls under way.
    await asyncio.wait(works, return_when=asyncio.ALL_COMPLETED if half else asyncio.FIRST_COMPLETED)
    os._exit(0)


async def change_key(bucket: AsyncBucket, number: int, half: int) -> None:
    for version in range(1 + half * TURNS, 1 + (half + 1) * TURNS):
        data = value_of(number, version)
        say(f"sent {number} {version}")
        if data is None:
            await bucket.delete(f"{number:03}")
        else:
            await bucket.put(f"{number:03}", data)
        say(f"done {number} {version}")


# -- judging ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("wire")
    commands = [
        [sys.executable, "-m", "tests.integration.test_powercut_wire", str(folder), str(h)] for h in (0, 1)
    ]
    made = record(commands, folder / "data" / "worker-0", folder / "trace")
    assert made.printed(made.length).count(b"ready\n") == 2
    assert made.printed(made.length).count(b"done") > KEYS * TURNS
    return made


def states_at(printed: bytes) -> dict[int, set[bytes | None]]:
    """What each key may hold: after its last acknowledged change, or after one that was sent since."""
    allowed: dict[int, set[bytes | None]] = {number: {None} for number in range(KEYS)}
    for line in printed.decode().splitlines():
        if line == "ready":
            continue
        what, number, version = line.split()
        value = value_of(int(number), int(version))
        allowed[int(number)] = {value} if what == "done" else allowed[int(number)] | {value}
    return allowed


async def complaints_about(image: Path, printed: bytes) -> list[str]:
    """Keys whose content is not what it may be."""
    store = LmdbStore.open(image, map_bytes=MAP_BYTES)
    try:
        objects = Objects(DirectCaller(store), SystemClock(), SystemRandomness())  # type: ignore[arg-type]
        wrong = []
        for number, allowed in states_at(printed).items():
            try:
                found: bytes | None = await (await objects.open(BUCKET, f"{number:03}")).read()
            except ObjectNotFound:
                found = None
            if found not in allowed:
                wrong.append(f"key {number}: {found and found[:20]!r} of {[a and a[:10] for a in allowed]}")
        return wrong
    finally:
        await store.close()


def replay(recording: Recording, folder: Path, cuts: int, lying: str | None) -> list[str]:
    ready = next(cut for cut in range(recording.length) if b"ready" in recording.printed(cut))
    complaints = []
    for seed in range(cuts):
        random = Random(seed)
        cut = random.randrange(ready, recording.length + 1)
        image = folder / "image"
        recording.image(image, cut, random, is_lie=lambda file: lying is not None and file.startswith(lying))
        try:
            found = asyncio.run(complaints_about(image, recording.printed(cut)))
        except Exception as error:
            found = [repr(error)]
        complaints += [f"seed {seed}, cut at {cut}: {text}" for text in found]
        shutil.rmtree(image)
    return complaints


@pytest.mark.timeout(60 + CUTS)
def test_power_cut_loses_no_acknowledged_change(recording: Recording, tmp_path: Path) -> None:
    assert replay(recording, tmp_path, CUTS, None) == []


def test_log_on_a_disk_that_lies_is_noticed(recording: Recording, tmp_path: Path) -> None:
    """The method sees lost writes."""
    assert replay(recording, tmp_path, 8, "log.")


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
