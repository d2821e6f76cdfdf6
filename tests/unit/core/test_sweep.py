"""References in one environment: what keeps a blob, and when it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from blake3 import blake3

from ssastore.core import blobstore
from ssastore.core.blobstore import (
    UNKNOWN_REFERENCE,
    Reference,
    adopt,
    drop_reference,
    mark_orphan,
    put_blob,
    references_of,
)
from ssastore.core.records import blob_key, reference_key
from ssastore.env import WriteTxn
from ssastore.messages import PutBlob
from ssastore.store.memory import MemoryStore

CONTENT = b"content"
DIGEST: bytes = blake3(CONTENT).digest()
LOCATOR = 0x0A42_0001
NOW = 1_700_000_000_000


class Blobs:
    """One store, and what tests do to it."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    async def do(self, change: Callable[[WriteTxn], Any]) -> Any:
        return await self.store.submit(change)

    async def put(self, reference: bytes, at_ms: int = NOW) -> None:
        request = PutBlob(LOCATOR << 32, DIGEST, reference)
        await self.do(lambda txn: put_blob(request, LOCATOR, txn, CONTENT, at_ms))

    async def drop(self, reference: bytes, at_ms: int = NOW) -> bool:
        key = reference_key(LOCATOR, DIGEST, reference)
        return bool(await self.do(lambda txn: drop_reference(txn, key, at_ms)))

    @property
    def is_there(self) -> bool:
        with self.store.read() as txn:
            return txn.get(blob_key(LOCATOR, DIGEST)) is not None

    def references(self) -> list[Reference | None]:
        with self.store.read() as txn:
            return [reference for _, reference in references_of(txn, LOCATOR, DIGEST)]


async def test_blob_goes_with_its_last_reference() -> None:
    blobs = Blobs()
    await blobs.put(b"one")
    await blobs.put(b"two")
    assert await blobs.drop(b"one") and blobs.is_there
    assert await blobs.drop(b"two") and not blobs.is_there
    assert blobs.store.usage().records == 0


async def test_reference_that_was_renewed_stays() -> None:
    """The examination saw an older time: somebody has stored the blob again meanwhile."""
    blobs = Blobs()
    await blobs.put(b"one", NOW)
    await blobs.put(b"one", NOW + 5)
    assert not await blobs.drop(b"one", NOW) and blobs.is_there
    assert await blobs.drop(b"one", NOW + 5)


async def test_mutant_that_does_not_look_at_the_time_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobstore, "decode_reference", lambda stored: Reference(NOW, b"one"))
    blobs = Blobs()
    await blobs.put(b"one", NOW)
    await blobs.put(b"one", NOW + 5)
    assert await blobs.drop(b"one", NOW) and not blobs.is_there, "a blob that was just stored is gone"


async def test_rotten_reference_keeps_its_blob() -> None:
    blobs = Blobs()
    await blobs.put(b"one")
    await blobs.put(b"two")
    blobs.store.poke(reference_key(LOCATOR, DIGEST, b"two"), b"rotten bytes")
    assert await blobs.drop(b"one") and blobs.is_there
    assert not await blobs.drop(b"two") and blobs.is_there
    assert blobs.references() == [None]


async def test_orphan_gets_a_grace_time_of_its_own() -> None:
    blobs = Blobs()
    await blobs.do(lambda txn: txn.put(blob_key(LOCATOR, DIGEST), CONTENT))
    for at_ms in (NOW, NOW + 9):
        await blobs.do(lambda txn, at=at_ms: mark_orphan(txn, blob_key(LOCATOR, DIGEST), at))
    assert blobs.references() == [Reference(NOW, UNKNOWN_REFERENCE)]
    assert await blobs.drop(UNKNOWN_REFERENCE) and not blobs.is_there


async def test_orphan_that_is_stored_again_outlives_its_mark() -> None:
    blobs = Blobs()
    await blobs.do(lambda txn: txn.put(blob_key(LOCATOR, DIGEST), CONTENT))
    await blobs.do(lambda txn: mark_orphan(txn, blob_key(LOCATOR, DIGEST), NOW))
    await blobs.put(b"one")
    assert await blobs.drop(UNKNOWN_REFERENCE) and blobs.is_there


async def test_adopted_references_keep_their_times_and_replace_what_is_rotten() -> None:
    blobs = Blobs()
    taken = [Reference(NOW - 7, b"one"), Reference(NOW - 8, b"two")]
    await blobs.do(lambda txn: adopt(txn, LOCATOR, DIGEST, CONTENT, taken))
    assert blobs.is_there and {r for r in blobs.references() if r} == set(taken)
    blobs.store.poke(blob_key(LOCATOR, DIGEST), b"rotten bytes")
    blobs.store.poke(reference_key(LOCATOR, DIGEST, b"two"), b"rotten bytes")
    await blobs.do(lambda txn: adopt(txn, LOCATOR, DIGEST, CONTENT, taken))
    assert blobs.is_there and {r for r in blobs.references() if r} == set(taken)


async def test_time_of_a_reference_that_is_here_is_not_set_back() -> None:
    blobs = Blobs()
    await blobs.put(b"one", NOW)
    await blobs.do(lambda txn: adopt(txn, LOCATOR, DIGEST, CONTENT, [Reference(NOW - 9, b"one")]))
    assert blobs.references() == [Reference(NOW, b"one")]
