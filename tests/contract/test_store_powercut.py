"""The LMDB store and power cuts: recorded writes, many disks made of them, each opened with the real code.

How many disks: SSASTORE_TEST_POWERCUTS, by default some dozens.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from ssastore.env import WriteTxn
from ssastore.limits import KIB, MIB
from ssastore.store.lmdb import LmdbStore
from tests.powercut import Recording, can_record, record

CUTS = int(os.environ.get("SSASTORE_TEST_POWERCUTS", "40"))

OPERATIONS = 420
LOG_BYTES = 128 * KIB
"Small: a checkpoint every few dozen operations, and each file used many times."
COUNT = b"!count"

pytestmark = pytest.mark.skipif(not can_record(), reason="no strace that may trace")

State = dict[bytes, bytes]


def operation(number: int) -> tuple[bytes, bytes | None]:
    """Key and value (None: delete) of an operation; the same in every process."""
    random = Random(number)
    key = b"key %03d" % random.randrange(90) * random.choice((1, 1, 1, 70, 150))
    if random.random() < 0.15:
        return key, None
    size = random.choice((10, 600, 600, 4096, 4096, 6000, 15_000 if number % 3 else 40_000))
    if number % 97 == 0:
        size = 700 * KIB
    return key, random.randbytes(8) * (size // 8)


def change(number: int) -> Callable[[WriteTxn], None]:
    """An operation as a change; it also counts itself, so that a state says how many are in it."""
    key, value = operation(number)

    def run(txn: WriteTxn) -> None:
        last = int(bytes(txn.get(COUNT) or b"0"))
        assert last == number, f"operation {number} after {last}"
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)
        txn.put(COUNT, b"%d" % (number + 1))

    return run


async def write(path: str, first: int, end: int, is_closed: bool) -> None:
    """The recorded program: operations, some at once, each acknowledged on standard output."""
    store = LmdbStore.open(path, map_bytes=64 * MIB, log_bytes=LOG_BYTES)
    with store.read() as txn:
        first = max(first, int(bytes(txn.get(COUNT) or b"0")))
    os.write(1, b"ready\n")

    async def one(number: int) -> None:
        _, value = operation(number)
        await store.submit(change(number), size=len(value or b""))
        os.write(1, b"%d\n" % number)

    random = Random(first)
    while first < end:
        count = min(random.choice((1, 2, 5, 16, 40)), end - first)
        await asyncio.gather(*(one(number) for number in range(first, first + count)))
        first += count
    if is_closed:
        await store.close()
    os._exit(0)


def states() -> list[State]:
    """What the store holds after the first n operations, for every n."""
    state: State = {}
    found = [dict(state)]
    for number in range(OPERATIONS):
        key, value = operation(number)
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
        state[COUNT] = b"%d" % (number + 1)
        found.append(dict(state))
    return found


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Three processes on one folder: two that end in the middle, one that closes."""
    folder = tmp_path_factory.mktemp("recorded")
    thirds = [0, OPERATIONS // 3, 2 * OPERATIONS // 3, OPERATIONS]
    commands = [
        [sys.executable, __file__, str(folder / "store"), str(first), str(end), str(int(end == OPERATIONS))]
        for first, end in pairwise(thirds)
    ]
    made = record(commands, folder / "store", folder / "trace")
    assert made.printed(made.length).count(b"\n") == OPERATIONS + 3
    return made


async def lost(folder: Path, acknowledged: int, expected: list[State]) -> str:
    """What is wrong with the store in ``folder``, if anything is."""
    store = LmdbStore.open(folder, map_bytes=64 * MIB, log_bytes=LOG_BYTES)
    try:
        with store.read() as txn:
            found = {bytes(key): bytes(value) for key, value in txn.scan(b"", b"\xff")}
        count = int(found.get(COUNT, b"0"))
        if count < acknowledged:
            return f"{acknowledged} operations were acknowledged, {count} are there"
        if found != expected[count]:
            return f"the state is not that after {count} operations"
        assert store.usage().records == len(found)
        if count < OPERATIONS:  # It goes on where it stopped.
            await store.submit(change(count))
            with store.read() as txn:
                assert txn.get(COUNT) == b"%d" % (count + 1)
        return ""
    finally:
        await store.close()


def replay(recording: Recording, folder: Path, cuts: int, is_lie: Callable[[str], bool]) -> list[str]:
    """Complaints about ``cuts`` disks."""
    expected = states()
    ready = next(cut for cut in range(recording.length) if recording.printed(cut))
    complaints = []
    for seed in range(cuts):
        random = Random(seed)
        cut = random.randrange(ready, recording.length + 1)
        recording.image(folder / "image", cut, random, is_lie=is_lie)
        lines = recording.printed(cut).split()
        acknowledged = max((int(line) + 1 for line in lines if line != b"ready"), default=0)
        try:
            complaint = asyncio.run(lost(folder / "image", acknowledged, expected))
        except Exception as error:
            complaint = repr(error)
        if complaint:
            complaints.append(f"seed {seed}, cut at {cut}: {complaint}")
        shutil.rmtree(folder / "image")
    return complaints


@pytest.mark.timeout(60 + CUTS)
def test_power_cut_loses_nothing_that_was_acknowledged(recording: Recording, tmp_path: Path) -> None:
    """After any cut the store opens by itself and holds a whole number of operations, all acknowledged ones
    among them."""
    assert replay(recording, tmp_path, CUTS, lambda file: False) == []


@pytest.mark.parametrize("lying", ["log.", "data."])
def test_disk_that_lies_is_noticed(recording: Recording, tmp_path: Path, lying: str) -> None:
    """The method sees lost writes: with syncs of the log, or of LMDB, that do nothing, some are."""
    assert len(replay(recording, tmp_path, 15, lambda file: file.startswith(lying))) >= 3


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"))
