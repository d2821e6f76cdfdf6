"""The disk that fails: each way of failing, and what the store still promises then."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from ssastore.env import WriteTxn
from ssastore.errors import CorruptObject, EnvironmentProblem, StoreFull
from ssastore.sim.disk import Disk
from ssastore.sim.seeds import Stream
from ssastore.sim.world import World


def play(work: Coroutine[Any, Any, Any]) -> Any:
    return World(1).run(work)


def put(key: bytes, value: bytes, *, use_reserve: bool = False) -> Any:
    def change(txn: WriteTxn) -> None:
        txn.put(key, value, use_reserve=use_reserve)

    return change


def value_of(disk: Disk, key: bytes) -> bytes | None:
    with disk.read() as txn:
        found = txn.get(key)
        return None if found is None else bytes(found)


async def cut_during_a_commit(seed: int) -> tuple[bytes | None, bytes | None]:
    disk = Disk(draw=Stream(seed, "disk"), commit_ms=5)
    await disk.submit(put(b"a", b"told"))
    disk.submit(put(b"a", b"not told"))
    disk.submit(put(b"b", b"not told"))
    await asyncio.sleep(0.001)
    disk.crash()
    return value_of(disk, b"a"), value_of(disk, b"b")


def test_a_commit_that_nobody_was_told_of_is_there_as_a_whole_or_not_at_all() -> None:
    found = {play(cut_during_a_commit(seed)) for seed in range(20)}
    assert found == {(b"told", None), (b"not told", b"not told")}


def test_a_full_disk_takes_deletes_and_nothing_else() -> None:
    async def work() -> None:
        disk = Disk()
        await disk.submit(put(b"a", b"value"))
        disk.fill()
        with pytest.raises(StoreFull):
            await disk.submit(put(b"b", b"value"))
        assert await disk.submit(lambda txn: txn.delete(b"a"))
        disk.heal()
        await disk.submit(put(b"b", b"value"))

    play(work())


def test_a_commit_that_fails_keeps_nothing() -> None:
    async def work() -> None:
        disk = Disk()
        disk.fail(1)
        with pytest.raises(EnvironmentProblem):
            await disk.submit(put(b"a", b"value"))
        assert value_of(disk, b"a") is None
        await disk.submit(put(b"a", b"value"))
        assert value_of(disk, b"a") == b"value"

    play(work())


def test_a_stalled_disk_commits_late() -> None:
    async def work() -> float:
        disk = Disk(commit_ms=1)
        disk.stall(500)
        began = asyncio.get_running_loop().time()
        await disk.submit(put(b"a", b"value"))
        return asyncio.get_running_loop().time() - began

    assert play(work()) >= 0.5


@pytest.mark.parametrize("seed", range(20))
def test_rot_is_never_served(seed: int) -> None:
    async def work() -> None:
        disk = Disk(draw=Stream(seed, "disk"))
        assert disk.rot() is None
        await disk.submit(put(b"key", b"value"))
        assert disk.rot() == b"key"
        with pytest.raises(CorruptObject):
            value_of(disk, b"key")

    play(work())


def test_a_lying_disk_loses_what_it_said_was_durable() -> None:
    async def work() -> tuple[bytes | None, bytes | None]:
        disk = Disk()
        await disk.submit(put(b"old", b"value"))
        disk.is_lying = True
        await disk.submit(put(b"old", b"changed"))
        await disk.submit(put(b"new", b"value"))
        disk.crash()
        return value_of(disk, b"old"), value_of(disk, b"new")

    assert play(work()) == (b"value", None)


def test_every_committed_change_is_shown() -> None:
    seen: list[tuple[bytes, bool, bool]] = []

    async def work() -> None:
        disk = Disk()
        disk.watch = lambda key, before, after: seen.append((key, before is None, after is None))
        await disk.submit(put(b"a", b"value"))
        await disk.submit(put(b"a", b"other"))
        await disk.submit(lambda txn: txn.delete(b"a"))

    play(work())
    assert seen == [(b"a", True, False), (b"a", False, False), (b"a", False, True)]
