"""How far an environment was: who is behind, and what a peer remembers."""

from __future__ import annotations

import pytest

from ssastore.core.marks import Watermark, recall, remember
from ssastore.core.records import mark_key
from ssastore.errors import ConfigError
from ssastore.store.memory import MemoryStore


def test_behind_is_a_lower_boot_or_a_lower_sequence() -> None:
    here = Watermark(3, 100)
    assert (
        not here.is_behind(here) and not here.is_behind(Watermark(2, 100)) and not here.is_behind(Watermark())
    )
    assert here.is_behind(Watermark(4, 1)) and here.is_behind(Watermark(1, 101))


def test_record_of_the_control_store() -> None:
    assert Watermark.decode(Watermark(3, 100).encode()) == Watermark(3, 100)
    for wrong in (b"", b"[]", b"{}", b'{"format": 2, "boot": 1, "sequence": 1}', b'{"format": 1, "boot": 1}'):
        with pytest.raises(ConfigError):
            Watermark.decode(wrong)


async def test_peer_keeps_the_highest_of_each() -> None:
    store = MemoryStore()
    told = [Watermark(2, 50), Watermark(1, 60), Watermark(2, 10)]
    answers = [await store.submit(lambda txn, mark=mark: remember(txn, 7, mark)) for mark in told]
    assert answers[-1] == Watermark(2, 60)
    with store.read() as txn:
        assert recall(txn, 7) == Watermark(2, 60) and recall(txn, 8) == Watermark()
    before = store.usage().used_bytes
    await store.submit(lambda txn: remember(txn, 7, Watermark(2, 60)))
    assert store.usage().used_bytes == before


async def test_damaged_mark_is_told_anew() -> None:
    store = MemoryStore()
    for damage in (b"short", None):
        await store.submit(lambda txn: remember(txn, 7, Watermark(2, 60)))
        if damage is None:
            store.poke(mark_key(7), b"rotten rotten")
        else:
            await store.submit(lambda txn, damage=damage: txn.put(mark_key(7), damage))
        with store.read() as txn:
            assert recall(txn, 7) == Watermark()
        assert await store.submit(lambda txn: remember(txn, 7, Watermark(2, 60))) == Watermark(2, 60)
