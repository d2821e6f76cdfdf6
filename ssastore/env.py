"""The injected world: what decides gets clock, randomness, store and control store from here.

Everything below the shells sees the outside only through these interfaces, so
that the same code runs on a kernel with LMDB and on a seeded virtual-time event
loop with a store that crashes on purpose.  Adapters live in ``store/``,
``control/``, ``routes/`` and ``transport/``; each interface has one contract test
suite that all of its adapters pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Wall clock, for timestamps only: nothing is ordered or made safe by it."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...


class Randomness(Protocol):
    """Source of identifiers and jitter."""

    def bytes(self, count: int) -> bytes:
        """``count`` random bytes, good enough for keys."""
        ...

    def below(self, bound: int) -> int:
        """A uniform integer from 0 to ``bound - 1``."""
        ...


# -- store ------------------------------------------------------------------------------------------


class ReadTxn(Protocol):
    """A consistent view of one environment. Valid only inside its ``with`` block."""

    def get(self, key: bytes) -> memoryview | bytes | None:
        """The value, its checksum verified, or None. The view dies with the transaction.

        Raises:
            CorruptObject: the stored record fails its checksum.
        """
        ...

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, memoryview | bytes]]:
        """Records with ``first <= key < end`` in byte order. Views die at the next step."""
        ...


class WriteTxn(ReadTxn, Protocol):
    """A read transaction that also changes records; sees its own changes."""

    def put(self, key: bytes, *parts: bytes | memoryview, use_reserve: bool = False) -> None:
        """Store the concatenation of ``parts`` under ``key``.

        ``use_reserve`` is for tombstones: small records that lead to space being freed.

        Raises:
            StoreFull: only the reserve for deletes is left, of the map or of the disk.
        """
        ...

    def delete(self, key: bytes) -> bool:
        """Remove a record; False when there was none. Works when the store is full."""
        ...


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """How full a store is."""

    used_bytes: int
    limit_bytes: int
    records: int
    log: LogUsage | None = None
    "Of a store that has a log."


@dataclass(frozen=True, slots=True)
class LogUsage:
    """What went through the log of a store since it was opened."""

    records: int
    "Those that it holds now."
    writes: int
    "Batches, each durable."
    write_s: float
    "How long these took together."
    checkpoints: int
    direct: int
    "Commits that passed by it."


class Store(Protocol):
    """An ordered map from byte strings to byte strings with synced, grouped commits.

    Keys are 1 to ``STORED_KEY_BYTES_MAX`` bytes, values 0 to ``STORED_VALUE_BYTES_MAX``.
    One store has one writer process.
    """

    def read(self) -> AbstractContextManager[ReadTxn]:
        """A read transaction on what is committed now."""
        ...

    def do(
        self,
        change: Callable[[WriteTxn], Any],
        then: Callable[[Any, BaseException | None], None],
        *,
        size: int = 0,
    ) -> None:
        """Run ``change`` in a write transaction; ``then`` is called when that is durable.

        Changes run one after the other in the order of submission, many to a commit, possibly on
        another thread and, after a failed commit, possibly a second time from the old state: they
        must depend on nothing but the transaction.  A change that raises must raise before its
        first put or delete; ``then`` gets its exception and the others are not affected.

        Args:
            change: the function.
            then: gets the result and None, or None and the error; on the event loop, never inside this
                call, in the order of submission within one commit.  It must not raise.
            size: bytes that it will write, about; bounds the memory of one commit.

        Errors, beside those of ``change``:
            StoreFull: nothing of this change was kept.
            EnvironmentProblem: the commit failed; nothing was acknowledged.
            asyncio.CancelledError: the store has crashed under us, in a simulation.
        """
        ...

    def submit(self, change: Callable[[WriteTxn], T], *, size: int = 0) -> asyncio.Future[T]:
        """``do`` for whoever waits: the future gets the result or the error."""
        ...

    def usage(self) -> StoreUsage:
        """Figures for status and metrics."""
        ...

    async def close(self) -> None:
        """Commit what was submitted, then close."""
        ...


# -- control store ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """One key of the control store. ``revision`` is that of its last change."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Event:
    """A change seen by a watch; ``value`` is None for a delete."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Compare:
    """The key's last change has exactly this revision; 0 means that the key does not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Write:
    """Set a key, or delete it with ``value=None``; with a lease it goes when the lease ends."""

    key: str
    value: bytes | None
    lease: int | None = None


class ControlStore(Protocol):
    """A small linearizable key-value store for who owns what. Never on the data path.

    All methods raise ``Unavailable`` when the store cannot be reached in ``CONTROL_TIMEOUT_MS``.
    """

    async def get(self, key: str) -> Item | None: ...

    async def list(self, prefix: str) -> tuple[Sequence[Item], int]:
        """All items under a prefix in key order, and the store's revision they were read at."""
        ...

    async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
        """Apply all writes if all compares hold: the new revision, or None and nothing changed."""
        ...

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Event]:
        """Changes under a prefix with a revision above ``after_revision``, in order, each once.

        Raises:
            WatchCompacted: the history that far back is gone; list again and watch from there.
        """
        ...

    async def grant(self, ttl_ms: int) -> int:
        """A new lease; its keys are deleted when it is not kept alive for ``ttl_ms``."""
        ...

    async def keep_alive(self, lease: int) -> bool:
        """Renew; False when the lease has already ended."""
        ...

    async def revoke(self, lease: int) -> None:
        """End a lease now and delete its keys."""
        ...

    async def close(self) -> None: ...


class WatchCompacted(Exception):
    """The watch asked for changes older than the store remembers."""


# -- routes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """A wanted or installed route. ``via`` None means ``local``: this host answers for the prefix.

    Prefix and next hop are text in the kernel's canonical spelling (RFC 5952).
    """

    prefix: str
    via: str | None = None


QUIET = "::1"
"In the place of a next hop: ``local``, and routers are not to be told (``routes.announced``)."


class Routes(Protocol):
    """The routes of one host that carry our protocol number; nothing else is touched."""

    def installed(self) -> set[Route]:
        """Ours, read back."""
        ...

    def add(self, route: Route) -> None:
        """Raises RouteRefused."""
        ...

    def remove(self, route: Route) -> None:
        """Raises RouteRefused; a route that is already gone is no error."""
        ...


# -- links ------------------------------------------------------------------------------------------

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Links(Protocol):
    """How a client reaches an address of the service."""

    async def dial(self, address: IPv6Address, port: int, protocol: Callable[[], P]) -> P:
        """Connect; the protocol's ``connection_made`` has been called on return.

        Raises:
            OSError: refused, unreachable, or no answer within ``DIAL_TIMEOUT_MS``.
        """
        ...


# -- tasks ------------------------------------------------------------------------------------------

_running: set[asyncio.Task[Any]] = set()


def spawn(name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that is kept and named; the only way tasks are made.

    The event loop keeps only weak references: a bare task can vanish half way.
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task
