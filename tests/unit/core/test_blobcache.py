"""Blobs that many ask for: what is kept, what is shared, and what becomes of those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ssastore.core import blobcache
from ssastore.core.blobcache import BlobCache
from ssastore.errors import Unavailable
from ssastore.wire import Body


class Source:
    """Fetches take until ``go``; each brings its number."""

    def __init__(self, *failures: Exception | None) -> None:
        self.count = 0
        self.go = asyncio.Event()
        self._failures = list(failures)

    async def fetch(self) -> Body:
        self.count += 1
        number = self.count
        await self.go.wait()
        await asyncio.sleep(0)
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure
        return bytes([number])


def of(size: int) -> Callable[[], Awaitable[Body]]:
    async def fetch() -> Body:
        return bytes(size)

    return fetch


async def refuse() -> Body:
    raise AssertionError("it was kept")


async def test_callers_at_once_share_one_fetch() -> None:
    cache, source = BlobCache(), Source()
    readers = [asyncio.create_task(cache.get(b"a", source.fetch)) for _ in range(10)]
    others = asyncio.create_task(cache.get(b"b", source.fetch))
    await asyncio.sleep(0)
    source.go.set()
    assert [await reader for reader in readers] == [b"\x01"] * 10
    assert await others == b"\x02"
    assert (cache.fetches, cache.shared, cache.hits) == (2, 9, 0)
    assert await cache.get(b"a", source.fetch) == b"\x03", "nothing is kept without a limit"


async def test_who_gives_up_ends_it_for_nobody_else() -> None:
    cache, source = BlobCache(), Source()
    first, second, third = (asyncio.create_task(cache.get(b"a", source.fetch)) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    source.go.set()
    assert await third == b"\x02", "it fetched by itself"
    assert first.cancelled() and second.cancelled()
    assert not cache._under_way


async def test_a_failure_of_an_older_fetch_is_tried_again_once() -> None:
    source = Source(Unavailable("first"), None)
    cache = BlobCache()
    readers = [asyncio.create_task(cache.get(b"a", source.fetch)) for _ in range(4)]
    await asyncio.sleep(0)
    source.go.set()
    outcomes = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, bytes, bytes, bytes]
    assert source.count == 2


async def test_failures_are_not_tried_for_ever() -> None:
    source = Source(*[Unavailable(str(number)) for number in range(10)])
    cache = BlobCache()
    readers = [asyncio.create_task(cache.get(b"a", source.fetch)) for _ in range(6)]
    await asyncio.sleep(0)
    source.go.set()
    outcomes = await asyncio.gather(*readers, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["0", "1", "1", "1", "1", "1"]


async def test_what_is_fetched_twice_is_kept_and_the_longest_unused_goes() -> None:
    cache = BlobCache(100)
    assert len(await cache.get(b"a", of(60))) == 60
    assert cache.kept_bytes == 0, "once is not often"
    await cache.get(b"a", of(60))
    await cache.get(b"a", refuse)
    for _ in range(2):
        await cache.get(b"b", of(30))
    assert cache.kept_bytes == 90
    await cache.get(b"a", refuse)
    for _ in range(2):
        await cache.get(b"c", of(20))
    assert cache.kept_bytes == 80, "b was unused for longest"
    await cache.get(b"a", refuse)
    await cache.get(b"c", refuse)
    assert cache.hits == 4


async def test_one_scan_pushes_nothing_out() -> None:
    cache = BlobCache(100)
    for _ in range(2):
        await cache.get(b"hot", of(50))
    for number in range(1000):
        await cache.get(b"%d" % number, of(50))
    await cache.get(b"hot", refuse)


async def test_a_blob_larger_than_all_room_is_not_kept() -> None:
    cache = BlobCache(100)
    for _ in range(2):
        await cache.get(b"hot", of(100))
    for _ in range(3):
        await cache.get(b"large", of(101))
    await cache.get(b"hot", refuse)
    assert cache.kept_bytes == 100


async def test_names_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobcache, "_GHOSTS_MAX", 3)
    cache = BlobCache(100)
    for name in b"a", b"b", b"c", b"d":
        await cache.get(name, of(1))
    assert len(cache._ghosts) == 3
    await cache.get(b"a", of(1))
    assert cache.kept_bytes == 0, "forgotten since"
    await cache.get(b"d", of(1))
    assert cache.kept_bytes == 1
