"""How conversations reach the store: one call to whoever serves an IID."""

from __future__ import annotations

from typing import Protocol

from ssastore.errors import (
    AccessDenied,
    BucketNotFound,
    CorruptObject,
    Misdirected,
    NotMine,
    ObjectNotFound,
    Overloaded,
    PeerError,
    PreconditionFailed,
    RequestError,
    SsaStoreError,
    StoreFull,
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
}
"The exception of each refusal."


class Caller(Protocol):
    """Sends a request to the worker that serves an IID."""

    async def call(self, message: Message, iid: int, body: Body = b"") -> tuple[Header, Body]:
        """The OK reply. Raises the classes of ``STATUS_ERRORS``, Unavailable, OutcomeUnknown."""
        ...
