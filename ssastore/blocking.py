"""The client without ``await``: the same names on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
)
from concurrent.futures import CancelledError
from typing import Any, Self, TypeVar
from weakref import WeakSet

from ssastore.client import AsyncBucket, AsyncClient, Source
from ssastore.core.locate import Location
from ssastore.core.objects import CommonPrefix, ObjectInfo, ObjectReader
from ssastore.errors import OutcomeUnknown, Unavailable
from ssastore.limits import SHARDS_DEFAULT
from ssastore.system import loop_factory

T = TypeVar("T")


_CLOSING_S = 1.0
"How long calls of other threads have to end by themselves when the client is closed."


class _LoopThread:
    """An event loop that runs until ``stop``."""

    def __init__(self) -> None:
        factory = loop_factory() or asyncio.new_event_loop
        self.loop = factory()
        self.is_forked = False
        "This is a forked child, where the thread is not."
        self._is_stopping = False
        self._asking = threading.RLock()
        "Of who asks or stops; again in one thread, where the collector may end an iterator at any place."
        self._thread = threading.Thread(target=self.loop.run_forever, name="ssastore client", daemon=True)
        self._thread.start()
        _THREADS.add(self)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of ``work``. Raises Unavailable, OutcomeUnknown when the loop is stopped."""
        if self.is_forked:
            work.close()
            raise RuntimeError(_FORKED)
        with self._asking:
            if self._is_stopping:
                work.close()
                raise Unavailable("the client was closed")
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except CancelledError:
            raise OutcomeUnknown("the client was closed in the middle of the call") from None
        except BaseException:
            future.cancel()  # Ctrl-C in the middle: the call must not go on behind its caller's back.
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def step() -> tuple[bool, T | None]:
            try:
                return True, await anext(items)
            except StopAsyncIteration:
                return False, None

        async def close() -> None:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

        try:
            while True:
                is_item, item = self.run(step())
                if not is_item:
                    return
                yield item  # type: ignore[misc]  # an item is there when is_item says so
        finally:
            # The collector may end a forgotten iterator on any thread; the loop's own cannot wait.
            is_there = not (self.is_forked or self._is_stopping)
            if is_there and threading.current_thread() is not self._thread:
                self.run(close())

    def stop(self, closing: Callable[[], Awaitable[None]] | None = None) -> None:
        """End the loop after ``closing``, with what other threads wait for: nobody else would tell them.

        Nothing the second time, and in a forked child.
        """
        if self.is_forked:
            return
        with self._asking:
            if self._is_stopping:
                return
            self._is_stopping = True
        asyncio.run_coroutine_threadsafe(_end(closing), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _end(closing: Callable[[], Awaitable[None]] | None) -> None:
    if closing is not None:
        await closing()
    late = asyncio.all_tasks() - {asyncio.current_task()}
    if late:
        _, late = await asyncio.wait(late, timeout=_CLOSING_S)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=_CLOSING_S)


_THREADS: WeakSet[_LoopThread] = WeakSet()
_FORKED = "a client must not be used across a fork"


def _forked() -> None:
    for thread in _THREADS:
        thread.is_forked = True


os.register_at_fork(after_in_child=_forked)


class Reader:
    """A stream of one version of an object; iterate over it, or ``read`` it all."""

    def __init__(self, reader: ObjectReader, thread: _LoopThread) -> None:
        self._reader = reader
        self._thread = thread
        self.info = reader.info
        self.size = reader.size

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._thread.iterate(aiter(self._reader)):
            yield bytes(chunk)

    def read(self) -> bytes:
        """All bytes of the range."""
        return self._thread.run(self._reader.read())


