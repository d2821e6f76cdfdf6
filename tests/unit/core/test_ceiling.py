"""The ceiling of promised ballots: never below a vote, ahead of the clock, and not driven by repairs."""

from __future__ import annotations

import pytest

from ssastore.core.ceiling import AHEAD_US, Ceiling, start_ceiling
from ssastore.core.records import CEILING_KEY
from ssastore.core.register import make_ballot
from ssastore.errors import DataDirError
from ssastore.store.memory import MemoryStore

NOW_MS = 1_700_000_000_000


async def opened(store: MemoryStore) -> Ceiling:
    ceiling = Ceiling()
    ceiling.open(store)
    return ceiling


async def new_store() -> MemoryStore:
    store = MemoryStore()
    await store.submit(start_ceiling)
    return store


def stored(store: MemoryStore) -> int:
    with store.read() as txn:
        return int.from_bytes(txn.get(CEILING_KEY) or b"", "big")


async def vote(store: MemoryStore, ceiling: Ceiling, counter: int) -> None:
    await store.submit(lambda txn: ceiling.cover(txn, make_ballot(counter, 1, 1), NOW_MS))
    assert counter <= stored(store) <= ceiling.top


async def test_every_vote_is_below_it() -> None:
    store = await new_store()
    ceiling = await opened(store)
    for counter in (5, NOW_MS * 1000, NOW_MS * 1000 + AHEAD_US + 7, NOW_MS * 2000):
        await vote(store, ceiling, counter)
    assert (await opened(store)).top == ceiling.top


async def test_vote_below_it_writes_nothing() -> None:
    store = await new_store()
    ceiling = await opened(store)
    await vote(store, ceiling, NOW_MS * 1000)
    await ceiling.keep_ahead(store, NOW_MS)
    before = stored(store)
    await vote(store, ceiling, NOW_MS * 1000 + AHEAD_US)
    assert stored(store) == before == NOW_MS * 1000 + AHEAD_US


async def test_repairs_do_not_drive_it_ahead() -> None:
    """Each repair votes just above it. If it leapt each time, proposers would be locked out in the end."""
    store = await new_store()
    ceiling = await opened(store)
    for _ in range(1000):
        await vote(store, ceiling, ceiling.top + 1)
    assert ceiling.top <= NOW_MS * 1000 + AHEAD_US + 1000


async def test_job_rests_when_nobody_votes() -> None:
    store = await new_store()
    ceiling = await opened(store)
    await ceiling.keep_ahead(store, NOW_MS)
    assert stored(store) == 0


async def test_rotten_one_is_written_again_from_memory() -> None:
    store = await new_store()
    ceiling = await opened(store)
    await vote(store, ceiling, NOW_MS * 1000)
    top = ceiling.top
    store.poke(CEILING_KEY, b"rotten bytes")
    await store.submit(ceiling.restore)
    assert stored(store) == top


@pytest.mark.parametrize("is_rotten", [True, False])
async def test_environment_without_one_does_not_open(is_rotten: bool) -> None:
    store = await new_store()
    if is_rotten:
        store.poke(CEILING_KEY, b"rotten bytes")
    else:
        await store.submit(lambda txn: txn.delete(CEILING_KEY))
    with pytest.raises(DataDirError):
        Ceiling().open(store)
