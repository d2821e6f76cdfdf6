"""How conversations reach the store: one call to whoever serves an IID."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ssastore.errors import (
    AccessDenied,
    BucketNotFound,
    CorruptObject,
    HeldElsewhere,
    Misdirected,
    NoMajority,
    NotMine,
    ObjectNotFound,
    OutcomeUnknown,
    OutOfStep,
    Overloaded,
    PeerError,
    PreconditionFailed,
    QuotaExceeded,
    Recounted,
    RequestError,
    SsaStoreError,
    StoreFull,
    Unavailable,
    VersionKept,
)
from ssastore.messages import Message, Status
from ssastore.wire import Body, Header

STATUS_ERRORS: dict[int, type[SsaStoreError]] = {
    Status.NOT_FOUND: ObjectNotFound,
    Status.PRECONDITION_FAILED: PreconditionFailed,
    Status.NO_BUCKET: BucketNotFound,
    Status.NOT_MINE: NotMine,
    Status.MISDIRECTED: Misdirected,
    Status.FULL: StoreFull,
    Status.OVERLOADED: Overloaded,
    Status.CORRUPT: CorruptObject,
    Status.BAD_REQUEST: RequestError,
    Status.DENIED: AccessDenied,
    Status.INTERNAL: PeerError,
    Status.OUTRUN: Overloaded,
    Status.UNKNOWN: OutcomeUnknown,
    Status.UNREACHED: NoMajority,
    Status.SILENT: Unavailable,
    Status.STALE: OutOfStep,
    Status.BEHIND: OutOfStep,
    Status.RECOUNT: Recounted,
    Status.VERSIONED: VersionKept,
    Status.HELD: HeldElsewhere,
    Status.QUOTA: QuotaExceeded,
}
"The exception of each refusal."


class Caller(Protocol):
    """Sends a request to the worker that serves an IID."""

    @property
    def deadline_ms(self) -> int:
        """Bound on one call."""
        ...

    @property
    def replicas(self) -> int:
        """How many planes hold data of most groups, 0 while nobody has told (``core.counts``)."""
        ...

    async def replica_count(self, position: int | None = None) -> int:
        """How many planes hold data; asks the cluster when it was not told, at ``position`` first."""
        ...

    async def is_silent(self, iid: int, within_ms: int) -> bool:
        """Whether nothing is heard from an address in that time: no answer, and no refusal either."""
        ...

    def begin(
        self, message: Message, iid: int, body: Body = b""
    ) -> asyncio.Future[tuple[Header, Body]] | None:
        """Send on a connection that is open; None when there is none.

        The future gets whatever is answered, refusals too, or OSError.
        """
        ...

    async def call(
        self, message: Message, iid: int, body: Body = b"", *, within_ms: int | None = None
    ) -> tuple[Header, Body]:
        """The OK reply, within the deadline or ``within_ms`` if that is shorter.

        Raises the classes of ``STATUS_ERRORS``, Unavailable, OutcomeUnknown.
        """
        ...