async def _pulled(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of an iterator that may block, or call this client: taken on other threads."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


class Client:
    """``AsyncClient`` without ``await``; takes the same arguments. Safe to share between threads.

    Not with a forked child: that needs a client of its own, and is told so by a RuntimeError.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """See ``AsyncClient``."""
        self._start(lambda: AsyncClient(*args, **options))

    def _start(self, make: Any) -> None:
        self._thread = _LoopThread()

        async def build() -> AsyncClient:
            client: AsyncClient = make()
            return client

        try:
            self._client = self._thread.run(build())
        except BaseException:
            self._thread.stop()
            raise

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """See ``AsyncClient.from_url``."""
        client = cls.__new__(cls)
        client._start(lambda: AsyncClient.from_url(url, **options))
        return client

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """See ``AsyncClient.from_env``."""
        client = cls.__new__(cls)
        client._start(lambda: AsyncClient.from_env(**options))
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread; calls under way end as those of ``AsyncClient`` do."""
        self._thread.stop(self._client.close)

    def bucket(self, name: str) -> Bucket:
        """See ``AsyncClient.bucket``."""
        return Bucket(self._client.bucket(name), self._thread)

    def create_bucket(self, name: str, *, shards: int = SHARDS_DEFAULT) -> Bucket:
        """See ``AsyncClient.create_bucket``."""
        return Bucket(self._thread.run(self._client.create_bucket(name, shards=shards)), self._thread)

    def delete_bucket(self, name: str) -> None:
        """See ``AsyncClient.delete_bucket``."""
        self._thread.run(self._client.delete_bucket(name))

    def list_buckets(self) -> Iterator[str]:
        """See ``AsyncClient.list_buckets``."""
        return self._thread.iterate(self._client.list_buckets())

    def put_content(self, content: bytes) -> str:
        """See ``AsyncClient.put_content``."""
        return self._thread.run(self._client.put_content(content))

    def get_content(self, digest: str) -> bytes:
        """See ``AsyncClient.get_content``."""
        return self._thread.run(self._client.get_content(digest))

    def locate_content(self, digest: str) -> Location:
        """See ``AsyncClient.locate_content``."""
        return self._client.locate_content(digest)


class Bucket:
    """``AsyncBucket`` without ``await``."""

    def __init__(self, bucket: AsyncBucket, thread: _LoopThread) -> None:
        self._bucket = bucket
        self._thread = thread
        self.name = bucket.name

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> ObjectInfo:
        """See ``AsyncBucket.put``. ``data`` may come from this client too, as from ``open``."""
        assert not isinstance(data, AsyncIterable), "the blocking client takes blocking sources"
        is_iterable = isinstance(data, Reader) or not (
            isinstance(data, bytes | bytearray | memoryview) or hasattr(data, "read")
        )
        return self._thread.run(
            self._bucket.put(
                key,
                _pulled(iter(data)) if is_iterable else data,  # type: ignore[arg-type]  # bytes, by type
                content_type=content_type,
                metadata=metadata,
                if_match=if_match,
                if_none_match=if_none_match,
            )
        )

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """See ``AsyncBucket.get``."""
        return self._thread.run(self._bucket.get(key, start=start, length=length))

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Reader:
        """See ``AsyncBucket.open``."""
        return Reader(self._thread.run(self._bucket.open(key, start=start, length=length)), self._thread)

    def head(self, key: str) -> ObjectInfo:
        """See ``AsyncBucket.head``."""
        return self._thread.run(self._bucket.head(key))

    def delete(self, key: str, *, if_match: str | None = None) -> bool:
        """See ``AsyncBucket.delete``."""
        return self._thread.run(self._bucket.delete(key, if_match=if_match))

    def list(
        self, prefix: str = "", *, delimiter: str = "", start_after: str = ""
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        """See ``AsyncBucket.list``."""
        return self._thread.iterate(self._bucket.list(prefix, delimiter=delimiter, start_after=start_after))

    def locate(self, key: str) -> Location:
        """See ``AsyncBucket.locate``."""
        return self._thread.run(self._bucket.locate(key))

    def explain(self, key: str) -> dict[str, Any]:
        """See ``AsyncBucket.explain``."""
        return self._thread.run(self._bucket.explain(key))
