"""Blobs that many ask for: one fetch for all of them, and the hot ones kept. Pure asyncio.

A blob's digest says what it holds, so unlike a record it may be kept for as long as one likes, and who asks
while it is being fetched may have what comes: which blobs an object has is read from its record each time.
Linearizability asks nothing of them.

What is read once, as by a backup, is not to push out what is read all the time: a blob is kept when it is
fetched a second time while its name is still remembered (the ghost queue of 2Q, Johnson and Shasha 1994).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from ssastore.errors import SsaStoreError
from ssastore.wire import Body

_GHOSTS_MAX = 4096
"Digests remembered of what was fetched once: 32 bytes and an entry each."


class BlobCache:
    """Verified blobs by digest, the longest unused given up first.

    Args:
        limit_bytes: of all blobs kept; 0 keeps none, and fetches are shared all the same.
    """

    def __init__(self, limit_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self._kept: OrderedDict[bytes, Body] = OrderedDict()
        self._ghosts: OrderedDict[bytes, None] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Future[Body | SsaStoreError | None]] = {}
        self.kept_bytes = 0
        self.hits = 0
        "Blobs that nobody was asked for."
        self.shared = 0
        "Those that came of another caller's fetch."
        self.fetches = 0

    async def get(self, digest: bytes, fetch: Callable[[], Awaitable[Body]]) -> Body:
        """What was kept, or a fetch under way brings, or ``fetch`` brings. Raises as that does."""
        failure: SsaStoreError | None = None
        while True:
            content = self._kept.get(digest)
            if content is not None:
                self._kept.move_to_end(digest)
                self.hits += 1
                return content
            waiting = self._under_way.get(digest)
            if waiting is None:
                return await self._fetch(digest, fetch)
            # Whoever gives up waiting must not end it for the others.
            shared = await asyncio.shield(waiting)
            if isinstance(shared, SsaStoreError):
                # Of a fetch that began before: its time was over sooner than ours. Once more, not for ever.
                if failure is not None:
                    raise shared
                failure = shared
            elif shared is not None:
                self.shared += 1
                return shared
            # Else who fetched it was told to stop; somebody else does it now.

    async def _fetch(self, digest: bytes, fetch: Callable[[], Awaitable[Body]]) -> Body:
        future = self._under_way[digest] = asyncio.get_running_loop().create_future()
        self.fetches += 1
        outcome: Body | SsaStoreError | None = None
        try:
            outcome = content = await fetch()
        except SsaStoreError as error:
            outcome = error
            raise
        finally:
            del self._under_way[digest]
            future.set_result(outcome)
        if self.limit_bytes:
            self._keep(digest, content)
        return content

    def _keep(self, digest: bytes, content: Body) -> None:
        """Keep what was asked for before; remember the name of what was not."""
        if len(content) > self.limit_bytes:
            return
        if digest not in self._ghosts:
            self._ghosts[digest] = None
            if len(self._ghosts) > _GHOSTS_MAX:
                self._ghosts.popitem(last=False)
            return
        del self._ghosts[digest]
        self._kept[digest] = content
        self.kept_bytes += len(content)
        while self.kept_bytes > self.limit_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.kept_bytes -= len(oldest)
