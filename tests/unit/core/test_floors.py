"""The floor of a slice is what absent records have promised."""

from __future__ import annotations

from ssastore.core.floors import raise_floor, read_floor
from ssastore.core.register import NO_BALLOT, make_ballot
from ssastore.store.memory import MemoryStore

LOW, HIGH = make_ballot(5, 1, 1), make_ballot(6, 1, 1)


async def test_floor_never_decreases() -> None:
    store = MemoryStore()
    for ballot, expected in ((LOW, LOW), (HIGH, HIGH), (LOW, HIGH)):
        await store.submit(lambda txn, ballot=ballot: raise_floor(txn, 0x1A3F, ballot))
        with store.read() as txn:
            assert read_floor(txn, b"\x1a\x3f...") == expected
            assert read_floor(txn, b"\x1a\x3e...") == NO_BALLOT
